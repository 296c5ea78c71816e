"""What people do to an order's saga: start, cancel, confirm the payment, extend the deadline.

Each is one transaction under the saga's lock that writes who did it and why, the effect, and the outbox
message. Each is idempotent: a double click, a second tab or a stale page changes nothing and says so.
`why_not_…` tells in a sentence why an action is not possible now; empty means it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from orders.carriers import carrier
from orders.models import Order, OrderEvent, PaidInBulk, Saga, Shipment
from orders.services import authorizations
from orders.services.audit import lock_saga
from orders.services.status import move_order, subject_of
from orders.words import moment
from orders.workflows.policies import MAX_EXTENSION, execution_timeout
from orders.workflows.types import TASK_QUEUE, CancelOrder, ConfirmPayment, ExtendDeadline, SagaInput
from payments.gateways import gateway
from payments.gateways.base import EventOutcome, EventType, GatewayEvent
from payments.models import Payment
from payments.services.recording import record
from shop.kernel import outbox, second_person
from shop.kernel.models import OutboxMessage
from shop.kernel.money import Money

Kind = OrderEvent.Kind
S = Saga.Status


class ActionRefused(Exception):
    """An action is not possible in the order's present state; the message says why."""


@dataclass(frozen=True, slots=True)
class Acted:
    """What came of an action. `repeated`: it had been done before, and nothing was done again."""

    message: str
    repeated: bool = False


# --- which actions are possible --------------------------------------------------------------------------


def why_not_start(order: Order, saga: Saga | None) -> str:
    if order.erased_at is not None:
        return _("Its customer's personal data was erased: take the order anew.")
    if saga is None:
        return "" if order.status == Order.Status.PLACED else _("The order is cancelled.")
    if saga.status == S.CANCELLED and order.in_bulk:
        return _("It was taken in bulk, and is not started again: take the order anew.")
    if saga.status == S.CANCELLED:
        return ""
    if saga.status == S.COMPLETED:
        return _("The order is completed.")
    if saga.status == S.COMPENSATION_FAILED:
        return _("Its rollback failed: its dead letters have to be resolved first.")
    return _("Its saga is under way ({status}).").format(status=saga.get_status_display())


def why_not_cancel(order: Order, saga: Saga | None) -> str:
    if saga is None:
        return "" if order.status == Order.Status.PLACED else _("The order is cancelled already.")
    match saga.status:
        case S.COMPLETED:
            return _("The order is completed: paid and shipped.")
        case S.COMPENSATING:
            return _("It is being rolled back already.")
        case S.CANCELLED:
            return _("The order is cancelled already.")
        case S.COMPENSATION_FAILED:
            return _("It was cancelled, but a part could not be undone: see its dead letters.")
    return _("Its cancellation was asked for and is on its way.") if cancel_asked_for(saga) else ""


def why_not_confirm(order: Order, saga: Saga | None) -> str:
    if saga is None or saga.status == S.PENDING:
        return _("No payment has been opened yet.")
    if saga.status in (S.RUNNING, S.WAITING) and cancel_asked_for(saga):
        return _("Its cancellation was asked for and is on its way.")
    if saga.status == S.WAITING:
        return ""
    if saga.status == S.RUNNING:
        paid = order.status in (Order.Status.PAID, Order.Status.SHIPPED)
        return (
            _("The payment has been taken already.") if paid else _("The payment is not open for money now.")
        )
    return why_not_waiting(order)


def why_not_extend(order: Order, saga: Saga | None) -> str:
    if saga is None or saga.status != S.WAITING or saga.deadline is None:
        return why_not_waiting(order)
    if cancel_asked_for(saga):
        return _("Its cancellation was asked for and is on its way.")
    lapses = authorizations.last_moment(saga)
    if lapses and lapses <= saga.deadline:
        return _("The authorization ends on {lapses} and cannot be renewed.").format(lapses=moment(lapses))
    if latest_deadline(order, saga) <= saga.deadline:
        return _("The deadline cannot be moved any further.")
    return ""


def why_not_waiting(order: Order) -> str:
    """For what is only possible while an order waits for its money."""
    return _("The order does not wait for money: {status}.").format(status=order.get_status_display())


def cancel_asked_for(saga: Saga) -> bool:
    """Whether somebody has asked to cancel this attempt; the engine may not know yet."""
    return saga.order.events.filter(kind=Kind.CANCEL, data__attempt=saga.attempt).exists()


def is_being_taken(saga: Saga) -> bool:
    """Whether a bulk order has no payment yet: its import is under way, or stopped half-way."""
    return saga.status in (S.PENDING, S.RUNNING) and saga.order.status == Order.Status.PLACED


def is_being_fulfilled(saga: Saga) -> bool:
    """Whether a bulk order's workflow is under way."""
    return saga.status == S.RUNNING and not is_being_taken(saga)


def latest_deadline(order: Order, saga: Saga) -> datetime:
    """How far the deadline may be moved: `MAX_EXTENSION`, and not beyond an authorization that ends for good."""
    latest = saga.created_at + order.payment_window + MAX_EXTENSION
    return min(latest, authorizations.last_moment(saga) or latest)


# --- actions ---------------------------------------------------------------------------------------------


@transaction.atomic
def start(order_number: str, actor: str, reason: str = "", *, attempt: int | None = None) -> Acted:
    """Start the saga: the first attempt, or a new one after a cancelled one.

    `attempt` is the one that the caller saw would start; a stale page then starts nothing.
    """
    order, saga = locked(order_number)
    next_attempt = (saga.attempt if saga else 0) + 1
    if attempt is not None and attempt < next_attempt:
        return Acted(_("Attempt {number} was started before.").format(number=attempt), repeated=True)
    _check(why_not_start(order, saga))
    saga = Saga.objects.create(order=order, attempt=next_attempt)
    move_order(order, Order.Status.PLACED)
    message = _queue_start(saga, f"{order.workflow_id}/{next_attempt}/start")
    _event(order, Kind.START, actor, reason, message, attempt=next_attempt)
    return Acted(_("The saga starts."))


@transaction.atomic
def cancel(order_number: str, actor: str, reason: str, *, attempt: int | None = None) -> Acted:
    """Cancel the order: its saga rolls back everything it has done.

    `attempt` is the one that the caller saw, here and below; a stale page does nothing to a newer one.
    """
    if not reason.strip():
        raise ActionRefused(_("Say why the order is cancelled."))
    order, saga = locked(order_number)
    _check(why_stale(saga, attempt))
    if saga is None and order.status == Order.Status.PLACED:
        move_order(order, Order.Status.CANCELLED)
        _event(order, Kind.CANCEL, actor, reason, None)
        return Acted(_("The order is cancelled; there was nothing to roll back."))
    if saga is not None and not saga.is_final and cancel_asked_for(saga):
        return Acted(_("The cancellation was asked for before and is on its way."), repeated=True)
    _check(why_not_cancel(order, saga))
    assert saga is not None
    message_id = f"{order.workflow_id}/{saga.attempt}/cancel"
    if order.in_bulk and not is_being_fulfilled(saga):
        message = roll_back(saga, "cancel", reason)
    else:
        message = outbox.signal_workflow(
            message_id,
            order.workflow_id,
            "cancel_order",
            CancelOrder(message_id, saga.attempt, reason, actor),
        )
    _event(order, Kind.CANCEL, actor, reason, message, attempt=saga.attempt)
    return Acted(_("The cancellation is on its way."))


@transaction.atomic
def confirm_payment(
    order_number: str,
    actor: str,
    reason: str,
    *,
    amount: Money,
    received_on: date,
    bank_reference: str = "",
    form_id: str = "",
    attempt: int | None = None,
) -> Acted:
    """Write down money that a person has seen arrive; once it suffices the saga goes on.

    The bank's reference, or else the form that was filled in (`form_id`), tells a repetition from new money.
    """
    if not reason.strip():
        raise ActionRefused(_("Say how you know that the money has arrived."))
    if amount.amount <= 0:
        raise ActionRefused(_("The amount must be more than zero."))
    if received_on > timezone.now().date() + timedelta(days=1):
        raise ActionRefused(_("The date is in the future."))
    order, saga = locked(order_number)
    if amount.currency != order.currency:
        raise ActionRefused(
            _("The order is in {currency}, not in {other}.").format(
                currency=order.currency, other=amount.currency
            )
        )
    receipt = f"{order.number}/bank/{bank_reference.strip()}" if bank_reference.strip() else f"form/{form_id}"
    if saga and saga.payment and saga.payment.events.filter(psp_reference=receipt).exists():
        return Acted(_("This payment was confirmed before; nothing was done again."), repeated=True)
    _check(why_stale(saga, attempt))
    _check(why_not_confirm(order, saga))
    assert saga is not None
    assert saga.payment is not None
    second_person.demand(
        amount,
        act="confirm-payment",
        subject=subject_of(order.number),
        what=_("Confirm by hand that {amount} have come in for {order}.").format(
            amount=amount.format(), order=order.number
        ),
        reason=reason,
        standing=f"{saga.attempt}/{saga.payment.totals().received}",
        order_number=order.number,
    )
    recorded = record(
        saga.payment,
        [
            GatewayEvent(
                type=EventType.RECEIPT,
                outcome=EventOutcome.SUCCEEDED,
                psp_reference=receipt,
                payment_reference=saga.payment.reference,
                merchant_reference=order.number,
                money=amount,
                occurred_at=datetime.combine(received_on, time(), UTC),
                detail=reason,
            )
        ],
        source="staff",
        actor=actor,
    )
    if not recorded:
        raise ActionRefused(
            _("This receipt was booked for an earlier attempt at the order; see its payment.")
        )
    missing = Money(saga.payment.missing(saga.payment.totals()), order.currency)
    confirmation = confirm_message_id(order.workflow_id, saga.attempt)
    if order.in_bulk:  # now, and not with the next hybrid check: somebody is looking
        message = None if missing.amount > 0 else _queue_start(saga, confirmation)
    else:
        message = outbox.find(confirmation)
    _event(
        order,
        Kind.CONFIRM,
        actor,
        reason,
        message,
        attempt=saga.attempt,
        amount=amount.amount,
        currency=amount.currency,
        received_on=received_on.isoformat(),
        bank_reference=bank_reference.strip(),
    )
    if missing.amount > 0:
        return Acted(
            _("Written down. {missing} are still missing; the order goes on waiting.").format(
                missing=missing.format()
            )
        )
    return Acted(_("The payment is confirmed; the order is captured and shipped next."))


@transaction.atomic
def extend_deadline(
    order_number: str, actor: str, reason: str, deadline: datetime, *, attempt: int | None = None
) -> Acted:
    """Give the customer until `deadline` to pay."""
    order, saga = locked(order_number)
    if saga is not None and saga.deadline == deadline:
        return Acted(_("The deadline is that one already."), repeated=True)
    if not reason.strip():
        raise ActionRefused(_("Say why the deadline is extended."))
    _check(why_stale(saga, attempt))
    _check(why_not_extend(order, saga))
    assert saga is not None
    assert saga.deadline is not None
    if deadline <= saga.deadline:
        raise ActionRefused(
            _("The present deadline is {deadline}; choose a later one.").format(
                deadline=moment(saga.deadline)
            )
        )
    latest = latest_deadline(order, saga)
    if deadline > latest:
        raise ActionRefused(_("The deadline can be {latest} at the latest.").format(latest=moment(latest)))
    before, saga.deadline = saga.deadline, deadline
    saga.save(update_fields=["deadline"])
    message_id = f"{order.workflow_id}/{saga.attempt}/extend/{deadline.isoformat()}"
    message: OutboxMessage | None = None  # the hybrid check goes by the row
    if not order.in_bulk:
        message = outbox.signal_workflow(
            message_id,
            order.workflow_id,
            "extend_deadline",
            ExtendDeadline(message_id, saga.attempt, deadline.isoformat()),
        )
    _event(
        order,
        Kind.EXTEND,
        actor,
        reason,
        message,
        attempt=saga.attempt,
        before=before.isoformat(),
        after=deadline.isoformat(),
    )
    if saga.pay_until and saga.pay_until < deadline:
        return Acted(
            _(
                "The order waits until {deadline}. Its authorization lasts until "
                "{lapses} and is renewed before, if the provider agrees."
            ).format(deadline=moment(deadline), lapses=moment(saga.pay_until))
        )
    return Acted(_("The customer has until {deadline}.").format(deadline=moment(deadline)))


def confirm_message_id(workflow_id: str, attempt: int) -> str:
    """One confirmation per attempt, whoever noticed the money."""
    return f"{workflow_id}/{attempt}/confirm"


@dataclass(frozen=True, slots=True)
class Paid:
    """An attempt whose money is there. `saga` is its key, `received` in minor units."""

    saga: int
    order_number: str
    way: str
    attempt: int
    payment: Payment
    received: int


def queue_confirmations(paid: Iterable[Paid]) -> None:
    """Tell sagas that their money is there, and how much. Called when it is recorded, in that transaction.

    Bulk orders are put down for the hybrid check.
    """
    signals, in_bulk = [], []
    for each in paid:
        if each.way == Order.Way.BULK:
            in_bulk.append(PaidInBulk(saga_id=each.saga))
            continue
        workflow_id = Order.workflow_id_of(each.way, each.order_number)
        message_id = confirm_message_id(workflow_id, each.attempt)
        payment = each.payment
        argument = ConfirmPayment(
            message_id, each.attempt, each.received, payment.currency, payment.reference
        )
        signals.append((message_id, workflow_id, "confirm_payment", argument))
    if in_bulk:
        PaidInBulk.objects.bulk_create(in_bulk, ignore_conflicts=True)
    outbox.signal_workflows(signals)


@transaction.atomic
def roll_back_orphan(saga_id: int, reason: str, found_run: str) -> bool:
    """Roll back a saga whose workflow died without finishing; false if it has ended meanwhile.

    `found_run` names the dead run (its run id, or the message that could not be delivered), so that finding
    it twice starts one rollback.
    """
    number, attempt = Saga.objects.values_list("order__number", "attempt").get(pk=saga_id)
    saga = lock_saga(number, attempt)
    if saga.is_final:
        return False
    roll_back(saga, f"orphan/{found_run}", reason)
    return True


def roll_back(saga: Saga, cause: str, reason: str) -> OutboxMessage:
    """Roll back a saga that has no workflow, once for the same `cause`. The saga is not final."""
    message_id = f"{saga.order.workflow_id}/{saga.attempt}/{cause}"
    return _queue_start(saga, message_id, roll_back_only=reason)


# --- pieces ----------------------------------------------------------------------------------------------


def locked(order_number: str) -> tuple[Order, Saga | None]:
    """The order under its lock, and its latest attempt. Raises `ActionRefused` if there is no such order."""
    try:
        order = Order.objects.select_for_update().get(number=order_number)
    except Order.DoesNotExist:
        raise ActionRefused(_("There is no order {order}.").format(order=order_number)) from None
    saga = order.sagas.select_related("payment").order_by("-attempt").first()
    if saga is not None:
        saga.order = order
    return order, saga


def _check(why_not: str) -> None:
    if why_not:
        raise ActionRefused(why_not)


def why_stale(saga: Saga | None, attempt: int | None) -> str:
    """Why a page that showed `attempt` is out of date; empty if it is not."""
    present = saga.attempt if saga else 0
    if attempt is None or attempt == present:
        return ""
    return _("The order was started again meanwhile (attempt {number}). Look at it anew.").format(
        number=present
    )


def saga_input(saga: Saga, roll_back_only: str = "") -> SagaInput:
    """What a workflow has to know of this attempt."""
    order = saga.order
    window = order.payment_window
    shipment = Shipment.objects.filter(saga=saga).first() if roll_back_only else None
    return SagaInput(
        order_number=order.number,
        attempt=saga.attempt,
        payment_window_s=int(window.total_seconds()),
        reminder_before_s=int(min(timedelta(days=3), window / 4).total_seconds()),
        gateway_remote=gateway(order.payment_method).capabilities.remote,
        carrier_remote=carrier(order.carrier).remote,
        roll_back_only=roll_back_only,
        payment_id=saga.payment.reference if saga.payment else "",
        shipment_id=shipment.reference if shipment else "",
    )


def _queue_start(saga: Saga, message_id: str, roll_back_only: str = "") -> OutboxMessage:
    order = saga.order
    return outbox.start_workflow(
        message_id,
        order.workflow_id,
        "OrderFulfillmentWorkflow" if order.in_bulk else "OrderSagaWorkflow",
        saga_input(saga, roll_back_only),
        task_queue=TASK_QUEUE,
        execution_timeout=execution_timeout(order.payment_window),
        summary=f"{order.number}, attempt {saga.attempt}",
        order_number=order.number,
    )


def _event(
    order: Order, kind: str, actor: str, reason: str, message: OutboxMessage | None, **data: object
) -> None:
    OrderEvent.objects.create(order=order, kind=kind, actor=actor, reason=reason, message=message, data=data)
