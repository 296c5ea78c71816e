"""What people do with money that does not fit. Each action is one transaction, safe against a second person.

An action gets what its page showed of the item (`seen`, the amount that was in review). If another person was
faster, it does nothing and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.db.models import Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from payments.gateways.base import EventOutcome, EventType
from payments.models import Allocation, BankTransaction, Payment, PaymentEvent, ReviewItem
from payments.references import creditor_reference, parse_creditor_reference
from payments.services import bookings, matching, paying_back, transfers
from payments.services.bookings import IN_REVIEW, Place
from payments.services.matching import confirmation_out, receipt
from payments.services.recording import close_what_is_complete
from payments.services.refunding import RefundRefused, check_limit
from payments.services.review_items import subject_of
from payments.services.standings import Standing, Standings, standings
from payments.signals import payments_received
from shop.kernel import second_person
from shop.kernel.money import Money

Purpose = Allocation.Purpose
Reason = ReviewItem.Reason


class ReviewRefused(Exception):
    """That cannot be done with a review item; the message says why. `field`: the wrong one, if any."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Closed:
    """What came of it. `repeated`: the item was dealt with before, and nothing was done again."""

    message: str
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Share:
    """A part of the money for an order: its number or creditor reference, and minor units; None: what it lacks."""

    reference: str
    amount: int | None = None


# --- which actions are possible --------------------------------------------------------------------------


def holds_money(item: ReviewItem) -> bool:
    """Whether money of a booking waits in review for the decision on this item."""
    return (
        item.state == ReviewItem.State.OPEN
        and item.transaction_id is not None
        and item.reason not in bookings.WITHOUT_MONEY
    )


def in_review(merchant_reference: str) -> list[Money]:
    """The money of bookings that waits for a decision and probably is this order's: a sum for each currency."""
    rows = (
        ReviewItem.objects.filter(
            merchant_reference=merchant_reference,
            state=ReviewItem.State.OPEN,
            transaction__isnull=False,
        )
        .exclude(reason__in=bookings.WITHOUT_MONEY)
        .order_by("currency")
        .values("currency")
        .annotate(sum=Sum("amount"))
    )
    return [Money(row["sum"], row["currency"]) for row in rows]


def money_of(item: ReviewItem) -> Money:
    """What the item is about."""
    return Money(item.amount or 0, item.currency or "EUR")


def why_not_close(item: ReviewItem) -> str:
    if item.state == ReviewItem.State.CLOSED:
        return _closed_by(item)
    if holds_money(item):
        return _("%(money)s of it are still in review: assign, pay back or discard them.") % {
            "money": money_of(item)
        }
    if item.reason == Reason.TOO_LITTLE:
        return _("Accept what has come as full payment, wait for the rest, or pay it back.")
    if item.webhook_id is not None and item.reason != Reason.UNFIT:
        return _("Discard the webhooks, if the payment is none of the shop's.")
    return ""


def why_not_move(item: ReviewItem) -> str:
    """Why its money cannot be assigned, paid back or discarded."""
    if item.state == ReviewItem.State.CLOSED:
        return _closed_by(item)
    return "" if holds_money(item) else _("None of its money is in review.")


def to_pay_back(item: ReviewItem) -> Money:
    """How much can be paid back: of what is in review, or of what has come for an order that lacks the rest."""
    if item.reason == Reason.TOO_LITTLE and item.payment is not None:
        return paying_back.came(item.payment)
    return money_of(item)


def why_not_pay_back(item: ReviewItem) -> str:
    if item.state == ReviewItem.State.OPEN and item.reason == Reason.TOO_LITTLE and item.payment is not None:
        return paying_back.why_not(item.payment)
    return why_not_move(item)


def why_not_accept(item: ReviewItem, *, beyond_limit: bool = False) -> str:
    if item.state == ReviewItem.State.CLOSED:
        return _closed_by(item)
    if item.reason != Reason.TOO_LITTLE:
        return _("Nothing is missing here.")
    limit = Money(settings.ACCEPT_DIFFERENCE, item.currency)
    if not beyond_limit and money_of(item).amount > limit.amount:
        return _("%(money)s are missing; up to %(limit)s can be accepted without a further permission.") % {
            "money": money_of(item),
            "limit": limit,
        }
    return ""


def why_not_wait(item: ReviewItem) -> str:
    if item.state == ReviewItem.State.CLOSED:
        return _closed_by(item)
    return "" if item.reason == Reason.TOO_LITTLE else _("Nothing is missing here.")


def why_not_confirmed_by_hand(item: ReviewItem) -> str:
    if why_not := why_not_move(item):
        return why_not
    if item.payment is None or item.amount not in _by_hand(item.payment).by_hand.values():
        return _("No payment of this amount was confirmed by hand for its order.")
    return ""


def _closed_by(item: ReviewItem) -> str:
    return _("It was processed in the meantime by %s.") % item.resolved_by


# --- actions ---------------------------------------------------------------------------------------------


@transaction.atomic
def close(pk: int, actor: str, resolution: str) -> Closed:
    """Write down what was decided, and by whom. It moves no money, so there must be none in review."""
    if not resolution.strip():
        raise ReviewRefused(_("Say what was decided."))
    item = _locked(pk)
    if item.state == ReviewItem.State.CLOSED:
        return _meanwhile(item)
    _check(why_not_close(item))
    if item.amount is not None:  # a chargeback, for instance: who closes it gives that money up
        _demand(item, "close", money_of(item), _("Close “%(item)s” as decided.") % {"item": item}, resolution)
    bookings.finish(item, actor, resolution)
    return Closed(_("The review item is closed."))


@transaction.atomic
def assign(pk: int, actor: str, shares: Sequence[Share], *, seen: int | None = None) -> Closed:
    """Count the money of a booking as received for one or several orders; what is left stays in review."""
    if not shares:
        raise ReviewRefused(_("Name the order that the money is for."))
    payments = Standings(_merchant_reference(share) for share in shares)
    item = _locked(pk)
    if item.state == ReviewItem.State.CLOSED:
        return _meanwhile(item)
    booking = _money_to_move(item, seen)
    if booking.direction != BankTransaction.Direction.CREDIT:
        raise ReviewRefused(_("This money went out of the account; it pays no order."))
    left = item.amount or 0
    paid: dict[int, Standing] = {}
    told: list[str] = []
    key = ""
    for share in shares:
        standing = _payable(payments, share, booking)
        amount = min(left, standing.missing) if share.amount is None else share.amount
        _check_share(share, standing, amount, left)
        payment, left = standing.payment, left - amount
        key = bookings.move(
            booking,
            amount,
            IN_REVIEW,
            Place(Purpose.MATCHED, payment),
            actor,
            _("Assigned to %(reference)s") % {"reference": share.reference},
        )
        receipt(payment, booking, amount, key, actor).save(force_insert=True)
        standing.receive(booking, amount)
        paid[payment.pk] = standing
        money = Money(amount, booking.currency)
        told.append(
            _("%(money)s are assigned to %(number)s.")
            % {"money": money, "number": payment.merchant_reference}
        )
        bookings.lessen(item, amount, actor, told[-1])
    _announce(list(paid.values()), booking, key)
    if left:
        told.append(_("%(money)s are left in review.") % {"money": Money(left, booking.currency)})
        item.reason = Reason.TOO_MUCH
        item.save(update_fields=["reason"])
    return Closed(" ".join(told))


@transaction.atomic
def confirmed_by_hand(pk: int, actor: str, *, seen: int | None = None) -> Closed:
    """The booking is the money that staff confirmed by hand before: it is matched, and counts once."""
    item = _locked_with_payment(pk)
    if item.state == ReviewItem.State.CLOSED:
        return _meanwhile(item)
    booking = _money_to_move(item, seen)
    _check(why_not_confirmed_by_hand(item))
    payment, amount = item.payment, item.amount
    assert payment is not None
    assert amount is not None
    reference = next(r for r, confirmed in _by_hand(payment).by_hand.items() if confirmed == amount)
    what = _("It is the money that was confirmed by hand.")
    key = bookings.move(booking, amount, IN_REVIEW, Place(Purpose.MATCHED, payment), actor, what)
    PaymentEvent.objects.bulk_create(
        [
            confirmation_out(payment, reference, amount, actor),
            receipt(payment, booking, amount, key, actor),
        ]
    )
    bookings.finish(item, actor, what)
    return Closed(
        _("%(money)s now stand behind the confirmation by hand.") % {"money": Money(amount, booking.currency)}
    )


@transaction.atomic
def accept(
    pk: int, actor: str, reason: str, *, beyond_limit: bool = False, seen: int | None = None
) -> Closed:
    """Take what has come as full payment. The difference is written down, and that much less is captured."""
    if not reason.strip():
        raise ReviewRefused(_("Say why the difference is accepted."))
    item = _locked_with_payment(pk)
    if item.state == ReviewItem.State.CLOSED:
        return _meanwhile(item)
    _check(why_not_accept(item, beyond_limit=beyond_limit))
    payment = item.payment
    assert payment is not None
    (standing,) = standings([payment])
    if seen is not None and standing.missing != seen:
        raise ReviewRefused(_("More has come in the meantime. Look at it again."))
    if not payment.is_open:
        raise ReviewRefused(
            _("The order %(number)s has ended.") % {"number": standing.payment.merchant_reference}
        )
    if not 0 < standing.missing < standing.expected.amount:
        raise ReviewRefused(_("Nothing has come that could be accepted."))
    if not beyond_limit and standing.missing > settings.ACCEPT_DIFFERENCE:
        raise ReviewRefused(
            _("%(money)s are missing; that is too much.")
            % {"money": Money(standing.missing, payment.currency)}
        )
    missing = Money(standing.missing, payment.currency)
    what = _("Accept order %(number)s as fully paid, %(missing)s short.") % {
        "number": standing.payment.merchant_reference,
        "missing": missing,
    }
    _demand(item, "accept", missing, what, reason)
    PaymentEvent.objects.create(
        payment=payment,
        gateway=payment.gateway,
        type=EventType.AUTHORIZATION_ADJUSTMENT.value,
        outcome=EventOutcome.SUCCEEDED.value,
        psp_reference=f"review/{item.pk}/accepted",
        amount=-missing.amount,
        currency=payment.currency,
        occurred_at=timezone.now(),
        source="staff",
        actor=actor,
        detail=reason,
    )
    bookings.finish(
        item,
        actor,
        _("Accepted as full payment, %(missing)s short: %(reason)s") % {"missing": missing, "reason": reason},
    )
    payments_received.send(Payment, received=[(payment, payment.totals())])
    return Closed(_("Accepted as full payment, %(missing)s short. The order goes on.") % {"missing": missing})


@transaction.atomic
def wait(pk: int, actor: str, reason: str) -> Closed:
    """Go on waiting for the rest. If it does not come in time, the order's end brings the money back here."""
    item = _locked(pk)
    if item.state == ReviewItem.State.CLOSED:
        return _meanwhile(item)
    _check(why_not_wait(item))
    bookings.finish(item, actor, " ".join(filter(None, (_("Waiting for the rest."), reason.strip()))))
    return Closed(_("The order goes on waiting for the rest."))


@transaction.atomic
def pay_back(
    pk: int,
    actor: str,
    reason: str,
    *,
    amount: int | None = None,
    name: str = "",
    iban: str | None = None,
    beyond_limit: bool = False,
    seen: int | None = None,
) -> Closed:
    """Send the money, or `amount` of it, back: to its payer, or to the account given. The limit is that of refunds.

    `iban` is empty where it is not known yet: the transfer waits for it, and the customer is asked. Of an order
    that lacks a part, what has come goes back.
    """
    if not reason.strip():
        raise ReviewRefused(_("Say why the money is paid back."))
    item = _locked_with_payment(pk)
    if item.state == ReviewItem.State.CLOSED:
        return _meanwhile(item)
    try:
        payee = paying_back.payee_entered(name, iban)
        if item.reason == Reason.TOO_LITTLE and item.payment is not None:
            done = paying_back.pay_back(
                item.payment.pk,
                actor,
                reason,
                amount=amount,
                name=name,
                iban=iban,
                beyond_limit=beyond_limit,
                seen=seen,
            )
            return Closed(done.message)
        booking = _money_to_move(item, seen)
        money = Money(_within(item, amount), booking.currency)
        check_limit(money, beyond_limit=beyond_limit)
    except RefundRefused as error:
        raise ReviewRefused(str(error), error.field) from error
    if booking.direction != BankTransaction.Direction.CREDIT:
        raise ReviewRefused(_("This money went out of the account; there is nothing to pay back."))
    if payee is None and item.reason != Reason.REFUND_FAILED:  # that account did not work
        payee = bookings.payer(booking)
    what = _("Pay back %(money)s of the %(there)s in review%(to)s.") % {
        "money": money,
        "there": money_of(item),
        "to": transfers.to_whom(payee),
    }
    _demand(item, "pay-back", money, what, reason)
    key = bookings.move(booking, money.amount, IN_REVIEW, Place(Purpose.REFUNDED), actor, reason)
    try:
        transfer = transfers.pay_back(money, key, actor, payment=item.payment, payee=payee)
    except transfers.TransferRefused as error:
        raise ReviewRefused(str(error)) from error
    bookings.lessen(
        item,
        money.amount,
        actor,
        _("%(money)s are paid back by %(transfer)s: %(reason)s")
        % {"money": money, "transfer": transfer, "reason": reason},
    )
    missing = "" if transfer.payee_iban else _("Its account is missing: enter it with the transfer.")
    told = _("%(money)s are among the transfers to be sent (%(transfer)s).") % {
        "money": money,
        "transfer": transfer,
    }
    return Closed(" ".join(filter(None, (told, missing))))


@transaction.atomic
def discard(pk: int, actor: str, reason: str, *, seen: int | None = None) -> Closed:
    """The money is none of the shop's orders' business, and stays."""
    if not reason.strip():
        raise ReviewRefused(_("Say why the money belongs to no order."))
    item = _locked(pk)
    if item.state == ReviewItem.State.CLOSED:
        return _meanwhile(item)
    booking = _money_to_move(item, seen)
    amount = item.amount or 0
    _demand(
        item,
        "discard",
        money_of(item),
        _("Discard %(money)s: they belong to no order.") % {"money": money_of(item)},
        reason,
    )
    bookings.move(booking, amount, IN_REVIEW, Place(Purpose.DISCARDED), actor, reason)
    bookings.finish(item, actor, _("Discarded: %(reason)s") % {"reason": reason})
    return Closed(_("%(money)s are discarded.") % {"money": Money(amount, booking.currency)})


# --- pieces ----------------------------------------------------------------------------------------------


def _locked(pk: int) -> ReviewItem:
    return (
        ReviewItem.objects.select_for_update(of=("self",)).select_related("transaction", "payment").get(pk=pk)
    )


def _locked_with_payment(pk: int) -> ReviewItem:
    """The payment is locked first, as everywhere; `item.payment` is as it stands under the lock."""
    payment_pk = ReviewItem.objects.values_list("payment_id", flat=True).get(pk=pk)
    Payment.objects.select_for_update().filter(pk=payment_pk).first()
    return _locked(pk)


def _demand(item: ReviewItem, act: str, money: Money, what: str, reason: str) -> None:
    second_person.demand(
        money,
        act=act,
        subject=subject_of(item.pk),
        what=what,
        reason=reason,
        standing=item.amount,
        order_number=item.merchant_reference,
    )


def _meanwhile(item: ReviewItem) -> Closed:
    return Closed(_closed_by(item), repeated=True)


def _check(why_not: str) -> None:
    if why_not:
        raise ReviewRefused(why_not)


def _money_to_move(item: ReviewItem, seen: int | None) -> BankTransaction:
    _check(why_not_move(item))
    assert item.transaction is not None
    if seen is not None and seen != item.amount:
        last = item.transaction.allocations.order_by("-id").values_list("actor", flat=True).first()
        raise ReviewRefused(
            _("It was processed in the meantime by %(name)s: %(money)s are left of it. Look at it again.")
            % {"name": last, "money": money_of(item)}
        )
    return item.transaction


def _within(item: ReviewItem, amount: int | None) -> int:
    left = item.amount or 0
    if amount is None:
        return left
    if not 0 < amount <= left:
        raise ReviewRefused(
            _("%(money)s are not within the %(there)s that are in review.")
            % {"money": Money(amount, item.currency), "there": money_of(item)},
            "amount",
        )
    return amount


def _merchant_reference(share: Share) -> str:
    parsed = parse_creditor_reference(share.reference)
    return parsed[0] if parsed else share.reference.strip().upper()


def _payable(payments: Standings, share: Share, booking: BankTransaction) -> Standing:
    """The payment that a share is for, if it can take money now."""
    parsed = parse_creditor_reference(share.reference)
    number = _merchant_reference(share)
    standing = payments.find(number, creditor_reference(*parsed) if parsed else "")
    if standing is None:
        raise ReviewRefused(
            _("No payment by bank transfer is known for %(reference)s.") % {"reference": share.reference}
        )
    payment = standing.payment
    if not standing.by_bank:
        raise ReviewRefused(
            _("The order %(number)s is to be paid by %(gateway)s, not by bank transfer.")
            % {"number": standing.payment.merchant_reference, "gateway": payment.gateway}
        )
    if payment.currency != booking.currency:
        raise ReviewRefused(
            _("The order %(number)s is to be paid in %(currency)s; this is %(other)s.")
            % {
                "number": standing.payment.merchant_reference,
                "currency": payment.currency,
                "other": booking.currency,
            }
        )
    if not payment.is_open:
        raise ReviewRefused(
            _("The order %(number)s has ended; it takes no money any more.")
            % {"number": standing.payment.merchant_reference}
        )
    if standing.missing <= 0:
        raise ReviewRefused(
            _("The order %(number)s is paid already.") % {"number": standing.payment.merchant_reference}
        )
    return standing


def _check_share(share: Share, standing: Standing, amount: int, left: int) -> None:
    money = Money(amount, standing.payment.currency)
    if amount <= 0:
        raise ReviewRefused(_("There is nothing left for %(reference)s.") % {"reference": share.reference})
    if amount > left:
        raise ReviewRefused(
            _("%(money)s for %(reference)s are more than what is left to assign.")
            % {"money": money, "reference": share.reference}
        )
    if amount > standing.missing:
        raise ReviewRefused(
            _("The order %(number)s lacks %(missing)s; %(money)s are too much.")
            % {
                "number": standing.payment.merchant_reference,
                "missing": Money(standing.missing, money.currency),
                "money": money,
            }
        )


def _announce(paid: Sequence[Standing], booking: BankTransaction, key: str) -> None:
    received = [(standing.payment, standing.totals) for standing in paid]
    close_what_is_complete(received)
    matching.tell_short([(standing, booking, f"{key}/{standing.payment.pk}") for standing in paid])
    payments_received.send(Payment, received=received)


def _by_hand(payment: Payment) -> Standing:
    (standing,) = standings([payment])
    return standing
