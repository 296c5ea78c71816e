"""Webhooks: the raw request is stored first, then verified, then its effect and its outbox message are one.

A webhook may come before the answer to the call that made its payment. It waits then, and `absorb`
processes it as soon as the payment knows its reference. What is about no payment of ours is for `strays`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db import DataError, IntegrityError, transaction
from django.utils.translation import gettext as _

from payments.gateways import gateway
from payments.gateways.base import GatewayEvent, WebhookRejected
from payments.models import Payment, PaymentEvent, WebhookDelivery
from payments.services import strays, unfit
from payments.services.recording import record, take_in

State = WebhookDelivery.State

# Kept for the record; anything else in the headers (cookies, addresses) is not ours to store.
_KEPT_HEADERS = ("content-type", "user-agent")


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a webhook, in a sentence. `new`: something was written that was not in the books."""

    message: str
    new: bool = False


def receive(gateway_name: str, headers: Mapping[str, str], body: bytes) -> WebhookDelivery:
    """Store, verify and process one webhook. A rejected one is stored too, and raises `WebhookRejected`."""
    signature = gateway(gateway_name).capabilities.webhook_headers
    kept = {
        name.lower(): value
        for name, value in headers.items()
        if name.lower() in _KEPT_HEADERS or name.lower().startswith(signature)
    }
    delivery = WebhookDelivery.objects.create(gateway=gateway_name, headers=kept, body=body)
    try:
        take(delivery)
    except WebhookRejected as rejection:
        reject(delivery, rejection)
        raise
    return delivery


def take(delivery: WebhookDelivery) -> Taken:
    """Verify a stored webhook, unless its signature has held before, and book what it says.

    Done again it is the same effect. Raises `WebhookRejected`; `GatewayMisconfigured` if our secrets are missing.
    """
    news = delivery.news or _verified(delivery)
    if not news:
        nothing = _("Nothing in it is for us.")
        if delivery.state != State.PROCESSED:
            delivery.processed(nothing)
        return Taken(nothing)
    first, known_as = news[0], delivery.event_id
    delivery.events = [event.to_json() for event in news]
    delivery.payment_reference = first.payment_reference
    # Set only now: a forged message must not take the id of a genuine one.
    delivery.event_id = first.raw_id or known_as  # a list of changes has no ids of messages
    try:
        with transaction.atomic():
            return _book(delivery, news)
    except IntegrityError:
        delivery.event_id = known_as
        namesakes = WebhookDelivery.objects.filter(gateway=delivery.gateway, event_id=first.raw_id)
        if not namesakes.exclude(pk=delivery.pk).exists():
            raise
        seen = _("Seen before as %s; nothing was done again.") % first.raw_id
        if delivery.state != State.PROCESSED:
            delivery.processed(seen)
        return Taken(seen)
    except DataError as error:
        # Signed, but with an id, a text or a number that the books have no room for. The body is kept.
        raise WebhookRejected(
            _("The webhook cannot be stored: %(error)s") % {"error": error}, "not_understood"
        ) from error


def reject(delivery: WebhookDelivery, rejection: WebhookRejected) -> None:
    delivery.state = State.REJECTED
    delivery.error = str(rejection)
    delivery.save(update_fields=["state", "error"])


def _verified(delivery: WebhookDelivery) -> list[GatewayEvent]:
    news: Sequence[GatewayEvent]
    if unfit.is_ours(delivery):
        news = unfit.read(delivery)
    else:
        provider = gateway(delivery.gateway)
        news = provider.parse_webhook(delivery.headers, bytes(delivery.body), delivery.received_at)
    for event in news:
        if event.flaw:
            raise WebhookRejected(f"The webhook {event.flaw}", "not_understood")
    return list(news)


def _book(delivery: WebhookDelivery, news: Sequence[GatewayEvent]) -> Taken:
    payment, opening = _payment(delivery.gateway, news[0])
    # Whoever else has it in hand is done with it from here on.
    locked = WebhookDelivery.objects.select_for_update().values_list("state", flat=True)
    state = delivery.state = locked.get(pk=delivery.pk)
    delivery.save(update_fields=["event_id", "payment_reference", "events"])
    if payment is None:
        return _wait(delivery, news, state, opening)
    if state in WebhookDelivery.STRAY:
        new = take_in(payment)
        delivery.refresh_from_db(fields=["state", "error", "processed_at"])
    else:
        new = record(payment, news, source="webhook")
        if state == State.PROCESSED:
            strays.is_known(payment)
        else:
            delivery.processed(_note(payment, news, new))
    return Taken(_told(payment, news, new), new=bool(new))


def _payment(gateway_name: str, event: GatewayEvent) -> tuple[Payment | None, bool]:
    """The payment that the news are about, locked; without one, whether it may be being opened just now."""
    payments = Payment.objects.select_for_update()
    wanted = payments.filter(gateway=gateway_name, reference=event.payment_reference)
    if payment := wanted.first():
        return payment, False
    # `absorb` may be writing the reference at this moment: wait for its lock and look again.
    # News that name no order are of money that was captured: their payment has been known for long.
    if not event.merchant_reference:
        return None, False
    unanswered = list(strays.unanswered(gateway_name, event.merchant_reference).select_for_update())
    return wanted.first(), any(payment.is_open for payment in unanswered)


def _wait(delivery: WebhookDelivery, news: Sequence[GatewayEvent], state: str, opening: bool) -> Taken:
    unknown = _("No payment here has the PSP reference %s yet.") % delivery.payment_reference
    if state == State.DISCARDED:
        return Taken(unknown)
    delivery.state, delivery.error = State.WAITING, unknown
    if strays.are_about_money(news) and not opening:
        delivery.error = " ".join((unknown, _("A person has to decide: see the review list.")))
    delivery.save(update_fields=["state", "error"])
    if strays.are_about_money(news) and not opening:
        strays.review(delivery.gateway, delivery.payment_reference)
        delivery.refresh_from_db(fields=["state", "error"])
    return Taken(delivery.error)


def _note(payment: Payment, news: Sequence[GatewayEvent], new: Sequence[PaymentEvent]) -> str:
    foreign = [event.money.currency for event in news if event.money.currency != payment.currency]
    if foreign:
        return _(
            "The payment is in %(currency)s, this is in %(other)s: not counted, but in the review list."
        ) % {"currency": payment.currency, "other": foreign[0]}
    return "" if new else _("Nothing new: it was in the books already.")


def _told(payment: Payment, news: Sequence[GatewayEvent], new: Sequence[PaymentEvent]) -> str:
    if new:
        said = ", ".join(f"{row.get_type_display()} {row.money} {row.get_outcome_display()}" for row in new)
        return _("In the books of %(number)s now: %(said)s.") % {
            "number": payment.merchant_reference,
            "said": said,
        }
    return _note(payment, news, new)
