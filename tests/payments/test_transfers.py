"""Refunds on their way through the bank: an account, a file, and the statement that closes them."""

from __future__ import annotations

import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any

import httpx2
import mockbank  # type: ignore[import-untyped]
import pytest
from django.utils import timezone

from payments.banking.account import checked
from payments.banking.pain001 import Credit, pain001, sepa_text
from payments.gateways import gateway
from payments.models import OutgoingTransfer, Payment, PaymentEvent, ReviewItem, TransferBatch
from payments.services import transfers
from payments.services.transfers import Payee, TransferRefused
from shop.kernel.money import Money
from tests.payments.our_bank import ADA, BIC, GRACE, HOLDER, IBAN, arrives, captured, opened, our_bank

pytestmark = pytest.mark.django_db
DAY = date(2026, 1, 9)
PAIN = "{urn:iso:std:iso:20022:tech:xsd:pain.001.001.09}"


@pytest.fixture(autouse=True)
def bank(settings: Any) -> Iterator[None]:
    with our_bank(settings):
        yield


def refunded(payment: Payment, amount: int, key: str = "r") -> OutgoingTransfer:
    """A refund that was asked for."""
    reference = (
        gateway("bank_transfer").refund(payment.reference, Money(amount, payment.currency), key).reference
    )
    return OutgoingTransfer.objects.get(end_to_end_id=reference)


def exported(amount: int = 1000) -> tuple[Payment, OutgoingTransfer, TransferBatch]:
    payment = captured(amount=amount)
    transfer = refunded(payment, amount)
    batch = transfers.make_batch([transfer], "grace")
    transfer.refresh_from_db()
    return payment, transfer, batch


def why(call: Callable[[], object]) -> str:
    with pytest.raises(TransferRefused) as refusal:
        call()
    return str(refusal.value)


# --- the account -----------------------------------------------------------------------------------------


def test_account_that_staff_enter_makes_a_transfer_ready() -> None:
    payment = opened(amount=1000)
    gateway("bank_transfer").capture(payment.reference, Money(1000, "EUR"), "c")
    transfer = refunded(payment, 1000)
    assert transfer.state == "needs_account"
    transfers.set_account(transfer, " Ada  Lovelace ", "de02 1203 0000 0000 2020 51", "grace")
    transfer.refresh_from_db()
    assert (transfer.state, transfer.payee_name, transfer.payee_iban) == ("ready", "Ada Lovelace", ADA)
    assert transfer.account_set_by == "grace"


@pytest.mark.parametrize(
    ("name", "iban", "said"),
    [
        ("Ada", ADA[:-1] + "2", "not an IBAN"),
        ("Ada", "", "missing"),
        ("", ADA, "name"),
        ("x" * 71, ADA, "name"),
        ("Ada", IBAN, "own account"),
    ],
)
def test_account_that_cannot_be_is_refused(name: str, iban: str, said: str) -> None:
    transfer = refunded(captured(amount=1000), 1000)
    assert said in why(lambda: transfers.set_account(transfer, name, iban, "grace"))
    transfer.refresh_from_db()
    assert transfer.payee_iban == ADA


def test_account_of_what_is_in_a_file_stays() -> None:
    _, transfer, _ = exported()
    assert "in a batch" in why(lambda: transfers.set_account(transfer, "Eve", GRACE, "eve"))


# --- the file --------------------------------------------------------------------------------------------


def test_file_holds_each_transfer_with_our_end_to_end_id() -> None:
    one = refunded(captured("ORD-100001", 1000), 1000, "r")
    two = refunded(captured("ORD-100002", 2550), 2550, "s")
    batch = transfers.make_batch([two, one], "grace")
    root = ET.fromstring(batch.xml)
    header = root.find(f"{PAIN}CstmrCdtTrfInitn/{PAIN}GrpHdr")
    assert header is not None
    said = {name: header.findtext(f"{PAIN}{name}") for name in ("MsgId", "NbOfTxs", "CtrlSum")}
    assert said == {"MsgId": batch.message_id, "NbOfTxs": "2", "CtrlSum": "35.50"}
    assert {node.text for node in root.iter(f"{PAIN}EndToEndId")} == {one.end_to_end_id, two.end_to_end_id}
    assert [node.text for node in root.iter(f"{PAIN}InstdAmt")] == ["10.00", "25.50"]
    assert {node.text for node in root.iter(f"{PAIN}BtchBookg")} == {"false"}, (
        "each has its own statement line"
    )
    assert {node.text for node in root.iter(f"{PAIN}IBAN")} == {IBAN, ADA}
    assert {node.text for node in root.iter(f"{PAIN}BICFI")} == {BIC}
    assert {node.text for node in root.iter(f"{PAIN}Ustrd")} == {"Refund ORD-100001", "Refund ORD-100002"}
    assert set(batch.transfers.values_list("state", flat=True)) == {"exported"}
    assert (batch.created_by, batch.sent_at) == ("grace", None)


def test_names_are_written_in_letters_that_every_bank_takes() -> None:
    assert sepa_text("Jürgen Groß & Söhne – “Łódź”\nÉ ☃") == "Juergen Gross + Soehne - .Lodz. E ."
    ours = checked(IBAN, BIC, HOLDER, "")
    credit = Credit("VK-1", "Ä" * 70, ADA, Money(1, "EUR"), "ß" * 140)
    _, xml = pain001(ours, [credit], DAY)
    (name,) = [n.findtext(f"{PAIN}Nm") for n in ET.fromstring(xml).iter(f"{PAIN}Cdtr")]
    assert name == ("Ae" * 35)


@pytest.mark.parametrize("currency", ["CHF", "USD"])
def test_file_is_for_euros(currency: str) -> None:
    transfer = refunded(captured(amount=1000, currency=currency), 1000)
    assert "euros only" in why(lambda: transfers.make_batch([transfer], "grace"))


def test_file_takes_all_or_nothing() -> None:
    ready = refunded(captured("ORD-100001", 1000), 1000, "r")
    unknown = opened("ORD-100002", 500)
    gateway("bank_transfer").capture(unknown.reference, Money(500, "EUR"), "c")
    missing = refunded(unknown, 500, "s")
    assert "enter the payee's IBAN" in why(lambda: transfers.make_batch([ready, missing], "grace"))
    assert "Choose" in why(lambda: transfers.make_batch([], "grace"))
    ready.refresh_from_db()
    assert ready.state == "ready"
    assert not TransferBatch.objects.exists()


def test_transfer_is_in_one_file_only() -> None:
    _, transfer, _ = exported()
    assert "in a batch already" in why(lambda: transfers.make_batch([transfer], "grace"))


def test_file_is_sent_once_and_by_the_first_who_says_so() -> None:
    _, _, batch = exported()
    transfers.mark_sent(batch, "grace")
    transfers.mark_sent(batch, "eve")
    batch.refresh_from_db()
    assert batch.sent_by == "grace"


def test_file_that_the_bank_refused_frees_its_transfers() -> None:
    _, transfer, batch = exported()
    assert "why" in why(lambda: transfers.mark_refused(batch, "grace", " "))
    transfers.mark_refused(batch, "grace", "FF01")
    transfer.refresh_from_db()
    assert (transfer.state, transfer.batch) == ("ready", None)
    assert "refused" in why(lambda: transfers.mark_sent(batch, "grace"))
    assert transfers.make_batch([transfer], "grace").pk != batch.pk


def test_file_that_was_booked_from_was_not_refused() -> None:
    _, transfer, batch = exported()
    transfers.booked(transfer.end_to_end_id, "B1", transfer.money, DAY)
    assert "took it" in why(lambda: transfers.mark_refused(batch, "grace", "FF01"))


# --- the statement ---------------------------------------------------------------------------------------


def test_booking_closes_the_transfer_and_is_the_refund_in_the_books() -> None:
    payment, transfer, _ = exported()
    transfers.booked(f" {transfer.end_to_end_id.lower()} ", "BANK-7", transfer.money, DAY)
    transfers.booked(transfer.end_to_end_id, "BANK-7", transfer.money, DAY)
    transfer.refresh_from_db()
    assert (transfer.state, transfer.bank_reference) == ("booked", "BANK-7")
    event = PaymentEvent.objects.get(type="refund", outcome="succeeded")
    assert (event.psp_reference, event.raw_id, event.source) == (
        transfer.end_to_end_id,
        "BANK-7",
        "statement",
    )
    assert event.occurred_at.date() == DAY
    assert (payment.totals().refunded, payment.totals().status) == (1000, "refunded")
    assert not ReviewItem.objects.exists()


def test_refunds_that_share_a_bank_reference_both_count() -> None:
    payment = captured(amount=1000)
    for key, amount in (("r", 400), ("s", 600)):
        transfers.booked(refunded(payment, amount, key).end_to_end_id, "ONE-FILE", Money(amount, "EUR"), DAY)
    assert payment.totals().refunded == 1000


def test_debit_that_is_none_of_ours_changes_nothing() -> None:
    assert transfers.booked("RENT", "B1", Money(1000, "EUR"), DAY) is None
    assert transfers.returned("RENT", "AC04") is None
    assert not ReviewItem.objects.exists()


def test_booking_over_another_amount_is_for_a_person() -> None:
    payment, transfer, _ = exported()
    transfers.booked(transfer.end_to_end_id, "B1", Money(10_00_0, "EUR"), DAY)
    transfer.refresh_from_db()
    assert (transfer.state, payment.totals().refunded) == ("exported", 0)
    assert ReviewItem.objects.get().reason == "ambiguous"


def test_transfer_that_was_booked_twice_is_for_a_person() -> None:
    payment, transfer, _ = exported()
    for reference in ("B1", "B2", "B2"):
        transfers.booked(transfer.end_to_end_id, reference, transfer.money, DAY)
    assert payment.totals().refunded == 1000
    item = ReviewItem.objects.get()
    assert (item.reason, item.amount, item.payment) == ("duplicate", 1000, payment)


@pytest.mark.parametrize("order", ["booked first", "returned first"])
def test_returned_transfer_is_open_again_and_a_person_is_told(order: str) -> None:
    payment, transfer, _ = exported()
    steps: list[Callable[[], object]] = [
        lambda: transfers.booked(transfer.end_to_end_id, "B1", transfer.money, DAY),
        lambda: transfers.returned(transfer.end_to_end_id, "AC04", returned_on=DAY, bank_reference="B2"),
    ]
    for step in steps if order == "booked first" else reversed(steps):
        step()
        step()
    transfer.refresh_from_db()
    assert (transfer.state, transfer.return_reason) == ("returned", "AC04")
    assert payment.totals().refunded == 0
    item = ReviewItem.objects.get()
    assert (item.reason, item.amount, item.merchant_reference) == ("refund_failed", 1000, "ORD-100001")
    assert "AC04" in item.detail
    again = refunded(payment, 1000, "second")
    assert again.state == "needs_account", "not to the account that is closed"


def test_return_that_lost_a_fee_says_so() -> None:
    _, transfer, _ = exported()
    transfers.returned(transfer.end_to_end_id, "AC04", money=Money(995, "EUR"))
    assert "9.95" in ReviewItem.objects.get().detail


# --- money that was never captured -----------------------------------------------------------------------


def test_late_money_goes_back_without_touching_the_payments_totals() -> None:
    payment = opened(amount=1000)
    arrives(payment, 1000)
    gateway("bank_transfer").void(payment.reference, "v")
    money = Money(1000, "EUR")
    transfer = transfers.pay_back(money, "late/1", "shop", payment=payment)
    assert transfers.pay_back(money, "late/1", "shop", payment=payment) == transfer
    assert (transfer.receivable, transfer.payment, transfer.payee_iban) == (None, payment, ADA)
    assert transfers.paid_back(payment) == 1000
    transfers.booked(transfer.end_to_end_id, "B1", money, DAY)
    transfers.returned(transfer.end_to_end_id, "AC04")
    assert payment.totals().refunded == 0
    assert transfers.paid_back(payment) == 0
    assert ReviewItem.objects.get().reason == "refund_failed"


def test_money_of_nobodys_order_goes_to_the_payee_that_is_named() -> None:
    transfer = transfers.pay_back(
        Money(77, "EUR"), "item/1", "grace", payee=Payee("Eve", GRACE), text="Not for us"
    )
    assert (transfer.state, transfer.payee_iban, transfer.payment) == ("ready", GRACE, None)
    assert (transfer.requested_by, transfer.remittance_information) == ("grace", "Not for us")
    assert "before" in why(lambda: transfers.pay_back(Money(78, "EUR"), "item/1", "grace"))
    assert "nothing" in why(lambda: transfers.pay_back(Money(0, "EUR"), "item/2", "grace"))


# --- a bank ----------------------------------------------------------------------------------------------


@pytest.fixture
def mock_bank() -> Iterator[httpx2.Client]:
    """A bank that takes pain.001 files and holds our account."""
    server = mockbank.make_server(mockbank.Config(port=0, quiet=True))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with httpx2.Client(base_url=f"http://127.0.0.1:{server.server_address[1]}", trust_env=False) as client:
        account = {
            "id": "SHOP",
            "iban": IBAN,
            "name": "Shop",
            "currency": "EUR",
            "balance": 1_000_000,
            "bic": BIC,
        }
        answer = client.post("/_mock/accounts", json=account)
        assert answer.status_code == 201, answer.text
        yield client
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_bank_takes_our_file_and_books_each_transfer(mock_bank: httpx2.Client) -> None:
    rows = [refunded(captured(f"ORD-10000{n}", 1000 + n), 1000 + n, f"r{n}") for n in range(3)]
    batch = transfers.make_batch(rows, "grace")
    findings = mock_bank.post("/_mock/validate", content=batch.xml.encode()).text
    assert "0 findings" in findings, findings
    answer = mock_bank.post("/payments", content=batch.xml.encode())
    assert answer.status_code == 202, answer.text
    later = timezone.now().date() + timedelta(days=7)  # past any weekend
    mock_bank.post("/_mock/advance", params={"to": later.isoformat()}).raise_for_status()
    for seen in mock_bank.get("/_mock/payments").json():
        assert (seen["status"], bool(seen["booked_at"])) == ("accepted", True)
        money = Money(seen["amount"], seen["currency"])
        transfers.booked(
            seen["end_to_end_id"], f"{seen['id']}", money, date.fromisoformat(seen["settlement_date"])
        )
    assert {row.state for row in OutgoingTransfer.objects.all()} == {"booked"}
    spent = sum(row.amount for row in rows)
    assert mock_bank.get("/_mock/accounts/SHOP").json()["balance"] == 1_000_000 - spent
    assert sum(payment.totals().refunded for payment in Payment.objects.all()) == spent
    assert not ReviewItem.objects.exists()
