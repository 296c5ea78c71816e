"""The batch checks: when each ran, and what it found."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from payments.models import BatchRun
from shop.kernel.admin.labels import label
from shop.kernel.admin.readonly import LookOnlyAdmin

State = BatchRun.State


class StateFilter(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [
            *((state.value, str(state.label)) for state in State),
            ("left", str(_("not made up for yet"))),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[BatchRun]) -> QuerySet[BatchRun]:
        ended = queryset.filter(finished_at__isnull=False)
        silent = {"finished_at": None, "seen_at__lt": BatchRun.silent_since()}
        match self.value():
            case State.FINISHED:
                return ended.filter(unavailable={})
            case State.INCOMPLETE:
                return ended.exclude(unavailable={})
            case "left":
                return queryset.filter(pk__in=BatchRun.not_made_up_for().values("pk"))
            case State.DIED:
                return queryset.filter(**silent)
            case State.RUNNING:
                return queryset.filter(finished_at=None, seen_at__gte=silent["seen_at__lt"])
        return queryset


@admin.register(BatchRun)
class BatchRunAdmin(LookOnlyAdmin):
    list_display = (
        "started_at", "state_label", "total_checked", "paid", "pending", "failed", "timeout",
        "provider_calls", "took", "stayed_away",
    )  # fmt: skip
    list_filter = (StateFilter, "started_at")
    search_fields = ("workflow_id__startswith",)
    sortable_by: ClassVar = ()
    fieldsets: ClassVar = [
        (None, {"fields": ("state_label", "started_at", "finished_at", "took", "checked_gateways")}),
        (
            _("What it found"),
            {
                "fields": ("total_checked", "paid", "pending", "failed", "timeout", "provider_calls"),
                "description": _(
                    "Of a gateway that tells what has changed, these are the payments of which something new "
                    "was told: what a webhook told of before does not count. Of another, they are all that wait. "
                    "Lapsed are those whose authorization ended before they were paid."
                ),
            },
        ),
        (_("Gateways that stayed away"), {"fields": ("why_away",)}),
        (_("In Temporal"), {"fields": ("workflow_id", "run_id", "seen_at")}),
    ]
    readonly_fields = (
        "state_label", "started_at", "finished_at", "took", "checked_gateways", "total_checked", "paid", "pending",
        "failed", "timeout", "provider_calls", "why_away", "workflow_id", "run_id", "seen_at",
    )  # fmt: skip

    @admin.display(description=_("state"))
    def state_label(self, run: BatchRun) -> SafeString:
        return label(run.state, str(run.state.label))

    @admin.display(description=_("took"))
    def took(self, run: BatchRun) -> str:
        return f"{run.duration.total_seconds():.1f}\N{NO-BREAK SPACE}s" if run.duration is not None else "–"

    @admin.display(description=_("gateways"))
    def checked_gateways(self, run: BatchRun) -> str:
        return ", ".join(run.gateways) or "–"

    @admin.display(description=_("stayed away"))
    def stayed_away(self, run: BatchRun) -> str:
        return ", ".join(sorted(run.unavailable)) or "–"

    @admin.display(description=_("why"))
    def why_away(self, run: BatchRun) -> SafeString | str:
        return format_html_join("", "<p>{}: {}</p>", sorted(run.unavailable.items())) or "–"
