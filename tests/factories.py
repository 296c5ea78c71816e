"""Small makers of the world that a test needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orders.models import Order, Product
from orders.services.placing import Address, LineDraft, OrderDraft, place_order

HOME = Address("Ada Lovelace", "Analytical Row 1", "10115", "Berlin", "DE")


def product(sku: str = "TEA", *, price: int = 1999, on_hand: int = 10, **changes: Any) -> Product:
    return Product.objects.create(
        sku=sku, name=changes.pop("name", f"Product {sku}"), price=price, on_hand=on_hand, **changes
    )


def draft(*lines: tuple[str, int], **changes: Any) -> OrderDraft:
    """An order of `(sku, quantity)` lines."""
    return OrderDraft(
        **{
            "customer_name": "Ada Lovelace",
            "customer_email": "ada@example.com",
            "shipping": HOME,
            "lines": [LineDraft(sku, quantity) for sku, quantity in lines or [("TEA", 2)]],
            "currency": "EUR",
            "payment_method": "sandbox",
            **changes,
        }
    )


def place(*lines: tuple[str, int], **changes: Any) -> Order:
    order, _ = place_order(draft(*lines, **changes), "test")
    return order


def many_waiting(numbers: Iterable[int], *, total: int, payment_method: str) -> list[Order]:
    """Rows of orders that wait for their money, without anything behind them."""
    return Order.objects.bulk_create(
        (
            Order(
                number=f"ORD-{number}",
                status="awaiting_payment",
                customer_name=f"Customer {i}",
                customer_email=f"customer{i}@example.com",
                shipping_name=f"Customer {i}",
                shipping_street="Am Wall 7",
                shipping_postal_code="28195",
                shipping_city="Bremen",
                shipping_country="DE",
                currency="EUR",
                total=total,
                payment_method=payment_method,
                carrier="manual",
            )
            for i, number in enumerate(numbers)
        ),
        batch_size=5000,
    )
