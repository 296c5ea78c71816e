"""Writing payments down. Every way in which news of money arrives ends in `record`."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction
from django.utils import timezone

from payments.gateways.base import EventOutcome, EventType, GatewayEvent, RemotePayment
from payments.ledger import Totals
from payments.models import Payment, PaymentEvent, ReviewItem, WebhookDelivery
from payments.services import strays
from payments.signals import payment_failed, payment_received
from shop.kernel.money import Money


def open_payment(
    gateway: str, merchant_reference: str, money: Money, idempotency_key: str, payer_name: str = ""
) -> Payment:
    """The payment with this key, made before the provider is asked, so that no answer finds it missing."""
    payment, _ = Payment.objects.get_or_create(
        idempotency_key=idempotency_key,
        defaults={
            "gateway": gateway,
            "merchant_reference": merchant_reference,
            "amount": money.amount,
            "currency": money.currency,
            "payer_name": payer_name,
        },
    )
    return payment


@transaction.atomic
def absorb(payment: Payment, remote: RemotePayment, source: str) -> Payment:
    """Take over the provider's view: its reference, how long the authorization lasts, and all its events.

    Webhooks that came before their payment's reference was known are processed now.
    """
    payment = Payment.objects.select_for_update().get(pk=payment.pk)
    answered = not payment.reference
    payment.reference = remote.payment_reference
    payment.authorized_until = remote.authorized_until
    payment.instructions = dict(remote.instructions)
    payment.save(update_fields=["reference", "authorized_until", "instructions"])
    record(payment, remote.events, source)
    take_in(payment)
    if answered:
        strays.look_again(payment.gateway, payment.merchant_reference)
    return payment


def take_in(payment: Payment) -> list[PaymentEvent]:
    """Process the webhooks that have waited for this payment; returns what was new. The caller holds its lock."""
    waiting = WebhookDelivery.objects.select_for_update().filter(
        gateway=payment.gateway, payment_reference=payment.reference, state__in=WebhookDelivery.STRAY
    )
    deliveries = list(waiting.defer("body", "headers").order_by("id"))
    new: list[PaymentEvent] = []
    for delivery in deliveries:
        new += record(payment, delivery.news, source="webhook")
        delivery.processed()
    if deliveries:
        strays.is_known(payment)
    return new


@transaction.atomic
def record(
    payment: Payment, events: Iterable[GatewayEvent], source: str, actor: str = ""
) -> list[PaymentEvent]:
    """Write events that are not in the books yet, and announce what they mean; returns the new ones.

    `source` is `call`, `webhook`, `check` or `staff`. Locks the payment row: callers that also lock a saga
    lock the saga first.
    """
    Payment.objects.select_for_update().get(pk=payment.pk)
    new = [row for event in events if (row := _write(payment, event, source, actor))]
    types = {(row.type, row.outcome) for row in new}
    if (EventType.RECEIPT, EventOutcome.SUCCEEDED) in types:
        new_money = sum(
            row.amount
            for row in new
            if (row.type, row.outcome) == (EventType.RECEIPT, EventOutcome.SUCCEEDED)
        )
        totals = payment.totals()
        close_what_is_complete([(payment, totals)])
        payment_received.send(Payment, payment=payment, totals=totals, new=new_money)
    for row in new:
        if row.type == EventType.AUTHORIZATION and row.outcome == EventOutcome.FAILED:
            payment_failed.send(Payment, payment=payment, detail=row.detail or "The payment was declined.")
    return new


def close_what_is_complete(received: Iterable[tuple[Payment, Totals]]) -> None:
    """Take “too little” off the review list where the rest has come. The caller holds the payments' locks."""
    complete = [payment.pk for payment, totals in received if payment.missing(totals) <= 0]
    if complete:
        ReviewItem.objects.filter(
            payment__in=complete, reason=ReviewItem.Reason.TOO_LITTLE, state=ReviewItem.State.OPEN
        ).update(
            state=ReviewItem.State.CLOSED,
            resolution="The rest has come.",
            resolved_by="shop",
            resolved_at=timezone.now(),
        )


def _write(payment: Payment, event: GatewayEvent, source: str, actor: str) -> PaymentEvent | None:
    if event.money.currency != payment.currency:
        ReviewItem.objects.get_or_create(
            key=f"{payment.gateway}:{event.type}:{event.psp_reference}",
            defaults={
                "reason": ReviewItem.Reason.WRONG_CURRENCY,
                "merchant_reference": payment.merchant_reference,
                "payment": payment,
                "amount": event.money.amount,
                "currency": event.money.currency,
                "detail": f"{event.money} came for a payment in {payment.currency}; it is not counted.",
            },
        )
        return None
    row, created = PaymentEvent.objects.get_or_create(
        gateway=payment.gateway,
        psp_reference=event.psp_reference,
        type=event.type.value,
        defaults={
            "payment": payment,
            "outcome": event.outcome.value,
            "amount": event.money.amount,
            "currency": event.money.currency,
            "occurred_at": event.occurred_at,
            "source": source,
            "raw_id": event.raw_id,
            "actor": actor,
            "detail": event.detail,
        },
    )
    return row if created else None


@transaction.atomic
def intend_refund(
    payment: Payment, amount: int, idempotency_key: str, *, actor: str = "", reason: str = ""
) -> int:
    """Write down that `amount` (minor units) is going to be refunded under this key, before it is asked for.

    Returns the amount of the first intention under the key, whatever is passed later; 0 if there is nothing
    to refund.
    """
    payment = Payment.objects.select_for_update().get(pk=payment.pk)
    requested = {
        "gateway": payment.gateway,
        "psp_reference": idempotency_key,
        "type": EventType.REFUND.value,
        "outcome": EventOutcome.REQUESTED.value,
    }
    earlier = PaymentEvent.objects.filter(**requested).first()
    if earlier is not None:
        return earlier.amount
    if amount <= 0:
        return 0
    PaymentEvent.objects.create(
        **requested,
        payment=payment,
        amount=amount,
        currency=payment.currency,
        occurred_at=timezone.now(),
        source="call",
        actor=actor,
        detail=reason,
    )
    return amount
