"""The ops' page of schedules: how they stand, and forms to run, pause, resume, sync and delete them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

from asgiref.sync import async_to_sync
from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.helpers import AdminForm
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.formats import date_format
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from shop.kernel import temporal
from shop.kernel.admin.acting import Button
from shop.kernel.forms import ReasonField
from shop.models import ScheduleAct
from shop.schedules import acting
from shop.schedules.declared import Schedule, is_late, ours
from shop.schedules.engine import ScheduleProblem
from shop.schedules.standing import Standing, standings

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

VIEW = "ops.view_scheduleact"
OPERATE = "ops.operate_schedules"
HISTORY = 10


@dataclass(frozen=True, slots=True)
class _Act:
    """What staff may do to a schedule on its page."""

    verb: str
    label: StrOrPromise
    follows: StrOrPromise
    dangerous: bool = False

    def why_not(self, standing: Standing) -> str:
        if self.verb == "sync":
            as_declared = standing.made and not standing.differs
            return gettext("It is as declared; there is nothing to do.") if as_declared else ""
        if not standing.made:
            return gettext("Temporal does not have it yet; the next worker that starts makes it.")
        if self.verb == "pause" and standing.paused:
            return gettext("It is paused already.")
        if self.verb == "resume" and not standing.paused:
            return gettext("It is not paused.")
        return ""

    def will(self, standing: Standing) -> str:
        """What it means for this schedule, as it is now."""
        match self.verb:
            case "sync" if not standing.made:
                return gettext("It is made: it runs %s.") % standing.schedule.times
            case "sync":
                told = {"changed": ", ".join(standing.differs), "times": standing.schedule.times}
                return gettext("It is changed: %(changed)s. It then runs %(times)s.") % told
            case "pause" | "delete" if standing.next and not standing.paused:
                at = date_format(standing.next[0], "SHORT_DATETIME_FORMAT")
                return gettext("The run at %s UTC does not start.") % at
        return ""


_ACTS = {
    act.verb: act
    for act in (
        _Act(
            "trigger",
            _("Run now"),
            _(
                "One run starts now, or after the one that is under way, also while the schedule is paused. "
                "Pressed twice, this button starts one."
            ),
        ),
        _Act(
            "pause",
            _("Pause"),
            _(
                "No run starts by itself until somebody resumes it; a run that is under way goes on. A restart "
                "or a new release does not end the pause."
            ),
            dangerous=True,
        ),
        _Act(
            "resume",
            _("Resume"),
            _(
                "It runs again at its next time, and that run takes up all that has happened since the last one."
            ),
        ),
        _Act(
            "sync",
            _("Bring up to date"),
            _(
                "Temporal's schedule becomes as it is declared and set up here. A pause stays, and a run that is "
                "under way goes on. Each worker does this when it starts."
            ),
        ),
        _Act(
            "delete",
            _("Delete"),
            _(
                "Temporal forgets the schedule and its pause; what its runs found is kept, and a run that is under way "
                "goes on. The next worker that starts makes it again: to stop it for good, pause it."
            ),
            dangerous=True,
        ),
    )
}


class _Form(forms.Form):
    """`key` is new with each page, and the same for each press of its button."""

    key = forms.UUIDField(widget=forms.HiddenInput)
    reason = ReasonField(label=_("Reason"), help_text=_("It is shown to others and kept."))


@dataclass(frozen=True, slots=True)
class _Card:
    """A schedule on the page. Without `standing` Temporal did not answer."""

    schedule: Schedule
    standing: Standing | None
    late: bool
    last_run: datetime | None
    pause: ScheduleAct | None  # what the pause goes back to, if it was made here
    history: list[ScheduleAct]
    act_buttons: list[Button]
    runs_url: str


def urls(site: admin.AdminSite) -> list[URLPattern]:
    def staff(view: Any) -> Any:
        return site.admin_view(view)

    return [
        path("ops/schedules/", staff(_schedules), name="schedules"),
        path("ops/schedules/live/", staff(_live), name="schedules_live"),
        path("ops/schedules/<str:schedule_id>/<slug:verb>/", staff(_act), name="schedule_act"),
    ]


def _schedules(request: HttpRequest) -> HttpResponse:
    return _page(request, "admin/ops/schedules.html", _cards(request) | {"title": _("Schedules")})


def _live(request: HttpRequest) -> HttpResponse:
    return TemplateResponse(request, "admin/ops/_schedules.html", _cards(request))


def _act(request: HttpRequest, schedule_id: str, verb: str) -> HttpResponse:
    """GET says what will happen; POST does it."""
    schedule = next((schedule for schedule in ours() if schedule.id == schedule_id), None)
    act = _ACTS.get(verb)
    if schedule is None or act is None:
        raise Http404
    if not (request.user.has_perm(VIEW) and request.user.has_perm(OPERATE)):
        raise PermissionDenied
    posted = request.method == "POST"
    form = _Form(request.POST if posted else None, initial={"key": uuid4()})
    if posted and form.is_valid():
        try:
            acted = acting.act(
                schedule.id,
                verb,
                request.user.get_username(),
                form.cleaned_data["reason"],
                form.cleaned_data["key"],
            )
        except ScheduleProblem as problem:
            form.add_error(None, str(problem))
        else:
            messages.add_message(
                request, messages.INFO if acted.repeated else messages.SUCCESS, acted.message
            )
            return HttpResponseRedirect(reverse("admin:schedules"))
    why_not, will = ("", "") if posted else _preview(act, schedule)
    plain_form: Any = form  # the fieldset template takes any form; the stubs do not know
    return _page(
        request,
        "admin/ops/schedule_act.html",
        {
            "title": f"{act.label}: {schedule.id}",
            "act": act,
            "schedule": schedule,
            "why_not": why_not,
            "will": will,
            "form": form,
            "adminform": AdminForm(plain_form, [(None, {"fields": ["reason"]})], {}),
            "media": form.media,
        },
    )


def _preview(act: _Act, schedule: Schedule) -> tuple[str, str]:
    """Why it cannot be done now, and what it will do."""
    try:
        (standing,) = async_to_sync(standings)(temporal.client(), [schedule])
    except ScheduleProblem as problem:
        return str(problem), ""
    return act.why_not(standing), act.will(standing)


def _cards(request: HttpRequest) -> dict[str, Any]:
    if not request.user.has_perm(VIEW):
        raise PermissionDenied
    schedules = ours()
    problem = ""
    found: list[Standing | None] = [None] * len(schedules)
    try:
        found = list(async_to_sync(standings)(temporal.client(), schedules))
    except ScheduleProblem as met:
        problem = str(met)
    cards = [_card(request, schedule, standing) for schedule, standing in zip(schedules, found, strict=True)]
    return {"cards": cards, "problem": problem, "temporal_ui": _temporal_ui(request)}


def _card(request: HttpRequest, schedule: Schedule, standing: Standing | None) -> _Card:
    history = list(ScheduleAct.objects.filter(schedule=schedule.id)[:HISTORY])
    paused_here = next(
        (
            row
            for row in history
            if row.verb == ScheduleAct.Verb.PAUSE and row.done_at and standing and row.note == standing.note
        ),
        None,
    )
    return _Card(
        schedule,
        standing,
        late=is_late(schedule),
        last_run=schedule.last_run() if schedule.last_run and not standing else None,
        pause=paused_here,
        history=history,
        act_buttons=_buttons(schedule, standing) if request.user.has_perm(OPERATE) else [],
        runs_url=_runs_url(request, schedule),
    )


def _buttons(schedule: Schedule, standing: Standing | None) -> list[Button]:
    """What can be done with it; nothing while nobody knows how it stands."""
    if standing is None:
        return []
    return [
        Button(act.label, reverse("admin:schedule_act", args=[schedule.id, act.verb]), "", act.dangerous)
        for act in _ACTS.values()
        if not act.why_not(standing)
    ]


def _runs_url(request: HttpRequest, schedule: Schedule) -> str:
    """The list of its runs in the database, for those who may see it."""
    app, _underscore, model = schedule.runs.partition("_")
    if not schedule.runs or not request.user.has_perm(f"{app}.view_{model}"):
        return ""
    try:
        return reverse(f"admin:{schedule.runs}_changelist")
    except NoReverseMatch:
        return ""


def _temporal_ui(request: HttpRequest) -> str:
    """Where Temporal's own screens show a workflow, for people who look after the engine."""
    if not (settings.TEMPORAL_UI_URL and request.user.has_perm("kernel.view_outboxmessage")):
        return ""
    return f"{settings.TEMPORAL_UI_URL}/namespaces/{quote(settings.TEMPORAL_NAMESPACE, safe='')}/workflows/"


def _page(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    return TemplateResponse(request, template, {**admin.site.each_context(request), **context})
