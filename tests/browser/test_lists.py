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


def test_letters_move_select_and_search_but_never_while_somebody_types(login: Callable[..., Page]) -> None:
    Command()._products()
    demo_orders.make(20)
    page = login("orders")
    page.goto("/admin/orders/order/")
    newest = list(Order.objects.order_by("-created_at", "-id")[:3])
    press = page.keyboard.press
    press("j"), press("j"), press("j"), press("k")
    expect(page.get_by_role("link", name=newest[1].number)).to_be_focused()
    press("x")
    row = page.get_by_role("row").filter(has_text=newest[1].number)
    expect(row.get_by_role("checkbox")).to_be_checked()
    expect(page.locator(".action-counter").first).to_contain_text("1 of")
    press("x")
    expect(row.get_by_role("checkbox")).not_to_be_checked()

    press("?")
    keys = page.get_by_role("dialog", name="Keys of this list")
    expect(keys).to_be_visible()
    press("Escape")
    expect(keys).to_be_hidden()
    press("/")
    search = page.get_by_role("searchbox")
    expect(search).to_be_focused()
    page.keyboard.type("jkx?/")
    expect(search).to_have_value("jkx?/")
    expect(keys).to_be_hidden()
    search.fill("")

    row.get_by_role("checkbox").focus()
    press("Enter")  # opens, and sends no form
    expect(page.get_by_role("heading", name=f"Order {newest[1].number}")).to_be_visible()


def test_the_letters_can_be_switched_off_for_good(login: Callable[..., Page]) -> None:
    Command()._products()
    demo_orders.make(5)
    page = login("viewer")
    page.goto("/admin/orders/order/")
    page.get_by_role("button", name="Keys of this list").click()
    page.get_by_label("Use the keys that are letters or signs").uncheck()
    page.get_by_role("button", name="Close").click()
    page.reload()
    page.keyboard.press("?")
    page.keyboard.press("/")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("searchbox")).not_to_be_focused()


def test_orders_fit_a_small_screen_and_a_telephone(login: Callable[..., Page]) -> None:
    Command()._products()
    demo_orders.make(20)
    page = login("viewer")
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        page.goto("/admin/orders/order/")
        wide = page.locator(".results").evaluate("one => one.scrollWidth - one.clientWidth")
        assert wide == 0, width
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, width
        last = page.locator("#result_list tbody .field-created_at").first
        box = last.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= width
