"""Watching one order's payment: the button, the setting, and what they ask of the engine."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django.fixtures import Settings

from orders.models import Order, OrderEvent, Saga
from orders.services import lifecycle, monitoring
from orders.services.status import move_saga
from payments.gateways import gateway
from payments.models import Payment
from shop.kernel.models import OutboxMessage
from tests import factories
from tests.orders.test_admin import address, form_of, page, shop, waiting

__all__ = ["shop"]  # the practice gateway for each test

pytestmark = pytest.mark.django_db


@pytest.fixture
def order() -> Order:
    factories.product()
    return waiting()


def messages(order: Order) -> list[tuple[str, str]]:
    asked = OutboxMessage.objects.filter(workflow_id=f"payment-monitor-{order.number}").order_by("id")
    return list(asked.values_list("kind", "name"))


@pytest.fixture
def admin() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("ada"))
    return client


def test_a_double_click_watches_once(order: Order, admin: Client) -> None:
    url = address("watch-payment", order)
    form = form_of(admin.get(url))  # type: ignore[arg-type]
    admin.post(url, form)
    again = admin.post(url, form, follow=True).content.decode()
    assert "The payment is watched already." in again
    assert messages(order) == [("start", "OrderPaymentMonitorWorkflow")]
    assert order.events.filter(kind=OrderEvent.Kind.WATCH, actor="ada").count() == 1


def test_watch_and_stop_take_turns_on_the_page(order: Order, admin: Client) -> None:
    watch, stop = (address(slug, order) for slug in ("watch-payment", "stop-watching"))
    assert watch in page(admin, order)
    assert stop not in page(admin, order)
    admin.post(watch, form_of(admin.get(watch)))  # type: ignore[arg-type]
    assert stop in page(admin, order)
    assert watch not in page(admin, order)
    admin.post(stop, form_of(admin.get(stop)) | {"reason": "paid in cash"})  # type: ignore[arg-type]
    admin.post(watch, form_of(admin.get(watch)))  # type: ignore[arg-type]
    assert [name for _, name in messages(order)] == [
        "OrderPaymentMonitorWorkflow",
        "stop_monitoring",
        "OrderPaymentMonitorWorkflow",
    ]


def test_what_waits_for_no_money_cannot_be_watched(order: Order) -> None:
    move_saga(Saga.objects.get(), "running")
    with pytest.raises(lifecycle.ActionRefused, match="does not wait for money"):
        monitoring.watch(order.number, "ada")
    assert messages(order) == []


def test_the_command_starts_one_coordinator_for_the_waiting_payments_of_a_gateway(order: Order) -> None:
    other = waiting()
    call_command("monitor_payments", "--gateway", "sandbox", "--at-most", "7")
    (message,) = OutboxMessage.objects.filter(name="PaymentCheckCoordinator")
    assert message.payload["order_ids"] == [order.number, other.number]
    assert message.payload["at_most"] == 7


def test_the_command_knows_no_other_gateway(order: Order) -> None:
    with pytest.raises(CommandError, match="set up are: sandbox"):
        call_command("monitor_payments", "--gateway", "sandbx")


def test_the_command_watches_only_what_somebody_can_be_asked_about(order: Order, settings: Settings) -> None:
    with pytest.raises(CommandError, match="There is no payment of ORD-0"):
        call_command("monitor_payments", order.number, "ORD-0")
    bank = {"bank_transfer": "payments.gateways.bank_transfer.BankTransferGateway"}
    settings.PAYMENT_GATEWAYS = settings.PAYMENT_GATEWAYS | bank
    with pytest.raises(CommandError, match="bank statements say what has come"):
        call_command("monitor_payments", "--gateway", "bank_transfer")
    Payment.objects.update(gateway="bank_transfer")
    with pytest.raises(CommandError, match="Nobody can be asked about bank_transfer"):
        call_command("monitor_payments", order.number)
    gateway.cache_clear()
    assert not OutboxMessage.objects.filter(name="PaymentCheckCoordinator").exists()
