"""An order paid by card: the real saga and the official Stripe library, with Stripe's stand-in on the other side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from orders.api.outgoing import order_now
from orders.models import Order
from payments.gateways import gateway
from payments.gateways import stripe as stripe_module
from tests.orders.practice_shop import PracticeShop
from tests.payments.stripe_server import StripeServer, stripe_server


@pytest.fixture
def stripe(shop: PracticeShop, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[StripeServer]:
    with stripe_server() as server:
        settings.STRIPE_API_KEY = server.api_key
        settings.STRIPE_API_BASE = server.url
        settings.STRIPE_WEBHOOK_SECRETS = [server.webhook_secret]
        settings.PAYMENT_GATEWAYS = {
            **settings.PAYMENT_GATEWAYS,
            "stripe": "payments.gateways.stripe.StripeGateway",
        }
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        stripe_module._client.cache_clear()
        gateway.cache_clear()
        yield server
        stripe_module._client.cache_clear()


def instructions(order: Order) -> Any:
    return order_now(order.number).model_dump()["payment"]["instructions"]


def deliver_webhooks(shop: PracticeShop, stripe: StripeServer, intent: str) -> None:
    for webhook in stripe.webhooks(intent):
        answer = Client(headers=webhook.headers).post(
            "/webhooks/payments/stripe/", webhook.body, content_type="application/json"
        )
        assert answer.status_code == 200, answer.content
    shop.engine.deliver()


def test_card_is_captured_once_the_customer_has_confirmed_in_the_browser(
    shop: PracticeShop, stripe: StripeServer
) -> None:
    order = shop.waiting(payment_method="stripe")
    payment = shop.saga(order).payment
    assert payment is not None
    assert instructions(order)["client_secret"].startswith(payment.reference)
    stripe.pay(payment.reference)
    deliver_webhooks(shop, stripe, payment.reference)
    assert shop.end(order)["status"] == "completed"
    assert stripe.totals(payment.reference)["captured"] == order.total
    assert instructions(order) is None
    deliver_webhooks(shop, stripe, payment.reference)  # all of them again
    payment.refresh_from_db()
    assert payment.totals().captured == payment.totals().received == order.total


def test_cancelled_card_payment_is_voided_and_not_refunded(shop: PracticeShop, stripe: StripeServer) -> None:
    order = shop.waiting(payment_method="stripe")
    payment = shop.saga(order).payment
    assert payment is not None
    shop.cancel(order)
    result = shop.end(order, skip=False)
    assert result["compensated_steps"] == ["payment_hold", "inventory"]
    totals = stripe.totals(payment.reference)
    assert (totals["captured"], totals["refunded"], totals["voided"]) == (0, 0, order.total)
