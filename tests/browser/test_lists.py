"""The list of orders with the keyboard alone: a tab, a search, a row, and back to the list as it was left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from orders.models import Order
from shop import demo_orders
from shop.management.commands.seed_demo import Command

pytestmark = pytest.mark.django_db(transaction=True)


def tab_to(page: Page, label: str) -> None:
    """Press the tab key until something of this name has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        named = page.evaluate(
            "(document.activeElement.innerText || document.activeElement.value || '').trim()"
        )
        if named.startswith(label):
            return
    raise AssertionError(f"{label} cannot be reached with the tab key.")


def test_a_list_is_used_without_a_mouse(login: Callable[..., Page], tmp_path: Path) -> None:
    Command()._products()
    demo_orders.make(120)
    page = login("viewer")
    page.goto("/admin/orders/order/")
    tab_to(page, "Completed")
    page.keyboard.press("Enter")
    chosen = page.get_by_role("navigation", name="Views").locator("[aria-current=page]")
    expect(chosen).to_contain_text("Completed")
    completed = Order.objects.filter(status="completed").order_by("-created_at")
    expect(chosen.locator(".vk-count")).to_have_text(str(completed.count()))

    page.get_by_role("searchbox").focus()
    page.keyboard.type("example.com")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Clear search")).to_be_visible()
    tab_to(page, completed[0].number)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=f"Order {completed[1].number}")).to_be_visible()

    page.get_by_role("link", name="Orders", exact=True).last.click()
    expect(page.get_by_role("searchbox")).to_have_value("example.com")
    expect(chosen).to_contain_text("Completed")
    with page.expect_download() as started:
        page.get_by_role("link", name="CSV").click()
    started.value.save_as(tmp_path / "orders.csv")
    assert len((tmp_path / "orders.csv").read_text("utf-8-sig").splitlines()) == completed.count() + 1

    page.get_by_role("link", name="Reset").click()
    expect(page.get_by_role("searchbox")).to_have_value("")
    expect(chosen).to_have_text("All")
