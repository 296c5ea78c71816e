"""Where an order stands, in words: its state, its money, and what happens next without anybody doing anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Max
from django.utils import timezone
from django.utils.translation import gettext as _

from orders.models import Mail, Order, OrderEvent, Saga
from orders.services import authorizations
from orders.services.lifecycle import is_being_taken
from orders.words import moment, named, said
from payments import ledger
from payments.gateways.base import EventType
from payments.models import Payment
from payments.services import reviewing, transfers
from shop.kernel.models import OutboxMessage
from shop.kernel.money import Money

S = Saga.Status
# Mails go out after a saga has ended; a page looks on for this long.
AFTERMATH = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Outlook:
    """`difference` is what is missing, or (below zero) what came in too much. `live`: it moves by itself now.

    `waived` is what staff have given up by accepting less as full payment. `in_review` waits for a person's
    decision, one sum for each currency. `refund_requested` is on its way back to the customer, `refunded` is
    there; `paid_back` goes, or went, back without ever having been captured. `authorized_until` is set as
    long as it matters: while there is something to capture. `queued_because`: why a message that is `queued`
    could not be delivered so far.
    """

    state: str
    next: str
    due: Money
    received: Money
    difference: Money
    waived: Money
    in_review: list[Money]
    paid_back: Money
    refund_requested: Money
    refunded: Money
    payment_status: str
    deadline: datetime | None
    authorized_until: datetime | None
    live: bool
    queued: bool
    queued_because: str


def outlook(order: Order, saga: Saga | None) -> Outlook:
    """What to tell about an order and its latest saga."""
    payment = saga.payment if saga else None
    totals = payment.totals() if payment else ledger.Totals()
    due, received = order.total_money, Money(totals.received, order.currency)
    waived = Money(payment.waived(totals) if payment else 0, order.currency)
    difference = due - waived - received
    ids = [order.workflow_id]
    if saga is not None and saga.status == S.COMPENSATION_FAILED:
        ids += [f"dead-letter-{pk}" for pk in saga.dead_letters.values_list("pk", flat=True)]
    waiting = OutboxMessage.objects.filter(workflow_id__in=ids, state=OutboxMessage.State.QUEUED)
    because = waiting.order_by("id").values_list("last_error", flat=True).first()
    queued = because is not None
    state, follows = _in_words(order, saga, difference, queued)
    return Outlook(
        state=state,
        next=follows,
        due=due,
        received=received,
        difference=difference,
        waived=waived,
        in_review=reviewing.in_review(order.number),
        paid_back=Money(transfers.paid_back(payment) if payment else 0, order.currency),
        refund_requested=Money(totals.refund_requested, order.currency),
        refunded=Money(totals.refunded, order.currency),
        payment_status=named(totals.status) if payment else "",
        deadline=_deadline(saga) if saga else None,
        authorized_until=_authorized_until(order, saga) if saga else None,
        live=queued or (saga is not None and (not saga.is_final or _has_aftermath(saga, totals))),
        queued=queued,
        queued_because=because or "",
    )


def _deadline(saga: Saga) -> datetime | None:
    """The one that can be kept: not beyond an authorization that ends for good."""
    waits = saga.status == S.WAITING and saga.deadline
    return min(waits, authorizations.last_moment(saga) or waits) if waits else saga.deadline


def _authorized_until(order: Order, saga: Saga) -> datetime | None:
    waiting = order.status == Order.Status.AWAITING_PAYMENT
    return saga.payment.authorized_until if saga.payment and waiting else None


def _has_aftermath(saga: Saga, totals: ledger.Totals) -> bool:
    if totals.refund_requested and saga.payment and _asked_just_now(saga.payment):
        return True
    if saga.dead_letters.filter(state="retrying").exists():
        return True
    closed = saga.dead_letters.aggregate(at=Max("resolved_at"))["at"]
    last = closed or saga.ended_at
    if last is None or last < timezone.now() - AFTERMATH:
        return False
    return saga.mails.filter(state__in=[Mail.State.QUEUED, Mail.State.SENDING]).exists()


def _asked_just_now(payment: Payment) -> bool:
    """Whether a refund was asked for a moment ago: the provider answers soon, but a bank takes days."""
    since = timezone.now() - AFTERMATH
    return any(event.type == EventType.REFUND and event.recorded_at > since for event in payment.events.all())


def _in_words(order: Order, saga: Saga | None, missing: Money, queued: bool) -> tuple[str, str]:
    if saga is None:
        if order.status == Order.Status.CANCELLED:
            return _("Cancelled before its saga was started."), _("Nothing.")
        return _("Placed. Its saga has not been started."), _("Nothing, until someone starts the saga.")
    cancel_asked = (
        not saga.is_final
        and order.events.filter(kind=OrderEvent.Kind.CANCEL, data__attempt=saga.attempt).exists()
    )
    if cancel_asked and saga.status != S.COMPENSATING:
        return (
            _("Its cancellation has been asked for."),
            _("The saga stops and rolls back what it has done, newest step first."),
        )
    match saga.status:
        case S.PENDING | S.RUNNING if order.in_bulk and is_being_taken(saga):
            return (
                _("Its payment has not been opened."),
                _("Its import goes on. If that has stopped, import its file again, or cancel the order."),
            )
        case S.PENDING:
            follow = _("Stock is reserved and the payment is opened as soon as the engine takes the order.")
            return (_("Its start is queued.") if queued else _("Its saga is starting.")), follow
        case S.WAITING if order.in_bulk:
            return _waiting_in_bulk(saga, missing, queued)
        case S.WAITING:
            return _waiting(saga, missing)
        case S.COMPENSATING:
            return (
                _("Rolling back: {reason}").format(reason=said(saga.reason)),
                _("Each step is undone, newest first. What cannot be undone becomes a dead letter."),
            )
        case S.COMPLETED:
            return _("Paid and shipped."), _("Nothing: the order is complete.")
        case S.CANCELLED:
            return (
                _("Cancelled: {reason}").format(reason=said(saga.reason)),
                _("Nothing. To try again, take the order anew.")
                if order.in_bulk
                else _("Nothing. The saga can be started again."),
            )
        case S.COMPENSATION_FAILED:
            return (
                _("Its rollback failed. Reason of the rollback: {reason}").format(reason=said(saga.reason)),
                _("Nothing, until its dead letters are retried."),
            )
    return _running(order, saga)


def _waiting(saga: Saga, missing: Money) -> tuple[str, str]:
    if missing.amount <= 0:
        return _("The money is there."), _captured_before(saga)
    state = _("Waiting for {missing}.").format(missing=missing.format())
    lapses = saga.payment.authorized_until if saga.payment else None
    if lapses is None or saga.deadline is None or lapses >= saga.deadline:
        renewal = ""
    elif authorizations.last_moment(saga):
        return (
            state,
            _(
                "The authorization ends on {lapses} and cannot be renewed. The provider is asked a last time then; if "
                "the money is not there, everything is rolled back. Until then the payment can be confirmed, if "
                "somebody knows that the money is there, or the order cancelled; the wait cannot be made longer."
            ).format(lapses=moment(lapses)),
        )
    else:
        renewal = _(
            "The authorization lasts until {lapses}; it is renewed before, if the provider agrees."
        ).format(lapses=moment(lapses))
    last = _(
        "The customer is reminded before the deadline. At {deadline} the provider is asked a last time; if the money "
        "is not there then, everything is rolled back."
    ).format(deadline=_until(saga))
    return state, f"{renewal} {last}".strip()


def _waiting_in_bulk(saga: Saga, missing: Money, queued: bool) -> tuple[str, str]:
    if missing.amount <= 0:
        when = (
            _("Now: the payment is captured and the parcel is shipped.")
            if queued
            else _("With the next hourly check: the payment is captured and the parcel is shipped.")
        )
        return _("The money is there."), f"{when}{_lasting(saga)}"
    return (
        _("Waiting for {missing}.").format(missing=missing.format()),
        _(
            "The hourly check fulfils it when the money is there. With the first check after {deadline} the provider "
            "is asked a last time; if it is not there then, everything is rolled back."
        ).format(deadline=_until(saga)),
    )


def _until(saga: Saga) -> str:
    return moment(saga.deadline) if saga.deadline else _("the deadline")


def _captured_before(saga: Saga) -> str:
    return _("The payment is captured and the parcel is shipped.") + _lasting(saga)


def _lasting(saga: Saga) -> str:
    lapses = saga.payment.authorized_until if saga.payment else None
    if lapses is None:
        return ""
    return " " + _("The authorization lasts until {lapses}.").format(lapses=moment(lapses))


def _running(order: Order, saga: Saga) -> tuple[str, str]:
    match order.status:
        case Order.Status.PAID:
            return _("Paid."), _("The parcel is handed to the carrier, then the customer is told.")
        case Order.Status.SHIPPED:
            return (
                _("Paid and handed to the carrier."),
                _("The customer is told; then the order is complete."),
            )
        case Order.Status.AWAITING_PAYMENT:
            return _("The money is there."), _captured_before(saga)
    return _("Its saga has begun."), _("Stock is reserved and the payment is opened.")
