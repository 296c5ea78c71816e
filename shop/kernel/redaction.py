"""Taking a person out of texts: what is known of them, and whatever looks like an address, an account or a phone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.db.models import Model, QuerySet

ERASED = "(erased)"

_MAIL = r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+"
_IBAN = r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,3})?\b"
_PHONE = r"\+\d[\d ()/-]{6,}\d|\b0\d{2,5}[ /-]\d[\d ]{3,}\d"


class Redactor:
    """Replaces what is known of a person, in any spelling of case and spaces.

    `names` are of people: each of their words of three letters or more counts by itself too. `others` are whole
    texts: addresses of mail and street, accounts. Our own creditor references (RF…) stay.
    """

    def __init__(self, names: Iterable[str], others: Iterable[str]) -> None:
        names = list(names)
        wanted = {text.strip() for text in (*names, *others)}
        for name in names:
            wanted.update(re.findall(r"[^\W\d_]{3,}", name))
        spelled = sorted(filter(None, wanted), key=len, reverse=True)
        known = [rf"(?<!\w){_any_spelling(text)}(?!\w)" for text in spelled if ERASED not in text]
        self._known = re.compile("|".join([*known, _MAIL, _PHONE]), re.IGNORECASE)
        self._iban = re.compile(_IBAN)

    def text(self, text: str) -> str:
        cleared = self._known.sub(ERASED, text)
        return self._iban.sub(lambda found: found[0] if found[0].startswith("RF") else ERASED, cleared)

    def value(self, value: Any) -> Any:
        """The same for what is inside JSON."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(each) for each in value]
        if isinstance(value, dict):
            return {key: self.value(each) for key, each in value.items()}
        return value


def _any_spelling(text: str) -> str:
    """A pattern: accounts may be written in groups, and between words is any space."""
    compact = text.replace(" ", "")
    if re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}", compact):
        return " ?".join(compact)
    return r"\s+".join(map(re.escape, text.split()))


def write_over(
    rows: QuerySet[Any], changes: Mapping[str, Callable[[Any], Any]], counts: Counter[str]
) -> None:
    """Change these fields of each row, where that makes a difference; counts the rows by their model."""
    model: type[Model] = rows.model
    for row in rows.order_by("pk"):
        new = {name: change(getattr(row, name)) for name, change in changes.items()}
        changed = {name: value for name, value in new.items() if value != getattr(row, name)}
        if changed:
            model._base_manager.filter(pk=row.pk).update(**changed)
            counts[str(model._meta.verbose_name_plural)] += 1


def erased(value: Any) -> str:
    """For a field that is a person's and nothing else; empty stays empty."""
    return ERASED if value else ""
