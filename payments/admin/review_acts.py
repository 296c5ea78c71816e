"""What staff do with money that does not fit. The rules are in `reviewing`; here are the forms and the words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payments.admin.refund_acts import REFUND, PayBackForm, whole_number
from payments.admin.webhook_acts import STRAY_ACTS
from payments.models import ReviewItem
from payments.services import bookings, paying_back, reviewing
from payments.services.reviewing import Closed, Share
from payments.services.transfers import BANK_TRANSFER, Payee
from shop.kernel.admin.acting import Act, ActForm
from shop.kernel.amounts import parse_amount
from shop.kernel.forms import AmountField, ReasonField

Reason = ReviewItem.Reason


class ReviewAct(Act):
    """An act on a review item; `rule` says why it is not possible, `seen` is the amount that the page showed."""

    permission = "payments.change_reviewitem"
    refusals = (reviewing.ReviewRefused, bookings.NotThere)
    rule: ClassVar[Callable[[ReviewItem], str]]

    def why_not(self, subject: ReviewItem) -> str:
        return type(self).rule(subject)

    def will(self, subject: ReviewItem) -> str:
        return subject.detail

    def seen(self, subject: ReviewItem) -> str:
        return str(subject.amount or 0)


class ReasonForm(ActForm):
    reason = ReasonField(label=_("Reason"))


# --- assign ----------------------------------------------------------------------------------------------


def _proposed(item: ReviewItem) -> list[str]:
    """The orders that may want the money: one that is paid already does not, nor one that is paid another way."""
    if item.reason in (Reason.TOO_MUCH, Reason.DUPLICATE):
        return []
    if item.payment is not None and item.payment.gateway != BANK_TRANSFER:
        return []
    return [p["merchant_reference"] for p in item.proposals] or [item.merchant_reference]


class AssignForm(ActForm):
    order = forms.CharField(
        label=_("Order"), max_length=40, help_text=_("Its number, or the creditor reference (RF…).")
    )
    amount = AmountField(
        label=_("Amount"), required=False, help_text=_("Leave it empty for what the order lacks.")
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        item: ReviewItem = self.subjects[0]
        self.initial["order"] = next(iter(_proposed(item)), "")
        amount = self.fields["amount"]
        assert isinstance(amount, AmountField)
        amount.currency = reviewing.money_of(item).currency


class Assign(ReviewAct):
    slug = "assign"
    label = _("Assign to an order")
    form = AssignForm
    on_list = False
    rule = reviewing.why_not_move
    follows = _(
        "The money counts as received for the order. Once all of it is there, the payment is "
        "captured and the order is shipped; what the order does not need stays in review."
    )

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Closed:
        share = Share(data["order"], data["amount"])
        return reviewing.assign(subject.pk, actor, [share], seen=whole_number(seen))


class SplitForm(ActForm):
    shares = forms.CharField(
        label=_("Orders and amounts"),
        widget=forms.Textarea(attrs={"rows": 6, "cols": 40}),
        max_length=4000,
        help_text=_(
            "A line for each: the order number, a space, the amount. Without an amount: what it lacks."
        ),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["shares"] = "\n".join(_proposed(self.subjects[0]))

    def clean_shares(self) -> list[Share]:
        shares = []
        for line in self.cleaned_data["shares"].splitlines():
            number, _space, amount = line.strip().partition(" ")
            if number:
                try:
                    wanted = parse_amount(amount, self.subjects[0].currency) if amount.strip() else None
                except ValueError as error:
                    raise ValidationError(f"{number}: {error}") from None
                shares.append(Share(number, wanted))
        return shares


class Split(ReviewAct):
    slug = "split"
    label = _("Split over several orders")
    form = SplitForm
    on_list = False
    rule = reviewing.why_not_move
    follows = _("Each order counts its part as received. What is left over stays in review.")

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Closed:
        return reviewing.assign(subject.pk, actor, data["shares"], seen=whole_number(seen))


class ConfirmedByHand(ReviewAct):
    slug = "confirmed-by-hand"
    label = _("It was confirmed by hand")
    on_list = False
    rule = reviewing.why_not_confirmed_by_hand
    follows = _("The booking stands behind the confirmation from now on. The order has its money already.")

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Closed:
        return reviewing.confirmed_by_hand(subject.pk, actor, seen=whole_number(seen))


# --- too little ------------------------------------------------------------------------------------------


class Accept(ReviewAct):
    slug = "accept"
    label = _("Accept as full payment")
    may_take_two = True
    form = ReasonForm
    rule = reviewing.why_not_accept
    follows = _(
        "What has come is captured, and the order is shipped. The payment's books say what was accepted."
    )

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Closed:
        return reviewing.accept(subject.pk, actor, data["reason"], seen=whole_number(seen))


class AcceptBeyondLimit(Accept):
    """The same without the limit, for those who may."""

    slug = "accept-any"
    label = _("Accept although much is missing")
    permission = "payments.accept_difference"
    on_list = False
    dangerous = True

    def why_not(self, subject: ReviewItem) -> str:
        if not reviewing.why_not_accept(subject):
            return gettext("The difference is small: “Accept as full payment” is enough.")
        return reviewing.why_not_accept(subject, beyond_limit=True)

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Closed:
        return reviewing.accept(subject.pk, actor, data["reason"], beyond_limit=True, seen=whole_number(seen))


class WaitForm(ActForm):
    reason = ReasonField(label=_("Note"), required=False)


class Wait(ReviewAct):
    slug = "wait"
    label = _("Wait for the rest")
    form = WaitForm
    rule = reviewing.why_not_wait
    follows = _(
        "The item leaves the list. If the rest comes, the order goes on; if it does not come in"
        " time, the order is cancelled and the money is in review again."
    )

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Closed:
        return reviewing.wait(subject.pk, actor, data["reason"])


# --- back, away ------------------------------------------------------------------------------------------


class PayBackReviewedForm(PayBackForm):
    """For one item; with several each goes back in full to its payer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(self.subjects) > 1:
            del self.fields["amount"]
            self.to_its_payers()
            return
        item: ReviewItem = self.subjects[0]
        self.prefill(reviewing.to_pay_back(item), _senders(item))


def _senders(item: ReviewItem) -> list[Payee]:
    if item.reason == Reason.TOO_LITTLE and item.payment is not None:
        return paying_back.senders(item.payment)
    known = item.reason != Reason.REFUND_FAILED  # what came back had not reached its payee's account
    return [bookings.sender(item.transaction)] if known and item.transaction else [Payee("", "")]


class PayBack(ReviewAct):
    slug = "pay-back"
    label = _("Pay back")
    may_take_two = True
    permission = REFUND
    form = PayBackReviewedForm
    rule = reviewing.why_not_pay_back
    follows = _(
        "A transfer is added to those to be sent. It goes out with the next file for the bank, "
        "and is closed by the statement that shows it booked. Where the order is known, its "
        "customer gets a mail. An order that waits goes on waiting, for all that is missing "
        "then: to end it, cancel it."
    )

    def will(self, subject: ReviewItem) -> str:
        names = ", ".join(sender.name for sender in _senders(subject) if sender.name)
        money = reviewing.to_pay_back(subject)
        if names:
            told = gettext("%(money)s from %(names)s can go back.") % {"money": money, "names": names}
        else:
            told = gettext("%s can go back.") % money
        return f"{told} {subject.detail}"

    def seen(self, subject: ReviewItem) -> str:
        return str(reviewing.to_pay_back(subject).amount)

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Closed:
        return reviewing.pay_back(
            subject.pk,
            actor,
            data["reason"],
            amount=data.get("amount"),
            name=data.get("name", ""),
            iban=data.get("iban"),
            beyond_limit=data["beyond_limit"],
            seen=whole_number(seen),
        )


class Discard(ReviewAct):
    slug = "discard"
    label = _("Discard")
    may_take_two = True
    permission = "payments.discard_money"
    form = ReasonForm
    dangerous = True
    rule = reviewing.why_not_move
    follows = _("The money stays on the account and pays nothing here: interest, a private transfer, a loan.")

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Closed:
        return reviewing.discard(subject.pk, actor, data["reason"], seen=whole_number(seen))


class CloseForm(ActForm):
    resolution = ReasonField(label=_("Resolution"), help_text=_("What was decided and done."))


class Close(ReviewAct):
    slug = "close"
    label = _("Close the item")
    may_take_two = True
    form = CloseForm
    rule = reviewing.why_not_close
    follows = _(
        "Closing moves no money. It writes down what was decided, and takes the item off the work queue."
    )

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Closed:
        return reviewing.close(subject.pk, actor, data["resolution"])


REVIEW_ACTS = (
    Assign(),
    Split(),
    ConfirmedByHand(),
    Accept(),
    AcceptBeyondLimit(),
    Wait(),
    PayBack(),
    Discard(),
    Close(),
    *STRAY_ACTS,
)
