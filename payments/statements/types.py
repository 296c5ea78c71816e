"""What a bank file says, in the shop's words. Every reader gives these, whatever the format."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from django.utils.translation import gettext_noop

from payments.statements.spool import Spool
from shop.kernel.money import Money


class StatementError(ValueError):
    """A file that cannot be imported, as a sentence: which file, where in it, what is wrong, what to do."""

    def __init__(self, file: str, position: str, message: str) -> None:
        super().__init__(file, position, message)
        self.file = file
        self.position = position
        self.message = message

    def __str__(self) -> str:
        return f"{', '.join(filter(None, (self.file, self.position)))}: {self.message}"


class Direction(StrEnum):
    """Which way the money went, seen from the shop's account."""

    CREDIT = "credit"
    DEBIT = "debit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """One booked movement. Texts are empty where the bank says nothing; `NOTPROVIDED` and `NONREF` are nothing.

    The transactions of a statement always add up to what its entries booked: a batch entry whose details
    do not add up to it stays one transaction.
    """

    position: str
    """Where it is in the file, for people: `entry 3, transaction 2`."""
    bank_reference: str
    """The bank's own reference of this booking; no two of one statement are alike. Empty when it gives none."""
    entry_reference: str
    """camt `NtryRef`. Unique in one statement at best; Swiss banks put the account here: never a key."""
    money: Money
    """Always positive, in the currency of the account."""
    direction: Direction
    is_reversal: bool
    """An earlier booking goes back: a reversal (RvslInd, RC, RD) or the return of a payment."""
    booking_date: date
    value_date: date
    end_to_end_id: str
    creditor_reference: str
    """The structured reference (ISO 11649 and others), as written by the payer."""
    remittance_lines: tuple[str, ...]
    """The remittance text as the bank cut it."""
    remittance_information: str
    """The lines as one text, with no space where a line was cut in mid-word."""
    counterparty_name: str
    counterparty_iban: str
    transaction_code: str
    """ISO 20022 `domain/family/subfamily`, or the German business transaction code (GVC)."""
    return_reason: str
    """ISO 20022 code such as AC04, or what the bank says instead."""
    original_end_to_end_id: str
    """Of a reversal: the end-to-end id of the payment that goes back."""
    message_id: str
    payment_information_id: str
    instruction_id: str
    """These three name the payment order (pain.001) that caused a booking. MT940 has one field for the first two."""

    @property
    def signed(self) -> Money:
        """The change of the account's balance."""
        return self.money if self.direction is Direction.CREDIT else -self.money

    @property
    def reference_texts(self) -> tuple[str, ...]:
        """The texts in which a payer may have named what is paid; for `payments.references.find`."""
        texts = (self.creditor_reference, self.end_to_end_id, self.remittance_information)
        return tuple(text for text in texts if text)


OVER_NOTHING = gettext_noop("It is over nothing.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """What a statement tells without having booked it: pending, for information, or over nothing."""

    place: int
    """Among all that the statement tells, from 0."""
    position: str
    why: str
    """A sentence."""
    signed: Money
    """What it would change of the account's balance."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Statement:
    """The movements of one account over a period. Its balances, where it has both, have been checked."""

    file: str
    """The file's name; of a file in an archive, both names."""
    kind: str
    """`camt.053.001.08`, `camt.054.001.08`, `MT940`."""
    statement_id: str
    """As the bank names it. Many banks write the same word in every MT940 statement."""
    sequence: str
    account: str
    """The account as the file names it."""
    account_iban: str
    """Upper case, no spaces. German bank code and account number are made into their IBAN. Empty if unknown."""
    account_currency: str
    opening: Money | None
    closing: Money | None
    """Booked balances, negative when overdrawn; camt.054 has none."""
    transactions: Spool[Transaction]
    """Sized, and may be iterated again and again; kept on disk when there are many."""
    left_out: Spool[LeftOut]

    @property
    def skipped(self) -> int:
        """How many were left out."""
        return len(self.left_out)
