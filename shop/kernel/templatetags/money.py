"""`{{ 1999|money:"EUR" }}`: an amount in minor units, as people of the active language write it."""

from __future__ import annotations

from django import template

from shop.kernel.money import Money

register = template.Library()


@register.filter
def money(amount: int | None, currency: str) -> str:
    """The formatted amount; empty for None."""
    return "" if amount is None else Money(amount, currency).format()
