"""What waits for a second person: the list, and a page for each with what was asked, by whom, and the decision.

The act itself is found by the page that it was asked on, and done through the same form as it was filled in then.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from shop.kernel import second_person
from shop.kernel.admin.acting import Act, ActForm, ActingAdmin, Button, page_of
from shop.kernel.admin.labels import label
from shop.kernel.admin.readonly import LookOnlyAdmin
from shop.kernel.forms import ReasonField
from shop.kernel.models import ActRequest
from shop.kernel.second_person import Decided, NotApproved


class _NoLongerPossible(Exception):
    """The act is not possible any more, or its form does not hold any more."""


class DecisionForm(ActForm):
    """With who decides, beside what the form asks."""

    def clean(self) -> dict[str, Any]:
        return {**(super().clean() or {}), "user": self.user}


class ReasonForm(DecisionForm):
    reason = ReasonField(label=_("Reason"))


class Decision(Act):
    permission = "kernel.view_actrequest"  # and that of the act itself: see `RequestAdmin.may`
    on_list = False
    form = DecisionForm
    refusals = (NotApproved,)

    def why_not(self, subject: ActRequest) -> str:
        if subject.is_open:
            return ""
        told = {"state": subject.get_state_display(), "outcome": subject.outcome}
        return gettext("It is %(state)s. %(outcome)s") % told

    def will(self, subject: ActRequest) -> str:
        asked = {
            "who": subject.asked_by.get_username(),
            "what": subject.what,
            "reason": subject.reason or "–",
        }
        return gettext("%(who)s asks: %(what)s Reason: %(reason)s") % asked


class Approve(Decision):
    slug = "approve"
    label = _("Approve")
    dangerous = True
    follows = _(
        "It is done at once, as it was asked for, in both names. If it is not as it was then, nothing is done, and the "
        "request lapses."
    )

    def why_not(self, subject: ActRequest) -> str:
        return super().why_not(subject) or why_not_any_more(subject)

    def do(self, subject: ActRequest, data: dict[str, Any], actor: str, seen: str) -> Decided:
        page = page_of(subject.page)
        act = page.act(subject.slug)
        user = data["user"]

        def carry_out(request: ActRequest, actors: str) -> Any:
            if not (request.asked_by.is_active and request.asked_by.has_perm(act.permission)):
                raise _NoLongerPossible(
                    gettext("%s may not do this any more.") % request.asked_by.get_username()
                )
            target = page.subject(request.object_id)
            if target is None:
                raise _NoLongerPossible(gettext("What it is about is gone."))
            form = act.form(request.data, subjects=[target], user=user)
            if not form.is_valid():
                raise _NoLongerPossible(" ".join(map(str, _flat(form.errors))))
            return act.do(target, form.cleaned_data, actors, request.shown)

        return second_person.approve(subject.pk, user, carry_out, (_NoLongerPossible, *act.refusals))


class Decline(Decision):
    slug = "decline"
    label = _("Decline")
    form = ReasonForm

    def do(self, subject: ActRequest, data: dict[str, Any], actor: str, seen: str) -> Decided:
        return second_person.decline(subject.pk, data["user"], data["reason"])


class WithdrawForm(DecisionForm):
    reason = ReasonField(label=_("Reason"), required=False)


class Withdraw(Decision):
    slug = "withdraw"
    label = _("Withdraw")
    form = WithdrawForm

    def do(self, subject: ActRequest, data: dict[str, Any], actor: str, seen: str) -> Decided:
        return second_person.withdraw(subject.pk, data["user"], data["reason"])


def why_not_any_more(request: ActRequest) -> str:
    """Why what was asked for is not possible now; empty if it is."""
    page = page_of(request.page)
    target = page.subject(request.object_id)
    return gettext("What it is about is gone.") if target is None else page.act(request.slug).why_not(target)


def _flat(errors: Any) -> list[str]:
    return [str(message) for messages in errors.values() for message in messages]


class MineFilter(admin.SimpleListFilter):
    title = _("decision")
    parameter_name = "decision"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [("mine", str(_("mine to take"))), ("asked", str(_("asked for by me")))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ActRequest]) -> QuerySet[ActRequest]:
        if self.value() == "mine":
            return second_person.for_user(queryset.filter(state=ActRequest.State.OPEN), request.user)
        return queryset.filter(asked_by=request.user.pk) if self.value() == "asked" else queryset


@admin.register(ActRequest)
class ActRequestAdmin(ActingAdmin, LookOnlyAdmin):
    acts = (Approve(), Decline(), Withdraw())
    change_form_template = "admin/acting_change_form.html"
    list_display = ("what", "amount_shown", "asked_by", "asked_at", "state_label", "decided_by")
    list_filter = ("state", MineFilter, "asked_at")
    list_select_related = ("asked_by", "decided_by")
    search_fields = ("order_number",)
    search_help_text = _("Order number")
    sortable_by: ClassVar = ()
    ordering: ClassVar = ["-id"]
    fields = (
        "what", "amount_shown", "reason", "about", "asker", "asked_at", "state_label", "still_possible",
    )  # fmt: skip
    decided = ("decider", "decided_at", "outcome")
    readonly_fields = (*fields, *decided)

    def get_fields(self, request: HttpRequest, obj: ActRequest | None = None) -> tuple[str, ...]:
        return self.fields if obj is None or obj.is_open else (*self.fields[:-1], *self.decided)

    def act_subjects(self, request: HttpRequest) -> QuerySet[ActRequest]:
        return ActRequest.objects.select_related("asked_by", "decided_by")

    def may(self, request: HttpRequest, act: Act, subject: ActRequest) -> bool:
        if isinstance(act, Withdraw):
            return subject.asked_by_id == request.user.pk
        return not second_person.why_not_decide(subject, request.user)

    def buttons(self, request: HttpRequest, subject: Any) -> list[Button]:
        return super().buttons(request, subject) if subject.is_open else []

    # By name: a foreign key would lead to the user's page, where most may not go.
    @admin.display(description=_("asked by"))
    def asker(self, asked: ActRequest) -> str:
        return asked.asked_by.get_username()

    @admin.display(description=_("decided by"))
    def decider(self, asked: ActRequest) -> str:
        return asked.decided_by.get_username() if asked.decided_by else ""

    @admin.display(description=_("amount"))
    def amount_shown(self, asked: ActRequest) -> str:
        return str(asked.money)

    @admin.display(description=_("about"))
    def about(self, asked: ActRequest) -> SafeString:
        page = page_of(asked.page)
        target = page.subject(asked.object_id)
        return format_html('<a href="{}">{}</a>', page.url(asked.object_id), target or asked.order_number)

    @admin.display(description=_("state"))
    def state_label(self, asked: ActRequest) -> SafeString:
        return label(_TONES[ActRequest.State(asked.state)], asked.get_state_display())

    @admin.display(description=_("possible now"))
    def still_possible(self, asked: ActRequest) -> str:
        return why_not_any_more(asked) or str(_("Yes."))


_TONES = {
    ActRequest.State.OPEN: "waiting",
    ActRequest.State.APPROVED: "succeeded",
    ActRequest.State.DECLINED: "declined",
    ActRequest.State.LAPSED: "",
}
