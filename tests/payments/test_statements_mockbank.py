"""Statements of another maker: `mock-bank` books transfers and payment orders, and we read what it reports."""

from __future__ import annotations

import io
import json
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from mockbank.server import Config, make_server  # type: ignore[import-untyped]

from payments.references import creditor_reference, find, format_creditor_reference
from payments.statements import Direction, Statement, read
from shop.kernel.money import Money

ACCOUNT, IBAN = "ACME", "NL41MOCK0000000001"


class Bank:
    """Its own time, and its own books."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, method: str, path: str, body: bytes | dict[str, Any] | None = None) -> Any:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        with urllib.request.urlopen(
            urllib.request.Request(self.url + path, data, method=method), timeout=10
        ) as answer:
            return json.load(answer)

    def statements(self, kind: str) -> list[Statement]:
        messages = self.call("GET", f"/_mock/mailbox?type={kind}")
        return [each for message in messages for each in read(kind, io.BytesIO(message["body"].encode()))]


@pytest.fixture
def bank() -> Iterator[Bank]:
    server = make_server(Config(port=0, quiet=True, clock="2026-03-02"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Bank(f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("wrap", [35, 70, 140])
def test_transfers_come_back_as_the_payers_sent_them(bank: Bank, wrap: int) -> None:
    reference = creditor_reference("ORD-100001", 1)
    notes = {
        4990: [
            "Liebe Leute, dies ist meine Zahlung " * 2 + format_creditor_reference(reference) + " bis bald"
        ],
        1000: ["ord 100002"],
        500: ["Bestellung 100003"],
    }
    for amount, note in notes.items():
        payer = {"name": "Erika Müller", "iban": "DE89370400440532013000"}
        credit = {"account": ACCOUNT, "amount": amount, "note": note, "wrap": wrap, "debtor": payer}
        bank.call("POST", "/_mock/credits", credit)
    bank.call("POST", "/_mock/credits", {"account": ACCOUNT, "amount": 4990, "reference": reference})
    notified = [t for each in bank.statements("camt.054") for t in each.transactions]
    bank.call("POST", "/_mock/advance?days=1")
    statement = next(each for each in bank.statements("camt.053") if each.account_iban == IBAN)

    one, two, three, four = statement.transactions
    assert find(one.reference_texts).certain == {("ORD-100001", 1)}
    assert (one.counterparty_name, one.counterparty_iban) == ("Erika Müller", "DE89370400440532013000")
    assert find(two.reference_texts).certain == {("ORD-100002", None)}
    assert find(three.reference_texts).proposals[0][0] == "ORD-100003"
    assert (four.creditor_reference, four.money) == (reference, Money(4990, "EUR"))
    assert {each.bank_reference for each in notified} == {
        each.bank_reference for each in statement.transactions
    }
    assert statement.opening is not None
    assert statement.closing == statement.opening + Money(11480, "EUR")


PAYMENT_ORDER = """<?xml version="1.0" encoding="UTF-8"?>
<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"><CstmrCdtTrfInitn>
<GrpHdr><MsgId>VK-1</MsgId><CreDtTm>2026-03-02T09:00:00</CreDtTm><NbOfTxs>1</NbOfTxs><CtrlSum>12.50</CtrlSum>
<InitgPty><Nm>Vorkasse GmbH</Nm></InitgPty></GrpHdr>
<PmtInf><PmtInfId>VK-REFUNDS-1</PmtInfId><PmtMtd>TRF</PmtMtd><NbOfTxs>1</NbOfTxs><CtrlSum>12.50</CtrlSum>
<ReqdExctnDt><Dt>2026-03-02</Dt></ReqdExctnDt><Dbtr><Nm>ACME Corporation</Nm></Dbtr>
<DbtrAcct><Id><IBAN>NL41MOCK0000000001</IBAN></Id></DbtrAcct>
<DbtrAgt><FinInstnId><BICFI>MOCKNL2A</BICFI></FinInstnId></DbtrAgt>
<CdtTrfTxInf><PmtId><InstrId>I-7</InstrId><EndToEndId>REFUND-7</EndToEndId></PmtId>
<Amt><InstdAmt Ccy="EUR">12.50</InstdAmt></Amt><Cdtr><Nm>Erika Müller</Nm></Cdtr>
<CdtrAcct><Id><IBAN>{iban}</IBAN></Id></CdtrAcct></CdtTrfTxInf></PmtInf>
</CstmrCdtTrfInitn></Document>"""


def test_our_own_payment_order_and_its_return_are_recognised(bank: Bank) -> None:
    customer = "DE89370400440532013000"
    bank.call("PATCH", f"/_mock/accounts/{ACCOUNT}", {"behaviour": "return-later"})
    bank.call("POST", "/payments", PAYMENT_ORDER.format(iban=customer).encode())
    bank.call("POST", "/_mock/advance?days=14")
    booked = [
        transaction
        for statement in bank.statements("camt.053")
        if statement.account_iban == IBAN
        for transaction in statement.transactions
    ]
    out = booked[0]
    assert (out.direction, out.money, out.is_reversal) == (Direction.DEBIT, Money(1250, "EUR"), False)
    assert (out.message_id, out.payment_information_id) == ("VK-1", "VK-REFUNDS-1")
    assert (out.instruction_id, out.end_to_end_id, out.counterparty_iban) == (
        "I-7",
        "REFUND-7",
        customer,
    )
    back = booked[1]
    assert (back.direction, back.money, back.is_reversal) == (Direction.CREDIT, Money(1250, "EUR"), True)
    assert (back.return_reason, back.original_end_to_end_id) == ("AC04", "REFUND-7")
