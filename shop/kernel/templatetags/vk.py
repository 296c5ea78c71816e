"""Small formats of the staff's screens."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from django import template
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from shop.kernel.admin.labels import label
from shop.kernel.durations import in_words, roughly
from shop.kernel.money import Money

register = template.Library()


@register.filter
def vk_label(state: str, words: str) -> SafeString:
    """`{{ order.status|vk_label:order.get_status_display }}`: a coloured label."""
    return label(state, words)


@register.filter
def underscored(name: str) -> str:
    """`payment_hold` as people read it, in their language if that name is known."""
    words = name.replace("_", " ")
    return gettext(words) if words else ""


@register.filter
def absolute(money: Money) -> str:
    return Money(abs(money.amount), money.currency).format()


@register.filter
def percent(hundredths: int) -> str:
    """1900 is 19 %."""
    return f"{(Decimal(hundredths) / 100).normalize():f} %"


@register.filter
def duration(length: timedelta | None) -> str:
    """`1 h 30 min`; empty for None."""
    return "" if length is None else in_words(length)


@register.filter
def age(length: timedelta) -> str:
    """`3 d`, `5 h`: as people tell an age."""
    return in_words(roughly(length))
