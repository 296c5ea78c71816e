"""Bookings that are not a customer's payment: our own transfers, their return, and money taken back by the bank.

They are few, so each may take its own queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time

from django.db.models import QuerySet, Sum
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from payments.gateways.base import EventOutcome, EventType
from payments.models import (
    Allocation,
    BankTransaction,
    OutgoingTransfer,
    Payment,
    PaymentEvent,
    ReviewItem,
    TransferBatch,
)
from payments.services import bookings, transfers
from payments.services.bookings import IN_REVIEW, Place
from payments.services.paying_back import tell_what_is_missing
from payments.statements import Direction, Transaction
from shop.kernel.money import Money

Purpose = Allocation.Purpose
Reason = ReviewItem.Reason
Parts = list[tuple[Place, int]]
FOREIGN = Place(Purpose.FOREIGN)
OUTGOING = Place(Purpose.OUTGOING)


class OutgoingBookings:
    """Knows which bookings of a batch are of our own transfers: two queries."""

    def __init__(self, told: Sequence[Transaction]) -> None:
        ids = {i.strip().upper() for t in told for i in (t.end_to_end_id, t.original_end_to_end_id) if i}
        orders = {i for t in told for i in (t.message_id, t.payment_information_id) if i}
        self._own = set(
            OutgoingTransfer.objects.filter(end_to_end_id__in=ids).values_list("end_to_end_id", flat=True)
        )
        self._batches = {
            batch.message_id: batch for batch in TransferBatch.objects.filter(message_id__in=orders)
        }

    def concerns(self, told: Transaction) -> bool:
        """Whether `settle` is to decide on it: every debit, and a credit that brings a transfer of ours back."""
        return told.direction is Direction.DEBIT or bool(self._our_id(told))

    def settle(self, booking: BankTransaction, told: Transaction, actor: str, doubt: str = "") -> Parts:
        """Tell whom it concerns; returns where the booking's money goes.

        `doubt` says why it may have been told before. That matters where money is taken back from a payment; the
        rest changes nothing the second time, or is for a person anyway.
        """
        our_id = self._our_id(told)
        if told.direction is Direction.CREDIT:
            return [(self._came_back(booking, told, our_id), booking.amount)]
        if told.is_reversal:
            return _taken_back(booking, actor, doubt)
        if our_id:
            transfers.booked(our_id, told.bank_reference, told.money, told.booking_date)
            return [(OUTGOING, booking.amount)]
        return [(OUTGOING if self._whole_batch(told) else FOREIGN, booking.amount)]

    def _our_id(self, told: Transaction) -> str:
        ids = (i.strip().upper() for i in (told.end_to_end_id, told.original_end_to_end_id))
        return next((i for i in ids if i in self._own), "")

    def _whole_batch(self, told: Transaction) -> bool:
        """A bank may book a whole pain.001 as one sum, and name only the file."""
        batch = self._batches.get(told.message_id) or self._batches.get(told.payment_information_id)
        if batch is None:
            return False
        inside = list(batch.transfers.filter(state=OutgoingTransfer.State.EXPORTED).order_by("pk"))
        if sum(t.amount for t in inside) != told.money.amount or {t.currency for t in inside} != {
            told.money.currency
        }:
            return False
        for transfer in inside:
            transfers.booked(transfer.end_to_end_id, told.bank_reference, transfer.money, told.booking_date)
        return True

    def _came_back(self, booking: BankTransaction, told: Transaction, our_id: str) -> Place:
        """A refund of captured money can be asked for again; other money is a person's to send again."""
        before = OutgoingTransfer.objects.get(end_to_end_id=our_id)
        again = before.state == OutgoingTransfer.State.RETURNED
        transfer = transfers.returned(
            our_id,
            told.return_reason,
            money=told.money,
            returned_on=told.booking_date,
            bank_reference=told.bank_reference,
        )
        assert transfer is not None
        if transfer.receivable_id is not None and not again:
            return OUTGOING
        item = ReviewItem.objects.filter(key=f"returned:{transfer}", transaction=None, state="open").first()
        if item is None:
            key = f"returned:{transfer}:{booking.pk}"
            detail = _("%(money)s came back once more for our transfer %(transfer)s.") % {
                "money": booking.money,
                "transfer": transfer,
            }
            bookings.open_item(booking, booking.amount, Reason.DUPLICATE, transfer.payment, detail, key)
        else:
            item.transaction, item.amount, item.currency = booking, booking.amount, booking.currency
            item.save(update_fields=["transaction", "amount", "currency"])
        return IN_REVIEW


# --- money that the bank takes back ----------------------------------------------------------------------


def _taken_back(booking: BankTransaction, actor: str, doubt: str) -> Parts:
    """The reversal of money that came before: it is missing wherever it went, and a person is told."""
    if doubt:
        _tell(booking, f"{booking.pk}", None, doubt)
        return [(FOREIGN, booking.amount)]
    original = _original(booking)
    if original is None:
        _tell(booking, f"{booking.pk}", None, _("It is not known which payment it was."))
        return [(FOREIGN, booking.amount)]
    parts: Parts = []
    whereabouts = _whereabouts(original)
    for place, amount in whereabouts:
        if place.payment is not None:
            _charge_back(booking, place.payment, amount)
            parts.append((place, amount))
        elif place.purpose == Purpose.REVIEW:
            _out_of_review(original, amount, actor)
            parts.append((Place(Purpose.REFUNDED), amount))
        else:
            parts.append((FOREIGN, amount))
    was = ", ".join(_in_words(place) for place, _amount in whereabouts)
    payments = [place.payment for place, _amount in whereabouts if place.payment]
    item = _tell(
        booking,
        f"of-{original.pk}",
        payments[0] if payments else None,
        _("It had come on %(date)s and was %(where)s.")
        % {"date": date_format(original.booking_date, "SHORT_DATE_FORMAT"), "where": was},
    )
    if all(place.purpose == Purpose.REVIEW for place, _amount in whereabouts):
        bookings.finish(item, "shop", _("The money was still in review; nothing else is to be done."))
    return parts


def _in_words(place: Place) -> str:
    if place.payment is not None:
        return _("matched to %s") % place.payment.merchant_reference
    return str(Purpose(place.purpose).label)


def _original(booking: BankTransaction) -> BankTransaction | None:
    """The one earlier receipt that a reversal is of; None if there is none, or more than one."""
    earlier: QuerySet[BankTransaction] = BankTransaction.objects.filter(
        direction=BankTransaction.Direction.CREDIT,
        is_reversal=False,
        amount=booking.amount,
        currency=booking.currency,
        booking_date__lte=booking.booking_date,
    )
    for same in (
        {"end_to_end_id": booking.original_end_to_end_id or booking.end_to_end_id},
        {
            "counterparty_iban": booking.counterparty_iban,
            "remittance_information": booking.remittance_information,
        },
        {"counterparty_iban": booking.counterparty_iban},
        {"remittance_information": booking.remittance_information},
    ):
        if not all(same.values()):
            continue
        found = [credit for credit in earlier.filter(**same).order_by("pk")[:50] if not _reversed(credit)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _reversed(credit: BankTransaction) -> bool:
    """Whether the bank has taken it back before."""
    return ReviewItem.objects.filter(key=f"taken-back:of-{credit.pk}").exists()


def _whereabouts(original: BankTransaction) -> Parts:
    rows = (
        Allocation.objects.filter(transaction=original)
        .values("purpose", "payment_id")
        .annotate(sum=Sum("amount"))
        .filter(sum__gt=0)
        .order_by("payment_id", "purpose")
    )
    payments = Payment.objects.in_bulk([row["payment_id"] for row in rows if row["payment_id"]])
    return [
        (Place(row["purpose"], payments.get(row["payment_id"]) if row["payment_id"] else None), row["sum"])
        for row in rows
    ]


def _charge_back(booking: BankTransaction, payment: Payment, amount: int) -> None:
    """Before the capture the payment has simply not received it; afterwards it is a loss."""
    payment = Payment.objects.select_for_update().get(pk=payment.pk)
    captured = payment.totals().captured
    PaymentEvent.objects.create(
        payment=payment,
        gateway=payment.gateway,
        type=(EventType.CHARGEBACK if captured else EventType.RECEIPT).value,
        outcome=EventOutcome.SUCCEEDED.value,
        psp_reference=f"{booking.key}/{payment.pk}",
        amount=amount if captured else -amount,
        currency=payment.currency,
        occurred_at=datetime.combine(booking.booking_date, time(), UTC),
        source="statement",
        detail=booking.return_reason or _("The bank took it back."),
    )
    if not captured:
        tell_what_is_missing(payment, _("The bank took %s back.") % Money(amount, payment.currency), "shop")


def _out_of_review(original: BankTransaction, amount: int, actor: str) -> None:
    why = _("The bank took it back.")
    bookings.move(original, amount, IN_REVIEW, Place(Purpose.REFUNDED), actor, why)
    item = bookings.item_of(original)
    if item is not None:
        bookings.lessen(item, amount, "shop", why)


def _tell(booking: BankTransaction, about: str, payment: Payment | None, detail: str) -> ReviewItem:
    told = _("The bank took %s back.") % booking.money
    if booking.return_reason:
        told = _("The bank took %(money)s back (%(reason)s).") % {
            "money": booking.money,
            "reason": booking.return_reason,
        }
    return ReviewItem.objects.create(
        key=f"taken-back:{about}",
        reason=Reason.CHARGEBACK,
        merchant_reference=payment.merchant_reference if payment else "",
        payment=payment,
        transaction=booking,
        amount=booking.amount,
        currency=booking.currency,
        detail=f"{told} {detail}",
    )
