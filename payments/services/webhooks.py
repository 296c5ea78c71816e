"""Webhooks: the raw request is stored first, then verified, then its effect and its outbox message are one.

A webhook may come before the answer to the call that made its payment. It waits then, and `absorb`
processes it as soon as the payment knows its reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.db import DataError, IntegrityError, transaction

from payments.gateways import gateway
from payments.gateways.base import GatewayEvent, WebhookRejected
from payments.models import Payment, WebhookDelivery
from payments.services.recording import record

State = WebhookDelivery.State

# Kept for the record; anything else in the headers (cookies, addresses) is not ours to store.
_KEPT_HEADERS = ("content-type", "user-agent")
_SIGNATURE_HEADERS = ("webhook-", "stripe-")


def receive(gateway_name: str, headers: Mapping[str, str], body: bytes) -> WebhookDelivery:
    """Store, verify and process one webhook. A rejected one is stored too, and raises `WebhookRejected`."""
    kept = {
        name.lower(): value
        for name, value in headers.items()
        if name.lower() in _KEPT_HEADERS or name.lower().startswith(_SIGNATURE_HEADERS)
    }
    delivery = WebhookDelivery.objects.create(gateway=gateway_name, headers=kept, body=body)
    try:
        events = gateway(gateway_name).parse_webhook(kept, body)
        if not all(event.payment_reference and event.psp_reference for event in events):
            raise WebhookRejected("The webhook names no payment.", "not_understood")
    except WebhookRejected as rejection:
        _reject(delivery, rejection)
        raise
    if not events:
        delivery.processed("Nothing in it is for us.")
        return delivery
    delivery.events = [event.to_json() for event in events]
    delivery.payment_reference = events[0].payment_reference
    try:
        with transaction.atomic():
            # Set only now: a forged message must not take the id of a genuine one.
            delivery.event_id = events[0].raw_id
            delivery.save(update_fields=["event_id", "payment_reference", "events"])
            _process(delivery, events)
    except IntegrityError:
        seen = WebhookDelivery.objects.filter(gateway=gateway_name, event_id=events[0].raw_id)
        if not seen.exists():
            raise
        delivery.event_id = ""
        delivery.processed(f"Seen before as {events[0].raw_id}; nothing was done again.")
    except DataError as error:
        # Signed, but with an id, a text or a number that the books have no room for. The body is kept.
        unstorable = WebhookRejected(f"The webhook cannot be stored: {error}", "not_understood")
        _reject(delivery, unstorable)
        raise unstorable from error
    return delivery


def _reject(delivery: WebhookDelivery, rejection: WebhookRejected) -> None:
    delivery.state = State.REJECTED
    delivery.error = str(rejection)
    delivery.save(update_fields=["state", "error"])


def _process(delivery: WebhookDelivery, events: Sequence[GatewayEvent]) -> None:
    payments = Payment.objects.filter(gateway=delivery.gateway)
    payment = payments.filter(reference=delivery.payment_reference).first()
    if payment is None:
        # `absorb` may be writing the reference at this moment: wait for its lock and look again.
        unknown = payments.filter(merchant_reference=events[0].merchant_reference, reference="")
        list(unknown.select_for_update())
        payment = payments.filter(reference=delivery.payment_reference).first()
    if payment is None:
        delivery.state = State.WAITING
        delivery.error = f"No payment here has the PSP reference {delivery.payment_reference} yet."
        delivery.save(update_fields=["state", "error"])
        return
    record(payment, events, source="webhook")
    delivery.processed()
