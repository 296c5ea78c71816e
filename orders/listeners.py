"""What orders do when payments announce something, or when the engine cannot take a message.

Receivers run in the sender's transaction and only write; they take no lock on orders, because the sender
holds the lock of the payment, which comes after the order's.
"""

from __future__ import annotations

from typing import Any

from django.dispatch import receiver

from orders.models import OrderEvent, Saga
from orders.services import lifecycle
from orders.workflows.types import PaymentFailed
from payments.ledger import Totals
from payments.models import Payment, ReviewItem
from payments.signals import payment_failed, payment_received
from shop.kernel import outbox
from shop.kernel.models import OutboxMessage
from shop.kernel.money import Money


def _saga_of(payment: Payment) -> Saga | None:
    return Saga.objects.filter(payment=payment).select_related("order", "payment").first()


@receiver(payment_received)
def confirm_when_paid(payment: Payment, totals: Totals, **_: Any) -> None:
    saga = _saga_of(payment)
    if saga is None:
        return
    received = Money(totals.received, payment.currency)
    if saga.is_final:
        _review(
            f"late:{payment.pk}:{totals.received}",
            ReviewItem.Reason.LATE,
            payment,
            received,
            f"{received} have come in, but the order is {saga.order.get_status_display()}.",
        )
        return
    if totals.received >= saga.order.total:
        lifecycle.queue_confirmation(saga, totals.received)
    if totals.received > saga.order.total:
        over = received - saga.order.total_money
        _review(
            f"too-much:{payment.pk}:{totals.received}",
            ReviewItem.Reason.TOO_MUCH,
            payment,
            over,
            f"{received} have come in for {saga.order.total_money}: {over} too much.",
        )


@receiver(payment_failed)
def tell_saga_that_payment_failed(payment: Payment, detail: str, **_: Any) -> None:
    saga = _saga_of(payment)
    if saga is None or saga.is_final:
        return
    message_id = f"{saga.order.workflow_id}/{saga.attempt}/payment-failed"
    outbox.signal_workflow(
        message_id,
        saga.order.workflow_id,
        "payment_failed",
        PaymentFailed(message_id, saga.attempt, detail),
    )


@receiver(outbox.message_undeliverable)
def review_undeliverable(message: OutboxMessage, **_: Any) -> None:
    """The workflow is gone. If its saga had not ended, it died: roll back. Either way a person is told."""
    number = message.workflow_id.removeprefix("order-saga-")
    saga = (
        Saga.objects.filter(order__number=number, attempt=message.payload.get("attempt", 0))
        .select_related("order", "payment")
        .first()
    )
    if saga is None:
        return
    if not saga.is_final:
        lifecycle.roll_back_orphan(saga.pk, "The workflow was lost in Temporal", f"message-{message.pk}")
    text = f"“{message.name}” could not be delivered: the order's workflow had ended ({message.last_error})."
    OrderEvent.objects.create(
        order=saga.order, kind=OrderEvent.Kind.LATE, actor="outbox", reason=text, message=message
    )
    _review(f"message:{message.pk}", ReviewItem.Reason.UNDELIVERABLE, saga.payment, None, text, number)


def _review(
    key: str, reason: str, payment: Payment | None, money: Money | None, detail: str, number: str = ""
) -> None:
    ReviewItem.objects.get_or_create(
        key=key,
        defaults={
            "reason": reason,
            "merchant_reference": payment.merchant_reference if payment else number,
            "payment": payment,
            "amount": money.amount if money else None,
            "currency": money.currency if money else "",
            "detail": detail,
        },
    )
