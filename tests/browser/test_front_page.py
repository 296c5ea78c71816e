"""The first page and an order's page in a browser: what renews itself, stays as one left it, and owns up to trouble."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.utils import timezone
from playwright.sync_api import Page, expect
from pytest_django.fixtures import Settings

from orders.models import Mail, Saga, SagaStep
from orders.services import lifecycle, mails
from shop.kernel import temporal
from tests import factories
from tests.browser.conftest import PATIENCE_MS
from tests.orders.test_admin import waiting
from tests.payments.sandbox_process import SandboxProcess

pytestmark = pytest.mark.django_db(transaction=True)
expect.set_options(timeout=PATIENCE_MS)
Login = Callable[..., Page]


@pytest.fixture(autouse=True)
def _no_engine(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody listens where Temporal should be."""
    settings.TEMPORAL_ADDRESS = "127.0.0.1:1"
    monkeypatch.setattr(temporal, "_client", None)
    cache.clear()
    yield
    cache.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_come_after_the_queue_and_have_their_numbers(
    scheme: str, login: Login, provider: SandboxProcess
) -> None:
    factories.product(on_hand=9)
    order = waiting()
    Saga.objects.filter(order=order).update(deadline=timezone.now() + timedelta(hours=5))
    page = login()
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto("/admin/")
    expect(page.get_by_role("link", name="Unpaid orders with a deadline")).to_contain_text("€39.98")
    expect(page.get_by_role("img", name="Value waiting")).to_be_visible()
    page.locator("#chart-waiting summary").click()
    expect(page.locator("#chart-waiting table")).to_contain_text("€39.98")
    colours = page.evaluate(
        "['rect.vk-tone-wait', '#content'].map(s => { const c = getComputedStyle(document.querySelector(s));"
        " return s === '#content' ? getComputedStyle(document.body).backgroundColor : c.fill; })"
    )
    assert colours[0] != colours[1]
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    # Temporal is away, and the page says so.
    expect(page.get_by_text("Temporal does not answer at 127.0.0.1:1")).to_be_visible()


def test_an_empty_shop_leads_through_its_first_steps(login: Login, provider: SandboxProcess) -> None:
    page = login()
    steps = page.locator("#first-steps")
    expect(steps.get_by_role("listitem").filter(has_text="Start the worker")).to_contain_text("to do")
    products = steps.get_by_role("listitem").filter(has_text="Add your products")
    expect(products).to_contain_text("to do")
    expect(products.get_by_role("link")).to_have_attribute("href", "/admin/orders/product/add/")
    factories.product()
    expect(products).to_contain_text("done")  # by itself


def test_health_is_told_of_each_part(login: Login, provider: SandboxProcess) -> None:
    page = login("viewer")
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto("/admin/ops/health/")
    expect(page.get_by_role("row").filter(has_text="Database")).to_contain_text("works")
    expect(page.get_by_role("row").filter(has_text="Sandbox")).to_contain_text("works")
    expect(page.get_by_role("row").filter(has_text="Worker of the queue “orders”")).to_contain_text(
        "does not work"
    )
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0


def test_the_deadline_is_told_in_local_time_and_as_what_is_left(
    login: Login, provider: SandboxProcess
) -> None:
    factories.product()
    order = waiting()
    deadline = timezone.now() + timedelta(hours=30, minutes=30)
    Saga.objects.update(deadline=deadline)
    page = login("viewer")
    browser = page.context.browser
    assert browser
    context = browser.new_context(timezone_id="Asia/Tokyo", storage_state=page.context.storage_state())
    there = context.new_page()
    there.goto(f"{page.url.split('/admin')[0]}/admin/orders/order/{order.pk}/change/")
    told = there.locator("#order-panel time[data-local]")
    in_tokyo = deadline + timedelta(hours=9)
    expect(told).to_contain_text(f"{in_tokyo:%b} {in_tokyo.day}, {in_tokyo.year}")
    assert told.get_attribute("title") == f"{deadline:%Y-%m-%d %H:%M} UTC"
    expect(there.locator("#order-panel time[data-countdown]")).to_have_text("in 30 hours")
    Saga.objects.update(deadline=timezone.now() + timedelta(seconds=90))
    expect(there.locator("#order-panel time[data-countdown]")).to_contain_text(
        "seconds"
    )  # renewed, and told anew
    context.close()


def test_a_filter_and_an_open_detail_stay_when_the_timeline_renews_itself(
    login: Login, provider: SandboxProcess
) -> None:
    factories.product()
    order = waiting()
    lifecycle.cancel(order.number, "ada", "no money")
    saga = Saga.objects.get()
    page = login("viewer")
    page.goto(f"/admin/orders/order/{order.pk}/change/")
    page.get_by_label("Steps and rollbacks").check()
    timeline = page.locator("#order-timeline")
    expect(timeline.get_by_text("Order placed", exact=True)).to_be_hidden()
    expect(timeline.get_by_text("Stock reserved", exact=True)).to_be_visible()
    page.locator("#order-timeline .vk-step summary").first.click()
    expect(timeline.get_by_text("idempotency key")).to_be_visible()
    SagaStep.objects.create(
        saga=saga, step="payment_hold", kind="compensation", outcome="succeeded", attempt=1,
        idempotency_key="k", actor="saga", rollback_run="r", started_at=timezone.now() - timedelta(seconds=2),
    )  # fmt: skip
    expect(timeline.get_by_text("Authorization released", exact=True)).to_be_visible()
    expect(timeline.get_by_text("Order placed", exact=True)).to_be_hidden()
    expect(timeline.get_by_text("idempotency key").first).to_be_visible()
    page.get_by_label("Mails").check()
    expect(timeline.get_by_text("Nothing of this kind.")).to_be_visible()


def test_a_comment_reaches_the_colleague_whom_it_names(login: Login, provider: SandboxProcess) -> None:
    factories.product()
    order = factories.place()
    ada = User.objects.create_user("ada", is_staff=True)
    ada.groups.set(Group.objects.filter(name="orders"))
    page = login("orders")
    page.goto(f"/admin/orders/order/{order.pk}/change/")
    page.get_by_label("Comment").fill("@ada, please call the customer.")
    page.get_by_role("button", name="Add comment").click()
    expect(page.get_by_text("ada will see it on their first page.")).to_be_visible()
    expect(page.locator("#order-timeline")).to_contain_text("please call the customer")
    page.goto("/admin/")
    page.context.clear_cookies()
    ada.set_password("a good long password")
    ada.save()
    page.goto("/admin/")
    page.get_by_label("Username").fill("ada")
    page.get_by_label("Password").fill("a good long password")
    page.get_by_role("button", name="Log in").click()
    mention = page.get_by_role("region", name="You are mentioned")
    expect(mention).to_contain_text("please call the customer")
    mention.get_by_role("button", name="Done").click()
    expect(mention).to_have_count(0)


def test_a_mail_is_shown_as_it_was_sent(login: Login, provider: SandboxProcess) -> None:
    factories.product()
    waiting()
    mails.write(Saga.objects.get(), "received")
    page = login("viewer")
    page.goto(f"/admin/orders/mail/{Mail.objects.get().pk}/change/")
    frame = page.frame_locator("iframe")
    expect(frame.locator("body")).to_contain_text("Hello Ada Lovelace")
    assert frame.locator("body").evaluate("b => getComputedStyle(b).maxWidth") != "none"


def test_on_paper_an_order_has_no_buttons(login: Login, provider: SandboxProcess) -> None:
    factories.product()
    order = waiting()
    page = login()
    page.goto(f"/admin/orders/order/{order.pk}/change/")
    page.emulate_media(media="print")
    expect(page.locator("#order-panel")).to_be_visible()
    for hidden in (".vk-acts", ".submit-row", ".vk-comment", "#timeline-filter", "#header", ".object-tools"):
        expect(page.locator(hidden)).to_be_hidden()


def test_a_page_that_cannot_renew_itself_says_so_until_it_can(login: Login, provider: SandboxProcess) -> None:
    factories.product()
    order = waiting()
    logged_in = login("viewer")
    page = (
        logged_in.context.new_page()
    )  # without the fixture's ears: the console is told of what cannot be loaded
    page.goto(f"/admin/orders/order/{order.pk}/change/")
    lost = page.get_by_text("This page is not up to date")
    expect(lost).to_be_hidden()
    page.route("**/live/*", lambda route: route.abort())
    expect(lost).to_be_visible()
    page.unroute("**/live/*")
    expect(lost).to_be_hidden()
