"""The staff's lists, searches and an order's page with 1,000,000 orders, against the same pages with 1,000.

Server time of a whole request, from the first middleware to the last byte, by Django's test client. Each page is asked
for `TIMES` times, each time for something else where it can be: another order, name, account, day. The ratio is that of
the mean of all pages' 95th percentiles.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from orders.models import Order, OrderLine, Shipment
from payments.models import BankTransaction
from shop import demo_orders

UNIT = "requests/s at p95"
BASELINE_IS = "the same pages with 1,000 orders"
FEW, TIMES = 1_000, 12

SERVED: dict[str, Any] = {
    "ALLOWED_HOSTS": ["testserver"],
    "SECURE_SSL_REDIRECT": False,
    "STORAGES": {  # no file is asked for
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    },
}
ORDERS, PAYMENTS = "/admin/orders/order/", "/admin/payments/payment/"
BOOKINGS, REVIEW = "/admin/payments/banktransaction/", "/admin/payments/reviewitem/"
TRANSFERS = "/admin/payments/outgoingtransfer/"
FEW_DATABASE = "few"
_made: set[float] = set()


def round(number: int, size: float) -> tuple[float, float, dict[str, Any]]:
    many = max(FEW, int(1_000_000 * size))
    if size not in _made:
        _make(many)
        _made.add(size)
    pages = compare(str(connection.settings_dict["NAME"]), FEW_DATABASE)
    mine, theirs = (_overall(pages, name) for name in ("p95", "p95_with_1000"))
    figures = {
        "orders": many,
        "worst_p95_ms": max(page["p95"] for page in pages.values()),
        "worst_ratio": max(page["ratio"] for page in pages.values()),
        "pages": pages,
    }
    return 1000 / mine, 1000 / theirs, figures


def _overall(pages: dict[str, dict[str, float]], name: str) -> float:
    return statistics.mean(page[name] for page in pages.values())


def compare(many: str, few: str) -> dict[str, dict[str, float]]:
    """Each page in both databases, one after the other, so that whatever else runs slows both. Times in ms."""
    found = {}
    with override_settings(**SERVED):
        asked = {}
        for database in (few, many):
            _use(database)
            asked[database] = (_staff(), _pages(), random.Random(7))
        for name in asked[many][1]:
            taken: dict[str, list[float]] = {few: [], many: []}
            queries = 0
            for _turn in range(3):
                for database in (few, many):
                    _use(database)
                    client, pages, chance = asked[database]
                    times, queries = _ask(client, pages[name], chance)
                    taken[database] += times
            ours, base = (_p95(taken[database]) for database in (many, few))
            found[name] = {
                "p50": _short(statistics.median(taken[many])),
                "p95": _short(ours),
                "p95_with_1000": _short(base),
                "ratio": _short(ours / base),
                "queries": queries,
            }
            print(f"\n  {name:60} {base:7.1f} {ours:7.1f} ms, {queries} queries", end="", flush=True)
    print()
    return found


def _ask(
    client: Client, address: Callable[[random.Random], str], chance: random.Random
) -> tuple[list[float], int]:
    """The ms of a few requests, after one that warms up and tells the number of queries."""
    urls = [address(chance) for _ in range(TIMES // 3 + 1)]
    with CaptureQueriesContext(connection) as captured:
        _get(client, urls[0])
    queries = sum("django_session" not in query["sql"] for query in captured.captured_queries)
    taken = []
    for url in urls[1:]:
        began = time.perf_counter()
        _get(client, url)
        taken.append((time.perf_counter() - began) * 1000)
    return taken, queries


def _p95(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=20, method="inclusive")[-1]


def _get(client: Client, url: str) -> None:
    answer = client.get(url)
    assert answer.status_code == 200, (url, answer.status_code)


def _short(number: float) -> float:
    return float(f"{number:.3g}")


# --- what is asked for -----------------------------------------------------------------------------------


def _pages() -> dict[str, Callable[[random.Random], str]]:
    """Addresses by what they are, each for a place in the books that chance chooses."""
    first, last = (Order.objects.order_by(order)[0].pk for order in ("id", "-id"))

    def order(chance: random.Random) -> Order:
        return Order.objects.filter(pk__gte=chance.randint(first, last)).order_by("pk")[0]

    bookings = [BankTransaction.objects.order_by(order)[0].pk for order in ("id", "-id")]

    def booking(chance: random.Random) -> BankTransaction:
        return BankTransaction.objects.filter(pk__gte=chance.randint(*bookings)).order_by("pk")[0]

    def parcel(chance: random.Random) -> Shipment:
        parcels = Shipment.objects.exclude(tracking_number="")
        low, high = (parcels.order_by(order)[0].pk for order in ("id", "-id"))
        return parcels.filter(pk__gte=chance.randint(low, high)).order_by("pk")[0]

    def fixed(url: str) -> Callable[[random.Random], str]:
        return lambda chance: url

    def search(where: str, what: Callable[[random.Random], object]) -> Callable[[random.Random], str]:
        return lambda chance: f"{where}?q={_quoted(what(chance))}"

    def day_ago(chance: random.Random) -> date:
        return (timezone.now() - timedelta(days=chance.randint(10, 700))).date()

    def week(where: str, name: str) -> Callable[[random.Random], str]:
        def address(chance: random.Random) -> str:
            day = day_ago(chance)
            return f"{where}?{name}_from={day}&{name}_to={day + timedelta(days=7)}"

        return address

    def surname(chance: random.Random) -> str:
        return chance.choice(demo_orders.LAST_NAMES)

    soon = timezone.now().date() + timedelta(days=3)
    return {
        "orders": fixed(f"{ORDERS}?q="),
        "orders, page 2": fixed(f"{ORDERS}?p=2"),
        "orders, the last page": lambda chance: f"{ORDERS}?p={_last_page()}",
        **{f"orders, {tab}": fixed(f"{ORDERS}?{tab}") for tab in _tabs("orders", "order")},
        "orders, placed in a week": week(ORDERS, "placed"),
        "orders, placed up to a day": lambda chance: f"{ORDERS}?placed_to={day_ago(chance)}",
        "orders, with a deadline until a day": fixed(f"{ORDERS}?deadline_to={soon}"),
        "orders, by number": fixed(f"{ORDERS}?o=1"),
        "search by order number": search(ORDERS, lambda chance: order(chance).number),
        "search by digits of it": search(ORDERS, lambda chance: order(chance).number[4:]),
        "search by RF reference": search(ORDERS, lambda chance: _spaced(_payment(order(chance)).reference)),
        "search by name": search(ORDERS, lambda chance: order(chance).customer_name),
        "search by surname": search(ORDERS, surname),
        "search by first name": search(ORDERS, lambda chance: chance.choice(demo_orders.FIRST_NAMES)),
        "search by two letters": search(ORDERS, lambda chance: surname(chance)[:2]),
        "search by mail": search(ORDERS, lambda chance: order(chance).customer_email),
        "search by part of mail": search(ORDERS, lambda chance: f"{surname(chance)}@exa"),
        "search by payer": search(ORDERS, lambda chance: booking(chance).counterparty_name),
        "search by IBAN": search(ORDERS, lambda chance: _spaced(booking(chance).counterparty_iban)),
        "search by amount": search(ORDERS, lambda chance: f"{order(chance).total / 100:.2f}"),
        "search by tracking number": search(ORDERS, lambda chance: parcel(chance).tracking_number),
        "search by SKU": search(ORDERS, lambda chance: chance.choice(_skus())),
        "search by what is not there": search(ORDERS, lambda chance: f"Quixote{chance.random()}"),
        "search by surname among the waiting": lambda chance: (
            f"{ORDERS}?status__exact=awaiting_payment&q={_quoted(surname(chance))}"
        ),
        "an order": lambda chance: f"{ORDERS}{order(chance).pk}/change/",
        "payments": fixed(f"{PAYMENTS}?q="),
        **{f"payments, {tab}": fixed(f"{PAYMENTS}?{tab}") for tab in _tabs("payments", "payment")},
        "payments opened in a week": week(PAYMENTS, "created"),
        "payments by RF reference": search(
            PAYMENTS, lambda chance: _spaced(_payment(order(chance)).reference)
        ),
        "payments by surname": search(PAYMENTS, surname),
        "bookings": fixed(f"{BOOKINGS}?q="),
        **{f"bookings, {tab}": fixed(f"{BOOKINGS}?{tab}") for tab in _tabs("payments", "banktransaction")},
        "bookings of a week": week(BOOKINGS, "booked"),
        "bookings by payer": search(BOOKINGS, lambda chance: booking(chance).counterparty_name),
        "bookings by surname": search(BOOKINGS, surname),
        "bookings by IBAN": search(BOOKINGS, lambda chance: booking(chance).counterparty_iban),
        "bookings by amount": search(BOOKINGS, lambda chance: f"{booking(chance).amount / 100:.2f}"),
        "bookings by order number": search(BOOKINGS, lambda chance: order(chance).number),
        "review items": fixed(f"{REVIEW}?q="),
        **{f"review items, {tab}": fixed(f"{REVIEW}?{tab}") for tab in _tabs("payments", "reviewitem")},
        "review items by surname": search(REVIEW, surname),
        "transfers": fixed(f"{TRANSFERS}?q="),
        **{f"transfers, {tab}": fixed(f"{TRANSFERS}?{tab}") for tab in _tabs("payments", "outgoingtransfer")},
        "transfers by surname": search(TRANSFERS, surname),
    }


def _tabs(app: str, model: str) -> list[str]:
    from django.apps import apps
    from django.contrib import admin

    registered: Any = admin.site.get_model_admin(apps.get_model(app, model))
    return [tab.query for tab in registered.tabs]


def _quoted(text: object) -> str:
    from urllib.parse import quote

    return quote(str(text), safe="")


def _spaced(text: str) -> str:
    return " ".join(text[i : i + 4] for i in range(0, len(text), 4))


def _payment(order: Order) -> Any:
    saga = order.saga
    assert saga
    assert saga.payment
    return saga.payment


def _skus() -> list[str]:
    return list(OrderLine.objects.order_by("pk").values_list("sku", flat=True)[:20])


def _last_page() -> int:
    return min(Order.objects.order_by()[:10_000].count(), 10_000) // 50


# --- the world -------------------------------------------------------------------------------------------


def _make(many: int) -> None:
    """A database with few orders, a copy of it, and the others into the first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "TRUNCATE orders_order, orders_product, payments_payment, payments_bankstatement, payments_receivable,"
            " payments_banktransaction CASCADE"
        )
    name = str(connection.settings_dict["NAME"])
    with override_settings(DEBUG=True):
        call_command("seed_demo", orders=FEW)
        _use("postgres")
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {FEW_DATABASE} WITH (FORCE)")
            cursor.execute(f"CREATE DATABASE {FEW_DATABASE} TEMPLATE {connection.ops.quote_name(name)}")
        _use(name)
        if many > FEW:
            call_command("seed_demo", orders=many - FEW)


def _use(database: str) -> None:
    if connection.settings_dict["NAME"] != database:
        connection.close()
        getattr(connection, "close_pool")()  # noqa: B009 - of PostgreSQL's only
        connection.settings_dict["NAME"] = database


def _staff() -> Client:
    user, _new = User.objects.get_or_create(username="grace", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(user)
    return client
