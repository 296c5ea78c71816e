"""Stock never goes below zero and never leaks, whoever asks for it at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import pytest
from django.db import DatabaseError, connections, transaction

from orders.models import Order, Product, Reservation, SagaStep
from orders.services import steps, stock
from orders.services.audit import StepRef, lock_saga
from orders.services.stock import OutOfStock
from orders.workflows.types import Step
from tests import factories

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("provider")]
T = TypeVar("T")


def _reserve(order: Order) -> bool:
    """Whether the order got its pieces."""
    try:
        steps.reserve_inventory(StepRef(order.number, 1, Step.INVENTORY))
    except OutOfStock:
        return False
    return True


def _release(order: Order, run: str = "run-1") -> SagaStep:
    return steps.release_inventory(StepRef(order.number, 1, Step.INVENTORY, run))


def _at_once(work: Callable[[Order], T], orders: Iterable[Order]) -> list[T]:
    """The work for each order in a thread of its own, all starting at the same moment."""
    orders = list(orders)
    barrier = Barrier(len(orders))

    def run(order: Order) -> T:
        barrier.wait(30)
        try:
            return work(order)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(orders)) as pool:
        return list(pool.map(run, orders))


def test_fifty_orders_for_the_last_three_pieces_give_three_reservations() -> None:
    product = factories.product("TEA", on_hand=3)
    orders = [factories.place(("TEA", 1)) for _ in range(50)]
    got = _at_once(_reserve, orders)
    assert got.count(True) == 3
    product.refresh_from_db()
    assert (product.on_hand, product.reserved, product.available) == (3, 3, 0)
    assert Reservation.objects.filter(state="reserved").count() == 3
    _at_once(_release, orders)
    product.refresh_from_db()
    assert (product.on_hand, product.reserved) == (3, 0)
    assert set(Reservation.objects.values_list("state", flat=True)) == {"released"}


def test_orders_that_name_the_same_products_in_opposite_order_do_not_deadlock() -> None:
    tea, cup = factories.product("TEA", on_hand=100), factories.product("CUP", on_hand=100)
    there, back = [("TEA", 1), ("CUP", 1)], [("CUP", 1), ("TEA", 1)]
    orders = [factories.place(*(there if i % 2 else back)) for i in range(24)]
    assert all(_at_once(_reserve, orders))
    for product in (tea, cup):
        product.refresh_from_db()
        assert product.reserved == 24
    _at_once(_release, orders)
    for product in (tea, cup):
        product.refresh_from_db()
        assert (product.on_hand, product.reserved) == (100, 0)


def test_order_that_is_short_of_one_product_holds_none_of_the_others() -> None:
    tea = factories.product("TEA", on_hand=5)
    factories.product("CUP", on_hand=1)
    order = factories.place(("TEA", 2), ("CUP", 2))
    with pytest.raises(OutOfStock, match=r"2 × CUP were ordered, 1 are available"):
        steps.reserve_inventory(StepRef(order.number, 1, Step.INVENTORY))
    tea.refresh_from_db()
    assert tea.reserved == 0
    assert not Reservation.objects.exists()


def test_product_on_two_lines_is_reserved_once_for_both() -> None:
    tea = factories.product("TEA", on_hand=5)
    order = factories.place(("TEA", 2), ("TEA", 3))
    assert _reserve(order)
    tea.refresh_from_db()
    assert tea.reserved == 5
    assert Reservation.objects.get().quantity == 5


def test_release_is_once_however_often_it_is_asked_for() -> None:
    tea = factories.product("TEA", on_hand=5)
    order, other = factories.place(("TEA", 2)), factories.place(("TEA", 1))
    assert _reserve(order)
    assert _reserve(other)
    assert [row.outcome for row in (_release(order), _release(order, "run-2"))] == ["succeeded", "succeeded"]
    assert _at_once(_release, [order] * 5)
    tea.refresh_from_db()
    assert (tea.on_hand, tea.reserved) == (5, 1)
    assert SagaStep.objects.filter(kind="compensation").count() == 1


@pytest.mark.parametrize(
    ("keep", "shelf", "state"), [(True, (5, 2), "reserved"), (False, (5, 0), "released")]
)
def test_parcel_that_is_called_back_puts_its_pieces_on_the_shelf(
    keep: bool, shelf: tuple[int, int], state: str
) -> None:
    tea = factories.product("TEA", on_hand=5)
    order = factories.place(("TEA", 2))
    assert _reserve(order)
    for _ in range(2):
        with transaction.atomic():
            stock.consume(lock_saga(order.number, 1))
    tea.refresh_from_db()
    assert (tea.on_hand, tea.reserved) == (3, 0)
    for _ in range(2):
        with transaction.atomic():
            stock.put_back(lock_saga(order.number, 1), keep_reserved=keep)
    tea.refresh_from_db()
    assert (tea.on_hand, tea.reserved) == shelf
    assert Reservation.objects.get().state == state


@pytest.mark.parametrize(
    "change", [{"on_hand": -1}, {"reserved": -1}, {"reserved": 6}, {"on_hand": 1, "reserved": 2}]
)
def test_database_refuses_stock_that_cannot_be(change: dict[str, int]) -> None:
    factories.product("TEA", on_hand=5)
    with pytest.raises(DatabaseError, match="product_"), transaction.atomic():
        Product.objects.update(**change)
