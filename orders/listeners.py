"""What orders do when payments announce something, or when the engine cannot take a message.

Receivers run in the sender's transaction and only write; they take no lock on orders, because the sender
holds the lock of the payment, which comes after the order's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.dispatch import receiver

from orders.models import Mail, Order, OrderEvent, Saga
from orders.services import lifecycle, mails
from orders.workflows.types import TASK_QUEUE, MailInput, PaymentFailed
from payments.gateways import gateway
from payments.ledger import Totals
from payments.models import Payment, ReviewItem
from payments.services import transfers
from payments.signals import payment_failed, payment_received, payment_refunded, payments_received
from shop.kernel import outbox
from shop.kernel.models import OutboxMessage
from shop.kernel.money import Money


def _saga_of(payment: Payment) -> Saga | None:
    return Saga.objects.filter(payment=payment).select_related("order", "payment").first()


@receiver(payment_received)
def confirm_when_paid(payment: Payment, totals: Totals, new: int, **_: Any) -> None:
    saga = _saga_of(payment)
    if saga is None:
        return
    if saga.is_final:
        _take_late_money(saga, payment, totals, Money(new, payment.currency))
        return
    missing = payment.missing(totals)
    if missing <= 0:
        lifecycle.queue_confirmation(saga, totals.received)
    if missing < 0:
        # Only what this receipt adds: what was too much before is in review already.
        over = Money(min(new, -missing), payment.currency)
        received = Money(totals.received, payment.currency)
        _review(
            f"too-much:{payment.pk}:{totals.received}",
            ReviewItem.Reason.TOO_MUCH,
            payment,
            over,
            f"{received} have come in for {Money(payment.expected(totals), payment.currency)}: {over} too much.",
        )


def _take_late_money(saga: Saga, payment: Payment, totals: Totals, money: Money) -> None:
    """Back to the customer of a cancelled order, where that is wanted; else for a person.

    An order that was completed, or started again, may have another use for it.
    """
    ours = gateway(payment.gateway).capabilities.received_on_our_account
    if ours and settings.REFUND_LATE_MONEY and saga.order.status == Order.Status.CANCELLED:
        transfers.pay_back(money, f"late/{payment.pk}/{totals.received}", "shop", payment=payment)
        return
    _review(
        f"late:{payment.pk}:{totals.received}",
        ReviewItem.Reason.LATE,
        payment,
        money,
        f"{money} have come in, but the order is {saga.order.get_status_display()}.",
    )


@receiver(payments_received)
def confirm_all_that_are_paid(received: Sequence[tuple[Payment, Totals]], **_: Any) -> None:
    """The same for a statement's payments: what is late or too much of them is not recorded as received."""
    complete = {payment.pk: totals for payment, totals in received if payment.missing(totals) <= 0}
    sagas = Saga.objects.filter(payment__in=complete).exclude(status__in=Saga.FINAL)
    lifecycle.queue_confirmations(
        [
            (saga, complete[saga.payment_id].received)
            for saga in sagas.select_related("order", "payment")
            if saga.payment_id is not None
        ]
    )


@receiver(payment_refunded)
def mail_refund(payment: Payment, money: Money, about: str, needs_account: bool, **_: Any) -> None:
    """Tell the customer of money that goes back; each refund has its own mail."""
    saga = _saga_of(payment)
    if saga is None:
        return
    mails.write(saga, Mail.Kind.REFUNDED, about, refunded=money, needs_account=needs_account)
    workflow_id = f"order-mail-{saga.order.number}-{about}"
    outbox.start_workflow(
        workflow_id,
        workflow_id,
        "OrderMailWorkflow",
        MailInput(saga.order.number, saga.attempt, Mail.Kind.REFUNDED, about),
        task_queue=TASK_QUEUE,
        summary=f"{saga.order.number}: refund mail",
        order_number=saga.order.number,
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
        asked = message.payload.get("reason")
        reason = (
            f"{asked} (its workflow was lost in Temporal)" if asked else "The workflow was lost in Temporal"
        )
        lifecycle.roll_back_orphan(saga.pk, reason, f"message-{message.pk}")
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
