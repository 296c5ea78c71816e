"""The staff site enlarged to twice its size, and for people whom motion makes ill."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from orders.models import DeadLetter, Order
from payments.models import ReviewItem
from tests.browser import whole_site
from tests.shop.test_who_may_what import everything, quiet

__all__ = ["everything", "quiet"]  # fixtures: a shop with one row of everything
pytestmark = pytest.mark.django_db(transaction=True)
Login = Callable[..., Page]

# Texts and controls that cover each other, or of which a part is cut off where nothing can be scrolled.
COVERED = """() => {
  const clip = (element, box) => {
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      if (style.overflowX === 'visible' && style.overflowY === 'visible') continue;
      const edge = at.getBoundingClientRect();
      box = {left: Math.max(box.left, edge.left), right: Math.min(box.right, edge.right),
             top: Math.max(box.top, edge.top), bottom: Math.min(box.bottom, edge.bottom)};
    }
    return box;
  };
  const found = [];
  const pieces = [];
  const add = (element, box, what) => {
    const shown = clip(element, box);
    if (shown.right - shown.left > 2 && shown.bottom - shown.top > 2) pieces.push({element, what, ...shown});
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode, parent = text.parentElement;
    if (!text.data.trim() || !parent.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
    if (parent.closest('.visually-hidden, .skip-to-content-link, option, svg')) continue;
    const range = document.createRange();
    range.selectNodeContents(text);
    for (const box of range.getClientRects()) add(parent, box, text.data.trim().slice(0, 40));
  }
  for (const control of document.querySelectorAll('input:not([type=hidden]), select, textarea, img, progress')) {
    if (!control.checkVisibility()) continue;
    add(control, control.getBoundingClientRect(), control.outerHTML.slice(0, 60));
  }
  pieces.sort((a, b) => a.top - b.top);
  pieces.forEach((one, i) => {
    for (let j = i + 1; j < pieces.length && pieces[j].top < one.bottom - 3; j++) {
      const other = pieces[j];
      if (Math.min(one.right, other.right) - Math.max(one.left, other.left) > 3
          && Math.min(one.bottom, other.bottom) - other.top > 3)
        found.push(`“${one.what}” and “${other.what}” cover each other`);
    }
  });
  for (const box of document.querySelectorAll('#content *, #header *')) {
    const style = getComputedStyle(box);
    const cuts = (style.overflowX === 'hidden' || style.overflowX === 'clip') && box.scrollWidth > box.clientWidth + 1;
    // What Django moves out of sight on purpose says the same as a picture.
    if (cuts && style.textIndent === '0px' && !box.matches('.visually-hidden, svg, svg *'))
      found.push(`“${box.textContent.trim().slice(0, 40)}” is cut off`);
  }
  return found;
}"""
MOVING = """() => [...document.querySelectorAll('*')].flatMap(element =>
  [null, '::before', '::after'].map(part => getComputedStyle(element, part))
    .filter(style => style.animationName !== 'none' || style.transitionDuration.split(', ').some(parseFloat))
    .map(() => element.outerHTML.slice(0, 80)))"""
SIDEWAYS = "document.documentElement.scrollWidth - window.innerWidth"


def test_at_twice_the_size_nothing_is_cut_or_covered(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_site.fill(monkeypatch)
    logged_in = login()
    browser = logged_in.context.browser
    assert browser
    # 1280 px at 200 %.
    context = browser.new_context(
        base_url=logged_in.url.partition("/admin")[0],
        viewport={"width": 640, "height": 400},
        device_scale_factor=2,
        reduced_motion="reduce",
        storage_state=logged_in.context.storage_state(),
    )
    page = context.new_page()
    found = []
    for address in whole_site.tour():
        page.goto(address)
        page.wait_for_load_state("networkidle")
        found += [f"{address}: {words}" for words in page.evaluate(COVERED)]
        if (wider := page.evaluate(SIDEWAYS)) > 0:
            found.append(f"{address} is {wider} px too wide")
    context.close()
    assert not found, "\n".join(found)


def test_nothing_moves_for_those_who_do_not_want_it(login: Login) -> None:
    page = login()
    for address in (
        "",
        "orders/order/",
        f"orders/order/{Order.objects.get().pk}/change/",
        f"ops/dead-letters/{DeadLetter.objects.get().pk}/",
        f"payments/reviewitem/{ReviewItem.objects.get().pk}/change/",
        "orders/order/add/",
    ):
        page.goto(f"/admin/{address}")
        page.emulate_media(reduced_motion="no-preference")
        assert page.evaluate(MOVING)  # the others see links fade from colour to colour
        page.emulate_media(reduced_motion="reduce")
        assert page.evaluate(MOVING) == []
