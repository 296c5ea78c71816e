"""What ops were told, to look at."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin

from orders.models import OpsAlertNotice
from shop.kernel.admin.readonly import LookOnlyAdmin


@admin.register(OpsAlertNotice)
class OpsAlertNoticeAdmin(LookOnlyAdmin):
    list_display = ("at", "subject", "told", "mailed_at", "posted_at", "error")
    list_display_links = ("at", "subject")
    list_filter = ("alert__topic", "part")
    sortable_by: ClassVar = ()
    fields = ("subject", "text", "part", "told", "at", "mailed_at", "posted_at", "error")
    readonly_fields = fields
