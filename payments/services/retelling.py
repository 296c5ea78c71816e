"""The same booking told in two formats, such as camt.053 and MT940, counts once; two equal transfers count twice.

Where the bank gives no reference, formats share what they both carry: amount, day, the other account, the
end-to-end id and the text. Each format tells a booking once, so of two equal ones the second finds the first
taken. What may be the same and is not surely so is counted for no order: it is for a person.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.utils.formats import date_format
from django.utils.translation import gettext as _

from payments.models import BankStatement, BankTransaction
from payments.references import find
from shop.kernel.bulk import any_key

_SPAN = timedelta(days=5)
"""Between booking date and value date, at most. MT940 may name the value date only."""
_CUT = 20
"""Characters that a text must have at least to pass for the beginning of another."""


@dataclass(frozen=True, slots=True)
class Twin:
    """The booking of the books that a statement tells again: `sure`, or for a person to say."""

    of: BankTransaction
    sure: bool

    @property
    def question(self) -> str:
        other = self.of
        return _(
            "%(money)s were booked on %(date)s according to %(statement)s too "
            "(%(file)s), in another format and other words: “%(text)s”. If this is the same "
            "booking, discard it here; if it is another one, assign it."
        ) % {
            "money": other.money,
            "date": date_format(other.booking_date, "SHORT_DATE_FORMAT"),
            "statement": other.statement,
            "file": other.statement.file_name,
            "text": _text(other)[:140],
        }


def twins(statement: BankStatement, told: Sequence[BankTransaction]) -> list[Twin | None]:
    """For each booking that `statement` tells under a key not known: the one told in another format before.

    The caller holds the account's lock and writes down the sure ones (`Retelling`).
    """
    others = _told_elsewhere(statement, told)
    if not others:
        return [None] * len(told)
    surely, taken = _surely(others), set()
    found: list[Twin | None] = []
    for booking in told:
        same = (o for key in _keys(booking) for o in surely[key] if o.pk not in taken and is_same(booking, o))
        other = next(same, None)
        if other is not None:
            taken.add(other.pk)
        found.append(Twin(other, sure=True) if other is not None else None)
    left = _ByNames([other for other in others if other.pk not in taken])
    return [twin or left.find(booking) for twin, booking in zip(found, told, strict=True)]


def _told_elsewhere(statement: BankStatement, told: Sequence[BankTransaction]) -> list[BankTransaction]:
    """Bookings of these amounts and days that the statement's format has not told yet."""
    others = BankStatement.objects.filter(account_iban=statement.account_iban).exclude(kind=statement.kind)
    if not told or not others.exists():  # nearly always
        return []
    days = [booking.booking_date for booking in told]
    rows = BankTransaction.objects.filter(
        statement__account_iban=statement.account_iban,
        amount__in=any_key({booking.amount for booking in told}),
        booking_date__range=(min(days) - _SPAN, max(days) + _SPAN),
    )
    return list(
        rows.exclude(statement__kind=statement.kind)
        .exclude(retellings__kind=statement.kind)
        .select_related("statement")
        .order_by("pk")
    )


# --- surely the same -------------------------------------------------------------------------------------


def is_same(one: BankTransaction, other: BankTransaction) -> bool:
    """Whether two tellings agree in all that both carry, and that is more than amount and day."""
    if not (_alike(one) == _alike(other) and _iban_fits(one, other)):
        return False
    for a, b in ((one.bank_reference, other.bank_reference), (one.end_to_end_id, other.end_to_end_id)):
        # MT940 cuts them at 16 characters.
        if a and b and not (a.upper().startswith(b.upper()) or b.upper().startswith(a.upper())):
            return False
    same_account = bool(one.counterparty_iban and other.counterparty_iban)
    texts, other_texts = _texts(one), _texts(other)
    if texts & other_texts:
        return same_account or texts & other_texts != {""} or bool(one.end_to_end_id and other.end_to_end_id)
    return same_account and any(_is_cut(a, b) or _is_cut(b, a) for a in texts for b in other_texts)


def _alike(booking: BankTransaction) -> Hashable:
    money = (booking.amount, booking.currency, booking.direction)
    return (*money, booking.is_reversal, booking.booking_date)


def _texts(booking: BankTransaction) -> set[str]:
    """What it says, as letters and digits. MT940 has the structured reference among the text, or not at all."""
    reference, text = _plain(booking.creditor_reference), _plain(booking.remittance_information)
    return {text, reference + text, text + reference} if text else {reference}


def _plain(text: str) -> str:
    """Formats differ in spaces, signs and umlauts: “Müller & Co.” is “MUELLER + CO”."""
    letters = re.sub(r"[^A-Z0-9]", "", unicodedata.normalize("NFKD", text).upper())
    return re.sub("([AOU])E", r"\1", letters)


def _is_cut(text: str, whole: str) -> bool:
    return len(text) >= _CUT and whole.startswith(text)


def _keys(booking: BankTransaction) -> Iterator[Hashable]:
    """Bookings that are the same have one of these in common."""
    return ((_alike(booking), beginning) for beginning in {text[:_CUT] for text in _texts(booking)})


def _surely(others: Sequence[BankTransaction]) -> dict[Hashable, list[BankTransaction]]:
    found: dict[Hashable, list[BankTransaction]] = defaultdict(list)
    for other in others:
        for key in _keys(other):
            found[key].append(other)
    return found


# --- perhaps the same ------------------------------------------------------------------------------------


class _ByNames:
    """Bookings by amount and the orders that they name: those that name another order are another booking."""

    def __init__(self, others: Sequence[BankTransaction]) -> None:
        self._others: dict[Hashable, list[BankTransaction]] = defaultdict(list)
        self._names: dict[Hashable, dict[str, list[BankTransaction]]] = {}
        for other in others:
            self._others[self._money(other)].append(other)

    def find(self, booking: BankTransaction) -> Twin | None:
        money = self._money(booking)
        if money not in self._others:
            return None
        named = self._by_name(money)
        names = _names(booking)
        near = [o for name in (*names, "") for o in named.get(name, ())] if names else self._others[money]
        other = next((o for o in near if _days_touch(booking, o) and _iban_fits(booking, o)), None)
        return Twin(other, sure=False) if other is not None else None

    def _by_name(self, money: Hashable) -> dict[str, list[BankTransaction]]:
        if money not in self._names:
            named: dict[str, list[BankTransaction]] = defaultdict(list)
            for other in self._others[money]:
                for name in _names(other) or {""}:
                    named[name].append(other)
            self._names[money] = named
        return self._names[money]

    @staticmethod
    def _money(booking: BankTransaction) -> Hashable:
        return booking.amount, booking.currency, booking.direction


def _names(booking: BankTransaction) -> set[str]:
    texts = (booking.creditor_reference, booking.end_to_end_id, booking.remittance_information)
    return {reference for reference, _ in find(filter(None, texts)).certain}


def _days_touch(one: BankTransaction, other: BankTransaction) -> bool:
    return one.booking_date in (other.booking_date, other.value_date) or one.value_date == other.booking_date


def _iban_fits(one: BankTransaction, other: BankTransaction) -> bool:
    return one.counterparty_iban in ("", other.counterparty_iban) or not other.counterparty_iban


def _text(booking: BankTransaction) -> str:
    texts = (booking.creditor_reference, booking.remittance_information, booking.counterparty_name)
    return " ".join(filter(None, texts))
