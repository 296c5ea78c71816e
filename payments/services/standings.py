"""What payments stand at when a bank booking comes: what they wait for, and what has come for them before.

Loaded for many payments in a constant number of queries, and kept up to date while a batch is decided.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from django.db.models.expressions import RawSQL
from django.utils.translation import gettext as _

from payments import ledger
from payments.gateways.base import EventType
from payments.models import Allocation, BankTransaction, Payment, PaymentEvent
from payments.services.transfers import BANK_TRANSFER
from shop.kernel.bulk import any_key, any_text
from shop.kernel.money import Money


@dataclass(slots=True)
class Standing:
    """One payment. `came` are the bookings matched to it: who sent them (IBAN), and their amounts."""

    payment: Payment
    totals: ledger.Totals
    came: list[tuple[str, int]] = field(default_factory=list)
    by_hand: dict[str, int] = field(default_factory=dict)
    """Receipts that staff have confirmed and no booking has borne out yet: reference and amount."""

    @property
    def by_bank(self) -> bool:
        return self.payment.gateway == BANK_TRANSFER

    @property
    def missing(self) -> int:
        return self.payment.missing(self.totals)

    @property
    def expected(self) -> Money:
        return Money(self.payment.expected(self.totals), self.payment.currency)

    @property
    def shortage(self) -> str:
        """What a person is told while a part is missing."""
        missing = Money(self.missing, self.payment.currency)
        return _(
            "%(missing)s of the %(expected)s for the order %(number)s are missing. It goes on waiting for them."
        ) % {"missing": missing, "expected": self.expected, "number": self.payment.merchant_reference}

    def receive(self, booking: BankTransaction, amount: int) -> None:
        """`amount` of the booking is for this payment."""
        self.totals = replace(self.totals, received=self.totals.received + amount)
        self.came.append((booking.counterparty_iban, booking.amount))


class Standings:
    """The payments of some merchant references, all attempts of each; locked, in the order of their keys."""

    def __init__(self, merchant_references: Iterable[str]) -> None:
        payments = list(
            Payment.objects.select_for_update()
            .filter(merchant_reference__in=any_text(set(merchant_references)))
            .order_by("pk")
        )
        self._by_reference: dict[str, list[Standing]] = defaultdict(list)
        for standing in standings(payments):
            self._by_reference[standing.payment.merchant_reference].append(standing)

    def knows(self, merchant_reference: str) -> bool:
        return merchant_reference in self._by_reference

    def find(self, merchant_reference: str, reference: str = "") -> Standing | None:
        """The payment with this creditor reference; without one, the latest by bank transfer, or else the latest."""
        attempts = self._by_reference.get(merchant_reference, [])
        if reference:
            return next((s for s in attempts if s.by_bank and s.payment.reference == reference), None)
        return next((s for s in reversed(attempts) if s.by_bank), attempts[-1] if attempts else None)

    def open_attempt(self, merchant_reference: str) -> Standing | None:
        """The attempt that waits for money, if there is one."""
        attempts = self._by_reference.get(merchant_reference, [])
        return next((s for s in attempts if s.by_bank and s.payment.is_open and s.missing > 0), None)


def standings(payments: list[Payment]) -> list[Standing]:
    """What they stand at: two queries, however many."""
    keys = any_key(payment.pk for payment in payments)
    events: dict[int, list[_Event]] = defaultdict(list)
    rows = PaymentEvent.objects.filter(payment_id__in=keys)
    fields = ("payment_id", "type", "outcome", "amount", "source", "psp_reference")
    for pk, type_, outcome, amount, source, reference in rows.values_list(*fields):
        events[pk].append(_Event(type_, outcome, amount, source, reference))
    came = _came(keys)
    return [
        Standing(payment, ledger.totals(events[payment.pk]), came[payment.pk], _by_hand(events[payment.pk]))
        for payment in payments
    ]


@dataclass(slots=True)
class _Event:
    type: str
    outcome: str
    amount: int
    source: str
    psp_reference: str


def _came(keys: RawSQL) -> dict[int, list[tuple[str, int]]]:
    found: dict[int, list[tuple[str, int]]] = defaultdict(list)
    rows = Allocation.objects.filter(
        payment_id__in=keys,
        purpose=Allocation.Purpose.MATCHED,
        amount__gt=0,
        transaction__direction=BankTransaction.Direction.CREDIT,
    )
    for pk, iban, amount in rows.values_list(
        "payment_id", "transaction__counterparty_iban", "transaction__amount"
    ):
        assert pk is not None
        found[pk].append((iban, amount))
    return found


def _by_hand(events: list[_Event]) -> dict[str, int]:
    confirmed = {
        event.psp_reference: event.amount
        for event in events
        if event.type == EventType.RECEIPT and event.source == "staff"
    }
    return {
        reference: amount
        for reference, amount in confirmed.items()
        if amount > 0 and borne_out(reference) not in confirmed
    }


def borne_out(reference: str) -> str:
    """The reference of the entry that takes a confirmation by hand out, because its booking has come."""
    return f"{reference}/booked"
