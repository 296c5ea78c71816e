"""Payment providers: which can be called now, what went wrong, and having one asked at once."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payments.models import GatewayIncident, GatewayState
from payments.services import availability
from shop.kernel.admin.acting import Act, ActingAdmin
from shop.kernel.admin.labels import label
from shop.kernel.admin.readonly import LookOnlyAdmin, LookOnlyInline

SHOWN = 200  # incidents
_STATES = {
    "down": _("down"), "asked to wait": _("asked to wait"), "failing": _("failing"), "working": _("working"),
}  # fmt: skip


def warn(request: HttpRequest, gateways: list[str] | None = None) -> None:
    """Say on this page which providers, of those that matter to it, cannot be called now."""
    if request.method == "GET":
        for state in availability.troubles(gateways):
            messages.warning(request, state.sentence)


class AskNow(Act):
    slug = "ask-now"
    label = _("Ask now")
    permission = "payments.ask_gateway"
    on_list = False
    follows = _(
        "The next call that any worker makes is let through. If the provider answers it, all "
        "others follow, not faster than the rate that is set; if not, the wait begins again. "
        "Nothing is done twice."
    )

    def why_not(self, subject: GatewayState) -> str:
        waits = subject.is_down or subject.is_told_to_wait(timezone.now())
        return "" if waits else gettext("It is asked as usual; there is nothing to wait for.")

    def will(self, subject: GatewayState) -> str:
        return subject.sentence

    def do(self, subject: GatewayState, data: dict[str, Any], actor: str, seen: str) -> availability.AskedNow:
        return availability.ask_now(subject.gateway, actor)


class IncidentInline(LookOnlyInline):
    model = GatewayIncident
    fields = ("at", "kind_shown", "actor", "detail")
    readonly_fields = fields
    ordering = ("-id",)

    @admin.display(description=_("incident"))
    def kind_shown(self, incident: GatewayIncident) -> str:
        return incident.get_kind_display()

    def get_queryset(self, request: HttpRequest) -> Any:
        newest = GatewayIncident.objects.order_by("-id").values("pk")[:SHOWN]
        return super().get_queryset(request).filter(pk__in=newest)


@admin.register(GatewayState)
class GatewayStateAdmin(ActingAdmin, LookOnlyAdmin):
    acts = (AskNow(),)
    change_form_template = "admin/acting_change_form.html"
    list_display = ("gateway", "state_label", "said", "last_success_at", "last_failure_at")
    sortable_by: ClassVar = ()
    inlines: ClassVar = [IncidentInline]
    fields = (
        "gateway", "state_label", "said", "failures", "failing_since", "open_until", "not_before", "last_error",
        "last_failure_at", "last_success_at",
    )  # fmt: skip
    readonly_fields = fields

    @admin.display(description=_("state"))
    def state_label(self, gateway: GatewayState) -> SafeString:
        return label(gateway.state, str(_STATES[gateway.state]))

    @admin.display(description=_("what is wrong"))
    def said(self, gateway: GatewayState) -> str:
        return gateway.sentence or "–"
