"""Small makers of the world that a test needs."""

from __future__ import annotations

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
