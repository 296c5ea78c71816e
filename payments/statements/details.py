"""One transaction of a camt entry (`TxDtls`), read while the entry is still being parsed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from payments.statements.elements import Element, amount, code, every, has, is_debit, text
from payments.statements.values import given, joined, valid_iban
from shop.kernel.money import Money

_RETURNS = frozenset({"RRTN", "RPCR", "UPDD", "PRDD", "RCDD"})
"""Bank transaction subfamilies of payments that go back (ISO 20022 external code set)."""


@dataclass(frozen=True, slots=True)
class Party:
    name: str
    iban: str

    def __bool__(self) -> bool:
        return bool(self.name or self.iban)


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    amount: Money | None = None
    """Without sign; None where the bank names none."""
    is_debit: bool | None = None
    """None where the entry's direction is meant."""
    is_return: bool = False
    bank_reference: str = ""
    end_to_end_id: str = ""
    creditor_reference: str = ""
    remittance_lines: tuple[str, ...] = ()
    debtor: Party = Party("", "")
    creditor: Party = Party("", "")
    code: str = ""
    return_reason: str = ""
    message_id: str = ""
    payment_information_id: str = ""
    instruction_id: str = ""

    def change(self, entry: Money) -> Money | None:
        """What it brought to the account, where it says so in the currency of the entry."""
        if self.amount is None or self.amount.currency != entry.currency:
            return None
        debit = entry.amount < 0 if self.is_debit is None else self.is_debit
        return -self.amount if debit else self.amount


def read(element: Element) -> Details:
    batch = element.getparent()
    assert batch is not None  # the root is the document
    own_code = code(element)
    return Details(
        # From version 03 on an amount of its own; before that only the details of the entry's amount.
        amount=amount(element) or amount(element, "AmtDtls/TxAmt/Amt"),
        is_debit=is_debit(element),
        is_return=has(element, "RtrInf") or is_return(own_code),
        bank_reference=given(text(element, "Refs/AcctSvcrRef")),
        end_to_end_id=given(text(element, "Refs/EndToEndId")),
        creditor_reference=given(
            text(element, "RmtInf/Strd/CdtrRefInf/Ref", "RmtInf/Strd/CdtrRefInf/CdtrRef")
        ),
        remittance_lines=tuple(line.text or "" for line in every(element, "RmtInf/Ustrd")),
        debtor=_party(element, "Dbtr"),
        creditor=_party(element, "Cdtr"),
        code=own_code,
        # Version 01 says RtrRsn.
        return_reason=text(
            element,
            *(f"RtrInf/{name}" for name in ("Rsn/Cd", "Rsn/Prtry", "RtrRsn/Cd", "RtrRsn/Prtry", "AddtlInf")),
        ),
        message_id=given(text(element, "Refs/MsgId") or text(batch, "Btch/MsgId")),
        payment_information_id=given(text(element, "Refs/PmtInfId") or text(batch, "Btch/PmtInfId")),
        instruction_id=given(text(element, "Refs/InstrId")),
    )


def is_return(bank_transaction_code: str) -> bool:
    return bank_transaction_code.rpartition("/")[2] in _RETURNS


def _party(element: Element, role: str) -> Party:
    # From version 07 on a party is a choice of person or bank.
    path = f"RltdPties/{role}"
    name = text(element, f"{path}/Nm", f"{path}/Pty/Nm", f"{path}/Agt/FinInstnId/Nm")
    return Party(name, valid_iban(text(element, f"{path}Acct/Id/IBAN", f"{path}Acct/Id/Othr/Id")))


def split(entry: Money, details: Sequence[Details]) -> list[tuple[Money, Details]]:
    """What an entry's booking consists of. The parts add up to `entry`, always."""
    if not details:
        return [(entry, Details())]
    if len(details) == 1:
        # What was booked counts, not what was instructed: charges and conversion lie between the two.
        return [(entry, details[0])]
    parts = [(part.change(entry), part) for part in details]
    known = [(change, part) for change, part in parts if change is not None]
    if len(known) == len(details) and sum(change.amount for change, _ in known) == entry.amount:
        return known
    return [(entry, _merged(details))]


def _merged(details: Sequence[Details]) -> Details:
    """Nobody can say what each brought: one movement, with every text in which a reference may be."""
    texts = [(part.creditor_reference, part.end_to_end_id, joined(part.remittance_lines)) for part in details]
    messages = {part.message_id for part in details}
    batches = {part.payment_information_id for part in details}
    return Details(
        is_return=any(part.is_return for part in details),
        # Kept apart by a mark, or the end of one text and the number that begins the next would read as one.
        remittance_lines=tuple(f"{text}; " for part in texts for text in part if text),
        message_id=messages.pop() if len(messages) == 1 else "",
        payment_information_id=batches.pop() if len(batches) == 1 else "",
    )
