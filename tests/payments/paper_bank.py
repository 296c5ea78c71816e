"""A bank on paper: its account of the shop, and the camt.053 files that it makes of what a test lets happen."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from xml.sax.saxutils import escape

from orders.models import Order, Saga
from orders.services import steps
from orders.services.audit import StepRef
from orders.services.ending import finish_saga
from orders.services.status import move_order, move_saga
from orders.workflows.types import SagaEnd, SagaResult, Status
from payments.models import Payment, ReviewItem
from payments.references import creditor_reference
from payments.services import proving
from payments.services.importing import Report, import_file
from shop.kernel.models import OutboxMessage
from shop.kernel.money import Money
from tests import factories

IBAN = "DE89370400440532013000"
ADA = "DE02120300000000202051"
BOB = "DE02500105170137075030"
TODAY = date(2026, 3, 2)
SETTINGS = {
    "BANK_IBAN": IBAN,
    "BANK_BIC": "COBADEFFXXX",
    "BANK_ACCOUNT_HOLDER": "Vorkasse Practice Shop",
    "BANK_NAME": "",
    "BANK_OTHER_IBANS": [],
    "REFUND_LATE_MONEY": False,
    "ACCEPT_DIFFERENCE": 100,
    "PAYMENT_GATEWAYS": {
        "bank_transfer": "payments.gateways.bank_transfer.BankTransferGateway",
        "sandbox": "payments.gateways.sandbox.SandboxGateway",
    },
}


@dataclass(frozen=True)
class Entry:
    """One booking: minor units, positive in, negative out."""

    amount: int
    text: str = ""
    reference: str = ""  # the bank's
    end_to_end_id: str = ""
    creditor_reference: str = ""
    name: str = "Ada Lovelace"
    iban: str = ADA
    is_reversal: bool = False
    reason: str = ""
    on: date = TODAY
    status: str = "BOOK"

    def xml(self, currency: str) -> str:
        indicator = "CRDT" if self.amount > 0 else "DBIT"
        amount = f'<Amt Ccy="{currency}">{Money(abs(self.amount), currency).decimal}</Amt>'
        # A return keeps the parties of the payment that goes back.
        party = "Dbtr" if (self.amount > 0) != self.is_reversal else "Cdtr"
        structured = (
            f"<Strd><CdtrRefInf><Ref>{self.creditor_reference}</Ref></CdtrRefInf></Strd>"
            if self.creditor_reference
            else ""
        )
        text = f"<Ustrd>{escape(self.text)}</Ustrd>" if self.text else ""
        remittance = f"<RmtInf>{text}{structured}</RmtInf>" if text or structured else ""
        return (
            f"<Ntry>{amount}<CdtDbtInd>{indicator}</CdtDbtInd>"
            + ("<RvslInd>true</RvslInd>" if self.is_reversal else "")
            + f"<Sts><Cd>{self.status}</Cd></Sts><BookgDt><Dt>{self.on}</Dt></BookgDt><ValDt><Dt>{self.on}</Dt></ValDt>"
            + (f"<AcctSvcrRef>{self.reference}</AcctSvcrRef>" if self.reference else "")
            + "<BkTxCd><Domn><Cd>PMNT</Cd><Fmly><Cd>RCDT</Cd><SubFmlyCd>ESCT</SubFmlyCd></Fmly></Domn></BkTxCd>"
            + f"<NtryDtls><TxDtls><Refs><EndToEndId>{self.end_to_end_id or 'NOTPROVIDED'}</EndToEndId></Refs>"
            + f"{amount}<CdtDbtInd>{indicator}</CdtDbtInd>"
            + f"<RltdPties><{party}><Pty><Nm>{escape(self.name)}</Nm></Pty></{party}>"
            + (f"<{party}Acct><Id><IBAN>{self.iban}</IBAN></Id></{party}Acct>" if self.iban else "")
            + f"</RltdPties>{remittance}"
            + (f"<RtrInf><Rsn><Cd>{self.reason}</Cd></Rsn></RtrInf>" if self.reason else "")
            + "</TxDtls></NtryDtls></Ntry>"
        )


@dataclass
class PaperBank:
    """The shop's account. Each statement has the entries of one `statement` call, and balances that add up."""

    iban: str = IBAN
    currency: str = "EUR"
    balance: int = 0
    statements: int = 0
    entries: list[Entry] = field(default_factory=list)

    def statement(self, *entries: Entry, numbered: bool = True) -> bytes:
        """A camt.053 file. The bank gives references to entries that have none, if it is one that does so."""
        self.statements += 1
        made = []
        for entry in entries:
            self.entries.append(entry)
            if numbered and not entry.reference:
                entry = replace(entry, reference=f"BK{len(self.entries):08}")
            made.append(entry)
        opening = self.balance
        self.balance += sum(entry.amount for entry in made if entry.status == "BOOK")
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt>'
            f"<GrpHdr><MsgId>M{self.statements}</MsgId><CreDtTm>{TODAY}T20:00:00</CreDtTm></GrpHdr>"
            f"<Stmt><Id>S{self.statements}</Id><ElctrncSeqNb>{self.statements}</ElctrncSeqNb>"
            f"<CreDtTm>{TODAY}T20:00:00</CreDtTm>"
            f"<Acct><Id><IBAN>{self.iban}</IBAN></Id><Ccy>{self.currency}</Ccy></Acct>"
            + self._balance("OPBD", opening)
            + self._balance("CLBD", self.balance)
            + "".join(entry.xml(self.currency) for entry in made)
            + "</Stmt></BkToCstmrStmt></Document>"
        ).encode()

    def _balance(self, code: str, amount: int) -> str:
        money = Money(abs(amount), self.currency)
        return (
            f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>"
            f'<Amt Ccy="{self.currency}">{money.decimal}</Amt>'
            f"<CdtDbtInd>{'CRDT' if amount >= 0 else 'DBIT'}</CdtDbtInd><Dt><Dt>{TODAY}</Dt></Dt></Bal>"
        )


def load(file: bytes, name: str = "statement.xml") -> Report:
    """Import a statement file."""
    return import_file(name, io.BytesIO(file), "test")


def waiting(*lines: tuple[str, int], **changes: Any) -> Order:
    """An order that waits for a bank transfer."""
    order = factories.place(*lines, **{"payment_method": "bank_transfer", **changes})
    return wait(order)


def wait(order: Order) -> Order:
    """Its latest attempt has got to where it waits for the money."""
    attempt = Saga.objects.filter(order=order).latest("attempt").attempt
    steps.reserve_inventory(StepRef(order.number, attempt, "inventory"))
    deadline = datetime.now(UTC) + timedelta(days=14)
    steps.create_payment_hold(StepRef(order.number, attempt, "payment_hold"), deadline)
    order.refresh_from_db()
    return order


def rf(order: Order, attempt: int = 1) -> str:
    return creditor_reference(order.number, attempt)


def pays(order: Order, amount: int | None = None, **changes: Any) -> Entry:
    """The customer's transfer for the order, with its creditor reference."""
    return Entry(order.total if amount is None else amount, **{"creditor_reference": rf(order), **changes})


def payment(order: Order) -> Payment:
    found = Saga.objects.filter(order=order).latest("attempt").payment
    assert found is not None
    return found


# --- what the books say ----------------------------------------------------------------------------------


def confirmations(order: Order) -> int:
    return OutboxMessage.objects.filter(workflow_id=order.workflow_id, name="confirm_payment").count()


def received(order: Order) -> int:
    return payment(order).totals().received


def item() -> ReviewItem:
    """The one open item."""
    return ReviewItem.objects.get(state="open")


def nothing_in_review() -> bool:
    return not ReviewItem.objects.filter(state="open").exists()


def where(direction: str = "credit") -> dict[str, int]:
    """How much of the booked money is where."""
    return {
        purpose: amount
        for (way, _currency, purpose), amount in proving.whereabouts().items()
        if way == direction and amount and purpose != "booked"
    }


def end(order: Order, status: str) -> None:
    """The saga's end, without its engine."""
    saga = Saga.objects.filter(order=order).latest("attempt")
    if status == Status.CANCELLED:
        move_saga(saga, "compensating")
        move_order(saga.order, "rolling_back")
    else:
        move_saga(saga, "running")
        for step in ("paid", "shipped"):
            move_order(saga.order, step)
    finish_saga(SagaEnd(order.number, saga.attempt, SagaResult(Status(status), order.number)))
