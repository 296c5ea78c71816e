"""Every page of the staff site as axe-core sees it, in the light and in the dark, on a desk and on a phone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from importlib.resources import files

import pytest
from playwright.sync_api import Page

from tests.browser import whole_site
from tests.shop.test_who_may_what import everything, quiet

__all__ = ["everything", "quiet"]  # fixtures: a shop with one row of everything
pytestmark = pytest.mark.django_db(transaction=True)

AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LIGHT, DARK = "light", "dark"
DESK, PHONE = 1280, 360
# Everything in the light; in the dark what depends on colours.
COLOURS = ["color-contrast", "link-in-text-block"]

# Mails are documents of their own, which their readers put into a page.
MAIL = re.compile(r"/admin/orders/mail/\d+/html/")
# Made by Django's own script for two lists side by side, which takes no template.
ALLOWED = {("aria-prohibited-attr", "search-label-icon")}

LOOK = """async ([tags, rules]) => {
  await new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  const result = await axe.run(document, {
    runOnly: rules.length ? {type: 'rule', values: rules} : {type: 'tag', values: tags},
    rules: rules.length ? {} : {'target-size': {enabled: true}},
    resultTypes: ['violations'],
    preload: false,  // it would fetch the stylesheets once more, which the content policy forbids
  });
  return result.violations.flatMap(rule => rule.nodes.map(node =>
    [rule.id, node.html.slice(0, 200), node.failureSummary.split('\\n').slice(1).join(' ').slice(0, 300)]));
}"""
SIDEWAYS = "document.documentElement.scrollWidth - window.innerWidth"


class Inspection:
    """Looks at pages, each in both schemes and widths, and keeps what it finds wrong: each fault once."""

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
        self.look(address)

    def look(self, address: str) -> None:
        tags = [tag for tag in TAGS if tag != "best-practice"] if MAIL.match(address) else TAGS
        for scheme, width in ((LIGHT, DESK), (DARK, DESK), (DARK, PHONE), (LIGHT, PHONE)):
            self.page.emulate_media(color_scheme="dark" if scheme == DARK else "light")
            self.page.set_viewport_size({"width": width, "height": 800})
            at = f"{address}, {scheme}, {width} px"
            for rule, html, why in self.page.evaluate(LOOK, [tags, COLOURS if scheme == DARK else []]):
                if not any(rule == name and part in html for name, part in ALLOWED):
                    self.found.setdefault((rule, html), f"{rule} at {at}: {html} {why}")
            if (wider := self.page.evaluate(SIDEWAYS)) > 0:
                self.found["sideways", at] = f"{at} is {wider} px too wide"


def test_no_page_breaks_a_rule_of_accessibility(
    login: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_site.fill(monkeypatch)
    inspection = Inspection(login())
    for address in whole_site.addresses():
        begin = time.monotonic()
        inspection.visit(address)
        print(address, round(time.monotonic() - begin, 2))
    assert not inspection.found, "\n".join(inspection.found.values())
