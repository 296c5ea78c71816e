"""Bank statements into the books. A file may be imported again, or overlap another: each booking counts once.

A file is read whole before anything of it is written. Then its bookings are written and matched in batches, one
transaction each, with the statement's lines: after a crash, importing it again goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import islice
from typing import BinaryIO, TypeVar

import psycopg.errors
from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.db.models import F

from payments.models import BankStatement, BankTransaction, Retelling, StatementFile, StatementLine
from payments.services import matching
from payments.services.retelling import twins
from payments.statements import LeftOut, Statement, StatementError, Transaction, read
from shop.kernel.bulk import any_key, any_text, copy_in
from shop.kernel.money import Money

T = TypeVar("T")
Progress = Callable[[int, int], None]

BATCH = 500
ATTEMPTS = 3
SAME_BOOKING = timedelta(days=14)
"""Some banks count their references anew each year: the same one so far apart is another booking."""


@dataclass(slots=True)
class Tally:
    """How many bookings, and how much money, in minor units by currency."""

    count: int = 0
    sums: Counter[str] = field(default_factory=Counter)

    def add(self, money: Money) -> None:
        self.count += 1
        self.sums[money.currency] += money.amount

    def __str__(self) -> str:
        return " + ".join(str(Money(amount, currency)) for currency, amount in sorted(self.sums.items()))


@dataclass(slots=True)
class Report:
    """What came of a file. `outcomes` by word: matched, outgoing, foreign, or the reason for a review."""

    file: str
    statements: list[BankStatement] = field(default_factory=list)
    new: int = 0
    known: int = 0
    left_out: int = 0
    """Entries that are no bookings: pending, or for information."""
    outcomes: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))

    @property
    def total(self) -> int:
        return self.new + self.known


def import_file(
    name: str,
    file: BinaryIO,
    actor: str,
    progress: Progress | None = None,
    source: StatementFile | None = None,
) -> Report:
    """Write the bookings of a statement file and match them; `progress` gets how many of how many are done.

    With `source`, the file as it is kept, an import that was broken off goes on with the statements that it began.
    Raises `StatementError` before anything is written.
    """
    statements = list(read(name, file))  # kept on disk when they are long
    for statement in statements:
        _must_be_ours(statement)
    report = Report(name)
    total = sum(len(statement.transactions) for statement in statements)
    if progress is not None:
        progress(0, total)
    for place, statement in enumerate(statements):
        row = _row(statement, actor, source, place)
        _import(row, statement, actor, report, progress, total)
    return report


def our_ibans() -> list[str]:
    """The accounts whose statements are taken: that of BANK_IBAN, and BANK_OTHER_IBANS."""
    listed = [*settings.BANK_IBAN.split(","), *settings.BANK_OTHER_IBANS]
    return [iban for text in listed if (iban := re.sub(r"\s", "", text).upper())]


def _must_be_ours(statement: Statement) -> None:
    ours = our_ibans()
    if statement.account_iban in ours:
        return
    if not ours:
        raise StatementError(
            statement.file, "", "the shop has no bank account yet. Set BANK_IBAN to the account's IBAN."
        )
    whose = statement.account_iban or statement.account or "an account without an IBAN"
    raise StatementError(
        statement.file,
        f"statement {statement.statement_id}" if statement.statement_id else "",
        f"this is a statement of {whose}; the shop's account is {' or '.join(ours)}. Nothing was imported. "
        "Export the statement of the shop's account.",
    )


# --- one statement ---------------------------------------------------------------------------------------


@transaction.atomic
def _row(statement: Statement, actor: str, source: StatementFile | None, place: int) -> BankStatement:
    """The statement, with what was left out of it: made, or found as an import before this one made it."""
    begun = BankStatement.objects.filter(source=source, place=place).first() if source else None
    if begun is not None:
        return begun
    row = BankStatement.objects.create(
        source=source,
        place=place,
        kind=statement.kind[:30],
        statement_id=statement.statement_id[:80],
        account_iban=statement.account_iban,
        file_name=statement.file[:200],
        opening=statement.opening.amount if statement.opening is not None else None,
        closing=statement.closing.amount if statement.closing is not None else None,
        currency=statement.account_currency,
        transactions_in_file=len(statement.transactions),
        imported_by=actor,
    )
    for batch in _batches(statement.left_out, BATCH):
        StatementLine.objects.bulk_create(_line_left_out(row, left_out) for left_out in batch)
    return row


def _import(
    row: BankStatement,
    statement: Statement,
    actor: str,
    report: Report,
    progress: Progress | None,
    total: int,
) -> None:
    report.statements.append(row)
    report.left_out += statement.skipped
    for batch in _batches(_told(statement), BATCH):
        decisions = _write_down(row, batch, actor)
        report.new += len(decisions)
        report.known += len(batch) - len(decisions)
        for decision in decisions:
            for word, amount in decision.outcomes:
                report.outcomes[word].add(Money(amount, decision.booking.currency))
        if progress is not None:
            progress(report.total, total)
    row.refresh_from_db(fields=["transactions_new"])


@dataclass(frozen=True, slots=True)
class Told:
    """A booking as a statement tells it. `content` is what it says, and which of those that say the same it is."""

    transaction: Transaction
    iban: str
    content: str
    place: int
    """In the statement, among all that it tells."""

    @property
    def key(self) -> str:
        """The bank's reference where there is one: see `BankTransaction`."""
        return f"{self.iban}:{_fitting(self.transaction.bank_reference) or self.content}"

    @property
    def other_key(self) -> str:
        """For another booking under a reference that the bank has used before."""
        return f"{self.key}:{self.content}"

    def is_told_by(self, row: _Seen) -> bool:
        """Whether the row, which has this one's key, is the same booking."""
        if not self.transaction.bank_reference:
            return True
        told = self.transaction
        return (
            (row.direction, row.amount, row.currency)
            == (told.direction.value, told.money.amount, told.money.currency)
        ) and abs(row.booking_date - told.booking_date) <= SAME_BOOKING


@dataclass(slots=True)
class _Seen:
    """A booking in the books: the formats that told it, and the keys under which each did."""

    pk: int
    direction: str
    amount: int
    currency: str
    booking_date: date
    kinds: set[str] = field(default_factory=set)
    told_as: set[tuple[str, str]] = field(default_factory=set)


def _told(statement: Statement) -> Iterator[Told]:
    seen: Counter[str] = Counter()
    left_out = (line.place for line in statement.left_out)
    next_left_out = next(left_out, None)
    place = 0
    for told in statement.transactions:
        while place == next_left_out:
            place, next_left_out = place + 1, next(left_out, None)
        digest = _digest(told)
        seen[digest] += 1
        yield Told(told, statement.account_iban, f"{digest}:{seen[digest]}", place)
        place += 1


def _digest(told: Transaction) -> str:
    content = (
        told.booking_date.isoformat(),
        told.direction,
        told.is_reversal,
        told.money,
        told.end_to_end_id,
        told.creditor_reference,
        re.sub(r"\s", "", told.remittance_information),
        told.counterparty_name,
        told.counterparty_iban,
    )
    return hashlib.sha256(repr(content).encode()).hexdigest()[:40]


def _fitting(reference: str) -> str:
    """The reference, or its digest where the key has no room for it."""
    return reference if len(reference) <= 60 else hashlib.sha256(reference.encode()).hexdigest()[:40]


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


# --- one batch -------------------------------------------------------------------------------------------


def _write_down(row: BankStatement, batch: Sequence[Told], actor: str) -> list[matching.Decision]:
    """What is new of the batch, in one transaction. Others may hold what it needs in another order: try again."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with transaction.atomic():
                return _write_new(row, batch, actor)
        except OperationalError as error:
            if attempt == ATTEMPTS or not isinstance(error.__cause__, psycopg.errors.DeadlockDetected):
                raise
            time.sleep(0.1 * attempt)
    raise AssertionError("not reached")


def _write_new(row: BankStatement, batch: Sequence[Told], actor: str) -> list[matching.Decision]:
    _one_at_a_time(row.account_iban)
    unknown, retold, known = _unknown(row, batch)
    copy_in(retold)  # first: what they tell is no twin of another
    new, retold = [], []
    for (booking, told), twin in zip(unknown, twins(row, [booking for booking, _ in unknown]), strict=True):
        if twin is not None and twin.sure:
            retold.append(_retelling(row, twin.of.pk, booking.key))
            known.append((told, twin.of.pk))
        else:
            new.append((told, matching.New(booking, told.transaction, twin.question if twin else "")))
    copy_in(retold)
    copy_in([each.booking for _, each in new])
    _write_lines(
        row,
        [_line(row, told, pk, is_new=False) for told, pk in known]
        + [_line(row, told, each.booking.pk, is_new=True) for told, each in new],
    )
    decisions = matching.match([each for _, each in new], actor)
    BankStatement.objects.filter(pk=row.pk).update(transactions_new=F("transactions_new") + len(new))
    return decisions


def _one_at_a_time(iban: str) -> None:
    """Two imports for one account take turns, batch by batch."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"bank account: {iban}"])


def _unknown(
    row: BankStatement, batch: Sequence[Told]
) -> tuple[list[tuple[BankTransaction, Told]], list[Retelling], list[tuple[Told, int]]]:
    """What of the batch has no key that is in the books; what has one, and was told in other formats only; and
    the bookings' primary keys of all that has one.
    """
    seen = _seen(key for told in batch for key in (told.key, told.other_key))
    unknown, retold, here = [], [], []
    for told in batch:
        found = [*seen.get(told.key, ()), *seen.get(told.other_key, ())]
        known = _known(row, told, found)
        if known is None:
            unknown.append((_booking(told, told.other_key if found else told.key, row), told))
            continue
        here.append((told, known.pk))
        if row.kind not in known.kinds:
            used = any((row.kind, told.key) in other.told_as for other in found)
            retold.append(_retelling(row, known.pk, told.other_key if used else told.key))
            known.kinds.add(row.kind)
    return unknown, retold, here


def _known(row: BankStatement, told: Told, found: Sequence[_Seen]) -> _Seen | None:
    """The one of these bookings that it is: told so before in this format, or not yet told in it.

    Equal content may be another booking's, where the bank gives no reference.
    """
    same = [seen for seen in found if told.is_told_by(seen)]
    before = {(row.kind, told.key), (row.kind, told.other_key)}
    known = (seen for seen in same if before & seen.told_as)
    free = (seen for seen in same if row.kind not in seen.kinds or told.transaction.bank_reference)
    return next(known, None) or next(free, None)


def _seen(keys: Iterable[str]) -> dict[str, list[_Seen]]:
    """The bookings that are in the books under these keys, in whatever format."""
    wanted = list(keys)
    by_pk: dict[int, _Seen] = {}
    found: dict[str, list[_Seen]] = defaultdict(list)
    fields = ("direction", "amount", "currency", "booking_date")
    first = BankTransaction.objects.filter(key__in=any_text(wanted))
    again = Retelling.objects.filter(key__in=any_text(wanted))
    for key, kind, pk, *values in (
        *first.values_list("key", "statement__kind", "pk", *fields),
        *again.values_list("key", "kind", "transaction_id", *(f"transaction__{name}" for name in fields)),
    ):
        seen = by_pk.setdefault(pk, _Seen(pk, *values))
        seen.told_as.add((kind, key))
        found[key].append(seen)
    if by_pk:
        everywhere = BankTransaction.objects.filter(pk__in=any_key(by_pk))
        for pk, first_kind, kind in everywhere.values_list("pk", "statement__kind", "retellings__kind"):
            by_pk[pk].kinds |= {first_kind, kind}
    return found


def _retelling(row: BankStatement, transaction_pk: int, key: str) -> Retelling:
    return Retelling(transaction_id=transaction_pk, statement_id=row.pk, kind=row.kind, key=key)


def _booking(told: Told, key: str, row: BankStatement) -> BankTransaction:
    t = told.transaction
    return BankTransaction(
        key=key,
        statement_id=row.pk,
        position=t.position[:60],
        direction=t.direction.value,
        is_reversal=t.is_reversal,
        amount=t.money.amount,
        currency=t.money.currency,
        booking_date=t.booking_date,
        value_date=t.value_date,
        bank_reference=t.bank_reference[:120],
        end_to_end_id=t.end_to_end_id[:70],
        creditor_reference=t.creditor_reference[:70],
        remittance_information=t.remittance_information,
        counterparty_name=t.counterparty_name[:200],
        counterparty_iban=t.counterparty_iban[:34],
        return_reason=t.return_reason[:140],
        original_end_to_end_id=t.original_end_to_end_id[:70],
    )


def _write_lines(row: BankStatement, lines: Sequence[StatementLine]) -> None:
    """All but those of an import before this one that was broken off."""
    places = any_key(line.place for line in lines)
    there = set(row.lines.filter(place__in=places).values_list("place", flat=True))
    copy_in([line for line in lines if line.place not in there])


def _line(row: BankStatement, told: Told, booking_pk: int, *, is_new: bool) -> StatementLine:
    return StatementLine(
        statement=row,
        place=told.place,
        position=told.transaction.position[:60],
        transaction_id=booking_pk,
        is_new=is_new,
    )


def _line_left_out(row: BankStatement, told: LeftOut) -> StatementLine:
    return StatementLine(
        statement=row,
        place=told.place,
        position=told.position[:60],
        left_out=told.why[:200],
        amount=told.signed.amount,
        currency=told.signed.currency,
        text=told.text[:200],
    )
