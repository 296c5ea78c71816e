"""The staff site without a mouse, and without eyes: where the focus is, that it stays, and what is read out."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, User
from playwright.sync_api import Page, expect

from orders.models import OrderEvent, Saga
from orders.services.status import move_order, move_saga
from tests import factories
from tests.browser.conftest import PASSWORD, PATIENCE_MS
from tests.browser.test_front_page import Login, _no_engine
from tests.orders.test_admin import waiting
from tests.orders.test_admin_books import dead_letter

__all__ = ["_no_engine"]  # a fixture
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("provider")]
expect.set_options(timeout=PATIENCE_MS)
PATIENCE_STOPS = 150

# Where the focus is, and the contrast of its ring with what is around it.
FOCUS = """() => {
  const focused = document.activeElement;
  if (focused === document.body) return null;
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = channels(colour).map(c => c / 255)
      .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = getComputedStyle(focused);
  let around = focused.parentElement;
  const behind = () => getComputedStyle(around).backgroundColor;
  while (around.parentElement && channels(behind())[3] === 0) around = around.parentElement;
  const [high, low] = [style.outlineColor, behind()].map(light).sort((a, b) => b - a);
  const box = focused.getBoundingClientRect();
  focused.seen = (focused.seen || 0) + 1;
  return {
    name: (focused.getAttribute('aria-label') || focused.labels?.[0]?.innerText || focused.value || focused.innerText
      || focused.name || '').trim(),
    html: focused.outerHTML.slice(0, 150),
    ring: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 ? (high + 0.05) / (low + 0.05) : 0,
    shown: box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
    times: focused.seen,
  };
}"""


def tab_to(page: Page, name: str) -> None:
    """Presses Tab until what has this name has the focus; each stop on the way is seen."""
    for _ in range(PATIENCE_STOPS):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUS)
        if stop:
            assert stop["shown"], stop
            assert stop["ring"] >= 3, stop
            if name in (stop["name"], stop["name"].rstrip(":")):
                return
    raise AssertionError(f"Tab does not lead to {name}")


def stops(page: Page) -> int:
    """How many there are from the top of the page around to it again."""
    page.locator(".skip-to-content-link").focus()
    for found in range(PATIENCE_STOPS):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUS)
        if stop is None or stop["times"] > 1:
            return found
        assert stop["shown"], stop
        assert stop["ring"] >= 3, stop
    raise AssertionError("There is no way out.")


def test_a_payment_is_confirmed_with_the_keyboard_alone(page: Page) -> None:
    factories.product()
    order = waiting()
    user = User.objects.create_user("grace", password=PASSWORD, is_staff=True)
    user.groups.set(Group.objects.filter(name="payments"))
    page.goto("/admin/")
    page.keyboard.type("grace")  # the form has the focus already
    tab_to(page, "Password")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Work queue").wait_for()
    page.wait_for_load_state("networkidle")  # the charts are there and move nothing any more

    tab_to(page, "Orders")
    page.keyboard.press("Enter")
    page.wait_for_url("**/orders/order/")
    tab_to(page, "Skip to main content")
    page.keyboard.press("Enter")
    tab_to(page, order.number)
    page.keyboard.press("Enter")
    page.wait_for_url("**/change/")
    tab_to(page, "Confirm payment")
    page.keyboard.press("Enter")
    page.wait_for_url("**/confirm-payment/")
    tab_to(page, "Reason")
    page.keyboard.type("Seen on the statement.")
    tab_to(page, "Confirm payment")
    page.keyboard.press("Enter")
    page.wait_for_url("**/change/")
    expect(page.locator(".messagelist")).to_contain_text("The payment is confirmed")
    assert OrderEvent.objects.get(kind="confirm").actor == "grace"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_stop_is_seen_and_none_is_a_trap(scheme: str, login: Login) -> None:
    letter = dead_letter()
    order = letter.saga.order
    page = login()
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
    for address in (
        "orders/order/",
        "orders/order/add/",
        f"orders/order/{order.pk}/change/",
        f"ops/dead-letters/{letter.pk}/resolve/",
        "auth/user/",
    ):
        page.goto(f"/admin/{address}")
        assert stops(page) > 10


def test_the_skip_link_skips_to_the_page_itself(login: Login) -> None:
    page = login("orders")
    page.goto("/admin/orders/order/")
    page.keyboard.press("Tab")
    assert page.evaluate(FOCUS)["name"] == "Skip to main content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")


def test_the_focus_stays_when_a_page_renews_itself(login: Login) -> None:
    factories.product()
    order = waiting()
    saga = Saga.objects.get()
    page = login()
    page.goto(f"/admin/orders/order/{order.pk}/change/")
    cancel = page.get_by_role("link", name="Cancel order")
    cancel.focus()
    cancel.evaluate("link => { window.before = link }")
    order.events.create(kind="comment", actor="ada", reason="Called the customer.")
    expect(page.locator("#order-timeline")).to_contain_text("Called the customer.")
    expect(cancel).to_be_focused()
    assert not page.evaluate("window.before.isConnected")

    move_saga(saga, "compensating")  # there is nothing to cancel any more: the focus stays near
    move_order(saga.order, "rolling_back")
    expect(cancel).to_have_count(0)
    expect(page.locator("#order-panel")).to_be_focused()


def test_only_a_change_of_the_state_is_read_out(login: Login) -> None:
    factories.product()
    order = waiting()
    page = login("viewer")
    page.goto(f"/admin/orders/order/{order.pk}/change/")
    said = page.locator("#order-said")
    assert said.get_attribute("role") == "status"  # polite: it waits until one has listened to the end
    page.evaluate(
        "window.said = []; const box = document.getElementById('order-said');"
        "new MutationObserver(() => window.said.push(box.textContent)).observe(box, {childList: true})"
    )
    order.events.create(kind="comment", actor="ada", reason="Called the customer.")
    expect(page.locator("#order-timeline")).to_contain_text("Called the customer.")
    move_saga(Saga.objects.get(), "compensating")
    move_order(order, "rolling_back")
    expect(said).to_contain_text("rolling back")
    # The rest of the page, which renews itself each second, is silent.
    assert len(page.evaluate("window.said")) == 1
    assert (
        page.locator(
            "#order-panel[aria-live], #order-timeline[aria-live], #order-panel [role=status]"
        ).count()
        == 0
    )


def test_the_same_trouble_is_read_out_once(login: Login) -> None:
    """Temporal is away: the first page asks again and again, and says it once."""
    page = login("orders")
    page.clock.install()
    page.goto("/admin/")
    notice = page.locator("#notice")
    expect(notice).to_contain_text("Temporal does not answer")
    assert notice.get_attribute("role") == "status"
    notice.evaluate("box => { box.firstElementChild.dataset.same = '' }")
    with page.expect_response("**/ops/health/notice/"):
        page.clock.run_for(31_000)
    page.clock.run_for(1_000)
    expect(notice.locator("[data-same]")).to_have_count(1)


def test_escape_closes_what_was_opened(login: Login) -> None:
    factories.product()
    order = waiting()
    page = login("viewer")
    page.goto(f"/admin/orders/order/{order.pk}/change/")
    detail = page.locator("#order-timeline details").first
    detail.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(detail).to_have_attribute("open", "")
    page.keyboard.press("Escape")
    expect(detail).not_to_have_attribute("open", "")
    expect(detail.locator("summary")).to_be_focused()


def test_what_scrolls_sideways_is_scrolled_with_the_keys(login: Login) -> None:
    factories.product()
    waiting(paid=1000)
    page = login("viewer")
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"/admin/payments/payment/{Saga.objects.get().payment_id}/change/")
    table = page.locator(".inline-group").first
    expect(table).to_have_attribute("tabindex", "0")
    table.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("box => box.scrollLeft > 0", arg=table.element_handle())
    page.set_viewport_size({"width": 1600, "height": 740})  # all of it is there to see: no stop for nothing
    expect(table).not_to_have_attribute("tabindex", "0")
