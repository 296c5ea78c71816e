"""Every page of the staff site as axe-core sees it, in the light and in the dark, on a desk and on a phone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from orders.models import DeadLetter
from tests.browser import whole_site
from tests.browser.conftest import PASSWORD
from tests.orders.test_admin import waiting
from tests.shop.test_second_factor import code_of
from tests.shop.test_who_may_what import everything, quiet

__all__ = ["everything", "quiet"]  # fixtures: a shop with one row of everything
pytestmark = pytest.mark.django_db(transaction=True)

Login = Callable[..., Page]

AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LIGHT, DARK = "light", "dark"
DESK, PHONE = 1280, 360
COLOURS = ["color-contrast", "link-in-text-block"]

# Mails are documents of their own, which their readers put into a page.
MAIL = re.compile(r"/admin/orders/mail/\d+/html/$")
# Made by Django's own script for two lists side by side, which takes no template.
ALLOWED = {("aria-prohibited-attr", "search-label-icon")}

LOOK = """async ([rules, but]) => {
  await new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  const result = await axe.run(document, {
    runOnly: rules,
    rules: {'target-size': {enabled: true}, ...Object.fromEntries(but.map(rule => [rule, {enabled: false}]))},
    resultTypes: ['violations'],
    preload: false,  // it would fetch the stylesheets once more, which the content policy forbids
  });
  return result.violations.flatMap(rule => rule.nodes.map(node =>
    [rule.id, node.html.slice(0, 200), node.failureSummary.split('\\n').slice(1).join(' ').slice(0, 300)]));
}"""
SIDEWAYS = "document.documentElement.scrollWidth - window.innerWidth"


class Inspection:
    """Looks at pages and keeps what it finds wrong, each fault once."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.found: dict[tuple[str, str], str] = {}
        page.add_init_script(AXE)
        # Colours change at once, not in the middle of what is looked at.
        page.emulate_media(reduced_motion="reduce")

    def visit(self, address: str) -> None:
        answer = self.page.goto(address)
        assert answer
        assert answer.status == 200, address

    def look(self) -> None:
        """By each rule where its matter changes: contrast with the scheme, all else with the width."""
        self._view(LIGHT, DESK, TAGS)
        self._view(DARK, PHONE, COLOURS)
        self.glance()

    def glance(self) -> None:
        self._view(LIGHT, PHONE, TAGS, but=COLOURS)

    def _view(self, scheme: str, width: int, rules: list[str], but: Sequence[str] = ()) -> None:
        self.page.emulate_media(color_scheme="dark" if scheme == DARK else "light")
        self.page.set_viewport_size({"width": width, "height": 800})
        at = f"{self.page.url}, {scheme}, {width} px"
        if rules == TAGS and MAIL.search(self.page.url):
            rules = [tag for tag in TAGS if tag != "best-practice"]
        for rule, html, why in self.page.evaluate(LOOK, [rules, list(but)]):
            if not any(rule == name and part in html for name, part in ALLOWED):
                self.found.setdefault((rule, html), f"{rule} at {at}: {html} {why}")
        if (wider := self.page.evaluate(SIDEWAYS)) > 0:
            self.found["sideways", at] = f"{at} is {wider} px too wide"


@pytest.fixture
def inspection(page: Page) -> Iterator[Inspection]:
    """Whatever it has found by the end, the test fails by it."""
    inspection = Inspection(page)
    yield inspection
    assert not inspection.found, "\n".join(inspection.found.values())


def test_no_kind_of_page_breaks_a_rule_of_accessibility(
    login: Login, inspection: Inspection, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_site.fill(monkeypatch)
    login()
    for address in whole_site.tour():
        inspection.visit(address)
        inspection.look()


@pytest.mark.parametrize("part", ["orders", "payments", "others"])
def test_every_page_fits_a_phone_and_keeps_the_content_policy(
    part: str, login: Login, inspection: Inspection, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_site.fill(monkeypatch)
    login()
    for address in whole_site.every_page():
        app = address.split("/")[2]
        if part == (app if app in ("orders", "payments") else "others"):
            inspection.visit(address)
            inspection.glance()


def test_neither_does_a_form_with_errors(login: Login, inspection: Inspection) -> None:
    page = login()
    waits = waiting(("TEA", 1))
    for address in (
        "orders/order/add/",
        f"orders/order/{waits.pk}/cancel/",
        f"ops/dead-letters/{DeadLetter.objects.get().pk}/resolve/",
        "payments/bankstatement/import/",
        "orders/product/add/",
    ):
        inspection.visit(f"/admin/{address}")
        page.locator("input[type=submit]").first.click()
        page.locator(".errorlist, .errornote").first.wait_for()
        inspection.look()


def test_nor_do_the_pages_of_who_comes_and_goes(page: Page, inspection: Inspection) -> None:
    User.objects.create_user("grace", password=PASSWORD, is_staff=True)

    def log_in(password: str) -> None:
        page.get_by_label("Username").fill("grace")
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Log in").click()

    inspection.visit("/admin/")
    inspection.look()
    log_in("wrong")
    page.get_by_text("Please enter the correct").wait_for()
    inspection.look()
    log_in(PASSWORD)
    page.get_by_role("heading", name="Work queue").wait_for()
    inspection.look()  # of somebody who may do nothing
    page.goto("/admin/second-factor/")
    page.get_by_role("textbox", name="Code").fill(code_of(page.locator("#secret").inner_text()))
    page.locator("input[type=submit]").click()
    page.locator("#recovery-codes").wait_for()
    inspection.look()
    inspection.visit("/admin/second-factor/")
    inspection.look()
    inspection.visit("/admin/second-factor/remove/")
    inspection.look()
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("heading", name="Logged out").wait_for()
    inspection.look()
    page.goto("/admin/")
    log_in(PASSWORD)
    page.get_by_role("textbox", name="Code").wait_for()
    inspection.look()


@pytest.mark.parametrize("status", [403, 404])
def test_nor_does_the_page_of_a_refusal(status: int, login: Login, inspection: Inspection) -> None:
    page = login("viewer")
    # The browser complains of what it cannot get; here it is told that it got it.
    page.route("**/no/such/page/", lambda route: route.fulfill(response=route.fetch(), status=200))
    page.route("**/auth/user/", lambda route: route.fulfill(response=route.fetch(), status=200))
    inspection.visit("/admin/no/such/page/" if status == 404 else "/admin/auth/user/")
    expect(page.get_by_role("link", name="To the work queue")).to_be_visible()
    inspection.look()
