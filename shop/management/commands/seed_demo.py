"""`manage.py seed_demo`: a shop to look at. Every order goes its way through the real engine and provider.

With `--orders N` that many more are written into the books, by the database itself (`shop.demo_orders`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx2
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from orders.models import Order, Product, Saga
from orders.services import lifecycle
from orders.services.placing import Address, LineDraft, OrderDraft, place_order
from shop import demo_orders

S = Saga.Status
PATIENCE = 120  # seconds for one order to get where it should

PRODUCTS = [
    # SKU, name, price in cents, on hand
    ("TEA-ASSAM", "Assam, 250 g", 1290, 120),
    ("TEA-SENCHA", "Sencha, 100 g", 1890, 60),
    ("POT-CAST", "Cast-iron teapot, 0.8 l", 6900, 25),
    ("CUP-SET", "Six cups, stoneware", 4200, 40),
    ("TIMER", "Sand timer, 3 minutes", 890, 200),
    ("KETTLE", "Kettle with thermometer", 8950, 3),
]
PEOPLE = [
    ("Ada Lovelace", "ada@example.com", "Torstraße 1", "10119", "Berlin", "en"),
    ("Jürgen Groß", "juergen@example.com", "Am Wall 7", "28195", "Bremen", "de"),
    ("Zoë Müller", "zoe@example.com", "Lange Reihe 22", "20099", "Hamburg", "en"),
    ("Emil Noether", "emil@example.com", "Bismarckstraße 5", "91054", "Erlangen", "en"),
    ("Konrad Zuse", "konrad@example.com", "Lindenallee 13", "36088", "Hünfeld", "de"),
]


class Command(BaseCommand):
    help = "Make demo products and run demo orders through the real engine, each to a different end."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--orders", type=int, metavar="N", help="write N orders of two years into the books instead"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        many = options["orders"]
        if not settings.DEBUG or not (many or settings.SANDBOX_URL):
            raise CommandError("Demo data are for a practice shop: they need DEBUG on and SANDBOX_URL.")
        self._products()
        if many:
            demo_orders.make(many, self.stdout.write)
        else:
            self._each_to_its_end()
        self.stdout.write("Demo data are ready.")

    def _products(self) -> None:
        for sku, name, price, on_hand in PRODUCTS:
            Product.objects.get_or_create(
                sku=sku, defaults={"name": name, "price": price, "on_hand": on_hand}
            )

    def _each_to_its_end(self) -> None:
        settings.SECOND_PERSON_ABOVE = 0  # the demo is one person
        self._paid_by_the_customer()
        self._confirmed_by_hand()
        self._timed_out()
        self._cancelled()
        self._declined()
        self._waiting()
        self._dead_letter()

    # Each may have been done, or half done, by an earlier run that was interrupted.

    def _paid_by_the_customer(self) -> None:
        order = self._place("paid", 0, ("TEA-ASSAM", 2), ("CUP-SET", 1))
        if self._waits(order):
            self._customer(order, "pay")
        self._until(order, S.COMPLETED)

    def _confirmed_by_hand(self) -> None:
        order = self._place("by hand", 1, ("POT-CAST", 1))
        if self._waits(order):
            lifecycle.confirm_payment(
                order.number,
                "demo",
                "Seen on the bank statement.",
                amount=order.total_money,
                received_on=timezone.now().date(),
                bank_reference="2026-0815",
            )
        self._until(order, S.COMPLETED)

    def _timed_out(self) -> None:
        order = self._place("too late", 2, ("KETTLE", 1), payment_window=timedelta(seconds=2))
        self._until(order, S.CANCELLED)

    def _cancelled(self) -> None:
        order = self._place("changed mind", 3, ("TIMER", 3))
        if self._waits(order):
            lifecycle.cancel(order.number, "demo", "The customer has changed their mind.")
        self._until(order, S.CANCELLED)

    def _declined(self) -> None:
        order = self._place("declined", 4, ("TEA-SENCHA", 2))
        if self._waits(order):
            self._customer(order, "decline")
        self._until(order, S.CANCELLED)

    def _waiting(self) -> None:
        orders = [self._place(f"waiting {i}", i, ("TEA-SENCHA", 1), ("TIMER", i + 1)) for i in range(3)]
        if "bank_transfer" in settings.PAYMENT_GATEWAYS:
            orders.append(self._place("in advance", 4, ("TEA-ASSAM", 3), payment_method="bank_transfer"))
        for order in orders:
            self._until(order, S.WAITING, S.CANCELLED)
        if not orders[0].received:
            self._customer(orders[0], "pay", {"amount": 1000})

    def _dead_letter(self) -> None:
        """An order whose parcel is refused after the capture, while the provider refuses refunds."""
        order = self._place("dead letter", 1, ("CUP-SET", 1), carrier="practice")
        if self._waits(order):
            with self._faults({"create_shipment": {"refuse_rate": 1}, "refund": {"refuse_rate": 1}}):
                self._customer(order, "pay")
                self._until(order, S.COMPENSATION_FAILED)

    def _place(
        self,
        key: str,
        person: int,
        *lines: tuple[str, int],
        payment_method: str = "sandbox",
        **changes: Any,
    ) -> Order:
        name, email, street, postal_code, city, language = PEOPLE[person]
        draft = OrderDraft(
            customer_name=name,
            customer_email=email,
            shipping=Address(name, street, postal_code, city, "DE"),
            lines=[LineDraft(sku, quantity) for sku, quantity in lines],
            currency="EUR",
            payment_method=payment_method,
            shipping_cost=490,
            language=language,
            **changes,
        )
        order, new = place_order(draft, "demo", idempotency_key=f"demo/{key}")
        if new and not settings.AUTO_START_SAGAS:
            lifecycle.start(order.number, "demo")
        return order

    def _customer(self, order: Order, what: str, body: dict[str, int] | None = None) -> None:
        saga = order.saga
        assert saga is not None
        assert saga.payment is not None
        url = f"{settings.SANDBOX_URL}/customer/{saga.payment.reference}/{what}"
        httpx2.post(url, json=body or {}, trust_env=False).raise_for_status()

    @contextmanager
    def _faults(self, faults: dict[str, Any]) -> Iterator[None]:
        url = f"{settings.SANDBOX_URL}/faults"
        before = httpx2.get(url, trust_env=False).raise_for_status().json()
        httpx2.put(url, json={**before, **faults}, trust_env=False).raise_for_status()
        try:
            yield
        finally:
            httpx2.put(url, json=before, trust_env=False).raise_for_status()

    def _waits(self, order: Order) -> bool:
        """Whether the order waits for its money, once it has got that far or further."""
        self._until(order, S.WAITING, *Saga.FINAL)
        return Saga.objects.filter(order=order, status=S.WAITING).exists()

    def _until(self, order: Order, *statuses: str) -> None:
        sagas = Saga.objects.filter(order=order)
        self._wait(lambda: sagas.filter(status__in=statuses).exists(), f"{order} is {' or '.join(statuses)}")
        self.stdout.write(f"{order.number}: {sagas.latest('attempt').status}")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise CommandError(f"After {PATIENCE} s it is still not so that {what}. Is a worker running?")
            time.sleep(0.1)
