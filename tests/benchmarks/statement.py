"""A camt.053 of 10,000 payments against 10,000 waiting orders: imported, matched, booked and handed to the sagas."""

from __future__ import annotations

import io
import resource
import time
from datetime import date
from typing import Any

from django.conf import settings

from orders.models import Order, Saga
from payments.gateways.base import EventOutcome, EventType
from payments.models import Payment, PaymentEvent, Receivable
from payments.references import creditor_reference
from payments.services.importing import import_file
from payments.statements import read
from shop.kernel.models import OutboxMessage
from tests import factories

UNIT = "transactions/s"
BASELINE_IS = "parsing the same file alone"
PRICE = 4690


def round(number: int, size: float) -> tuple[float, float, str]:
    count = max(10, int(10_000 * size))
    orders = _waiting_orders(number, count)
    file = _statement(number, orders)
    start = time.perf_counter()
    parsed = sum(len(statement.transactions) for statement in read("bench.xml", io.BytesIO(file)))
    alone = time.perf_counter() - start
    before, told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, _told()
    start = time.perf_counter()
    report = import_file("bench.xml", io.BytesIO(file), "benchmark")
    whole = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert parsed == report.new == _told() - told == count, (parsed, report.new, _told() - told, count)
    return count / whole, count / alone, f"{count} in {whole:.1f} s, {grown} MB more memory"


def _told() -> int:
    return OutboxMessage.objects.filter(name="confirm_payment").count()


def _waiting_orders(number: int, count: int) -> list[Order]:
    settings.PAYMENT_GATEWAYS["bank_transfer"] = "payments.gateways.bank_transfer.BankTransferGateway"
    first = 1_000_000 * (number + 1)
    numbers = range(first, first + count)
    orders = factories.many_waiting(numbers, total=PRICE, payment_method="bank_transfer")
    common: dict[str, Any] = {"amount": PRICE, "currency": "EUR"}
    Receivable.objects.bulk_create(
        Receivable(
            reference=creditor_reference(order.number, 1),
            merchant_reference=order.number,
            idempotency_key=f"{order.number}/1/payment_hold",
            **common,
        )
        for order in orders
    )
    payments = Payment.objects.bulk_create(
        Payment(
            gateway="bank_transfer",
            merchant_reference=order.number,
            idempotency_key=f"{order.number}/1/payment_hold",
            reference=creditor_reference(order.number, 1),
            **common,
        )
        for order in orders
    )
    PaymentEvent.objects.bulk_create(
        PaymentEvent(
            payment=payment,
            gateway="bank_transfer",
            type=EventType.AUTHORIZATION,
            outcome=EventOutcome.SUCCEEDED,
            psp_reference=payment.reference,
            occurred_at=order.created_at,
            source="call",
            **common,
        )
        for payment, order in zip(payments, orders, strict=True)
    )
    Saga.objects.bulk_create(
        Saga(order=order, attempt=1, status="waiting", payment=payment)
        for order, payment in zip(orders, payments, strict=True)
    )
    return orders


def _statement(number: int, orders: list[Order]) -> bytes:
    today = date(2026, 1, 5).isoformat()

    def balance(code: str, amount: int) -> str:
        return (
            f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp><Amt Ccy='EUR'>{amount / 100:.2f}</Amt>"
            f"<CdtDbtInd>CRDT</CdtDbtInd><Dt><Dt>{today}</Dt></Dt></Bal>"
        )

    entries = "".join(
        f"<Ntry><Amt Ccy='EUR'>{PRICE / 100:.2f}</Amt><CdtDbtInd>CRDT</CdtDbtInd><Sts>BOOK</Sts>"
        f"<BookgDt><Dt>{today}</Dt></BookgDt><ValDt><Dt>{today}</Dt></ValDt>"
        f"<AcctSvcrRef>BENCH{number}-{i}</AcctSvcrRef>"
        "<BkTxCd><Domn><Cd>PMNT</Cd><Fmly><Cd>RCDT</Cd><SubFmlyCd>ESCT</SubFmlyCd></Fmly></Domn></BkTxCd>"
        "<NtryDtls><TxDtls><Refs><EndToEndId>NOTPROVIDED</EndToEndId></Refs>"
        f"<RltdPties><Dbtr><Nm>Customer {i}</Nm></Dbtr>"
        "<DbtrAcct><Id><IBAN>DE02120300000000202051</IBAN></Id></DbtrAcct></RltdPties>"
        f"<RmtInf><Ustrd>{creditor_reference(order.number, 1)} thank you</Ustrd></RmtInf>"
        "</TxDtls></NtryDtls></Ntry>"
        for i, order in enumerate(orders)
    )
    return (
        "<?xml version='1.0' encoding='UTF-8'?>"
        "<Document xmlns='urn:iso:std:iso:20022:tech:xsd:camt.053.001.02'><BkToCstmrStmt>"
        f"<GrpHdr><MsgId>B{number}</MsgId><CreDtTm>{today}T00:00:00</CreDtTm></GrpHdr>"
        f"<Stmt><Id>S{number}</Id><CreDtTm>{today}T00:00:00</CreDtTm>"
        f"<Acct><Id><IBAN>{settings.BANK_IBAN}</IBAN></Id><Ccy>EUR</Ccy></Acct>"
        f"{balance('OPBD', 0)}{balance('CLBD', PRICE * len(orders))}{entries}</Stmt></BkToCstmrStmt></Document>"
    ).encode()
