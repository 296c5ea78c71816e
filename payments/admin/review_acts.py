"""What staff do with money that does not fit. The rules are in `reviewing`; here are the forms and the words."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from payments.admin.webhook_acts import STRAY_ACTS
from payments.models import ReviewItem
from payments.services import bookings, reviewing
from payments.services.reviewing import Closed, Share
from shop.kernel.admin.acting import Act, ActForm
from shop.kernel.forms import AmountField, ReasonField, parse_amount
from shop.kernel.money import Money

CHANGE = "payments.change_reviewitem"


class ReviewAct(Act):
    """An act on a review item; `seen` is the amount that the page showed."""

    permission = CHANGE
    refusals = (reviewing.ReviewRefused, bookings.NotThere)
    on_list = False

    def seen(self, subject: ReviewItem) -> str:
        return str(subject.amount or 0)

    def will(self, subject: ReviewItem) -> str:
        return subject.detail


def amount_seen(seen: str) -> int | None:
    return int(seen) if seen.isascii() and seen.isdigit() else None


class ReasonForm(ActForm):
    reason = ReasonField(label=_("Reason"))


# --- assign ----------------------------------------------------------------------------------------------


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
        numbers = [p["merchant_reference"] for p in item.proposals] or [item.merchant_reference]
        self.initial["order"] = numbers[0]
        _in_currency_of(self, item)


class Assign(ReviewAct):
    slug = "assign"
    label = "Assign to an order"
    form = AssignForm
    follows = (
        "The money counts as received for the order. Once all of it is there, the payment is captured and the order "
        "is shipped; what the order does not need stays in review."
    )

    def why_not(self, subject: ReviewItem) -> str:
        return reviewing.why_not_move(subject)

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Closed:
        share = Share(data["order"], data["amount"])
        return reviewing.assign(subject.pk, actor, [share], seen=amount_seen(seen))


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
        item: ReviewItem = self.subjects[0]
        self.initial["shares"] = "\n".join(p["merchant_reference"] for p in item.proposals)

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
    label = "Split over several orders"
    form = SplitForm
    follows = "Each order counts its part as received. What is left over stays in review."

    def why_not(self, subject: ReviewItem) -> str:
        return reviewing.why_not_move(subject)

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Closed:
        return reviewing.assign(subject.pk, actor, data["shares"], seen=amount_seen(seen))


class ConfirmedByHand(ReviewAct):
    slug = "confirmed-by-hand"
    label = "It was confirmed by hand"
    follows = "The booking stands behind the confirmation from now on. The order has its money already."

    def why_not(self, subject: ReviewItem) -> str:
        return reviewing.why_not_confirmed_by_hand(subject)

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Closed:
        return reviewing.confirmed_by_hand(subject.pk, actor, seen=amount_seen(seen))


# --- too little ------------------------------------------------------------------------------------------


class Accept(ReviewAct):
    slug = "accept"
    label = "Accept as full payment"
    form = ReasonForm
    on_list = True
    beyond_limit = False
    follows = (
        "What has come is captured, and the order is shipped. The payment's books say what was accepted."
    )

    def why_not(self, subject: ReviewItem) -> str:
        return reviewing.why_not_accept(subject, beyond_limit=self.beyond_limit)

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Closed:
        return reviewing.accept(
            subject.pk, actor, data["reason"], beyond_limit=self.beyond_limit, seen=amount_seen(seen)
        )


class AcceptBeyondLimit(Accept):
    """The same without the limit, for those who may."""

    slug = "accept-any"
    label = "Accept although much is missing"
    permission = "payments.accept_difference"
    on_list = False
    beyond_limit = True
    dangerous = True

    def why_not(self, subject: ReviewItem) -> str:
        if not reviewing.why_not_accept(subject):
            return "The difference is small: “Accept as full payment” is enough."
        return super().why_not(subject)


class WaitForm(ActForm):
    reason = ReasonField(label=_("Note"), required=False)


class Wait(ReviewAct):
    slug = "wait"
    label = "Wait for the rest"
    form = WaitForm
    on_list = True
    follows = (
        "The item leaves the list. If the rest comes, the order goes on; if it does not come in time, the order is "
        "cancelled and the money is in review again."
    )

    def why_not(self, subject: ReviewItem) -> str:
        return reviewing.why_not_wait(subject)

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Closed:
        return reviewing.wait(subject.pk, actor, data["reason"])


# --- back, away ------------------------------------------------------------------------------------------


class PayBackForm(ActForm):
    """For one item; with several each goes back in full to its payer."""

    amount = AmountField(label=_("Amount"))
    name = forms.CharField(label=_("Payee"), max_length=70, required=False)
    iban = forms.CharField(
        label=_("IBAN"),
        max_length=42,
        required=False,
        help_text=_("Empty: it is entered later, with the transfer."),
    )
    reason = ReasonField(label=_("Reason"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(self.subjects) > 1:
            for name in ("amount", "name", "iban"):
                del self.fields[name]
            return
        item: ReviewItem = self.subjects[0]
        _in_currency_of(self, item)
        self.initial["amount"] = item.amount
        payer = bookings.payer(item.transaction) if item.transaction else None
        if payer is not None and item.reason != ReviewItem.Reason.REFUND_FAILED:
            self.initial.update(name=payer.name[:70], iban=payer.iban)
            self.fields["iban"].help_text = _("Empty: the account that it came from.")


class PayBack(ReviewAct):
    slug = "pay-back"
    label = "Pay back"
    permission = "payments.refund"
    form = PayBackForm
    on_list = True
    follows = (
        "A transfer is added to those to be sent. It goes out with the next file for the bank, and is closed by the "
        "statement that shows it booked."
    )

    def why_not(self, subject: ReviewItem) -> str:
        return reviewing.why_not_move(subject)

    def will(self, subject: ReviewItem) -> str:
        booking = subject.transaction
        payer = f" from {booking.counterparty_name}" if booking and booking.counterparty_name else ""
        return f"{reviewing.money_of(subject)}{payer} go back. {subject.detail}"

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Closed:
        return reviewing.pay_back(
            subject.pk,
            actor,
            data["reason"],
            amount=data.get("amount"),
            name=data.get("name", ""),
            iban=data.get("iban", ""),
            seen=amount_seen(seen),
        )


class Discard(ReviewAct):
    slug = "discard"
    label = "Discard"
    permission = "payments.discard_money"
    form = ReasonForm
    dangerous = True
    on_list = True
    follows = "The money stays on the account and pays nothing here: interest, a private transfer, a loan."

    def why_not(self, subject: ReviewItem) -> str:
        return reviewing.why_not_move(subject)

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Closed:
        return reviewing.discard(subject.pk, actor, data["reason"], seen=amount_seen(seen))


class CloseForm(ActForm):
    resolution = ReasonField(label=_("Resolution"), help_text=_("What was decided and done."))


class Close(ReviewAct):
    slug = "close"
    label = "Close"
    form = CloseForm
    on_list = True
    follows = (
        "Closing moves no money. It writes down what was decided, and takes the item off the work queue."
    )

    def why_not(self, subject: ReviewItem) -> str:
        return reviewing.why_not_close(subject)

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


def _in_currency_of(form: ActForm, item: ReviewItem) -> None:
    amount = form.fields["amount"]
    assert isinstance(amount, AmountField)
    amount.currency = item.currency or "EUR"
    if not amount.help_text:
        most = Money(item.amount or 0, amount.currency)
        amount.help_text = _("In %(currency)s; at most %(most)s.") % {
            "currency": amount.currency,
            "most": most,
        }
