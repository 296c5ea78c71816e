"""What ops were told, to look at."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from orders.models import OpsAlertNotice
from orders.services.alerting import TITLES
from orders.words import said
from shop.kernel.admin.readonly import LookOnlyAdmin


class TopicFilter(admin.SimpleListFilter):
    title = _("topic")
    parameter_name = "topic"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [(topic, said(title)) for topic, title in TITLES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[OpsAlertNotice]) -> QuerySet[OpsAlertNotice]:
        return queryset.filter(alert__topic=self.value()) if self.value() else queryset


@admin.register(OpsAlertNotice)
class OpsAlertNoticeAdmin(LookOnlyAdmin):
    list_display = ("at", "subject", "told", "mailed_at", "posted_at", "error")
    list_display_links = ("at", "subject")
    list_filter = (TopicFilter, "part")
    sortable_by: ClassVar = ()
    fields = ("subject", "text", "part", "told", "at", "mailed_at", "posted_at", "error")
    readonly_fields = fields
