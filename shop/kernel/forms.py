"""Form fields of the staff's screens: reasons, and amounts as people type them.

An amount that could be read in two ways is refused, never guessed.
"""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from shop.kernel.money import Money, decimals

_PLAIN = re.compile(r"(\d+)(?:[.,](\d*))?", re.ASCII)
_GROUPED = re.compile(r"(\d{1,3}(?:([.,' ])\d{3})+)(?:(?!\2)[.,](\d*))?", re.ASCII)
MAX_DIGITS = 15


def parse_amount(text: str, currency: str) -> int:
    """Minor units from "39.98", "39,98", "1,299.99" or "1.299,99"; raises `ValueError` with a sentence."""
    typed = text.strip().replace("\u00a0", " ").replace("\u2019", "'")
    places = decimals(currency)
    example = Money(1234 * 10**places, currency).decimal
    if found := _PLAIN.fullmatch(typed):
        whole, fraction = found.group(1), found.group(2) or ""
    elif found := _GROUPED.fullmatch(typed):
        whole, fraction = re.sub(r"\D", "", found.group(1)), found.group(3) or ""
    else:
        raise ValueError(f"“{text}” is not an amount. Write it like {example}.")
    if len(fraction) > places:
        raise ValueError(f"{currency} has {places} decimals. Write the amount like {example}.")
    if len(whole) > MAX_DIGITS:
        raise ValueError("The amount is too large.")
    return int(whole + fraction.ljust(places, "0"))


class AmountField(forms.CharField):
    """Shows and takes major units, gives minor units (an int, or None when left empty)."""

    def __init__(self, *, currency: str = "EUR", **kwargs: Any) -> None:
        widget = forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off", "size": 12})
        super().__init__(**{"widget": widget, "max_length": 30, **kwargs})
        self.currency = currency

    def prepare_value(self, value: Any) -> Any:
        return str(Money(value, self.currency).decimal) if isinstance(value, int) else value

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        if not text:
            return None
        try:
            return parse_amount(text, self.currency)
        except ValueError as error:
            raise ValidationError(str(error)) from None

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(super().has_changed(self.prepare_value(initial), data))


class ReasonField(forms.CharField):
    """Why somebody does something: a sentence or two."""

    def __init__(self, **kwargs: Any) -> None:
        widget = forms.Textarea(attrs={"rows": 3, "cols": 60})
        super().__init__(**{"widget": widget, "max_length": 2000, **kwargs})
