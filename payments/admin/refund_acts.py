"""Giving money back: the form and the words. The rules are in `refunding`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from django import forms
from django.conf import settings
from django.utils.formats import date_format
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payments.banking.account import grouped
from payments.gateways import gateway
from payments.gateways.base import GatewayError
from payments.models import Payment
from payments.models.gateway_state import called
from payments.services import paying_back, refunding
from payments.services.bookings import NotThere
from payments.services.paying_back import PaidBack
from payments.services.refunding import RefundAsked, RefundRefused
from payments.services.transfers import Payee
from shop.kernel.admin.acting import Act, ActForm
from shop.kernel.forms import AmountField, ReasonField
from shop.kernel.money import Money

REFUND = "payments.refund"
BEYOND_LIMIT = "payments.refund_beyond_limit"


class LimitedForm(ActForm):
    """Of money that goes out: above `REFUND_LIMIT` it takes a further permission."""

    def limit(self, amount: forms.Field, currency: str) -> None:
        """Say so, where it is so."""
        if settings.REFUND_LIMIT and not self.may_go_beyond():
            limit = Money(settings.REFUND_LIMIT, currency)
            amount.help_text += " " + gettext("You may send back up to %s at once.") % limit

    def may_go_beyond(self) -> bool:
        return self.user.has_perm(BEYOND_LIMIT)

    def clean(self) -> dict[str, Any]:
        return {**(super().clean() or {}), "beyond_limit": self.may_go_beyond()}


class RefundForm(LimitedForm):
    """How much, and why. `form_id` tells a double click from a second refund."""

    amount = AmountField(label=_("Amount"))
    reason = ReasonField(label=_("Reason"), help_text=_("For the books; the customer does not see it."))
    form_id = forms.UUIDField(widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["form_id"] = uuid4()
        payment = self.payment_of(self.subjects[0])
        if payment is not None:
            self._prefill(payment)

    def payment_of(self, subject: Any) -> Payment | None:
        """The payment that is refunded, where the form is about something that has one."""
        assert isinstance(subject, Payment)
        return subject

    def _prefill(self, payment: Payment) -> None:
        amount = self.fields["amount"]
        assert isinstance(amount, AmountField)
        amount.currency = payment.currency
        left = Money(max(0, payment.totals().kept), payment.currency)
        self.initial["amount"] = left.amount
        amount.help_text = _("In %(currency)s; at most %(left)s.") % {
            "currency": payment.currency,
            "left": left.format(),
        }
        self.limit(amount, payment.currency)


class Refund(Act):
    """`seen` is the payment, and what of it could be refunded."""

    slug = "refund"
    label = _("Refund")
    may_take_two = True
    permission = REFUND
    form = RefundForm
    on_list = False
    dangerous = True
    refusals = (RefundRefused, GatewayError)
    follows = _(
        "From then on the amount counts as given back. The customer gets a mail, and page and "
        "timeline show how far it is. If the refund fails, it is in the review list."
    )

    def payment_of(self, subject: Any) -> Payment | None:
        assert isinstance(subject, Payment)
        return subject

    def why_not(self, subject: Any) -> str:
        payment = self.payment_of(subject)
        return refunding.why_not_refund(payment) if payment else gettext("No payment has been opened yet.")

    def will(self, subject: Any) -> str:
        payment = self.payment_of(subject)
        assert payment is not None
        left = Money(payment.totals().kept, payment.currency).format()
        return gettext("%(amount)s can be refunded. %(way)s") % {"amount": left, "way": _way_back(payment)}

    def seen(self, subject: Any) -> str:
        payment = self.payment_of(subject)
        return f"{payment.pk}/{payment.totals().kept}" if payment else ""

    def do(self, subject: Any, data: dict[str, Any], actor: str, seen: str) -> RefundAsked:
        payment = self.payment_of(subject)
        if payment is None:
            raise RefundRefused(self.why_not(subject))
        shown, _slash, left = seen.partition("/")
        if shown and shown != str(payment.pk):
            raise RefundRefused(gettext("Its payment is another one meanwhile. Look again, then send it."))
        return refunding.refund(
            payment.pk,
            data["amount"],
            actor,
            data["reason"],
            str(data["form_id"]),
            beyond_limit=data["beyond_limit"],
            seen=whole_number(left),
        )


# --- pay back what was never captured ------------------------------------------------------------------


class PayBackForm(LimitedForm):
    """How much of what came by bank goes back, and where to."""

    amount = AmountField(label=_("Amount"))
    name = forms.CharField(label=_("Payee"), max_length=70, required=False)
    iban = forms.CharField(
        label=_("IBAN"),
        max_length=42,
        required=False,
        widget=forms.TextInput(attrs={"size": 36, "autocomplete": "off"}),
        help_text=_("Empty: the transfer waits for its account, and the customer is asked for it."),
    )
    reason = ReasonField(label=_("Reason"))

    def prefill(self, money: Money, senders: Sequence[Payee]) -> None:
        """At most `money`, back to the one who sent it; parts of several people go back to each of them."""
        amount = self.fields["amount"]
        assert isinstance(amount, AmountField)
        amount.currency = money.currency
        amount.help_text = _("In %(currency)s; at most %(most)s.") % {
            "currency": money.currency,
            "most": money,
        }
        self.initial["amount"] = money.amount
        if len(senders) == 1:
            self.initial.update(name=senders[0].name[:70], iban=grouped(senders[0].iban))
        else:
            self.to_its_payers()
            amount.help_text += " " + _("Each part goes back to who sent it, the newest first.")
        self.limit(amount, money.currency)

    def to_its_payers(self) -> None:
        """Without asking where to."""
        del self.fields["name"], self.fields["iban"]


class PayBackReceivedForm(PayBackForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        payment: Payment = self.subjects[0]
        self.prefill(paying_back.came(payment), paying_back.senders(payment))


class PayBackReceived(Act):
    """`seen` is what could be paid back."""

    slug = "pay-back"
    label = _("Pay back what came in")
    may_take_two = True
    permission = REFUND
    form = PayBackReceivedForm
    on_list = False
    dangerous = True
    refusals = (RefundRefused, NotThere)
    follows = _(
        "It counts as received no longer, and becomes a transfer that goes out with the next "
        "file for the bank. The customer gets a mail. The order goes on waiting, for all that "
        "is missing then: to end it, cancel it."
    )

    def why_not(self, subject: Payment) -> str:
        return paying_back.why_not(subject)

    def will(self, subject: Payment) -> str:
        return gettext("%s have come in and are not captured.") % paying_back.came(subject)

    def seen(self, subject: Payment) -> str:
        return str(paying_back.came(subject).amount)

    def do(self, subject: Payment, data: dict[str, Any], actor: str, seen: str) -> PaidBack:
        return paying_back.pay_back(
            subject.pk,
            actor,
            data["reason"],
            amount=data["amount"],
            name=data.get("name", ""),
            iban=data.get("iban"),
            beyond_limit=data["beyond_limit"],
            seen=whole_number(seen),
        )


# --- pieces ----------------------------------------------------------------------------------------------


def whole_number(seen: str) -> int | None:
    """What the page showed, as it came back with the form; None if it is no amount."""
    return int(seen) if seen.isascii() and seen.isdigit() else None


def _way_back(payment: Payment) -> str:
    try:
        ours = gateway(payment.gateway).capabilities.received_on_our_account
    except GatewayError as error:
        return str(error)
    if ours:
        return gettext("It becomes a transfer that goes out with the next file for the bank.")
    return gettext("It goes back through %s, the way it came.") % called(payment.gateway)


# --- try again -------------------------------------------------------------------------------------------


class TryAgainForm(ActForm):
    refund = forms.ChoiceField(label=_("Which refund"), widget=forms.RadioSelect)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choice = self.fields["refund"]
        assert isinstance(choice, forms.ChoiceField)
        found = refunding.unclear_refunds(self.subjects[0])
        choice.choices = [
            (
                event.psp_reference,
                f"{event.money}, {date_format(event.recorded_at, 'SHORT_DATETIME_FORMAT')} UTC: {event.detail}",
            )
            for event in found
        ]
        if found:
            self.initial["refund"] = found[0].psp_reference


class TryAgain(Act):
    """For a refund of which nobody knows whether the provider did it."""

    slug = "refund-again"
    label = _("Try refund again")
    permission = REFUND
    form = TryAgainForm
    on_list = False
    refusals = (RefundRefused,)
    follows = _(
        "The provider is asked for the same refund under the same key: if it was made, it is not made twice."
    )

    def why_not(self, subject: Payment) -> str:
        return refunding.why_not_try_again(subject)

    def will(self, subject: Payment) -> str:
        return gettext("Nobody knows whether the provider made it. It is asked again.")

    def do(self, subject: Payment, data: dict[str, Any], actor: str, seen: str) -> RefundAsked:
        return refunding.try_again(data["refund"], actor)


PAYMENT_ACTS = (Refund(), TryAgain(), PayBackReceived())
