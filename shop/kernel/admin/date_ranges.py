"""Filter a list by a time: from one day to another, both included, in UTC."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from shop.kernel.forms import DayField

if TYPE_CHECKING:
    Rows = QuerySet[Any]
else:
    Rows = QuerySet


class DateRange(admin.ListFilter):
    """Of `field`, a moment; a subclass may say otherwise what `between` means. What is left empty is open."""

    template = "admin/date_range.html"
    field: ClassVar[str] = "created_at"
    name: ClassVar[str] = "created"  # in addresses

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        self.names = [f"{self.name}_from", f"{self.name}_to"]
        data = {}
        for name in self.names:
            if name in params:
                data[name] = params.pop(name)[-1]
        self.used_parameters = {name: value for name, value in data.items() if value}
        self.form = forms.Form(data or None)
        for name, label in zip(self.names, (_("From"), _("To")), strict=True):
            self.form.fields[name] = DayField(label=label, required=False)

    def expected_parameters(self) -> list[str | None]:
        return [*self.names]

    def has_output(self) -> bool:
        return True

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """None; for the template, what else the address asks for."""
        self.others = [
            (name, value)
            for name, values in changelist.filter_params.items()
            for value in values
            if name not in (*self.names, PAGE_VAR)
        ]
        self.clear_url = changelist.get_query_string(remove=self.names)
        return iter(())

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        if not self.used_parameters:
            return queryset
        if not self.form.is_valid():
            return queryset.none()
        first, last = (self.form.cleaned_data[name] for name in self.names)
        return self.between(queryset, first, last)

    def between(self, rows: Rows, first: date | None, last: date | None) -> Rows:
        return rows.filter(**within(self.field, first, last))


class DayRange(DateRange):
    """Of a field that is a day."""

    def between(self, rows: Rows, first: date | None, last: date | None) -> Rows:
        wanted = {f"{self.field}__gte": first, f"{self.field}__lte": last}
        return rows.filter(**{name: day for name, day in wanted.items() if day})


def within(field: str, first: date | None, last: date | None) -> dict[str, datetime]:
    """For `filter`: the moments from the beginning of `first` to the end of `last`."""
    wanted = {}
    if first:
        wanted[f"{field}__gte"] = _midnight(first)
    if last and last < date.max:
        wanted[f"{field}__lt"] = _midnight(last + timedelta(days=1))
    return wanted


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)
