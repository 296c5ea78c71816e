"""Form fields of the staff's screens: amounts, days and reasons.

What could be read in two ways is refused, never guessed.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from shop.kernel.amounts import AmountInvalid, parse_amount, written

DAY = "%Y-%m-%d"  # what a browser sends, whatever it shows
_DOTTED = re.compile(r"(\d{1,2})\. ?(\d{1,2})\. ?(\d{4})", re.ASCII)


class AmountField(forms.CharField):
    """Shows and takes major units, gives minor units (an int, or None when left empty).

    An int instead of a text is minor units already: so a form can be made again from what was understood.
    """

    def __init__(self, *, currency: str = "EUR", **kwargs: Any) -> None:
        widget = forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off", "size": 14})
        super().__init__(**{"widget": widget, "max_length": 40, **kwargs})
        self.currency = currency

    def prepare_value(self, value: Any) -> Any:
        return written(value, self.currency) if isinstance(value, int) else value

    def clean(self, value: Any) -> Any:
        if isinstance(value, int):
            return value
        text = super().clean(value)
        if not text:
            return None
        try:
            return parse_amount(text, self.currency)
        except AmountInvalid as error:
            raise ValidationError(str(error), code="invalid") from None

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(initial != self.clean(data))
        except ValidationError:
            return True


class DayField(forms.DateField):
    """A day, picked or typed: 2026-11-23 or 23.11.2026, in any language.

    Nothing with strokes, in which the month may come first. With `no_later_than_today` the future is refused.
    """

    default_error_messages = {  # as Django has it
        "invalid": _("This is not a day. Write it like 2026-11-23 or 23.11.2026."),
        "future": _("This day is yet to come."),
    }

    def __init__(self, *, no_later_than_today: bool = False, **kwargs: Any) -> None:
        widget = forms.DateInput(format=DAY, attrs={"type": "date"})
        super().__init__(**{"widget": widget, "input_formats": [DAY], **kwargs})
        self.no_later_than_today = no_later_than_today

    def to_python(self, value: Any) -> date | None:
        if isinstance(value, str) and (found := _DOTTED.fullmatch(value.strip())):
            day, month, year = found.groups()
            value = f"{year}-{month}-{day}"
        return super().to_python(value)

    def validate(self, value: Any) -> None:
        super().validate(value)
        if self.no_later_than_today and value and value > latest_today():
            raise ValidationError(self.error_messages["future"], code="future")

    def get_bound_field(self, form: Any, field_name: str) -> Any:
        if self.no_later_than_today:
            self.widget.attrs["max"] = latest_today().isoformat()
        return super().get_bound_field(form, field_name)


def latest_today() -> date:
    """The day that it is where days begin first (UTC+14): a booking's day has no zone."""
    return (timezone.now() + timedelta(hours=14)).date()


class ReasonField(forms.CharField):
    """Why somebody does something: a sentence or two."""

    def __init__(self, **kwargs: Any) -> None:
        widget = forms.Textarea(attrs={"rows": 3, "cols": 60})
        super().__init__(**{"widget": widget, "max_length": 2000, **kwargs})
