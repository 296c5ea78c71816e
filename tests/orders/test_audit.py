"""What was written about money and steps stays as it was written, and is written once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections, models, transaction

from orders.models import Order, OrderEvent, SagaStep
from orders.services import steps
from orders.services.audit import Done, StepRef, once, write_failure
from orders.workflows.types import Step
from payments.gateways.base import EventOutcome, EventType, GatewayEvent
from payments.models import PaymentEvent
from payments.services.recording import open_payment, record
from shop.kernel.money import Money
from tests import factories
from tests.payments.sandbox_process import SandboxProcess

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("provider")]
MODELS: list[type[models.Model]] = [SagaStep, PaymentEvent, OrderEvent]
TEXT = {SagaStep: "error", PaymentEvent: "detail", OrderEvent: "reason"}


@pytest.fixture
def order(provider: SandboxProcess) -> Order:
    """An order with a row in each of the books."""
    factories.product("TEA", on_hand=5)
    order = factories.place(("TEA", 2))
    _reserve(order)
    payment = open_payment("sandbox", order.number, order.total_money, f"{order.number}/1/payment_hold")
    receipt = GatewayEvent(
        EventType.RECEIPT,
        EventOutcome.SUCCEEDED,
        "rcv-1",
        "pay-1",
        order.number,
        Money(1, "EUR"),
        datetime(2026, 1, 1, tzinfo=UTC),
    )
    record(payment, [receipt], "webhook")
    return order


def _reserve(order: Order) -> SagaStep:
    return steps.reserve_inventory(StepRef(order.number, 1, Step.INVENTORY))


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("model", MODELS)
def test_database_refuses_to_change_or_delete_what_was_written(model: Any) -> None:
    before = list(model.objects.values())
    row = model.objects.first()
    one = model.objects.filter(pk=row.pk)
    table, column = model._meta.db_table, TEXT[model]
    setattr(row, column, "forged")
    forgeries: list[Callable[[], object]] = [
        lambda: _by_sql(f"UPDATE {table} SET {column} = 'forged'"),
        lambda: _by_sql(f"UPDATE {table} SET {column} = 'forged' WHERE id = {row.pk}"),
        lambda: _by_sql(f"DELETE FROM {table} WHERE id = {row.pk}"),
        lambda: one.update(**{column: "forged"}),
        one.delete,
        row.save,
        row.delete,
    ]
    for forge in forgeries:
        with pytest.raises(DatabaseError, match="Cannot update or delete rows"), transaction.atomic():
            forge()
    assert list(model.objects.values()) == before


def _by_sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def test_step_that_runs_twice_leaves_one_row_and_one_effect(order: Order) -> None:
    assert _reserve(order) == _reserve(order)
    assert SagaStep.objects.count() == 1
    assert order.sagas.get().reservations.get().product.reserved == 2


def test_step_that_runs_many_times_at_once_leaves_one_row_and_one_effect() -> None:
    tea = factories.product("TEA", on_hand=50)
    order = factories.place(("TEA", 2))

    def run(_: int) -> int:
        try:
            return _reserve(order).pk
        finally:
            connections.close_all()

    with ThreadPoolExecutor(10) as pool:
        assert len(set(pool.map(run, range(10)))) == 1
    tea.refresh_from_db()
    assert (tea.reserved, SagaStep.objects.count()) == (2, 1)


def test_row_and_effect_are_one_transaction() -> None:
    factories.product("TEA", on_hand=5)
    order = factories.place(("TEA", 2))

    def effect(saga: Any) -> Done:
        Order.objects.filter(pk=order.pk).update(notes="half done")
        raise ConnectionError("the effect broke")

    with pytest.raises(ConnectionError):
        once(StepRef(order.number, 1, Step.INVENTORY), effect)
    order.refresh_from_db()
    assert (order.notes, SagaStep.objects.count()) == ("", 0)


def test_failed_attempts_are_counted_and_none_is_written_after_the_success() -> None:
    factories.product("TEA", on_hand=5)
    order = factories.place(("TEA", 2))
    ref = StepRef(order.number, 1, Step.INVENTORY)
    now = datetime.now(UTC)
    write_failure(ref, "first", now)
    write_failure(ref, "second", now)
    _reserve(order)
    write_failure(ref, "an attempt that was overtaken", now)
    rows = SagaStep.objects.order_by("id").values_list("attempt", "outcome", "error")
    assert list(rows) == [(1, "failed", "first"), (2, "failed", "second"), (3, "succeeded", "")]
