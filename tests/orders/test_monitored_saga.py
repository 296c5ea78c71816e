"""A saga whose gateway is monitored: the money is noticed without webhook, statement or batch check."""

from __future__ import annotations

from datetime import timedelta

from pytest_django.fixtures import Settings

from orders.models import Saga
from orders.services import monitoring
from shop.kernel.models import OutboxMessage
from tests.orders.practice_shop import PracticeShop


def test_the_payments_of_a_monitored_gateway_are_watched_from_the_start(
    shop: PracticeShop, settings: Settings
) -> None:
    settings.MONITORED_GATEWAYS = ["sandbox"]
    order = shop.waiting()
    assert OutboxMessage.objects.filter(workflow_id=f"payment-monitor-{order.number}").count() == 1
    assert monitoring.is_watched(order, Saga.objects.get())


def test_money_is_noticed_within_the_hour_and_the_order_shipped(
    shop: PracticeShop, settings: Settings
) -> None:
    settings.MONITORED_GATEWAYS = ["sandbox"]
    order = shop.waiting()
    shop.engine.deliver()
    shop.pay(order)  # no webhook comes
    shop.engine.sleep_until(shop.engine.now() + timedelta(minutes=61))
    assert shop.engine.result(f"payment-monitor-{order.number}")["status"] == "payment_confirmed"
    shop.engine.deliver()
    assert shop.end(order)["status"] == "completed"


def test_the_watching_of_a_cancelled_order_ends(shop: PracticeShop, settings: Settings) -> None:
    settings.MONITORED_GATEWAYS = ["sandbox"]
    order = shop.waiting()
    shop.engine.deliver()
    shop.cancel(order)
    assert shop.end(order, skip=False)["status"] == "cancelled"
    assert shop.engine.result(f"payment-monitor-{order.number}")["status"] == "payment_failed"
