"""The admin of the roof: what people did to the schedules, whose page is in `shop.schedule_pages`; and who gets in."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin

from shop import access_admin
from shop.kernel.admin.readonly import LookOnlyAdmin
from shop.models import ScheduleAct

__all__ = ["access_admin"]


@admin.register(ScheduleAct)
class ScheduleActAdmin(LookOnlyAdmin):
    list_display = ("asked_at", "schedule", "verb", "actor", "reason", "outcome")
    list_filter = ("schedule", "verb")
    sortable_by: ClassVar = ()
    fields = ("schedule", "verb", "actor", "reason", "outcome", "asked_at", "done_at")
    readonly_fields = fields
