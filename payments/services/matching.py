"""From bookings on the account to the payments they are for. What is not certain is left to a person.

`decide` says where each cent of a booking goes; it reads and writes nothing. `match` does so for a batch, in a
constant number of queries. The caller is in a transaction and holds the account's lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from payments.gateways.base import EventOutcome, EventType
from payments.models import Allocation, BankTransaction, Payment, PaymentEvent, ReviewItem
from payments.references import Found, creditor_reference, find
from payments.services import proposing
from payments.services.bookings import IN_REVIEW, Place, first_key
from payments.services.closing import send_back
from payments.services.outgoing import OutgoingBookings, Parts
from payments.services.recording import close_what_is_complete
from payments.services.review_items import close_all
from payments.services.standings import Standing, Standings, borne_out
from payments.signals import payments_received
from payments.statements import Transaction
from shop.kernel.bulk import copy_in
from shop.kernel.money import Money

Purpose = Allocation.Purpose
Reason = ReviewItem.Reason
NOTHING_FOUND = Found(frozenset(), ())


@dataclass(slots=True)
class Decision:
    """What becomes of one booking: `matched` to a payment, and the rest of it to a person, for a `reason`.

    `borne_out` is the confirmation by hand that the booking turns out to be. `elsewhere` says where the money
    of a booking goes that is no customer's payment.
    """

    booking: BankTransaction
    standing: Standing | None = None
    matched: int = 0
    borne_out: str = ""
    reason: str = ""
    detail: str = ""
    proposals: list[tuple[str, str]] = field(default_factory=list)
    elsewhere: Parts = field(default_factory=list)

    @property
    def in_review(self) -> int:
        return 0 if self.elsewhere else self.booking.amount - self.matched

    @property
    def parts(self) -> Parts:
        """Where each cent goes."""
        if self.elsewhere:
            return self.elsewhere
        payment = self.standing.payment if self.standing else None
        parts = [(Place(Purpose.MATCHED, payment), self.matched), (IN_REVIEW, self.in_review)]
        return [(place, amount) for place, amount in parts if amount]

    @property
    def outcomes(self) -> list[tuple[str, int]]:
        """For the report: where how much of it went, with the reason for what went to review."""
        return [
            (str(self.reason if place.purpose == Purpose.REVIEW and self.reason else place.purpose), amount)
            for place, amount in self.parts
        ]


# --- the rules -------------------------------------------------------------------------------------------


def decide(booking: BankTransaction, found: Found, payments: Standings) -> Decision:
    """Where the money of a credit goes, given what its texts name. Keeps the standings up to date."""
    named = {reference for reference, _ in found.certain}
    if len(named) > 1 or len(found.certain) > 1:
        why = gettext_noop("The transfer names this and others.")
        return Decision(
            booking,
            reason=Reason.AMBIGUOUS,
            detail=_("The transfer names %(names)s. Split it, or find out what it pays.")
            % {"names": ", ".join(sorted(named))},
            proposals=[(reference, why) for reference in sorted(named)],
        )
    if not found.certain:
        return _unnamed(booking, found, payments)
    ((merchant_reference, attempt),) = found.certain
    standing = payments.find(
        merchant_reference, creditor_reference(merchant_reference, attempt) if attempt else ""
    )
    if standing is None:
        latest = payments.find(merchant_reference)
        return Decision(
            booking,
            reason=Reason.UNKNOWN_REFERENCE,
            detail=_("The transfer names %(number)s, and no payment is known for it.")
            % {"number": merchant_reference},
            proposals=[(merchant_reference, gettext_noop("The order exists."))]
            if latest
            else list(found.proposals),
        )
    return _for(booking, standing, payments)


def _unnamed(booking: BankTransaction, found: Found, payments: Standings) -> Decision:
    if booking.is_reversal:
        return Decision(
            booking,
            reason=Reason.NO_REFERENCE,
            detail=_("Money came back, and no transfer of ours is known that it belongs to."),
        )
    existing = [(reference, why) for reference, why in found.proposals if payments.find(reference)]
    if existing:
        return Decision(
            booking,
            reason=Reason.AMBIGUOUS,
            detail=_("The reference cannot be read for certain."),
            proposals=existing,
        )
    if found.proposals:
        return Decision(
            booking,
            reason=Reason.UNKNOWN_REFERENCE,
            detail=_("The transfer seems to name %(number)s, which is not known.")
            % {"number": found.proposals[0][0]},
        )
    return Decision(booking, reason=Reason.NO_REFERENCE, detail=_("The transfer names no order."))


def _for(booking: BankTransaction, standing: Standing, payments: Standings) -> Decision:
    """A booking that names one payment for certain."""
    payment = standing.payment
    money = booking.money
    proposal = [(payment.merchant_reference, gettext_noop("The transfer names it."))]

    def review(reason: str, detail: str, matched: int = 0) -> Decision:
        return Decision(booking, standing, matched, reason=reason, detail=detail, proposals=proposal)

    if not standing.by_bank:
        return review(
            Reason.AMBIGUOUS,
            _(
                "The order %(number)s is to be paid by %(gateway)s, not by bank transfer. Pay the money"
                " back, or assign it to another order."
            )
            % {"number": payment.merchant_reference, "gateway": payment.gateway},
        )
    if money.currency != payment.currency:
        return review(
            Reason.WRONG_CURRENCY,
            _("%(money)s came for the order %(number)s, which is to be paid in %(currency)s.")
            % {"money": money, "number": payment.merchant_reference, "currency": payment.currency},
        )
    confirmed = f"{payment.merchant_reference}/bank/{booking.bank_reference}"
    if booking.bank_reference and standing.by_hand.get(confirmed) == money.amount:
        del standing.by_hand[confirmed]
        return Decision(booking, standing, money.amount, borne_out=confirmed)
    if standing.missing <= 0 or not payment.is_open:
        if money.amount in standing.by_hand.values():
            return review(
                Reason.DUPLICATE,
                _("%(money)s were confirmed by hand for the order %(number)s. Is this the same money?")
                % {"money": money, "number": payment.merchant_reference},
            )
        if (
            booking.counterparty_iban
            and standing.missing <= 0
            and (booking.counterparty_iban, money.amount) in standing.came
        ):
            return review(
                Reason.DUPLICATE,
                _("The order %(number)s is paid, and the same amount came from the same account before.")
                % {"number": payment.merchant_reference},
            )
    if not payment.is_open:
        other = payments.open_attempt(payment.merchant_reference)
        if other is not None:
            proposal = [
                (payment.merchant_reference, gettext_noop("The order was started again and waits for money."))
            ]
        if standing.totals.captured:
            told = _("%(money)s came for the order %(number)s, which was finished.")
        else:
            told = _("%(money)s came for the order %(number)s, which was cancelled.")
        told %= {"money": money, "number": payment.merchant_reference}
        again = _("It was started again, with a reference of its own.") if other else ""
        return review(Reason.LATE, " ".join(filter(None, (told, again))))
    if standing.missing <= 0:
        return review(
            Reason.TOO_MUCH,
            _("%(money)s came for the order %(number)s, which is paid already.")
            % {"money": money, "number": payment.merchant_reference},
        )
    taken = min(money.amount, standing.missing)
    standing.receive(booking, taken)
    if taken < money.amount:
        over = Money(money.amount - taken, money.currency)
        return review(
            Reason.TOO_MUCH,
            _("%(money)s too much came for the order %(number)s.")
            % {"money": over, "number": payment.merchant_reference},
            taken,
        )
    reason = Reason.TOO_LITTLE if standing.missing > 0 else ""
    return Decision(booking, standing, taken, reason=reason)


def _doubted(new: New, found: Found, payments: Standings) -> Decision:
    """A booking that may have been counted before is counted for nothing."""
    named = sorted({reference for reference, _ in found.certain})
    return Decision(
        new.booking,
        payments.find(named[0]) if len(named) == 1 else None,
        reason=Reason.DUPLICATE,
        detail=new.doubt,
        proposals=[(reference, gettext_noop("The transfer names it.")) for reference in named],
    )


# --- a batch ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class New:
    """A booking to be matched; `doubt` says why it may be one that has been told before."""

    booking: BankTransaction
    told: Transaction
    doubt: str = ""


def match(batch: Sequence[New], actor: str) -> list[Decision]:
    """Decide on new bookings, and write what follows: allocations, receipts, review items, messages."""
    outgoing = OutgoingBookings([new.told for new in batch])
    ours = [new for new in batch if outgoing.concerns(new.told)]
    payers = [new for new in batch if not outgoing.concerns(new.told)]
    texts = {new.booking.pk: new.told.reference_texts for new in payers if not new.booking.is_reversal}
    found = {pk: find(lines) for pk, lines in texts.items()}
    payments = Standings(reference for named in found.values() for reference in _all_of(named))
    for pk, named in found.items():
        if not named.certain and named.proposals:
            found[pk] = find(texts[pk], known=payments.knows)
    decisions = [
        _doubted(new, found.get(new.booking.pk, NOTHING_FOUND), payments)
        if new.doubt
        else decide(new.booking, found.get(new.booking.pk, NOTHING_FOUND), payments)
        for new in payers
    ]
    proposing.add(decisions)
    _write(decisions, actor)
    # Afterwards: what the bank takes back may have come in this very batch.
    settled = [
        Decision(new.booking, elsewhere=outgoing.settle(new.booking, new.told, actor, new.doubt))
        for new in ours
    ]
    _allocate(settled, actor)
    return decisions + settled


def _all_of(found: Found) -> set[str]:
    return {reference for reference, _ in (*found.certain, *found.proposals)}


def _allocate(decisions: Sequence[Decision], actor: str) -> None:
    for decision in decisions:
        # Better no import than one that loses a cent.
        assert sum(amount for _, amount in decision.parts) == decision.booking.amount, decision
    copy_in(
        [
            Allocation(
                transaction_id=decision.booking.pk,
                purpose=place.purpose,
                payment_id=place.payment.pk if place.payment else None,
                amount=amount,
                key=first_key(decision.booking, n),
                actor=actor,
            )
            for decision in decisions
            for n, (place, amount) in enumerate(decision.parts, start=1)
        ]
    )


def _write(decisions: Sequence[Decision], actor: str) -> None:
    _allocate(decisions, actor)
    copy_in([event for decision in decisions for event in _receipts(decision, actor)])
    _write_items(decisions)
    paid = {d.standing.payment.pk: (d.standing, d.booking) for d in decisions if d.standing and d.matched}
    totals = [(standing.payment, standing.totals) for standing, _ in paid.values()]
    # Only a payment that has had a part before has an item about the rest.
    close_what_is_complete((s.payment, s.totals) for s, _ in paid.values() if len(s.came) > 1)
    tell_short([(standing, booking, f"short:{booking.pk}") for standing, booking in paid.values()])
    payments_received.send(Payment, received=totals)


def receipt(payment: Payment, booking: BankTransaction, amount: int, key: str, actor: str) -> PaymentEvent:
    """The entry for money of a booking that is for this payment."""
    return PaymentEvent(
        payment_id=payment.pk,
        gateway=payment.gateway,
        type=EventType.RECEIPT.value,
        outcome=EventOutcome.SUCCEEDED.value,
        psp_reference=key,
        amount=amount,
        currency=payment.currency,
        occurred_at=datetime.combine(booking.booking_date, time(), UTC),
        source="statement",
        actor=actor,
        detail=booking.counterparty_name,
    )


def confirmation_out(payment: Payment, reference: str, amount: int, actor: str) -> PaymentEvent:
    """The entry that takes a receipt confirmed by hand out, because the bank's booking of it has come."""
    return PaymentEvent(
        payment_id=payment.pk,
        gateway=payment.gateway,
        type=EventType.RECEIPT.value,
        outcome=EventOutcome.SUCCEEDED.value,
        psp_reference=borne_out(reference),
        amount=-amount,
        currency=payment.currency,
        occurred_at=timezone.now(),
        source="staff",
        actor=actor,
        detail=_("The bank's booking of it has come."),
    )


def _receipts(decision: Decision, actor: str) -> Iterator[PaymentEvent]:
    if not (decision.standing and decision.matched):
        return
    payment, booking = decision.standing.payment, decision.booking
    if decision.borne_out:
        yield confirmation_out(payment, decision.borne_out, decision.matched, actor)
    yield receipt(payment, booking, decision.matched, booking.key, actor)


def tell_short(paid: Sequence[tuple[Standing, BankTransaction, str]]) -> None:
    """Have people know of payments that go on waiting for the rest; with the booking and a key for the item.

    One item for each payment: the one before it is closed.
    """
    short = [(standing, booking, key) for standing, booking, key in paid if standing.missing > 0]
    if not short:
        return
    earlier = ReviewItem.objects.filter(
        reason=Reason.TOO_LITTLE, payment__in=[standing.payment for standing, _, _ in short]
    )
    close_all(earlier, _("Another part has come."))
    ReviewItem.objects.bulk_create(
        ReviewItem(
            key=key,
            reason=Reason.TOO_LITTLE,
            merchant_reference=standing.payment.merchant_reference,
            payment=standing.payment,
            transaction=booking,
            amount=standing.missing,
            currency=standing.payment.currency,
            detail=standing.shortage,
        )
        for standing, booking, key in short
    )


def _write_items(decisions: Sequence[Decision]) -> None:
    """The money in review, each with its item; late money goes back by itself where the setting says so."""
    reviewed = [(decision, _item(decision)) for decision in decisions if decision.in_review]
    ReviewItem.objects.bulk_create(item for _, item in reviewed)
    if settings.REFUND_LATE_MONEY:
        for decision, item in reviewed:
            if decision.reason == Reason.LATE and decision.standing and not decision.standing.totals.captured:
                send_back(item, decision.standing.payment, decision.detail)


def _item(decision: Decision) -> ReviewItem:
    payment = decision.standing.payment if decision.standing else None
    return ReviewItem(
        key=f"booking:{decision.booking.pk}",
        reason=decision.reason,
        merchant_reference=payment.merchant_reference if payment else "",
        payment=payment,
        transaction=decision.booking,
        amount=decision.in_review,
        currency=decision.booking.currency,
        proposals=[{"merchant_reference": reference, "why": why} for reference, why in decision.proposals],
        detail=decision.detail,
    )
