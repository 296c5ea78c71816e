"""What the pages add, at work: in a copy of the shop that has it, with the other sides at the settings' addresses."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from typing import Any

import httpx2
import pytest
from django.test import Client

from orders.models import DeadLetter, Order
from orders.services import dead_letters
from orders.services.timeline import timeline
from payments.gateways import gateway
from shop import settings as declared
from tests.orders.practice_shop import PracticeShop


def at(url: str, path: str, **body: Any) -> Any:
    """Something that happens on the other side."""
    return httpx2.post(url + path, json=body, trust_env=False).raise_for_status().json()


def seen(url: str, path: str) -> Any:
    return httpx2.get(url + path, trust_env=False).raise_for_status().json()


# --- the gateway -----------------------------------------------------------------------------------------


@pytest.fixture
def acme(shop: PracticeShop, settings: Any) -> str:
    settings.PAYMENT_GATEWAYS = declared.PAYMENT_GATEWAYS
    gateway.cache_clear()
    return os.environ["ACME_URL"]


def charge_of(shop: PracticeShop, order: Order) -> str:
    payment = shop.saga(order).payment
    assert payment is not None
    return f"/charges/{payment.reference}"


def webhook(shop: PracticeShop, order: Order, secret: str | None = None) -> int:
    """Acme Pay tells of the order's charge; the shop's answer."""
    body = json.dumps(seen(os.environ["ACME_URL"], charge_of(shop, order))).encode()
    now = str(int(time.time()))
    key = (secret or os.environ["ACME_WEBHOOK_SECRET"]).encode()
    signature = hmac.new(key, now.encode() + b"." + body, hashlib.sha256).hexdigest()
    answer = Client().post(
        "/webhooks/payments/acme/",
        body,
        content_type="application/json",
        headers={"Acme-Time": now, "Acme-Signature": signature},
    )
    shop.engine.deliver()
    return answer.status_code


def money(shop: PracticeShop, order: Order) -> list[str]:
    return [entry["kind"] for entry in seen(os.environ["ACME_URL"], charge_of(shop, order))["entries"]]


def test_order_is_paid_with_the_new_gateway(shop: PracticeShop, acme: str) -> None:
    at(acme, "/lose", what="charges")
    at(acme, "/lose", what="capture")
    order = shop.waiting(payment_method="acme")
    at(acme, charge_of(shop, order) + "/pay")
    assert [webhook(shop, order), webhook(shop, order), webhook(shop, order, "forged")] == [200, 200, 400]
    assert shop.end(order)["status"] == "completed"
    assert money(shop, order) == ["authorization", "receipt", "capture"]
    payment = shop.saga(order).payment
    assert payment is not None
    assert payment.totals().captured == order.total


def test_cancelled_order_gets_its_money_back_from_the_new_gateway(shop: PracticeShop, acme: str) -> None:
    shop.provider.faults(create_shipment={"refuse_rate": 1})
    refunded = shop.waiting(payment_method="acme")
    at(acme, charge_of(shop, refunded) + "/pay")
    assert webhook(shop, refunded) == 200
    assert shop.end(refunded)["status"] == "cancelled"
    assert money(shop, refunded) == ["authorization", "receipt", "capture", "refund"]


def test_declined_payment_ends_the_order(shop: PracticeShop, acme: str) -> None:
    declined = shop.waiting(payment_method="acme")
    at(acme, charge_of(shop, declined) + "/decline")
    assert webhook(shop, declined) == 200
    assert shop.end(declined)["status"] == "cancelled"
    assert money(shop, declined) == ["authorization", "authorization"]


# --- the carrier -----------------------------------------------------------------------------------------


def test_parcel_is_handed_to_the_new_carrier(shop: PracticeShop) -> None:
    at(os.environ["PARCEL_POST_URL"], "/lose", what="parcels")
    order = shop.paid(carrier="parcel_post")
    result = shop.end(order)
    assert result["status"] == "completed"
    parcel = seen(os.environ["PARCEL_POST_URL"], f"/parcels/{result['shipment_id']}")
    assert (parcel["reference"], parcel["to"]["city"]) == (order.number, "Berlin")
    assert shop.saga(order).shipment.tracking_number == parcel["tracking_number"]


def test_parcel_is_called_back_from_the_new_carrier(shop: PracticeShop, mailbox: Any) -> None:
    order = shop.waiting(carrier="parcel_post")
    mailbox.refuses["ada@example.com"] = "451 Try again later"
    shop.pay(order)
    shop.hear(order)
    shop.until_failed(order, "confirmation")
    shop.cancel(order)
    result = shop.end(order)
    assert result["compensated_steps"][0] == "shipping"
    assert seen(os.environ["PARCEL_POST_URL"], f"/parcels/{result['shipment_id']}")["state"] == "cancelled"


# --- the step --------------------------------------------------------------------------------------------


def test_paid_order_gets_its_invoice(shop: PracticeShop) -> None:
    at(os.environ["INVOICES_URL"], "/lose", what="invoices")
    order = shop.completed()
    trail = shop.done(order)
    assert trail[2:4] == ["payment_captured action succeeded", "invoice action succeeded"]
    row = shop.saga(order).steps.get(step="invoice", outcome="succeeded")
    assert row.reference.startswith("IN-")
    assert "Invoice written" in [entry.title.partition(" (")[0] for entry in timeline(order)]


def test_rollback_cancels_the_invoice_before_the_money_goes_back(shop: PracticeShop) -> None:
    shop.provider.faults(create_shipment={"refuse_rate": 1})
    result = shop.end(shop.paid())
    assert result["compensated_steps"] == ["invoice", "payment_captured", "inventory"]


def test_order_that_was_never_paid_has_no_invoice_to_cancel(shop: PracticeShop) -> None:
    order = shop.waiting()
    shop.engine.wait(shop.engine.handle(order.workflow_id).terminate("by hand"))
    shop.cancel(order)
    assert shop.end(order)["compensated_steps"] == ["payment_hold", "inventory"]
    assert "invoice compensation skipped" in shop.trail(order)


def test_credit_note_that_was_refused_is_retried_by_people(shop: PracticeShop) -> None:
    shop.provider.faults(create_shipment={"refuse_rate": 1})
    order = shop.waiting()
    at(os.environ["INVOICES_URL"], "/refuse", what="credit-notes")
    shop.pay(order)
    shop.hear(order)
    assert shop.end(order)["status"] == "compensation_failed"
    letter = DeadLetter.objects.get()
    assert letter.step == "invoice"
    dead_letters.retry(letter.pk, "grace", "Repaired", key="k")
    shop.engine.deliver()
    assert shop.engine.result(f"dead-letter-{letter.pk}")["cancelled"] is True
    assert shop.status(order) == "cancelled"
