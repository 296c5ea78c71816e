from __future__ import annotations

import datetime as dt

import pytest

from orders.models import Order, Product, Saga
from orders.services import lifecycle
from shop.kernel.money import Money
from tests import factories
from tests.orders.engine import Engine, run
from tests.payments.sandbox_process import SandboxProcess
from tests.servers import Mailbox

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("provider", "mailbox")]


def confirm(order: Order) -> None:
    lifecycle.confirm_payment(
        order.number,
        "ada",
        "seen on the statement",
        amount=Money(order.total, order.currency),
        received_on=dt.date(2026, 1, 1),
        bank_reference="B1",
    )


def test_confirmed_order_is_captured_shipped_and_mailed(provider: SandboxProcess, mailbox: Mailbox) -> None:
    async def story(engine: Engine) -> None:
        await engine.orm(factories.product, on_hand=5)
        order = await engine.orm(factories.place, ("TEA", 2))
        await engine.deliver()
        await engine.until(lambda: Saga.objects.get().status == "waiting")
        await engine.orm(confirm, order)
        await engine.deliver()
        result = await engine.handle(order).result()
        assert result["status"] == "completed"
        print(result)
        history = await engine.handle(order).fetch_history()
        print(len(history.events))

    run(story)
    product = Product.objects.get()
    assert (product.on_hand, product.reserved) == (3, 0)
    assert Order.objects.get().status == "completed"
    for s in Saga.objects.get().steps.all():
        print(s.step, s.kind, s.outcome, s.reference, s.error)
    print([m["subject"] for m in mailbox.messages])
    with provider.client() as c:
        print(c.get("/payments").json())
