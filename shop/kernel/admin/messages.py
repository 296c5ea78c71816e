"""The outbox, to look at: what is on its way to the engine, and what could not be delivered."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from shop.kernel.admin.labels import label
from shop.kernel.admin.readonly import LookOnlyAdmin
from shop.kernel.models import OutboxMessage

LATE_AFTER = timedelta(minutes=1)


def overdue(messages: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
    """Those queued for more than a minute: the engine or the worker is away."""
    before = timezone.now() - LATE_AFTER
    return messages.filter(state=OutboxMessage.State.QUEUED, created_at__lt=before)


class OverdueFilter(admin.SimpleListFilter):
    title = _("waiting")
    parameter_name = "waiting"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [("long", str(_("for more than a minute")))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
        return overdue(queryset) if self.value() == "long" else queryset


@admin.register(OutboxMessage)
class OutboxMessageAdmin(LookOnlyAdmin):
    list_display = ("name", "workflow_id", "state_label", "attempts", "created_at", "delivered_at")
    list_filter = ("state", OverdueFilter)
    search_fields = ("workflow_id__startswith", "message_id__startswith")
    ordering: ClassVar = ["-id"]
    sortable_by: ClassVar = ()

    @admin.display(description=_("state"))
    def state_label(self, message: OutboxMessage) -> SafeString:
        return label(message.state, message.get_state_display())
