"""The admin of the roof: what people did to the schedules. Their page is in `shop.schedule_pages`."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin

from shop.kernel.admin.readonly import LookOnlyAdmin
from shop.models import ScheduleAct


@admin.register(ScheduleAct)
class ScheduleActAdmin(LookOnlyAdmin):
    list_display = ("asked_at", "schedule", "verb", "actor", "reason", "outcome")
    list_filter = ("schedule", "verb")
    sortable_by: ClassVar = ()
    fields = ("schedule", "verb", "actor", "reason", "outcome", "asked_at", "done_at")
    readonly_fields = fields
