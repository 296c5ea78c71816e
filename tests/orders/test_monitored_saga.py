"""A saga whose gateway is monitored: the money is noticed without webhook, statement or batch check."""

from __future__ import annotations

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
