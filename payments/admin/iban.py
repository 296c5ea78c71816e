"""The form field of an account: an IBAN as people paste it, and as they read it."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from payments.banking.account import AccountInvalid, grouped, valid_iban

_LABEL = re.compile(r"^\W*IBAN\W*", re.IGNORECASE)
_BETWEEN = re.compile(r"[\s.\-\u00ad\u200b\u2013]")


class IbanField(forms.CharField):
    """Takes “IBAN: de89 3704 …” too, gives it in upper case without spaces, and shows it in groups of four."""

    def __init__(self, **kwargs: Any) -> None:
        attrs = {"size": 42, "autocomplete": "off", "autocapitalize": "characters", "spellcheck": "false"}
        super().__init__(**{"widget": forms.TextInput(attrs=attrs), "max_length": 80, **kwargs})

    def prepare_value(self, value: Any) -> Any:
        return grouped(_compact(value)) if value else value

    def clean(self, value: Any) -> Any:
        typed = _compact(super().clean(value))
        if not typed:
            return ""
        try:
            return valid_iban(typed)
        except AccountInvalid as error:
            raise ValidationError(str(error), code="invalid") from None


def _compact(text: str) -> str:
    return _BETWEEN.sub("", _LABEL.sub("", text)).upper()
