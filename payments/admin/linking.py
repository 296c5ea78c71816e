"""Sentences in which order numbers and our own transfers are links."""

from __future__ import annotations

import re

from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from payments.admin.review import order_link
from payments.references import PREFIX

_NAMED = re.compile(rf"(\b(?:{PREFIX}-\d+|VK-[0-9A-F]{{20}})\b)")


def with_links(text: str) -> SafeString:
    """The text, escaped, with what it names as links to the lists that show it."""
    # Every other piece is what the pattern's group found.
    pieces = ((_link(piece) if i % 2 else piece,) for i, piece in enumerate(_NAMED.split(text)))
    return format_html_join("", "{}", pieces)


def _link(name: str) -> SafeString | str:
    if name.startswith(PREFIX):
        return order_link(name)
    url = reverse("admin:payments_outgoingtransfer_changelist")
    return format_html('<a href="{}?q={}">{}</a>', url, name, name)
