"""Finds texts that nobody has marked for translation, on pages as they come out.

While `marked()` is on, every text that goes through gettext comes wrapped in ⟦ and ⟧. What a page shows outside of
them is data (names, numbers, codes), or a text that stays English whatever the reader's language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from html.parser import HTMLParser
from typing import Any
from unittest.mock import patch

from django.utils import translation
from django.utils.safestring import SafeData, mark_safe
from django.utils.translation import trans_real

BEGIN, END = "⟦", "⟧"
# What people read that stands in no text: tips, examples in fields, what screen readers say.
ATTRIBUTES = ("title", "placeholder", "aria-label", "alt", "label", "hx-confirm")
UNSEEN = ("script", "style", "template")
# They have no end tag.
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


@contextmanager
def marked() -> Iterator[None]:
    """Each translated text, Django's own among them, comes wrapped; a text without letters is none."""

    def wrapping(plain: Callable[..., str]) -> Callable[..., str]:
        def wrapped(*args: Any) -> str:
            text = plain(*args)
            if not re.search(r"[^\W\d_]", text):
                return text
            whole = f"{BEGIN}{text}{END}"
            return mark_safe(whole) if isinstance(text, SafeData) else whole

        return wrapped

    names = ("gettext", "ngettext", "pgettext", "npgettext")
    # pgettext looks its context up with gettext, and would wrap twice; that does no harm.
    with ExitStack() as patches:
        for name in names:
            wrapped = wrapping(getattr(trans_real, name))
            patches.enter_context(patch.object(vars(translation)["_trans"], name, wrapped, create=True))
        yield


class Reader(HTMLParser):
    """`found`: the texts of a page that a person may get to read or hear, outside of what is wrapped."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._depth = 0  # how many wrapped texts are open here
        # An element cannot leave a text open: one that was cut short ends with it.
        self._outside: list[tuple[str, int]] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        wanted = [*ATTRIBUTES]
        if tag == "input" and named.get("type") in ("submit", "button", "reset"):
            wanted.append("value")
        for name in wanted:
            if said := named.get(name):
                self._read(said, 0)
        if tag not in VOID:
            self._outside.append((tag, self._depth))
            self._unseen += tag in UNSEEN

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in [name for name, _depth in self._outside]:
            return
        while self._outside:
            name, depth = self._outside.pop()
            self._unseen -= name in UNSEEN
            if name == tag:
                self._depth = depth
                return

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self._depth = self._read(data, self._depth)

    def _read(self, text: str, depth: int) -> int:
        outside = ""
        for character in text:
            if character == BEGIN:
                depth += 1
                outside += "\n"
            elif character == END:
                depth = max(0, depth - 1)
            elif not depth:
                outside += character
        self.found += [said for line in outside.split("\n") if (said := " ".join(line.split()))]
        return depth


def outside(html: str) -> list[str]:
    """What a page shows that is not wrapped."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader.found
