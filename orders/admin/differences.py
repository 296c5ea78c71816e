"""What does not agree in the books, and the runs that looked. What can be mended is mended from here."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from orders.models import Difference, ReconcileRun
from orders.services.lifecycle import Acted, ActionRefused
from orders.services.reconciling import fixing
from orders.words import by, moment, said
from shop.kernel.admin.acting import Act, ActingAdmin
from shop.kernel.admin.labels import label
from shop.kernel.admin.readonly import LookOnlyAdmin

NONE = "–"
STATES = {
    "finished": _("finished"),
    "incomplete": _("incomplete"),
    "running": _("running"),
    "died": _("died"),
}


class Fix(Act):
    slug = "fix"
    label = _("Mend it")
    permission = "orders.fix_difference"
    refusals = (ActionRefused,)
    follows = _(
        "It is looked at again first: what agrees by now is left alone. Nothing is done twice, whoever asks for it at "
        "the same time."
    )

    def applies(self, subject: Difference) -> bool:
        return bool(subject.remedy) and subject.closed_at is None

    def why_not(self, subject: Difference) -> str:
        return fixing.why_not_fix(subject)

    def will(self, subject: Difference) -> str:
        return capfirst(f"{said(subject.remedy)}.")

    def do(self, subject: Difference, data: dict[str, Any], actor: str, seen: str) -> Acted:
        return fixing.fix(subject.pk, actor)


class StateFilter(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [("open", str(_("open"))), ("closed", str(_("gone")))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Difference]) -> QuerySet[Difference]:
        match self.value():
            case "open":
                return queryset.filter(closed_at=None)
            case "closed":
                return queryset.filter(closed_at__isnull=False)
        return queryset


@admin.register(Difference)
class DifferenceAdmin(ActingAdmin, LookOnlyAdmin):
    acts = (Fix(),)
    change_form_template = "admin/acting_change_form.html"
    list_display = ("sentence_shown", "about_shown", "state_label", "weight", "kind", "first_seen_at")
    list_filter = (StateFilter, "weight", "kind", "first_seen_at")
    list_select_related = ("order", "payment")
    search_fields = ("subject", "order__number", "sentence")
    sortable_by: ClassVar = ()
    fields = (
        "sentence_shown", "to_do_shown", "remedy_shown", "state_label", "weight", "kind", "subject", "order_shown",
        "payment_shown", "first_seen_at", "last_seen_at", "mended", "closed_at",
    )  # fmt: skip
    readonly_fields = fields

    @admin.display(description=_("difference"))
    def sentence_shown(self, row: Difference) -> str:
        return said(row.sentence)

    @admin.display(description=_("state"))
    def state_label(self, row: Difference) -> SafeString:
        return label(row.state, str(row.state_in_words))

    @admin.display(description=_("about"))
    def about_shown(self, row: Difference) -> SafeString | str:
        return self.order_shown(row) if row.order else row.about

    @admin.display(description=_("order"))
    def order_shown(self, row: Difference) -> SafeString | str:
        if row.order is None:
            return NONE
        return format_html(
            '<a href="{}">{}</a>', reverse("admin:orders_order_change", args=[row.order.pk]), row.order.number
        )

    @admin.display(description=_("payment"))
    def payment_shown(self, row: Difference) -> SafeString | str:
        if row.payment is None:
            return NONE
        url = reverse("admin:payments_payment_change", args=[row.payment.pk])
        return format_html('<a href="{}">{}</a>', url, row.payment)

    @admin.display(description=_("what to do"))
    def to_do_shown(self, row: Difference) -> str:
        return said(row.to_do) or NONE

    @admin.display(description=_("by itself"))
    def remedy_shown(self, row: Difference) -> str:
        if not row.remedy:
            return gettext("Nothing: it takes a person.")
        return capfirst(gettext("%s, by the button or the next daily run.") % said(row.remedy))

    @admin.display(description=_("mended"))
    def mended(self, row: Difference) -> str:
        return f"{moment(row.mended_at)}, {by(row.mended_by)}" if row.mended_at else NONE


@admin.register(ReconcileRun)
class ReconcileRunAdmin(LookOnlyAdmin):
    list_display = (
        "started_at",
        "state_label",
        "found",
        "new",
        "mended",
        "closed",
        "who",
        "fix",
        "left_out_names",
    )
    list_filter = ("actor", "started_at")
    sortable_by: ClassVar = ()
    fields = (
        "state_label", "started_at", "finished_at", "found", "new", "mended", "closed", "who", "fix",
        "left_out_shown",
    )  # fmt: skip
    readonly_fields = fields

    @admin.display(description=_("state"))
    def state_label(self, run: ReconcileRun) -> SafeString:
        return label(run.state, str(STATES[run.state]))

    @admin.display(description=_("who"))
    def who(self, run: ReconcileRun) -> str:
        return by(run.actor)

    @admin.display(description=_("not compared"))
    def left_out_names(self, run: ReconcileRun) -> str:
        return ", ".join(sorted(map(said, run.left_out))) or NONE

    @admin.display(description=_("not compared"))
    def left_out_shown(self, run: ReconcileRun) -> SafeString | str:
        left_out = sorted((said(name), why) for name, why in run.left_out.items())
        return format_html_join("", "<p>{}: {}</p>", left_out) or NONE
