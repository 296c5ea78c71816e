"""Stock: reserve, take, put back, release. Products are locked in SKU order, so no two orders deadlock."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import F, Sum
from django.utils.translation import gettext_noop

from orders.models import Product, Reservation, Saga
from orders.services.audit import SKIPPED, Done, StepRefused

State = Reservation.State


class OutOfStock(StepRefused):
    """Fewer pieces are available than were ordered."""


def lock_products(ids: Iterable[int]) -> dict[int, Product]:
    """The products by id, locked in SKU order."""
    return {p.pk: p for p in Product.objects.select_for_update().filter(pk__in=ids).order_by("sku")}


def reserve(saga: Saga) -> Done:
    """Hold the order's pieces for this saga; raises `OutOfStock` and holds nothing if one is short."""
    wanted = dict(saga.order.lines.order_by().values_list("product_id").annotate(quantity=Sum("quantity")))
    products = lock_products(wanted)
    short = [
        f"{wanted[product.pk]} × {product.sku} were ordered, {product.available} are available"
        for product in products.values()
        if product.available < wanted[product.pk]
    ]
    if short:
        raise OutOfStock(f"Not enough stock: {'; '.join(short)}.")
    for product in products.values():
        product.reserved += wanted[product.pk]
    Product.objects.bulk_update(products.values(), ["reserved"])
    Reservation.objects.bulk_create(
        Reservation(saga=saga, product_id=product, quantity=quantity) for product, quantity in wanted.items()
    )
    return Done(reference=_pieces(sum(wanted.values())))


def release(saga: Saga) -> Done:
    """Give back what `reserve` holds."""
    return _turn(saga, State.RESERVED, State.RELEASED, on_hand=0, reserved=-1) or Done(
        outcome=SKIPPED, note=gettext_noop("No stock is reserved for this saga.")
    )


def consume(saga: Saga) -> None:
    """The pieces leave the shelf with the parcel."""
    _turn(saga, State.RESERVED, State.CONSUMED, on_hand=-1, reserved=-1)


def put_back(saga: Saga, *, keep_reserved: bool) -> None:
    """The parcel was called back: its pieces are on the shelf again, for this saga or for anyone."""
    if keep_reserved:
        _turn(saga, State.CONSUMED, State.RESERVED, on_hand=1, reserved=1)
    else:
        _turn(saga, State.CONSUMED, State.RELEASED, on_hand=1, reserved=0)


def _turn(saga: Saga, before: str, after: str, *, on_hand: int, reserved: int) -> Done | None:
    """Move reservations from one state to another; products change by quantity × (on_hand, reserved)."""
    held = list(saga.reservations.filter(state=before))
    if not held:
        return None
    lock_products(r.product_id for r in held)
    for r in held:
        Product.objects.filter(pk=r.product_id).update(
            on_hand=F("on_hand") + on_hand * r.quantity, reserved=F("reserved") + reserved * r.quantity
        )
    saga.reservations.filter(state=before).update(state=after)
    return Done(reference=_pieces(sum(r.quantity for r in held)))


def _pieces(count: int) -> str:
    return "1 piece" if count == 1 else f"{count} pieces"
