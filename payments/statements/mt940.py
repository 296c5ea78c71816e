"""MT940, as German banks fill it (DFÜ agreement, annex 3, chapter 8), line by line so that memory stays flat.

Not bankfile or mt-940: both lose a booking whose :61: names no transaction type (the next one overwrites it), do
not tell in which line an error is, and forget where the remittance text was cut; bankfile also throws
away account and balances when a file has two accounts. The tests compare with them where they are right.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import BinaryIO, NoReturn

from payments.statements import mt940_details
from payments.statements.balance import check
from payments.statements.spool import Spool
from payments.statements.types import OVER_NOTHING, Direction, LeftOut, Statement, StatementError, Transaction
from payments.statements.values import (
    UniqueReferences,
    Unreadable,
    german_iban,
    given,
    money,
    shortened,
    valid_iban,
)
from shop.kernel.money import Money

_LONGEST_LINE = 64 * 1024
_MOST_LINES = 1000
"""Of one field."""

# Only tags that exist: in :86: a line may well begin with other text between colons.
_TAG = re.compile(r":(20|21|25P?|28C?|60[FM]?|61|62[FM]?|64|65|86|13D?|34F|90[CD]|NS):", re.ASCII)
_BALANCE = re.compile(r"([CD])\d{6}([A-Z]{3})(\S+)", re.ASCII)
_BOOKING = re.compile(
    r"(?P<value>\d{6})(?P<entry>\d{4}|\s{4})?(?P<mark>R?[CD])(?P<funds>[A-Z])?\s?(?P<amount>[^A-Z/]*)"
    r"(?P<type>[A-Z][A-Z0-9]{3})?(?P<references>.*)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class _Field:
    tag: str
    line: int
    lines: list[str]

    @property
    def text(self) -> str:
        return "".join(self.lines).strip()


def read(name: str, file: BinaryIO, encoding: str) -> Iterator[Statement]:
    """The statements of a file. One that the bank spread over pages (:60M:, :62M:) comes as its pages."""
    return _Reader(name).statements(_fields(name, file, encoding))


def _fields(name: str, file: BinaryIO, encoding: str) -> Iterator[_Field]:
    """The tags with their lines. What stands before the first tag and between `-` and the next is an envelope."""
    text = io.TextIOWrapper(file, encoding, errors="replace")
    try:
        field: _Field | None = None
        number = 0
        while line := text.readline(_LONGEST_LINE):
            number += 1
            if len(line) == _LONGEST_LINE or (field is not None and len(field.lines) > _MOST_LINES):
                message = (
                    "the line or the field is far too long for MT940. Download the file from the bank again."
                )
                raise StatementError(name, f"line {number}", message)
            line = _printable(line)
            tag = _TAG.match(line)
            if tag:
                if field is not None:
                    yield field
                field = _Field(tag[1], number, [line[tag.end() :]])
            elif line.rstrip() == "-" or line.startswith("-}"):
                if field is not None:
                    yield field
                field = None
            elif field is not None:
                field.lines.append(line)
        if field is not None:
            yield field
    finally:
        with suppress(ValueError):  # the caller has closed the file
            text.detach()  # or it would close the caller's file


def _printable(line: str) -> str:
    """Without the line's end and control characters: PostgreSQL takes no NUL in a text."""
    return "".join(c for c in line if c >= " " and c != "\x7f") if not line.isprintable() else line


class _Reader:
    def __init__(self, name: str) -> None:
        self.name = name
        self.begin()

    def begin(self) -> None:
        """A new statement."""
        self.head: dict[str, str] = {}
        self.line = 0
        self.entry = 0
        self.opening: Money | None = None
        self.closing: Money | None = None
        self.booking: _Field | None = None
        self.details: list[str] = []
        self.booked: Counter[str] = Counter()
        self.left_out: Spool[LeftOut] = Spool()
        self.references = UniqueReferences()
        self.transactions: Spool[Transaction] = Spool()

    def fail(self, message: str) -> NoReturn:
        entry = f"entry {self.entry} (line {self.line})" if self.booking else f"line {self.line}"
        raise StatementError(self.name, entry, message)

    def statements(self, fields: Iterator[_Field]) -> Iterator[Statement]:
        for field in fields:
            if field.tag == "20" and self.head:
                yield self.finish()
                self.begin()
            self.take(field)
        yield self.finish()

    def take(self, field: _Field) -> None:
        if field.tag == "86":
            # After the closing balance it is about the statement as a whole.
            if self.booking is not None:
                self.details.extend(field.lines)
            return
        self.book()
        self.line = field.line
        self.head.setdefault(field.tag, field.text)
        if field.tag.startswith("60"):
            self.opening = self.balance(field.text)
        elif field.tag.startswith("62"):
            self.closing = self.balance(field.text)
        elif field.tag == "61":
            self.booking = field
            self.entry += 1

    def balance(self, text: str) -> Money:
        match = _BALANCE.fullmatch(text)
        if match is None:
            self.fail(f"{shortened(text)} is not a balance. Ask the bank for a correct file.")
        try:
            amount = money(match[3], match[2], mark=",")
        except Unreadable as error:
            self.fail(f"{error} Ask the bank for a correct file.")
        return amount if match[1] == "C" else -amount

    def book(self) -> None:
        """The :61: that waits for its :86:."""
        if self.booking is None:
            return
        if self.opening is None and "34F" in self.head:
            self.fail(
                "this is an interim report (MT942), whose bookings are not final. Import the day's MT940."
            )
        if self.opening is None:
            self.fail(
                "the opening balance (:60F:) before it is missing. Download the file from the bank again."
            )
        try:
            self.add(self.booking, mt940_details.read(self.details), self.opening.currency)
        except Unreadable as error:
            self.fail(f"{error} Ask the bank for a correct file.")
        self.booking = None
        self.details = []

    def add(self, booking: _Field, details: mt940_details.Details, currency: str) -> None:
        match = _BOOKING.fullmatch(booking.lines[0].strip())
        if match is None:
            raise Unreadable(f"the booking {shortened(booking.lines[0])} cannot be read.")
        amount = money(match["amount"].strip(), currency, mark=",")
        value_date = _value_date(match["value"])
        booking_date = _near(match["entry"], value_date) if (match["entry"] or "").strip() else value_date
        if not amount:
            self.left_out.append(
                LeftOut(
                    place=len(self.transactions) + len(self.left_out),
                    position=f"entry {self.entry}",
                    why=OVER_NOTHING,
                    signed=amount,
                    text=details.remittance_information,
                )
            )
            return
        # RC takes a credit back, so the money went out; RD the other way round.
        direction = Direction.CREDIT if match["mark"] in ("C", "RD") else Direction.DEBIT
        self.booked[currency] += amount.amount if direction is Direction.CREDIT else -amount.amount
        reversal = match["mark"].startswith("R") or details.is_return
        customer, _, bank = match["references"].partition("//")
        order = given(details.customer_reference) or ("" if customer.startswith("KREF") else given(customer))
        end_to_end_id = given(details.end_to_end_id) or (
            "" if direction is Direction.DEBIT else given(customer)
        )
        self.transactions.append(
            Transaction(
                position=f"entry {self.entry}",
                bank_reference=self.references.unique(given(bank)),
                entry_reference="",
                money=amount,
                direction=direction,
                is_reversal=reversal,
                booking_date=booking_date,
                value_date=value_date,
                end_to_end_id=end_to_end_id,
                creditor_reference="",
                remittance_lines=details.remittance_lines,
                remittance_information=details.remittance_information,
                counterparty_name=details.name,
                counterparty_iban=details.iban,
                transaction_code=details.code or (match["type"] or ""),
                return_reason=details.return_reason if reversal else "",
                original_end_to_end_id=end_to_end_id if reversal else "",
                message_id=order,
                payment_information_id=order,
                instruction_id="",
            )
        )

    def finish(self) -> Statement:
        self.book()
        if not self.head:
            raise StatementError(
                self.name, "", "this MT940 holds no statement. Ask the bank for a new export."
            )
        if self.opening is None or self.closing is None:
            which = "opening balance (:60F:)" if self.opening is None else "closing balance (:62F:)"
            self.fail(f"the {which} is missing; the file may be cut off. Download it from the bank again.")
        account = self.head.get("25") or self.head.get("25P", "")
        statement = Statement(
            file=self.name,
            kind="MT940",
            statement_id=self.head.get("20", ""),
            sequence=self.head.get("28C") or self.head.get("28", ""),
            account=account,
            account_iban=_account_iban(account),
            account_currency=self.opening.currency,
            opening=self.opening,
            closing=self.closing,
            transactions=self.transactions,
            left_out=self.left_out,
        )
        check(statement, self.booked)
        return statement


def _account_iban(account: str) -> str:
    """:25: is an IBAN or `bank code/account number`, with the currency behind it at some banks."""
    bare = re.sub(r"(?<=\d)\s?[A-Z]{3}$", "", account)
    german = re.fullmatch(r"(\d{8})/(\d{1,10})", bare, re.ASCII)
    if german:
        return german_iban(german[1], german[2])
    return valid_iban(bare.rpartition("/")[2])


def _value_date(text: str) -> date:
    year, month, day = int(text[:2]), int(text[2:4]), int(text[4:])
    return _day(2000 + year if year < 80 else 1900 + year, month, day, text)


def _near(text: str, value_date: date) -> date:
    """The day MMDD that is nearest to the value date: at the turn of the year the two are in different years."""
    years = (value_date.year - 1, value_date.year, value_date.year + 1)
    days = [_day(year, int(text[:2]), int(text[2:]), text) for year in years if year > 0]
    return min(days, key=lambda day: abs(day - value_date))


def _day(year: int, month: int, day: int, text: str) -> date:
    if month == 2 and day in (29, 30):
        # German banks count interest in months of 30 days and value on 30 February.
        day = 29 if year % 4 == 0 and (year % 100 or year % 400 == 0) else 28
    try:
        return date(year, month, day)
    except ValueError:
        raise Unreadable(f"{shortened(text)} is not a date.") from None
