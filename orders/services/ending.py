"""How a saga ends: the rollback's beginning, and the result, also when dead letters kept it waiting."""

from __future__ import annotations

from dataclasses import asdict

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from orders.models import DeadLetter, Mail, Order, OrderEvent, Saga, SagaStep
from orders.services import mails
from orders.services.audit import lock_saga
from orders.services.lifecycle import cancel_asked_for
from orders.services.status import move_order, move_saga
from orders.workflows.types import RollbackStart, SagaEnd, SagaResult, Status
from payments.gateways import gateway
from payments.models import Payment, ReviewItem
from payments.services import transfers
from payments.services.closing import close_payment
from shop.kernel.money import Money

S = Saga.Status


@transaction.atomic
def begin_rollback(start: RollbackStart) -> SagaResult | None:
    """Give the saga up. Returns its result if it had ended a moment before: then nothing is undone."""
    saga = lock_saga(start.order_number, start.attempt)
    if saga.is_final:
        if saga.status == S.COMPLETED and start.actor != "saga":
            _late(saga.order, start.actor, f"“{start.reason}” came too late: the order was completed.")
        return SagaResult(**(saga.result or {}))
    move_saga(saga, S.COMPENSATING, reason=start.reason, rollback_run=start.rollback_run)
    move_order(saga.order, Order.Status.ROLLING_BACK)
    return None


@transaction.atomic
def finish_saga(end: SagaEnd) -> list[str]:
    """Write the result down; returns the kinds of mail to send. The second call changes nothing."""
    saga = lock_saga(end.order_number, end.attempt)
    order = saga.order
    if not saga.is_final:
        result = asdict(end.result)
        if end.result.status == Status.COMPLETED:
            move_order(order, Order.Status.COMPLETED)
            if cancel_asked_for(saga):
                _late(order, "saga", gettext_noop("The cancellation came too late: the order was completed."))
        elif end.result.status == Status.CANCELLED:
            move_order(order, Order.Status.CANCELLED)
            mails.write(saga, Mail.Kind.CANCELLED)
        else:
            move_order(order, Order.Status.COMPENSATION_FAILED)
        move_saga(saga, end.result.status, result=result)
        if saga.payment is not None:
            why = _("The order is {status}.").format(status=order.get_status_display())
            close_payment(saga.payment, why)
            if end.result.status == Status.CANCELLED:
                _give_left_over_money_back(saga)
        cancel_if_settled(saga)  # people may have been quicker than the rest of the rollback
    return _mails_to_send(saga)


def cancel_if_settled(saga: Saga) -> list[str]:
    """Cancel an order whose rollback had failed once none of its dead letters is left; the mails to send.

    The caller holds the lock of the order.
    """
    if saga.dead_letters.exclude(state=DeadLetter.State.RESOLVED).exists():
        return []
    if saga.status == S.COMPENSATION_FAILED:
        undone = saga.steps.filter(kind=SagaStep.Kind.COMPENSATION, outcome="succeeded").order_by("id")
        result = (saga.result or {}) | {
            "status": Status.CANCELLED.value,
            "compensated_steps": list(undone.values_list("step", flat=True)),
        }
        move_saga(saga, S.CANCELLED, result=result)
        move_order(saga.order, Order.Status.CANCELLED)
        mails.write(saga, Mail.Kind.CANCELLED)
        _give_left_over_money_back(saga)
    return _mails_to_send(saga)


def _mails_to_send(saga: Saga) -> list[str]:
    kinds = (Mail.Kind.REFUNDED, Mail.Kind.CANCELLED)
    return list(
        saga.mails.filter(kind__in=kinds, about="", state=Mail.State.QUEUED)
        .order_by("id")
        .values_list("kind", flat=True)
    )


def _late(order: Order, actor: str, text: str) -> None:
    OrderEvent.objects.create(order=order, kind=OrderEvent.Kind.LATE, actor=actor, reason=text)


def _give_left_over_money_back(saga: Saga) -> None:
    """Money that staff saw arrive on our account, and that was never captured, does not go back with a void.

    The payment is closed: what statements show of its money is in review already, and no receipt any more.
    """
    if saga.payment is None:
        return
    # Under its lock: a receipt is either in the books by now, or finds the saga ended.
    payment = Payment.objects.select_for_update().get(pk=saga.payment.pk)
    totals = payment.totals()
    capabilities = gateway(payment.gateway).capabilities
    if capabilities.received_on_our_account:
        in_review = ReviewItem.objects.filter(key__startswith=f"too-much:{payment.pk}:")
        spoken_for = sum(item.amount or 0 for item in in_review)
        taken_back = 0 if totals.captured else totals.refunded
        left = totals.received - totals.captured - taken_back - spoken_for
    elif totals.captured:
        return
    else:
        left = sum(e.amount for e in payment.events.all() if e.type == "receipt" and e.source == "staff")
    if left <= 0:
        return
    money = Money(left, payment.currency)
    if capabilities.received_on_our_account and settings.REFUND_LATE_MONEY:
        transfers.pay_back(money, f"left-over/{payment.pk}", "saga", payment=payment)
        return
    ReviewItem.objects.get_or_create(
        key=f"left-over:{payment.pk}",
        defaults={
            "reason": ReviewItem.Reason.LATE,
            "merchant_reference": saga.order.number,
            "payment": payment,
            "amount": left,
            "currency": payment.currency,
            "detail": _(
                "The order was cancelled ({reason}), and {money} had come in for it. Pay it back to the customer."
            ).format(reason=saga.reason, money=money.format()),
        },
    )
