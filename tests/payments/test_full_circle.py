"""The full circle with another party's bank: orders, transfers, statements, shipped orders, refunds, and back.

`mockbank` is the bank. It knows nothing of us: it gets transfers from customers and our pain.001, and its
camt.053 statements are all that we hear of it.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from django.core.management import call_command
from django.utils import timezone
from mockbank.server import Config, make_server  # type: ignore[import-untyped]
from pytest_django.fixtures import Settings

from orders.models import Order
from orders.services import lifecycle
from orders.services.reconciling import money, stock
from payments.gateways import gateway
from payments.models import OutgoingTransfer, ReviewItem, TransferBatch
from payments.services import proving, refunding, reviewing, transfers
from payments.services.importing import Report, import_file
from payments.services.reviewing import Share
from tests import factories
from tests.orders import reconciling
from tests.orders.conftest import engine, mailbox, provider, provider_process
from tests.orders.engine import Engine
from tests.payments.paper_bank import ADA, BOB, IBAN, SETTINGS, payment, rf

__all__ = ["engine", "mailbox", "provider", "provider_process"]  # fixtures

TOTAL = 3998
OPENING = 1_000_00


class Bank:
    """The mock bank over HTTP, with the shop's account in it."""

    def __init__(self, address: str) -> None:
        self._http = httpx2.Client(base_url=address)
        account = {"id": "SHOP", "name": "Vorkasse", "iban": IBAN, "bic": "COBADEFFXXX", "balance": OPENING}
        self._send("POST", "/_mock/accounts", json=account)

    def _send(self, method: str, path: str, **body: Any) -> Any:
        answer = self._http.request(method, path, **body)
        assert answer.is_success, answer.text
        return answer.json()

    def transfer(self, amount: int, *, name: str = "Ada Lovelace", iban: str = ADA, **what: Any) -> None:
        """A customer's transfer: `reference` is structured, `note` is text, `wrap` is where the bank cuts it."""
        debtor = {"name": name, "iban": iban}
        body = {"account": "SHOP", "amount": amount, "debtor": debtor, **what}
        self._send("POST", "/_mock/credits", json=body)

    def execute(self, pain001: str) -> dict[str, Any]:
        """Hand a file in; the bank's answer."""
        answer: dict[str, Any] = self._send("POST", "/payments", content=pain001.encode())
        return answer

    def returns(self, end_to_end_id: str) -> None:
        """From now on the bank of this transfer's payee sends it back."""
        body = {
            "behaviour": "return-later",
            "parameters": {"days": 1, "end_to_end_id": end_to_end_id, "reason": "AC04"},
        }
        self._send("PATCH", "/_mock/accounts/SHOP", json=body)

    def next_day(self) -> list[bytes]:
        """The day ends; its statement."""
        self._send("POST", "/_mock/advance?days=1")
        sent = self._send("GET", "/_mock/mailbox?type=camt.053")
        return [message["body"].encode() for message in sent if IBAN in message["body"]]

    @property
    def balance(self) -> int:
        return int(self._send("GET", "/_mock/accounts/SHOP")["balance"])


@pytest.fixture
def bank() -> Iterator[Bank]:
    today = timezone.now().date()
    monday = today + timedelta(days=-today.weekday() % 7)
    server = make_server(Config(port=0, quiet=True, clock=f"{monday}T06:00"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Bank(f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Shop:
    """The shop on its engine."""

    def __init__(self, engine: Engine, bank: Bank) -> None:
        self.engine = engine
        self.bank = bank
        self.statements: list[bytes] = []

    def order(self, **changes: Any) -> Order:
        order = factories.place(**{"payment_method": "bank_transfer", "carrier": "manual", **changes})
        self.engine.deliver()
        self.until(order, "waiting")
        return order

    def until(self, order: Order, status: str) -> None:
        self.engine.until(lambda: order.sagas.latest("attempt").status == status, seconds=40)

    def day(self) -> list[Report]:
        """A day at the bank: its statement is imported, and what follows reaches the engine."""
        new = self.bank.next_day()
        self.statements += new
        reports = [import_file("statement.xml", io.BytesIO(file), "bank") for file in new]
        self.engine.deliver()
        return reports

    def send_refunds(self) -> TransferBatch:
        ready = OutgoingTransfer.objects.filter(state=OutgoingTransfer.State.READY)
        batch = transfers.make_batch(ready, "grace")
        self.bank.execute(batch.xml)
        transfers.mark_sent(batch, "grace")
        return batch

    def books(self) -> int:
        """The account's balance as our books have it."""
        sums = proving.whereabouts()
        return OPENING + sums.get(("credit", "EUR", "booked"), 0) - sums.get(("debit", "EUR", "booked"), 0)

    def kept(self) -> int:
        """What is ours of it by the orders' books."""
        return sum(payment(order).totals().kept for order in Order.objects.all())


@pytest.fixture
def shop(engine: Engine, bank: Bank, settings: Settings) -> Iterator[Shop]:
    for name, value in SETTINGS.items():
        setattr(settings, name, value)
    gateway.cache_clear()
    factories.product(on_hand=100)
    yield Shop(engine, bank)
    gateway.cache_clear()


def open_item(reason: str, amount: int) -> ReviewItem:
    return ReviewItem.objects.get(state="open", reason=reason, amount=amount)


@pytest.mark.timeout(240)
def test_from_the_order_to_the_refund_and_back_the_books_agree_to_the_cent(shop: Shop, bank: Bank) -> None:
    right, short, over, mangled, typo, twice, late, left_over, regretted = (
        shop.order(customer_name=name)
        for name in ["Right", "Short", "Over", "Mangled", "Typo", "Twice", "Late", "Left", "Regret"]
    )

    # The first day.
    bank.transfer(TOTAL, reference=rf(right))
    bank.transfer(TOTAL - 1000, reference=rf(short))
    bank.transfer(TOTAL + 500, reference=rf(over), iban=BOB, name="Bob")
    bank.transfer(TOTAL, note=f"my order of last Friday no {rf(mangled).lower()} thanks", wrap=35)
    bank.transfer(TOTAL, note=f"order {typo.number[:-1]}, the green one", name="Typo Tester", iban=BOB)
    bank.transfer(TOTAL, note=f"{twice.number}")
    bank.transfer(TOTAL, note=f"{twice.number}")
    bank.transfer(1500, reference=rf(left_over))
    bank.transfer(TOTAL, note=regretted.number)
    bank.transfer(12_34, note="greetings from grandmother", name="Grandmother")
    assert sum(report.new for _ in range(3) for report in shop.day()) == 10
    for order in (right, over, mangled, twice, regretted):
        shop.until(order, "completed")
    for order in (short, typo, late, left_over):
        assert order.sagas.get().status == "waiting"
    assert bank.balance == shop.books()

    # The same statement again adds nothing.
    assert import_file("again.xml", io.BytesIO(shop.statements[0]), "bank").new == 0

    # Staff look at what did not fit.
    found = ReviewItem.objects.get(state="open", transaction__counterparty_name="Typo Tester")
    reviewing.assign(found.pk, "grace", [Share(typo.number)])
    reviewing.pay_back(open_item("too_much", 500).pk, "grace", "too much")
    reviewing.pay_back(open_item("duplicate", TOTAL).pk, "grace", "paid twice")
    reviewing.discard(open_item("no_reference", 12_34).pk, "grace", "private")
    for order in (late, left_over):
        lifecycle.cancel(order.number, "grace", "ordered twice")
    shop.engine.deliver()
    shop.until(typo, "completed")
    for order in (late, left_over):
        shop.until(order, "cancelled")
    reviewing.pay_back(open_item("late", 1500).pk, "grace", "cancelled")
    asked = refunding.refund(payment(regretted).pk, 1000, "grace", "a broken cup", "form-1")
    refunding.perform(asked.key)

    # The second day: the rest, the late money, and our file.
    bank.transfer(1000, reference=rf(short))
    bank.transfer(TOTAL, reference=rf(late), name="Late Payer", iban=BOB)
    batch = shop.send_refunds()
    assert sum(t.amount for t in batch.transfers.all()) == 500 + TOTAL + 1500 + 1000
    shop.day()
    shop.until(short, "completed")
    for _ in range(3):
        shop.day()
    assert set(batch.transfers.values_list("state", flat=True)) == {"booked"}
    assert bank.balance == shop.books()

    # The late money goes back as well; its payee's bank returns it, and it is sent again.
    reviewing.pay_back(open_item("late", TOTAL).pk, "grace", "cancelled")
    transfer = OutgoingTransfer.objects.get(state="ready")
    bank.returns(transfer.end_to_end_id)
    shop.send_refunds()
    for _ in range(6):  # a weekend may be among them
        shop.day()
    transfer.refresh_from_db()
    assert transfer.state == "returned"
    reviewing.pay_back(
        open_item("refund_failed", TOTAL).pk, "grace", "the new account", name="Late Payer", iban=ADA
    )
    shop.send_refunds()
    for _ in range(4):
        shop.day()

    # All agree: the bank, our account books, the orders.
    assert not ReviewItem.objects.filter(state="open").exists()
    assert bank.balance == shop.books()
    assert bank.balance == OPENING + 7 * TOTAL - 1000 + 12_34
    assert shop.kept() == bank.balance - OPENING - 12_34
    assert [str(d) for d in proving.differences()] == []
    assert [
        reconciling.found(check)
        for check in (money.orders, money.statements, stock.reservations, stock.shipments)
    ] == [[]] * 4
    # And all statements once more change nothing.
    again = [import_file("again.xml", io.BytesIO(file), "bank") for file in shop.statements]
    assert sum(report.new for report in again) == 0
    assert sum(report.known for report in again) > 0


def test_the_command_reads_the_banks_files(shop: Shop, bank: Bank, tmp_path: Any) -> None:
    order = shop.order()
    bank.transfer(order.total, reference=rf(order))
    (tmp_path / "s.xml").write_bytes(bank.next_day()[0])
    call_command("import_statement", str(tmp_path / "s.xml"))
    shop.engine.deliver()
    shop.until(order, "completed")
