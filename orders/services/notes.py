"""The notes on an order: the one thing of it that people may write over. The timeline keeps who did."""

from __future__ import annotations

from django.db import transaction

from orders.models import Order, OrderEvent


@transaction.atomic
def change_notes(order_number: str, actor: str, notes: str) -> bool:
    """Write the notes down; false if they say that already."""
    order = Order.objects.select_for_update().get(number=order_number)
    if order.notes == notes:
        return False
    order.notes = notes
    order.save(update_fields=["notes"])
    OrderEvent.objects.create(
        order=order, kind=OrderEvent.Kind.NOTE, actor=actor, reason=notes or "The notes were emptied."
    )
    return True
