"""`manage.py import_orders`: what is taken, what is said about the rest, and that the same file adds nothing."""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connections
from pytest_django.fixtures import Settings

from orders.models import Mail, Order, OrderEvent
from orders.services.reconciling import sagas
from payments.gateways import gateway
from payments.gateways.base import RemotePayment
from shop.kernel.money import Money
from tests.orders.bulk_shop import BulkShop, line
from tests.orders.practice_shop import PracticeShop
from tests.orders.reconciling import found


@pytest.fixture
def bulk_shop(shop: PracticeShop, settings: Settings, tmp_path: Path) -> BulkShop:
    settings.CARRIER = "practice"
    made = BulkShop(shop.engine, shop.provider, shop.mailbox)
    made.folder = tmp_path
    return made


def opened_elsewhere(amount: int = 3998) -> RemotePayment:
    """A payment that the old shop has opened."""
    key = f"old-shop/{uuid4()}"
    return gateway("sandbox").authorize("OLD-1", Money(amount, "EUR"), key).payment


def test_the_same_file_again_adds_nothing(bulk_shop: BulkShop, capsys: pytest.CaptureFixture[str]) -> None:
    bulk_shop.import_lines(line("a"), line("b"), "")
    assert capsys.readouterr().out.split("\n")[1].split() == ["orders.jsonl", "2", "0", "0", "0"]
    bulk_shop.import_lines(line("a"), line("b"), line("c", lines=[{"sku": "TEA", "quantity": 1}]))
    assert capsys.readouterr().out.split("\n")[1].split() == ["orders.jsonl", "1", "0", "2", "0"]
    assert (Order.objects.filter(way="bulk").count(), bulk_shop.shelf()) == (3, (5, 5))
    assert len(bulk_shop.payments(Order.objects.earliest("id"))) == 1


def test_bad_lines_are_named_and_the_others_taken(
    bulk_shop: BulkShop, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        bulk_shop.import_lines(
            line("good"),
            "{nonsense",
            line("unknown", lines=[{"sku": "TEE", "quantity": 1}], surprise=1),
            line("unknown", lines=[{"sku": "TEE", "quantity": 1}]),
            line("good", notes="another body"),
            line("too many", lines=[{"sku": "TEA", "quantity": 4}]),
            "[]",
        )
    assert stopped.value.code == 1
    said = capsys.readouterr()
    number = Order.objects.get().number
    assert said.err.splitlines() == [
        "orders.jsonl, line 2: This is not JSON: key must be a string at line 1 column 2.",
        "orders.jsonl, line 3: surprise: There is no such field.",
        "orders.jsonl, line 4: lines.0.sku: There is no product 'TEE' for sale.",
        f"orders.jsonl, line 5: This Idempotency-Key was used for order {number} with another body.",
        "orders.jsonl, line 6: lines: Not enough stock: 4 × TEA were ordered, 3 are available.",
        "orders.jsonl, line 7: This must be an object.",
        "Not all orders could be taken. Mend their lines and import the file again.",
    ]
    assert said.out.split("\n")[1].split() == ["orders.jsonl", "1", "0", "0", "6"]
    assert bulk_shop.shelf() == (5, 2)


def test_a_file_that_is_not_there_stops_no_other(
    bulk_shop: BulkShop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bulk_shop.import_lines(line("a"))
    with pytest.raises(SystemExit):
        call_command("import_orders", str(tmp_path / "gone"), str(tmp_path / "orders.jsonl"))
    assert "No such file" in capsys.readouterr().err


def test_an_import_goes_on_where_it_stopped(bulk_shop: BulkShop, capsys: pytest.CaptureFixture[str]) -> None:
    bulk_shop.provider.faults(authorize={"error_rate": 1})
    with pytest.raises(SystemExit):
        bulk_shop.import_lines(line("a"))
    order = Order.objects.get()
    assert (bulk_shop.status(order), bulk_shop.shelf()) == ("placed", (5, 2))
    Order.objects.get().sagas.update(created_at="2020-01-01T00:00:00Z")
    (difference,) = found(sagas.orders)
    assert difference.about == order.number
    assert found(sagas.in_temporal, bulk_shop.engine.client) == []
    bulk_shop.provider.faults()
    capsys.readouterr()
    bulk_shop.import_lines(line("a"))
    assert capsys.readouterr().out.split("\n")[1].split() == ["orders.jsonl", "0", "1", "0", "0"]
    assert (bulk_shop.status(order), bulk_shop.shelf()) == ("awaiting_payment", (5, 2))
    assert found(sagas.orders) == []


def test_a_half_taken_order_can_be_cancelled(bulk_shop: BulkShop) -> None:
    bulk_shop.provider.faults(authorize={"error_rate": 1})
    with pytest.raises(SystemExit):
        bulk_shop.import_lines(line("a"))
    bulk_shop.provider.faults()
    order = Order.objects.get()
    bulk_shop.cancel(order)
    assert bulk_shop.end(order, skip=False)["compensated_steps"] == ["inventory"]
    assert bulk_shop.shelf() == (5, 0)


def test_an_order_whose_payment_is_refused_is_rolled_back(
    bulk_shop: BulkShop, capsys: pytest.CaptureFixture[str]
) -> None:
    bulk_shop.provider.faults(authorize={"refuse_rate": 1})
    with pytest.raises(SystemExit):
        bulk_shop.import_lines(line("a"))
    assert "The order is rolled back." in capsys.readouterr().err
    bulk_shop.engine.deliver()
    order = Order.objects.get()
    assert bulk_shop.end(order, skip=False)["status"] == "cancelled"
    assert (bulk_shop.status(order), bulk_shop.shelf()) == ("cancelled", (5, 0))


def test_two_imports_of_a_file_at_once_take_each_order_once(bulk_shop: BulkShop, tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    lines = [line(f"k{i}", lines=[{"sku": "TEA", "quantity": 1}]) for i in range(5)]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in lines))

    def run() -> None:
        try:
            # One that the other is just opening a payment for is refused by the provider.
            with contextlib.suppress(SystemExit):
                call_command("import_orders", str(path))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        for running in [pool.submit(run) for _ in range(2)]:
            running.result()
    call_command("import_orders", str(path))
    assert (Order.objects.count(), bulk_shop.shelf()) == (5, (5, 5))
    assert all(len(bulk_shop.payments(order)) == 1 for order in Order.objects.all())
    assert Mail.objects.filter(kind="received").count() == 5


# --- payments that exist already -------------------------------------------------------------------------


def test_a_payment_of_the_old_shop_is_taken_over_and_captured(bulk_shop: BulkShop) -> None:
    remote = opened_elsewhere()
    order = bulk_shop.imported(payment_reference=remote.payment_reference)
    bulk_shop.engine.deliver()
    payment = bulk_shop.saga(order).payment
    assert payment is not None
    assert payment.reference == remote.payment_reference
    assert bulk_shop.payments(order) == [], "no second payment was opened"
    assert not Mail.objects.exists(), "the old shop has told the customer how to pay"
    bulk_shop.pay(order)
    assert bulk_shop.check() == {"paid": 1, "fulfillment_started": 1}
    assert bulk_shop.end(order, skip=False)["status"] == "completed"
    assert gateway("sandbox").status(remote.payment_reference).captured == order.total


def test_one_that_is_paid_already_is_fulfilled_with_the_next_check(bulk_shop: BulkShop) -> None:
    remote = opened_elsewhere()
    with bulk_shop.provider.client() as client:
        client.post(f"/customer/{remote.payment_reference}/pay", json={}).raise_for_status()
    order = bulk_shop.imported(payment_reference=remote.payment_reference)
    assert bulk_shop.check() == {"paid": 1, "fulfillment_started": 1}
    assert bulk_shop.end(order, skip=False)["status"] == "completed"


def test_a_payment_that_does_not_fit_is_not_taken_over(
    bulk_shop: BulkShop, capsys: pytest.CaptureFixture[str]
) -> None:
    other, fits = opened_elsewhere(100), opened_elsewhere()
    bulk_shop.import_lines(line("first", payment_reference=fits.payment_reference))
    first = Order.objects.get().number
    with pytest.raises(SystemExit):
        bulk_shop.import_lines(
            line("a", payment_reference=other.payment_reference),
            line("b", payment_reference="pay_nowhere"),
            line("c", payment_reference=fits.payment_reference),
        )
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        "orders.jsonl, line 1: payment_reference: The payment is one of €1.00, and the order comes to €39.98."
    )
    assert "payment_reference: " in said[1]
    assert said[2].endswith(f"payment_reference: The payment is that of order {first}.")
    assert (Order.objects.count(), bulk_shop.shelf()) == (1, (5, 2))
    assert OrderEvent.objects.filter(kind="placed").count() == 1
