"""What staff do to an order: start, cancel, confirm the payment, extend the deadline, refund, enter a tracking id."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any
from uuid import uuid4

from django import forms
from django.utils import timezone
from django.utils.text import format_lazy
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from orders.admin.personal_data import EraseCustomer
from orders.models import Order, Saga
from orders.services import lifecycle, monitoring, tracking
from orders.words import moment
from payments.admin import refund_acts
from payments.models import Payment
from payments.services.refunding import RefundAsked, RefundRefused
from shop.kernel.admin.acting import Act, ActForm
from shop.kernel.forms import AmountField, DayField, ReasonField
from shop.kernel.money import Money


def latest_saga(order: Order) -> Saga | None:
    """The latest attempt, from what the list or page has fetched."""
    return max(order.sagas.all(), key=lambda saga: saga.attempt, default=None)


def still_open(order: Order) -> Money:
    """What has not come in yet, at least zero."""
    saga = latest_saga(order)
    payment = saga.payment if saga else None
    missing = payment.missing(payment.totals()) if payment else order.total
    return Money(max(0, missing), order.currency)


class OrderAct(Act):
    """An act on an order; `seen` is the attempt that the page showed."""

    refusals = (lifecycle.ActionRefused,)

    def seen(self, subject: Order) -> str:
        saga = latest_saga(subject)
        return str(saga.attempt if saga else 0)


def _attempt(seen: str) -> int | None:
    return int(seen) if seen.isascii() and seen.isdigit() else None


# --- start -----------------------------------------------------------------------------------------------


class StartForm(ActForm):
    reason = ReasonField(label=_("Reason"), required=False)


class Start(OrderAct):
    slug = "start"
    label = _("Start saga")
    permission = "orders.start_saga"
    form = StartForm
    follows = _("Stock is reserved, the payment is opened, and the customer gets a mail on how to pay.")

    def why_not(self, subject: Order) -> str:
        return lifecycle.why_not_start(subject, latest_saga(subject))

    def will(self, subject: Order) -> str:
        saga = latest_saga(subject)
        if saga is None:
            return gettext("Its saga starts.")
        return gettext("Attempt {number} starts.").format(number=saga.attempt + 1)

    def do(self, subject: Order, data: dict[str, Any], actor: str, seen: str) -> lifecycle.Acted:
        attempt = _attempt(seen)
        return lifecycle.start(
            subject.number, actor, data["reason"], attempt=None if attempt is None else attempt + 1
        )


# --- cancel ----------------------------------------------------------------------------------------------


class CancelForm(ActForm):
    reason = ReasonField(label=_("Reason"), help_text=_("The timeline shows it."))


class Cancel(OrderAct):
    slug = "cancel"
    label = _("Cancel order")
    permission = "orders.cancel_saga"
    form = CancelForm
    dangerous = True
    follows = _(
        "Everything done so far is undone, newest step first: the shipment is called back, the money is "
        "released or refunded, the stock is free again. The customer gets a mail."
    )

    def why_not(self, subject: Order) -> str:
        return lifecycle.why_not_cancel(subject, latest_saga(subject))

    def will(self, subject: Order) -> str:
        if latest_saga(subject) is None:
            return gettext("It is cancelled; there is nothing to roll back.")
        now = subject.get_status_display()
        return gettext("It is cancelled and rolled back ({now} now).").format(now=now)

    def do(self, subject: Order, data: dict[str, Any], actor: str, seen: str) -> lifecycle.Acted:
        return lifecycle.cancel(subject.number, actor, data["reason"], attempt=_attempt(seen))


# --- confirm the payment ---------------------------------------------------------------------------------


class ConfirmForm(ActForm):
    """With one order the amount is typed; with several each is confirmed in full."""

    amount = AmountField(label=_("Amount"))
    received_on = DayField(
        label=_("Received on"),
        no_later_than_today=True,
        help_text=_("The booking date on the bank statement."),
    )
    bank_reference = forms.CharField(
        label=_("Bank reference"),
        required=False,
        max_length=80,
        help_text=_("The same reference is never counted twice for an order."),
    )
    reason = ReasonField(label=_("Reason"), help_text=_("How you know that the money has arrived."))
    form_id = forms.UUIDField(widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["received_on"] = timezone.now().date()
        self.initial["form_id"] = uuid4()
        if len(self.subjects) == 1:
            (order,) = self.subjects
            amount = self.fields["amount"]
            assert isinstance(amount, AmountField)
            amount.currency = order.currency
            amount.help_text = gettext("In %s. Prefilled with what is open.") % order.currency
            self.initial["amount"] = still_open(order).amount
        else:
            del self.fields["amount"]


class Confirm(OrderAct):
    slug = "confirm-payment"
    label = _("Confirm payment")
    may_take_two = True
    permission = "orders.confirm_payment"
    form = ConfirmForm
    follows = _(
        "The money is written down. Once all of it is there, the payment is captured and the order is "
        "shipped. With less, the order goes on waiting; what is too much becomes a review item."
    )

    def why_not(self, subject: Order) -> str:
        saga = latest_saga(subject)
        why_not = lifecycle.why_not_confirm(subject, saga)
        if not why_not and still_open(subject).amount == 0:
            return gettext("All of its money is there already.")
        return why_not

    def will(self, subject: Order) -> str:
        return gettext("{open} of {total} are open.").format(
            open=still_open(subject).format(), total=subject.total_money.format()
        )

    def seen(self, subject: Order) -> str:
        return f"{super().seen(subject)}/{still_open(subject).amount}"

    def do(self, subject: Order, data: dict[str, Any], actor: str, seen: str) -> lifecycle.Acted:
        attempt, _slash, shown = seen.partition("/")
        # Among several, the amount that the page showed is the one that the person has confirmed.
        amount = data.get("amount", int(shown) if shown.isascii() and shown.isdigit() else 0)
        return lifecycle.confirm_payment(
            subject.number,
            actor,
            data["reason"],
            amount=Money(amount, subject.currency),
            received_on=data["received_on"],
            bank_reference=data["bank_reference"],
            form_id=f"{data['form_id']}/{subject.number}",
            attempt=_attempt(attempt),
        )


# --- extend the deadline ---------------------------------------------------------------------------------


class ExtendForm(ActForm):
    deadline = forms.DateTimeField(
        label=_("New deadline"),
        widget=forms.DateTimeInput(format="%Y-%m-%dT%H:%M", attrs={"type": "datetime-local"}),
        help_text=_("In UTC."),
    )
    reason = ReasonField(label=_("Reason"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        possible = []
        for order in self.subjects:
            saga = latest_saga(order)
            if saga is not None and saga.deadline is not None:
                later = saga.deadline + timedelta(days=7)
                possible.append(min(later, lifecycle.latest_deadline(order, saga)))
        if possible:
            self.initial["deadline"] = min(possible).astimezone(UTC).replace(second=0, microsecond=0)


class Extend(OrderAct):
    slug = "extend-deadline"
    label = _("Extend deadline")
    permission = "orders.extend_deadline"
    form = ExtendForm
    follows = _("The order waits for its money until the new deadline; the customer's payment stays open.")

    def why_not(self, subject: Order) -> str:
        return lifecycle.why_not_extend(subject, latest_saga(subject))

    def will(self, subject: Order) -> str:
        saga = latest_saga(subject)
        assert saga is not None
        assert saga.deadline is not None
        latest = lifecycle.latest_deadline(subject, saga)
        lapses = saga.payment.authorized_until if saga.payment else None
        possible = gettext("The deadline is {deadline} now; {latest} is the latest possible.").format(
            deadline=moment(saga.deadline), latest=moment(latest)
        )
        if lapses is None or lapses >= latest:
            return possible
        renewal = gettext("Its authorization lasts until {lapses} and has to be renewed for that.").format(
            lapses=moment(lapses)
        )
        return f"{possible} {renewal}"

    def do(self, subject: Order, data: dict[str, Any], actor: str, seen: str) -> lifecycle.Acted:
        return lifecycle.extend_deadline(
            subject.number, actor, data["reason"], data["deadline"], attempt=_attempt(seen)
        )


# --- watch the payment -----------------------------------------------------------------------------------


class Watch(OrderAct):
    slug = "watch-payment"
    label = _("Watch payment")
    permission = "orders.confirm_payment"
    follows = _(
        "The provider is asked about this payment now and then every hour, beside the hourly check of all. It ends "
        "when the payment is decided."
    )

    def applies(self, subject: Order) -> bool:
        saga = latest_saga(subject)
        return (
            saga is not None and monitoring.can_be_watched(saga) and not monitoring.is_watched(subject, saga)
        )

    def why_not(self, subject: Order) -> str:
        return monitoring.why_not_watch(subject, latest_saga(subject))

    def will(self, subject: Order) -> str:
        return gettext("Its payment is asked after every hour.")

    def do(self, subject: Order, data: dict[str, Any], actor: str, seen: str) -> lifecycle.Acted:
        return monitoring.watch(subject.number, actor, attempt=_attempt(seen))


class StopWatchingForm(ActForm):
    reason = ReasonField(label=_("Reason"), required=False)


class StopWatching(OrderAct):
    slug = "stop-watching"
    label = _("Stop watching")
    permission = "orders.confirm_payment"
    form = StopWatchingForm
    follows = _(
        "The provider is asked no more for this order alone. Webhooks and the hourly check of all go on."
    )

    def applies(self, subject: Order) -> bool:
        saga = latest_saga(subject)
        return saga is not None and monitoring.is_watched(subject, saga)

    def why_not(self, subject: Order) -> str:
        return monitoring.why_not_stop_watching(subject, latest_saga(subject))

    def will(self, subject: Order) -> str:
        return gettext("Its payment is no longer asked after on its own.")

    def do(self, subject: Order, data: dict[str, Any], actor: str, seen: str) -> lifecycle.Acted:
        return monitoring.stop_watching(subject.number, actor, data["reason"], attempt=_attempt(seen))


# --- enter a tracking number -----------------------------------------------------------------------------


class TrackingForm(ActForm):
    tracking_number = forms.CharField(label=_("Tracking number"), max_length=80)


class EnterTracking(OrderAct):
    slug = "tracking"
    label = _("Enter tracking number")
    permission = "orders.change_order"
    form = TrackingForm
    on_list = False
    follows = _("The number is kept with the shipment, and the timeline shows who entered it.")

    def why_not(self, subject: Order) -> str:
        return tracking.why_not_enter(latest_saga(subject))

    def will(self, subject: Order) -> str:
        return gettext("The parcel's number is written down, or over.")

    def do(self, subject: Order, data: dict[str, Any], actor: str, seen: str) -> lifecycle.Acted:
        return tracking.enter_tracking_number(subject.number, actor, data["tracking_number"])


# --- refund ----------------------------------------------------------------------------------------------


def payment_of(order: Order) -> Payment | None:
    """The payment of the latest attempt."""
    saga = latest_saga(order)
    return saga.payment if saga else None


class RefundForm(refund_acts.RefundForm):
    def payment_of(self, subject: Any) -> Payment | None:
        return payment_of(subject)


class Refund(refund_acts.Refund):
    """The refund of an order's payment. While the order rolls back, the saga gives the money back itself."""

    form = RefundForm
    follows = format_lazy("{} {}", refund_acts.Refund.follows, _("The order itself goes on as it is."))

    def payment_of(self, subject: Any) -> Payment | None:
        return payment_of(subject)

    def why_not(self, subject: Any) -> str:
        saga = latest_saga(subject)
        if saga is not None and saga.status == Saga.Status.COMPENSATING:
            return gettext("The order is being rolled back, and its money with it.")
        return super().why_not(subject)

    def do(self, subject: Any, data: dict[str, Any], actor: str, seen: str) -> RefundAsked:
        saga = latest_saga(subject)
        if saga is not None and saga.status == Saga.Status.COMPENSATING:
            raise RefundRefused(self.why_not(subject))
        return super().do(subject, data, actor, seen)


ORDER_ACTS = (
    Start(),
    Confirm(),
    Extend(),
    Cancel(),
    Refund(),
    Watch(),
    StopWatching(),
    EnterTracking(),
    EraseCustomer(),
)
