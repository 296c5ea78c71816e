"""What orders do when payments announce something, or when the engine cannot take a message.

Receivers run in the sender's transaction and only write; they take no lock on orders, because the sender
holds the lock of the payment, which comes after the order's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.dispatch import receiver
from django.utils.translation import gettext, gettext_noop

from orders.models import Mail, Order, OrderEvent, Saga
from orders.services import lifecycle, mails
from orders.workflows.types import AuthorizationLasts, PaymentFailed
from payments.gateways import gateway
from payments.ledger import Totals
from payments.models import Payment, ReviewItem
from payments.services import transfers
from payments.services.recording import totals_of
from payments.signals import (
    authorizations_last,
    payment_refunded,
    payments_failed,
    payments_received,
)
from shop.kernel import outbox
from shop.kernel.bulk import any_key
from shop.kernel.models import OutboxMessage
from shop.kernel.money import Money


def _sagas_of(payments: Iterable[Payment]) -> dict[int, Saga]:
    """By the key of the payment, with the payment as it was given."""
    by_key = {payment.pk: payment for payment in payments}
    sagas = {}
    for saga in Saga.objects.filter(payment__in=by_key).select_related("order"):
        assert saga.payment_id is not None
        saga.payment = by_key[saga.payment_id]
        sagas[saga.payment_id] = saga
    return sagas


@receiver(payments_received)
def confirm_all_that_are_paid(received: Sequence[tuple[Payment, Totals]], **_: Any) -> None:
    """Tell the sagas whose money is complete."""
    complete = {
        payment.pk: (payment, totals.received) for payment, totals in received if payment.missing(totals) <= 0
    }
    sagas = Saga.objects.filter(payment_id__in=any_key(complete)).exclude(status__in=Saga.FINAL)
    found = sagas.values_list("pk", "order__number", "order__way", "attempt", "payment_id")
    lifecycle.queue_confirmations(
        lifecycle.Paid(pk, number, way, attempt, *complete[payment_pk])
        for pk, number, way, attempt, payment_pk in found
        if payment_pk is not None
    )


@receiver(payments_received)
def take_what_is_late_or_too_much(
    received: Sequence[tuple[Payment, Totals]], new: Mapping[int, int] | None = None, **_: Any
) -> None:
    """Of the new money, what is too late or too much is for a person."""
    if not new:
        return
    sagas = _sagas_of(payment for payment, _ in received)
    items = []
    for payment, totals in received:
        saga, came = sagas.get(payment.pk), Money(new.get(payment.pk, 0), payment.currency)
        if saga is None or came.amount <= 0:
            continue
        if saga.is_final:
            items += _take_late_money(saga, payment, totals, came)
        elif payment.missing(totals) < 0:
            items.append(_too_much(payment, totals, came))
    ReviewItem.objects.bulk_create(items, ignore_conflicts=True)


def _too_much(payment: Payment, totals: Totals, came: Money) -> ReviewItem:
    # Only what this receipt adds: what was too much before is in review already.
    over = Money(min(came.amount, -payment.missing(totals)), payment.currency)
    received, expected = (
        Money(amount, payment.currency) for amount in (totals.received, payment.expected(totals))
    )
    return _item(
        f"too-much:{payment.pk}:{totals.received}",
        ReviewItem.Reason.TOO_MUCH,
        payment,
        over,
        gettext("{received} have come in for {expected}: {over} too much.").format(
            received=received, expected=expected, over=over
        ),
    )


def _take_late_money(saga: Saga, payment: Payment, totals: Totals, money: Money) -> list[ReviewItem]:
    """Back to the customer of a cancelled order, where that is wanted; else for a person.

    An order that was completed, or started again, may have another use for it.
    """
    ours = gateway(payment.gateway).capabilities.received_on_our_account
    if ours and settings.REFUND_LATE_MONEY and saga.order.status == Order.Status.CANCELLED:
        transfers.pay_back(money, f"late/{payment.pk}/{totals.received}", "shop", payment=payment)
        return []
    return [
        _item(
            f"late:{payment.pk}:{totals.received}",
            ReviewItem.Reason.LATE,
            payment,
            money,
            gettext("{money} have come in, but the order is {status}.").format(
                money=money, status=saga.order.get_status_display()
            ),
        )
    ]


@receiver(payment_refunded)
def mail_refund(payment: Payment, money: Money, about: str, needs_account: bool, **_: Any) -> None:
    """Tell the customer of money that goes back; each refund has its own mail."""
    saga = _sagas_of([payment]).get(payment.pk)
    if saga is None:
        return
    mails.queue(saga, Mail.Kind.REFUNDED, about, refunded=money, needs_account=needs_account)


@receiver(payments_failed)
def tell_sagas_that_payments_failed(failed: Sequence[tuple[Payment, str]], **_: Any) -> None:
    sagas = _sagas_of(payment for payment, _ in failed)
    waiting = [
        (sagas[payment.pk], detail)
        for payment, detail in failed
        if payment.pk in sagas and not _is_over(sagas[payment.pk])
    ]
    outbox.signal_workflows(
        [_payment_failed(saga, detail) for saga, detail in waiting if not saga.order.in_bulk]
    )
    for saga, detail in waiting:
        # One that is being fulfilled finds out for itself.
        if saga.order.in_bulk and _waits(saga):
            lifecycle.roll_back(saga, "payment-failed", detail)


def _is_over(saga: Saga) -> bool:
    return saga.is_final or saga.status == Saga.Status.COMPENSATING


def _payment_failed(saga: Saga, detail: str) -> tuple[str, str, str, PaymentFailed]:
    message_id = f"{saga.order.workflow_id}/{saga.attempt}/payment-failed"
    signal = PaymentFailed(message_id, saga.attempt, detail)
    return message_id, saga.order.workflow_id, "payment_failed", signal


@receiver(authorizations_last)
def tell_sagas_how_long_authorizations_last(payments: Sequence[Payment], **_: Any) -> None:
    """Only while they wait: they have the first news from their own call, and need none when the money is there."""
    sagas = _sagas_of(payments)
    waiting = [
        payment
        for payment in payments
        if (saga := sagas.get(payment.pk)) and _waits(saga) and not saga.order.in_bulk
    ]
    totals = totals_of(waiting)
    outbox.signal_workflows(
        [
            _authorization_lasts(sagas[payment.pk], payment.authorized_until)
            for payment in waiting
            if payment.authorized_until and payment.missing(totals[payment.pk]) > 0
        ]
    )


def _waits(saga: Saga) -> bool:
    return saga.status == Saga.Status.WAITING


def _authorization_lasts(saga: Saga, until: datetime) -> tuple[str, str, str, AuthorizationLasts]:
    message_id = f"{saga.order.workflow_id}/{saga.attempt}/authorized-until/{until.isoformat()}"
    signal = AuthorizationLasts(message_id, saga.attempt, until.isoformat())
    return message_id, saga.order.workflow_id, "authorization_lasts", signal


# What is of no use any more once a saga has ended, by whatever way.
OUTDATED_BY_THE_END = ("authorization_lasts", "payment_failed")


@receiver(outbox.message_undeliverable)
def review_undeliverable(message: OutboxMessage, **_: Any) -> None:
    """The workflow is gone. If its saga had not ended, it died: roll back. Either way a person is told."""
    number = Order.number_in(message.workflow_id)
    saga = (
        Saga.objects.filter(order__number=number, attempt=message.payload.get("attempt", 0))
        .select_related("order", "payment")
        .first()
    )
    if saga is None or (saga.is_final and message.name in OUTDATED_BY_THE_END):
        return
    if not saga.is_final:
        asked = message.payload.get("reason")
        reason = (
            f"{asked} (its workflow was lost in Temporal)"
            if asked
            else gettext_noop("The workflow was lost in Temporal")
        )
        lifecycle.roll_back_orphan(saga.pk, reason, f"message-{message.pk}")
    text = f"“{message.name}” could not be delivered: the order's workflow had ended ({message.last_error})."
    OrderEvent.objects.create(
        order=saga.order, kind=OrderEvent.Kind.LATE, actor="outbox", reason=text, message=message
    )
    item = _item(f"message:{message.pk}", ReviewItem.Reason.UNDELIVERABLE, saga.payment, None, text, number)
    ReviewItem.objects.bulk_create([item], ignore_conflicts=True)


def _item(
    key: str, reason: str, payment: Payment | None, money: Money | None, detail: str, number: str = ""
) -> ReviewItem:
    return ReviewItem(
        key=key,
        reason=reason,
        merchant_reference=payment.merchant_reference if payment else number,
        payment=payment,
        amount=money.amount if money else None,
        currency=money.currency if money else "",
        detail=detail,
    )
