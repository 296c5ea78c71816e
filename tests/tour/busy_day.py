"""What happens to the shop before the pictures are taken. All of it goes the way it goes in a real shop."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.drill.running_shop import RunningShop
from tests.payments.statements import bank

YEARS_OF_ORDERS = 2000
# In the order in which `seed_demo` takes them.
DEMO_ORDERS = (
    "paid", "confirmed by hand", "too late", "changed mind", "declined", "paid in part", "waiting", "waiting, too",
    "in advance", "dead letter",
)  # fmt: skip
OUR_IBAN = "DE89370400440532013000"  # that of `make run`


@dataclass(frozen=True)
class BusyDay:
    """`orders`: their numbers by what has become of them."""

    orders: dict[str, str]


def begin(shop: RunningShop) -> BusyDay:
    """Years of orders, demo orders to each end, orders by bank transfer, and a workflow that is gone."""
    _manage(shop, "seed_demo", "--orders", str(YEARS_OF_ORDERS))
    said = _manage(shop, "seed_demo").splitlines()
    numbers = dict.fromkeys(line.partition(":")[0] for line in said if line.startswith("ORD-"))
    orders = dict(zip(DEMO_ORDERS, numbers, strict=True))

    transfers = {
        "by transfer": _order(shop, "Grete Hermann", "grete@example.com", "bank_transfer"),
        "overpaid": _order(shop, "Otto Hahn", "otto@example.com", "bank_transfer"),
        "mistyped": _order(shop, "Maria Merian", "maria@example.com", "bank_transfer"),
    }
    orders |= transfers | {"lost": _order(shop, "Alan Turing", "alan@example.com", "sandbox")}
    shop.until([*transfers.values(), orders["lost"]], lambda order: order["saga"]["status"] == "waiting")
    with ThreadPoolExecutor(1) as aside:  # the browser's event loop runs in this thread
        aside.submit(shop.terminate, f"order-saga-{orders['lost']}", "The tour").result()
    found = shop.manage("reconcile")
    assert found.returncode == 1, found.stdout + found.stderr
    assert orders["lost"] in found.stdout
    file = shop.data_dir / "statement.xml"
    file.write_bytes(_statement(shop, orders))
    _manage(shop, "import_statement", str(file))
    shop.until([orders["by transfer"], orders["overpaid"]], lambda order: order["status"] == "completed")
    _manage(shop, "schedules", "trigger", "hourly-payment-batch", "--reason", "The tour")
    return BusyDay(orders)


def _manage(shop: RunningShop, *command: str) -> str:
    ran = shop.manage(*command)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def _order(shop: RunningShop, name: str, email: str, payment_method: str) -> str:
    address = {
        "name": name, "street": "Am Wall 7", "postal_code": "28195", "city": "Bremen", "country": "DE",
    }  # fmt: skip
    order = {
        "customer": {"name": name, "email": email},
        "shipping_address": address,
        "currency": "EUR",
        "payment_method": payment_method,
        "lines": [{"sku": "TEA-SENCHA", "quantity": 1}, {"sku": "TIMER", "quantity": 2}],
    }
    with shop.api() as api:
        number: str = api.post("/api/orders/", json=order).raise_for_status().json()["number"]
    return number


def _statement(shop: RunningShop, orders: dict[str, str]) -> bytes:
    """One transfer that fits, one of too much, one with a slip of the pen, one without any reference."""
    paid, over, slip = shop.orders([orders[name] for name in ("by transfer", "overpaid", "mistyped")])
    today = datetime.now(UTC).date().isoformat()

    def transfer(cents: int, text: str, name: str, iban: str) -> bank.Entry:
        part = bank.Part(lines=[text], debtor=(name, iban), end_to_end_id="NOTPROVIDED")
        return bank.Entry(
            amount=f"{cents // 100}.{cents % 100:02}", booked=today, valued=today, parts=[part],
            reference=f"{today}-{name[:2].upper()}",
        )  # fmt: skip

    wrong = slip["number"][:-2] + slip["number"][-1] + slip["number"][-2]
    return bank.camt(
        [
            transfer(paid["total"], paid["payment"]["reference"], "Grete Hermann", "DE02120300000000202051"),
            transfer(over["total"] + 1000, over["number"], "Otto Hahn", "DE02500105170137075030"),
            transfer(slip["total"], f"Bestellung {wrong}", "Maria Merian", "DE02100500000054540402"),
            transfer(2500, "Danke!", "Emmy Noether", "DE02300209000106531065"),
        ],
        iban=OUR_IBAN,
        identifier=f"{today}/1",
    ).encode()
