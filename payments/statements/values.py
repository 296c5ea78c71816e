"""Amounts, dates and texts as bank files write them. What is not exactly one of them is `Unreadable`, never a guess."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import date
from functools import cache

from stdnum import iban

from shop.kernel.money import Money, decimals, is_currency


class Unreadable(Exception):
    """A value that is not what its place demands; the message is a sentence. The reader adds where it stands."""


_AMOUNT = re.compile(r"(\d{1,18})(?:[.,](\d{0,18}))?", re.ASCII)
_DATE = re.compile(r"(\d{4}-\d\d-\d\d)(?:T[\d:.]+)?(?:Z|[+-]\d\d:\d\d)?", re.ASCII)
_NOTHING = frozenset({"NOTPROVIDED", "NONREF", "NOTAVAILABLE"})
_CUTS = frozenset({27, 35, 65, 70, 140})
"""Line lengths at which banks cut remittance text: MT940 subfield, DTA and paper, MT940 line, two of 35, SEPA."""


def money(text: str, currency: str, mark: str) -> Money:
    """`text` in `currency`; `mark` is the decimal mark of the format (ISO 20022 has a point, SWIFT a comma)."""
    match = _AMOUNT.fullmatch(text)
    if match is None or (mark not in text and not text.isdigit()):
        raise Unreadable(f"the amount {shortened(text)} is not a number.")
    places = _decimals(currency)
    fraction = (match[2] or "").rstrip("0")
    if len(fraction) > places:
        raise Unreadable(f"the amount {shortened(text)} has more decimals than {currency} has.")
    return Money(int(match[1] + fraction.ljust(places, "0")), currency)


@cache
def _decimals(currency: str) -> int:
    if not (re.fullmatch("[A-Z]{3}", currency) and is_currency(currency)):
        raise Unreadable(f"{shortened(currency)} is not a currency.")
    return decimals(currency)


def iso_date(text: str) -> date:
    """The day of an ISO date or date and time, as the bank wrote it: no time zone moves it."""
    match = _DATE.fullmatch(text)
    try:
        return date.fromisoformat(match[1] if match else "")
    except ValueError:
        raise Unreadable(f"{shortened(text)} is not a date.") from None


def given(text: str) -> str:
    """`text` without the words by which banks say that there is none."""
    text = text.strip()
    return "" if text.upper() in _NOTHING else text


def shortened(text: str) -> str:
    """In quotes, for a sentence."""
    return repr(text if len(text) <= 40 else text[:40] + "…")


def joined(lines: Sequence[str], lengths: Sequence[int] | None = None) -> str:
    """The lines as one text. One that is exactly as long as banks cut them goes on without a space.

    `lengths` are those of the bank's lines, where something was taken off them.
    """
    text = ""
    for line, before in zip(lines, (0, *(lengths or map(len, lines))), strict=False):
        goes_on = before in _CUTS or not text or text[-1].isspace() or line[:1].isspace()
        text += line if goes_on else f" {line}"
    return text.strip()


def valid_iban(text: str) -> str:
    """The IBAN in `text`, compact; empty when it is none."""
    compact = re.sub(r"\s", "", text).upper()
    # Its form alone: check digits are the bank's, and the shop's own account is compared as a whole.
    return compact if re.fullmatch(r"[A-Z]{2}\d\d[A-Z0-9]{11,30}", compact) else ""


def german_iban(bank_code: str, account: str) -> str:
    """The IBAN of a German bank code and account number, by the standard rule.

    A few banks number accounts by rules of their own (Bundesbank, IBAN rules): theirs differ.
    """
    basic = f"{bank_code}{account.zfill(10)}"
    return f"DE{iban.calc_check_digits(f'DE00{basic}')}{basic}"


class UniqueReferences:
    """Bank references of one statement. Banks repeat one: in a batch, or for a booking and its charges.

    A statement lists no booking twice, so equal references are told apart by their order, which is the same
    whenever the statement is read again. Else the second of two payments would count as known and be lost.
    """

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def unique(self, of_entry: str, of_transaction: str = "", number: int = 0) -> str:
        """`number` is the place in a batch, 0 where there is none. Empty where the bank gives no reference."""
        reference = of_transaction or of_entry
        if number and of_entry and of_transaction in ("", of_entry):
            reference = f"{of_entry}/{number}"
        if not reference:
            return ""
        self._seen[reference] += 1
        count = self._seen[reference]
        return reference if count == 1 else f"{reference}#{count}"
