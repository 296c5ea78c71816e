"""camt.053 (statement) and camt.054 (notification), every version, entry by entry so that memory stays flat.

lxml and not the generated classes of pyiso20022: for 10,000 entries xsdata takes 6.4 s and 58 MB for the
objects of one version, this under 2 s and next to nothing; and one reader serves all versions, because those
differ in few places (each marked). The tests have the generated classes judge what a version allows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date
from typing import BinaryIO, NoReturn

from django.utils.translation import gettext_noop
from lxml import etree  # type: ignore[import-untyped]

from payments.statements import details
from payments.statements.balance import check
from payments.statements.elements import Element, change, code, day, every, has, text
from payments.statements.spool import Spool
from payments.statements.types import OVER_NOTHING, Direction, LeftOut, Statement, StatementError, Transaction
from payments.statements.values import UniqueReferences, Unreadable, given, joined, valid_iban
from shop.kernel.money import Money

_CHUNK = 32 * 1024
_LONGEST_GAP = 16 * 1024 * 1024
"""Bytes without an entry, or a transaction of one, after which a file is no statement. It bounds the memory."""


def read(name: str, file: BinaryIO, kind: str, namespace: str, encoding: str | None) -> Iterator[Statement]:
    """The statements of a message in `namespace`. `encoding` overrules what the file says of itself."""
    return _Reader(name, file, kind, namespace).statements(encoding)


class _Reader:
    def __init__(self, name: str, file: BinaryIO, kind: str, namespace: str) -> None:
        self.name = name
        self.file = file
        self.kind = kind
        self.namespace = namespace
        self.gap = 0
        self.begin()

    def begin(self) -> None:
        """A new statement."""
        self.entry = 0
        self.line = 0
        self.own_iban: str | None = None
        self.details: list[details.Details] = []
        self.booked: Counter[str] = Counter()
        self.left_out: Spool[LeftOut] = Spool()
        self.references = UniqueReferences()
        self.transactions: Spool[Transaction] = Spool()

    def read(self, _size: int = -1) -> bytes:
        """lxml reads the file through this."""
        data = self.file.read(_CHUNK)
        self.gap += len(data)
        if self.gap > _LONGEST_GAP:
            self.fail("", "it goes on for 16 MB without an entry. Ask the bank for a new export.")
        return data

    def fail(self, position: str, message: str) -> NoReturn:
        raise StatementError(self.name, position, message)

    def statements(self, encoding: str | None) -> Iterator[Statement]:
        entry, transaction = (f"{{{self.namespace}}}{name}" for name in ("Ntry", "TxDtls"))
        statements = tuple(f"{{{self.namespace}}}{name}" for name in ("Stmt", "Ntfctn"))
        found = False
        try:
            for event, element in etree.iterparse(
                self,
                events=("start", "end"),
                tag=(*statements, entry, transaction),
                encoding=encoding,
                resolve_entities=False,
                no_network=True,
                load_dtd=False,
                remove_comments=True,
                remove_pis=True,
            ):
                self.gap = 0
                if event == "start":
                    if element.tag == entry:
                        self.entry += 1
                        self.line = element.sourceline or 0
                        self.details = []
                elif element.tag == transaction:
                    self.details.append(details.read(element))
                    _forget(element)
                elif element.tag == entry:
                    self.add_entry(element)
                    _forget(element)
                else:
                    found = True
                    yield self.finish(element)
                    _forget(element)
                    self.begin()
        except etree.XMLSyntaxError as error:
            after = f"line {error.lineno}" + (f", after entry {self.entry}" if self.entry else "")
            self.fail(after, "the XML is broken or cut off there. Download the file from the bank again.")
        except Unreadable as error:
            where = f"entry {self.entry} (line {self.line})" if self.entry else "the head of the statement"
            self.fail(where, f"{error} Ask the bank for a correct file.")
        if not found:
            self.fail("", f"this {self.kind} holds no statement. Ask the bank for a new export.")

    def add_entry(self, entry: Element) -> None:
        statement = entry.getparent()
        assert statement is not None  # the root is the document
        # The status is a text up to version 06, then a choice of a code and the bank's own word.
        status = text(entry, "Sts/Cd", "Sts")
        if not status and not has(entry, "Sts/Prtry"):
            raise Unreadable("the status (Sts) is missing.")
        booked = change(entry)
        if status != "BOOK" or not booked:
            parts = details.split(booked, self.details)
            self.leave_out(f"entry {self.entry}", _not_booked(status), booked, *(part for _, part in parts))
            return
        self.booked[booked.currency] += booked.amount
        value_date = day(entry, "ValDt")
        booking_date = day(entry, "BookgDt") or value_date or day(statement, "CreDtTm")
        if booking_date is None:
            raise Unreadable("the booking date (BookgDt) is missing.")
        parts = details.split(booked, self.details)
        for number, (money, part) in enumerate(parts, start=1):
            if not money:
                self.leave_out(f"entry {self.entry}, transaction {number}", OVER_NOTHING, money, part)
            else:
                self.add(
                    entry,
                    part,
                    money,
                    number if len(parts) > 1 else 0,
                    booking_date,
                    value_date or booking_date,
                )

    def add(
        self,
        entry: Element,
        part: details.Details,
        money: Money,
        number: int,
        booking_date: date,
        value_date: date,
    ) -> None:
        """One transaction; `number` is its place in a batch, 0 where it is all of the entry."""
        own_code = part.code or code(entry)
        reversal = part.is_return or details.is_return(own_code) or text(entry, "RvslInd") in ("true", "1")
        # In a reversal too CdtDbtInd is the way that the money went (ISO 20022, ReversalIndicator).
        direction = Direction.CREDIT if money.amount > 0 else Direction.DEBIT
        party = self.counterparty(entry, part, paid_by_us=(direction is Direction.DEBIT) != reversal)
        self.transactions.append(
            Transaction(
                position=f"entry {self.entry}" + (f", transaction {number}" if number else ""),
                bank_reference=self.references.unique(
                    given(text(entry, "AcctSvcrRef")), part.bank_reference, number
                ),
                entry_reference=given(text(entry, "NtryRef")),
                money=Money(abs(money.amount), money.currency),
                direction=direction,
                is_reversal=reversal,
                booking_date=booking_date,
                value_date=value_date,
                end_to_end_id=part.end_to_end_id,
                creditor_reference=part.creditor_reference,
                remittance_lines=part.remittance_lines,
                remittance_information=joined(part.remittance_lines),
                counterparty_name=party.name,
                counterparty_iban=party.iban,
                transaction_code=own_code,
                return_reason=part.return_reason,
                original_end_to_end_id=part.end_to_end_id if reversal else "",
                # Version 01 has the batch beside the transactions, later ones above them.
                message_id=part.message_id or given(text(entry, "NtryDtls/Btch/MsgId", "Btch/MsgId")),
                payment_information_id=part.payment_information_id
                or given(text(entry, "NtryDtls/Btch/PmtInfId", "Btch/PmtInfId")),
                instruction_id=part.instruction_id,
            )
        )

    def leave_out(self, position: str, why: str, signed: Money, *parts: details.Details) -> None:
        self.left_out.append(
            LeftOut(
                place=len(self.transactions) + len(self.left_out),
                position=position,
                why=why,
                signed=signed,
                text=" ".join(filter(None, (joined(part.remittance_lines) for part in parts))),
            )
        )

    def counterparty(self, entry: Element, part: details.Details, *, paid_by_us: bool) -> details.Party:
        """The party that is not the shop. Of a payment that goes back, banks keep the parties or swap them."""
        if self.own_iban is None:
            statement = entry.getparent()
            assert statement is not None  # the root is the document
            self.own_iban = _account_iban(statement)
        parties = (part.creditor, part.debtor) if paid_by_us else (part.debtor, part.creditor)
        others = (party for party in parties if party and (not party.iban or party.iban != self.own_iban))
        return next(others, details.Party("", ""))

    def finish(self, element: Element) -> Statement:
        self.entry = 0  # for errors: what follows is no entry's
        balances: dict[str, list[Money]] = {}
        for balance in every(element, "Bal"):
            # Version 01 has the code one level higher.
            balance_type = text(balance, "Tp/CdOrPrtry/Cd", "Tp/Cd")
            if balance_type in ("OPBD", "PRCD", "ITBD", "CLBD"):
                balances.setdefault(balance_type, []).append(change(balance))
        opening, closing = _opening_and_closing(balances)
        known = opening or closing
        currency = text(element, "Acct/Ccy") or (
            known.currency if known is not None else next(iter(self.booked), "")
        )
        statement = Statement(
            file=self.name,
            kind=self.kind,
            statement_id=text(element, "Id"),
            sequence=text(element, "ElctrncSeqNb", "LglSeqNb"),
            account=text(element, "Acct/Id/IBAN", "Acct/Id/Othr/Id", "Acct/Id/PrtryAcct/Id"),
            account_iban=_account_iban(element),
            account_currency=currency,
            opening=opening,
            closing=closing,
            transactions=self.transactions,
            left_out=self.left_out,
        )
        check(statement, self.booked)
        return statement


def _not_booked(status: str) -> str:
    """Why an entry does not count (ISO 20022, external entry status code)."""
    return {
        "BOOK": OVER_NOTHING,
        "PDNG": gettext_noop("It is pending: the bank has not booked it yet."),
        "FUTR": gettext_noop("It lies in the future: the bank has not booked it yet."),
        "INFO": gettext_noop("It is for information only: nothing was booked."),
    }.get(status, f"Its status is {status or 'not BOOK'}: the bank has not booked it.")


def _account_iban(statement: Element) -> str:
    return valid_iban(text(statement, "Acct/Id/IBAN", "Acct/Id/Othr/Id", "Acct/Id/PrtryAcct/Id"))


def _opening_and_closing(balances: dict[str, list[Money]]) -> tuple[Money | None, Money | None]:
    """A statement in pages has its own balances on the first and the last, interim ones (ITBD) between."""
    opening = next(iter(balances.get("OPBD") or balances.get("PRCD") or []), None)
    closing = next(iter(balances.get("CLBD") or []), None)
    interim = balances.get("ITBD", [])
    if opening is None and (len(interim) > 1 or (interim and closing is not None)):
        opening = interim.pop(0)
    if closing is None and interim and opening is not None:
        closing = interim[-1]
    return opening, closing


def _forget(element: Element) -> None:
    """Its content and its predecessor of the same name; itself it must stay until the parser has left it."""
    element.clear(keep_tail=True)
    previous, parent = element.getprevious(), element.getparent()
    if previous is not None and parent is not None and previous.tag == element.tag:
        parent.remove(previous)
