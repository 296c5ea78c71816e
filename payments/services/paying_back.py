"""Paying back what has come by bank for a payment that waits for more: all of it, or a part.

Before the capture this is no refund: the payment has not received the money any more, and goes on waiting for
what is missing then. Whoever wants the order to end cancels it; what is left comes into review with that.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import transaction
from django.utils.translation import gettext as _

from payments.models import Allocation, Payment, ReviewItem
from payments.services import bookings, transfers
from payments.services.bookings import Place
from payments.services.refunding import RefundRefused, check_limit
from payments.services.standings import standings
from payments.services.transfers import Payee
from shop.kernel import second_person
from shop.kernel.money import Money


@dataclass(frozen=True, slots=True)
class PaidBack:
    """What was done. A page that is sent a second time is refused: what it has `seen` is not there any more."""

    message: str
    repeated: bool = False


def came(payment: Payment) -> Money:
    """What has come by bank, and can be paid back while it is not captured."""
    return Money(sum(amount for _booking, amount in bookings.matched_to(payment)), payment.currency)


def senders(payment: Payment) -> list[Payee]:
    """Who has sent it, each account once; without an IBAN where the bank does not tell one that works."""
    found = [bookings.sender(booking) for booking, _amount in bookings.matched_to(payment)]
    return list({payee.iban: payee for payee in found}.values())


def payee_entered(name: str, iban: str | None) -> Payee | None:
    """None for whoever sent the money. With an empty `iban` it is asked for later. Raises `RefundRefused`."""
    if iban is None:
        return None
    if not iban.strip():
        return Payee(" ".join(name.split()), "")
    try:
        return transfers.payee_typed(name, iban)
    except transfers.TransferRefused as error:
        raise RefundRefused(str(error), error.field) from error


def why_not(payment: Payment) -> str:
    """Why nothing of what came can be paid back now; empty if something can."""
    totals = payment.totals()
    if totals.captured:
        return _("It was captured: refund it.")
    if not payment.is_open:
        return _("The order has ended. What had come for it is in review, or was paid back from there.")
    if not came(payment):
        return _("No money is there that has come for it by bank.")
    if payment.missing(totals) <= 0:
        return _("It is paid, and captured next. Refund it then, or cancel the order.")
    return ""


@transaction.atomic
def pay_back(
    payment_pk: int,
    actor: str,
    reason: str,
    *,
    amount: int | None = None,
    name: str = "",
    iban: str | None = None,
    beyond_limit: bool = False,
    seen: int | None = None,
) -> PaidBack:
    """Send `amount` (minor units) of what has come back, or all of it. The limit is that of refunds.

    `iban`: None for whoever sent each part, empty where it is not known yet. `seen`: what could be paid back as
    the actor saw it. The newest money goes first. Raises `RefundRefused`.
    """
    if not reason.strip():
        raise RefundRefused(_("Say why the money is paid back."), "reason")
    payee = payee_entered(name, iban)
    payment = Payment.objects.select_for_update().get(pk=payment_pk)
    if refusal := why_not(payment):
        raise RefundRefused(refusal)
    there = came(payment)
    if seen is not None and seen != there.amount:
        raise RefundRefused(
            _("It has changed in the meantime: %(there)s can be paid back now. Look at it again.")
            % {"there": there}
        )
    money = there if amount is None else Money(amount, payment.currency)
    if not 0 < money.amount <= there.amount:
        raise RefundRefused(
            _("%(money)s are not within the %(there)s that have come.") % {"money": money, "there": there},
            "amount",
        )
    check_limit(money, beyond_limit=beyond_limit)
    second_person.demand(
        money,
        act="pay-back",
        subject=f"payment/{payment.pk}/received",
        what=_("Pay back %(money)s of the %(there)s that have come for %(number)s%(to)s.")
        % {
            "money": money,
            "there": there,
            "number": payment.merchant_reference,
            "to": transfers.to_whom(payee),
        },
        reason=reason,
        standing=there.amount,
        order_number=payment.merchant_reference,
    )
    left, made = money.amount, []
    for booking, matched in reversed(bookings.matched_to(payment)):
        part = Money(min(matched, left), payment.currency)
        if part:
            key = bookings.unmatch(
                booking, part.amount, payment, Place(Allocation.Purpose.REFUNDED), actor, reason
            )
            to = payee or bookings.payer(booking) or transfers.payee_of(payment)
            made.append(transfers.pay_back(part, key, actor, payment=payment, payee=to))
            left -= part.amount
    done = _("%(money)s are paid back (%(transfers)s).") % {
        "money": money,
        "transfers": ", ".join(map(str, made)),
    }
    missing = tell_what_is_missing(payment, f"{done} {reason}", actor)
    if not all(transfer.payee_iban for transfer in made):
        done += " " + _("An account is missing: enter it with the transfer.")
    return PaidBack(" ".join((done, _("The order waits for %s now.") % missing)))


def tell_what_is_missing(payment: Payment, what: str, actor: str) -> Money:
    """Bring the review item about it up to date, if there is one, after `what` took money away.

    Without any money it is an order that waits, like any other: nothing is left to decide. The caller holds the
    payment's lock.
    """
    (standing,) = standings([payment])
    item = (
        ReviewItem.objects.select_for_update()
        .filter(payment=payment, reason=ReviewItem.Reason.TOO_LITTLE, state=ReviewItem.State.OPEN)
        .first()
    )
    if item is not None:
        told = " ".join(filter(None, (item.resolution, what)))
        if standing.totals.received <= 0:
            bookings.finish(item, actor, told)
        else:
            item.amount, item.detail, item.resolution = (
                standing.missing,
                standing.shortage,
                f"{told} ({actor})",
            )
            item.save(update_fields=["amount", "detail", "resolution"])
    return Money(standing.missing, payment.currency)
