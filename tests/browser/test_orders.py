"""The main job in a browser: take an order, confirm its payment, watch it ship; cancel another."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest
from playwright.sync_api import Page, expect

from orders.models import Order, OrderEvent, Product, Saga
from tests import factories
from tests.browser.conftest import PATIENCE_MS
from tests.payments.sandbox_process import SandboxProcess
from tests.servers import Mailbox

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("worker")]
expect.set_options(timeout=PATIENCE_MS)
Login = Callable[..., Page]


def expect_state(page: Page, words: str) -> None:
    expect(page.locator("#order-panel .vk-state .vk-label")).to_have_text(words)


def mark(page: Page) -> None:
    """Leave a mark that a reload would wipe out."""
    page.evaluate("window.stayed = true")


def stayed(page: Page) -> bool:
    return bool(page.evaluate("window.stayed === true"))


def open_waiting_order(page: Page) -> Order:
    """An order that waits for its money, with its page open."""
    factories.product(on_hand=5)
    order = factories.place(("TEA", 2))
    page.goto(f"/admin/orders/order/{order.pk}/change/")
    expect_state(page, "awaiting payment")
    return order


def test_an_order_is_taken_confirmed_and_seen_shipping(login: Login, smtp: Mailbox) -> None:
    factories.product(name="Green tea", on_hand=5)
    page = login("orders", "payments")

    page.get_by_role("link", name="Orders", exact=True).last.click()
    page.get_by_role("link", name="Add order").click()
    page.get_by_label("Product (SKU) 1").fill("TEA")
    page.get_by_label("Quantity 1").fill("2")
    customer, shipping = (
        page.locator("fieldset", has_text="Customer"),
        page.locator("fieldset", has_text="Shipping address"),
    )
    customer.get_by_label("Name").fill("Ada Lovelace")
    customer.get_by_label("E-mail").fill("ada@example.com")
    shipping = shipping.first
    for label, text in {
        "Name": "Ada Lovelace",
        "Street": "Torstraße 1",
        "Postal code": "10119",
        "City": "Berlin",
        "Country": "DE",
    }.items():
        shipping.get_by_label(label).fill(text)
    page.get_by_role("button", name="Place order").click()
    mark(page)
    expect_state(page, "awaiting payment")
    assert stayed(page)

    page.get_by_role("link", name="Confirm payment").click()
    expect(page.get_by_label("Amount")).to_have_value("39.98")
    page.get_by_label("Bank reference").fill("2026-0815")
    page.get_by_label("Reason").fill("Seen on the statement.")
    page.get_by_role("button", name="Confirm payment").click()
    mark(page)
    expect_state(page, "completed")
    expect(page.locator("#order-timeline")).to_contain_text("Handed to the carrier")
    assert stayed(page)
    expect(page.locator("#order-panel[hx-trigger]")).to_have_count(0)

    assert [str(mail["To"]) for mail in smtp.messages] == ["ada@example.com"] * 2
    assert OrderEvent.objects.get(kind="confirm").actor == "grace"
    assert Product.objects.get().on_hand == 3


def test_money_that_the_customer_pays_is_seen_arriving(login: Login, provider: SandboxProcess) -> None:
    page = login("viewer")
    open_waiting_order(page)
    mark(page)
    payment = Saga.objects.get().payment
    assert payment
    httpx2.post(
        f"{provider.url}/customer/{payment.reference}/pay", json={}, trust_env=False
    ).raise_for_status()
    expect_state(page, "completed")
    expect(page.locator("#order-timeline")).to_contain_text("Webhook: receipt succeeded")
    assert stayed(page)


def test_a_cancelled_order_is_rolled_back_before_ones_eyes(login: Login) -> None:
    page = login("orders")
    order = open_waiting_order(page)
    page.get_by_role("link", name="Cancel order").click()
    page.get_by_role("button", name="Cancel order").click()
    expect(page.get_by_text("This field is required.")).to_be_visible()
    page.get_by_label("Reason").fill("The customer has changed their mind.")
    page.get_by_role("button", name="Cancel order").click()
    mark(page)
    expect_state(page, "cancelled")
    rollback = page.locator(".vk-rollback")
    expect(rollback).to_contain_text("The customer has changed their mind.")
    expect(rollback.locator(".vk-run .vk-title")).to_have_text(["Authorization released", "Stock released"])
    assert stayed(page)
    assert Order.objects.get(pk=order.pk).status == "cancelled"
    assert Product.objects.get().reserved == 0


def test_without_the_permission_there_is_no_button_and_the_address_says_no(login: Login) -> None:
    page = login("viewer")
    order = open_waiting_order(page)
    for words in ("Start saga", "Cancel order", "Confirm payment", "Extend deadline"):
        expect(page.get_by_text(words)).to_have_count(0)
    for act in ("start", "cancel", "confirm-payment", "extend-deadline"):
        assert page.request.get(f"/admin/orders/order/{order.pk}/{act}/").status == 403
