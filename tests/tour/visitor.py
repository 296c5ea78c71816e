"""Somebody of the staff in a real browser, who takes pictures of what they see."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.drill.running_shop import RunningShop
from tests.servers import BROWSERS
from tests.tour.busy_day import BusyDay

WIDE, NARROW = 1280, 360
COLOURS = 128
PATIENCE_MS = 60_000


@dataclass
class Visitor:
    """`complaints`: what the browser's console has said of the pages so far."""

    shop: RunningShop
    page: Page
    day: BusyDay | None = None
    complaints: list[str] = field(default_factory=list)

    def look(self, path: str) -> None:
        """Open a page of the shop, and wait until its live parts are there."""
        answer = self.page.goto(self.shop.up["web"] + path)
        assert answer is not None
        assert answer.status == 200, f"{path}: {answer.status}"
        self.settle()

    def look_at_order(self, name: str) -> None:
        """`name`: what has become of it, as `BusyDay` has it."""
        assert self.day is not None
        self.look(f"/admin/orders/order/number/{self.day.orders[name]}/")

    def follow(self, link: str) -> None:
        self.page.get_by_role("link", name=link, exact=True).first.click()
        self.settle()

    def settle(self) -> None:
        self.page.wait_for_load_state("networkidle")

    def scroll_to(self, selector: str) -> None:
        """So that it begins a little below the upper edge."""
        self.page.locator(selector).first.evaluate(
            "part => window.scrollTo({top: part.getBoundingClientRect().top + scrollY - 56, behavior: 'instant'})"
        )

    def wear(self, *, dark: bool, narrow: bool) -> None:
        self.page.emulate_media(color_scheme="dark" if dark else "light", reduced_motion="reduce")
        self.page.set_viewport_size(
            {"width": NARROW, "height": 740} if narrow else {"width": WIDE, "height": 800}
        )

    def picture(self) -> bytes:
        """What can be seen now, as a PNG of few colours: a quarter of the size, and no eye sees it."""
        taken = Image.open(io.BytesIO(self.page.screenshot(caret="hide", animations="disabled")))
        few = taken.convert("RGB").quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        file = io.BytesIO()
        few.save(file, "PNG", optimize=True)
        return file.getvalue()


@contextmanager
def visiting(shop: RunningShop) -> Iterator[Visitor]:
    """An administrator who has logged in, until the block ends."""
    with sync_playwright() as playwright:
        browser: Browser = playwright.chromium.launch(executable_path=_chromium(), args=["--no-sandbox"])
        page = browser.new_context(locale="en-GB", timezone_id="Europe/Berlin").new_page()
        page.set_default_timeout(PATIENCE_MS)
        visitor = Visitor(shop, page)
        page.on(
            "console",
            lambda told: (
                visitor.complaints.append(f"{page.url}: {told.text}")
                if told.type in ("error", "warning")
                else None
            ),
        )
        page.on("pageerror", lambda error: visitor.complaints.append(f"{page.url}: {error}"))
        visitor.look("/admin/")
        page.get_by_label("Username").fill("admin")
        page.get_by_label("Password").fill(shop.up["accounts"]["admin"])
        page.get_by_role("button", name="Log in").click()
        visitor.settle()
        try:
            yield visitor
        finally:
            browser.close()


def _chromium() -> str:
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SystemExit("No Chromium found. Install the package chromium, or set CHROMIUM to its path.")
    return found
