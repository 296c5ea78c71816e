"""The ops' page of dead letters: what failed, what was to be undone, how it stands, and what can be done.

Everything but the provider's view comes from our own database, so the page works while providers or Temporal are
away. With htmx an act opens and closes inside its letter; without, each has a page of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.helpers import AdminForm
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Count, Min, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django_htmx.http import HttpResponseClientRefresh

from orders.models import DeadLetter, DeadLetterAct
from orders.services import dead_letter_facts, dead_letters
from orders.services.lifecycle import Acted, ActionRefused
from orders.workflows.types import Step
from shop.dead_letter_acts import ACTS, PAGE, VIEW, LetterAct, LetterForm
from shop.kernel import second_person
from shop.kernel.admin.acting import MOST_AT_ONCE, Button, filled_in, second_person_above
from shop.kernel.durations import in_words, roughly
from shop.kernel.models import ActRequest
from shop.kernel.money import Money
from shop.kernel.second_person import Decided, SecondPersonNeeded

State = DeadLetter.State
ON_A_PAGE = 25
MOST = 1000  # nobody needs the exact number beyond


def urls(site: admin.AdminSite) -> list[URLPattern]:
    def staff(view: Any) -> Any:
        return site.admin_view(_for_viewers(view))

    def part(view: Any) -> Any:
        """Not behind the guard: a redirect to the login page would end up inside the page."""

        @never_cache
        def guarded(request: HttpRequest, **kwargs: Any) -> HttpResponse:
            if not site.has_permission(request):
                return HttpResponseClientRefresh()
            answer: HttpResponse = _for_viewers(view)(request, **kwargs)
            return answer

        return guarded

    root = "ops/dead-letters/"
    return [
        path(root, staff(_list), name="dead_letters"),
        path(f"{root}retry/", staff(_retry_all), name="dead_letters_retry"),
        path(f"{root}retry/<uuid:key>/", staff(_retried), name="dead_letters_retried"),
        path(f"{root}retry/<uuid:key>/live/", part(_retried_live), name="dead_letters_retried_live"),
        path(f"{root}<int:pk>/", staff(_letter), name="dead_letter"),
        path(f"{root}<int:pk>/live/", part(_live), name="dead_letter_live"),
        path(f"{root}<int:pk>/provider/", part(_provider), name="dead_letter_provider"),
        path(f"{root}<int:pk>/<slug:verb>/", staff(_act), name="dead_letter_act"),
    ]


def _for_viewers(view: Any) -> Any:
    def guarded(request: HttpRequest, **kwargs: Any) -> HttpResponse:
        if not request.user.has_perm(VIEW):
            raise PermissionDenied
        answer: HttpResponse = view(request, **kwargs)
        return answer

    return guarded


# --- the list --------------------------------------------------------------------------------------------

TABS = {
    "waiting": (_("Waiting"), dead_letters.awake),
    "retrying": (_("Being retried"), lambda letters: letters.filter(state=State.RETRYING)),
    "snoozed": (_("Snoozed"), dead_letters.snoozed),
    "resolved": (_("Resolved"), lambda letters: letters.filter(state=State.RESOLVED)),
}
UNDOABLE = {
    Step.INVENTORY: _("inventory"),
    Step.PAYMENT_HOLD: _("payment hold"),
    Step.PAYMENT_CAPTURED: _("payment captured"),
    Step.SHIPPING: _("shipping"),
}
# Of those that come with the shop; any other is called by its name.
_PROVIDERS = (
    gettext_noop("bank transfer"),
    gettext_noop("manual"),
    gettext_noop("practice"),
    gettext_noop("sandbox"),
)


class _Filter(forms.Form):
    """Which letters. What is not understood filters nothing."""

    kind = forms.ChoiceField(
        label=_("Kind"), required=False, choices=[("", _("all kinds")), *DeadLetter.Kind.choices]
    )
    step = forms.ChoiceField(
        label=_("Step"),
        required=False,
        choices=[("", _("all steps")), *((step.value, words) for step, words in UNDOABLE.items())],
    )
    provider = forms.ChoiceField(label=_("Provider"), required=False)
    whose = forms.ChoiceField(
        label=_("In whose hands"),
        required=False,
        choices=[("", _("anybody's")), ("mine", _("mine")), ("nobody", _("nobody's"))],
    )
    q = forms.CharField(
        label=_("Order"), required=False, max_length=40, widget=forms.TextInput(attrs={"size": 14})
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = sorted({*settings.PAYMENT_GATEWAYS, *settings.CARRIERS})
        provider = self.fields["provider"]
        assert isinstance(provider, forms.ChoiceField)
        called = ((name, gettext(name.replace("_", " "))) for name in names)
        provider.choices = [("", _("all providers")), *called]

    def applied_to(self, letters: QuerySet[DeadLetter], user_name: str) -> QuerySet[DeadLetter]:
        self.is_valid()
        wanted = self.cleaned_data
        if wanted.get("kind"):
            letters = letters.filter(kind=wanted["kind"])
        if wanted.get("step"):
            letters = letters.filter(step=wanted["step"])
        if name := wanted.get("provider"):
            money = Q(step__in=[Step.PAYMENT_HOLD, Step.PAYMENT_CAPTURED], saga__order__payment_method=name)
            letters = letters.filter(money | Q(step=Step.SHIPPING, saga__order__carrier=name))
        if whose := wanted.get("whose"):
            letters = letters.filter(assignee=user_name if whose == "mine" else "")
        if wanted.get("q"):
            letters = letters.filter(saga__order__number__iexact=wanted["q"].strip())
        return letters


@dataclass(frozen=True, slots=True)
class _Tab:
    label: str
    count: int
    url: str
    current: bool

    @property
    def many(self) -> bool:
        return self.count >= MOST


@dataclass(frozen=True, slots=True)
class _KindCount:
    kind: str
    label: str
    count: int
    oldest: str


def _list(request: HttpRequest) -> HttpResponse:
    tab = _tab(request)
    form = _Filter(request.GET)
    letters = form.applied_to(TABS[tab][1](DeadLetter.objects.all()), request.user.get_username())
    newest_first = tab == "resolved"
    wanted = dead_letter_facts.with_facts(
        letters.order_by("-resolved_at" if newest_first else "created_at", "pk")
    ).prefetch_related("acts")
    page = Paginator(wanted, ON_A_PAGE).get_page(request.GET.get("page"))
    query = request.GET.copy()
    query.pop("page", None)
    query["state"] = tab
    asked = _asked_of(page)
    context = {
        "title": _("Dead letters"),
        "tab": tab,
        "tabs": _tabs(tab),
        "kinds": _kinds() if tab == "waiting" else [],
        "form": form,
        "query": query.urlencode(),
        "is_filtered": any(form.cleaned_data.values()),
        "page": page,
        "cards": [_card(request, letter, asked) for letter in page],
        "retry_all": f"{reverse('admin:dead_letters_retry')}?{query.urlencode()}"
        if ACTS["retry"].allowed_for(request) and tab in ("waiting", "snoozed") and page.paginator.count
        else "",
    }
    return _page(request, "admin/ops/dead_letters.html", context)


def _tab(request: HttpRequest) -> str:
    asked = request.GET.get("state", "")
    return asked if asked in TABS else "waiting"


def _tabs(current: str) -> list[_Tab]:
    root = reverse("admin:dead_letters")
    return [
        _Tab(
            str(label),
            rows(DeadLetter.objects.order_by())[:MOST].count(),
            f"{root}?state={name}",
            name == current,
        )
        for name, (label, rows) in TABS.items()
    ]


def _kinds() -> list[_KindCount]:
    found = (
        dead_letters.awake(DeadLetter.objects.order_by())
        .values_list("kind")
        .annotate(number=Count("pk"), oldest=Min("created_at"))
    )
    now = timezone.now()
    return [
        _KindCount(kind, str(DeadLetter.Kind(kind).label), number, in_words(roughly(now - oldest)))
        for kind, number, oldest in sorted(found, key=lambda row: row[2])
    ]


# --- one letter ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Card:
    """A letter as it is shown. `act` and `form` are those that are open in it."""

    letter: DeadLetter
    to_undo: str
    progress: str
    stamp: str
    history: list[DeadLetterAct]
    buttons: list[Button]
    ask_provider: bool
    asked: list[ActRequest]
    act: LetterAct | None = None
    form: LetterForm | None = None
    adminform: AdminForm | None = None
    message: str = ""
    why_not: str = ""
    second_person_above: Money | None = None


_Asked = dict[int, list[ActRequest]]


def _asked_of(letters: Iterable[DeadLetter]) -> _Asked:
    """What waits for a second person, by letter."""
    found: _Asked = {letter.pk: [] for letter in letters}
    for asked in second_person.waiting().filter(page=PAGE, object_id__in=found).select_related("asked_by"):
        found[asked.object_id].append(asked)
    return found


def _card(request: HttpRequest, letter: DeadLetter, asked: _Asked | None = None, **more: Any) -> _Card:
    progress = dead_letter_facts.progress(letter)
    return _Card(
        letter,
        to_undo=dead_letter_facts.to_undo(letter),
        progress=progress,
        stamp=hashlib.sha256(f"{letter.version}/{progress}".encode()).hexdigest()[:16],
        history=list(letter.acts.all()),
        buttons=_buttons(request, letter),
        ask_provider=letter.state == State.OPEN,
        asked=_asked_of([letter])[letter.pk] if asked is None else asked[letter.pk],
        **more,
    )


def _buttons(request: HttpRequest, letter: DeadLetter) -> list[Button]:
    """The acts that this person may do now, and only those."""
    return [
        Button(act.label, reverse("admin:dead_letter_act", args=[letter.pk, act.slug]), "", act.dangerous)
        for act in ACTS.values()
        if act.allowed_for(request) and not act.why_not(letter)
    ]


def _found(pk: int) -> DeadLetter:
    return get_object_or_404(
        dead_letter_facts.with_facts(DeadLetter.objects.all()).prefetch_related("acts"), pk=pk
    )


def _letter(request: HttpRequest, pk: int) -> HttpResponse:
    return _show(request, _card(request, _found(pk)))


def _show(request: HttpRequest, card: _Card) -> HttpResponse:
    """The card alone for htmx, else its page."""
    context = {"title": str(card.letter), "card": card}
    if getattr(request, "htmx", False):
        return TemplateResponse(request, "admin/ops/_dead_letter.html", context)
    return _page(request, "admin/ops/dead_letter.html", context)


def _live(request: HttpRequest, pk: int) -> HttpResponse:
    """The card, if what it shows has changed."""
    card = _card(request, _found(pk))
    if request.GET.get("stamp") == card.stamp:
        return HttpResponse(status=204)
    return TemplateResponse(request, "admin/ops/_dead_letter.html", {"card": card})


def _provider(request: HttpRequest, pk: int) -> HttpResponse:
    letter = _found(pk)
    view = dead_letter_facts.provider_view(letter)
    context = {"view": view, "letter": letter, "now": timezone.now()}
    return TemplateResponse(request, "admin/ops/_provider_view.html", context)


def _act(request: HttpRequest, pk: int, verb: str) -> HttpResponse:
    """GET says what will happen; POST does it."""
    act = ACTS.get(verb)
    if act is None:
        raise Http404
    if not act.allowed_for(request):
        raise PermissionDenied
    letter = _found(pk)
    posted = request.POST if request.method == "POST" else None
    form = _form(act, letter, request, posted)
    if posted is not None and form.is_valid():
        try:
            acted = _do_or_ask(act, letter, form, request.user)
        except ActionRefused as refusal:
            letter = _found(pk)
            # What was typed stays; what the letter is like now is shown around it, and is what counts next.
            again = posted.copy()
            again["seen"] = str(letter.version)
            form = _form(act, letter, request, again)
            form.add_error(None, str(refusal))
        else:
            if getattr(request, "htmx", False):
                return _show(request, _card(request, _found(pk), message=acted.message))
            level = messages.INFO if acted.repeated else messages.SUCCESS
            messages.add_message(request, level, acted.message)
            return HttpResponseRedirect(reverse("admin:dead_letter", args=[pk]))
    why_not = act.why_not(letter)
    return _show(
        request,
        _card(
            request,
            letter,
            act=act,
            form=form,
            adminform=_fieldset(form),
            why_not=why_not,
            second_person_above=second_person_above(act, letter) if letter.stake else None,
        ),
    )


def _do_or_ask(act: LetterAct, letter: DeadLetter, form: LetterForm, user: Any) -> Acted | Decided:
    try:
        return act.do(letter, form.cleaned_data, user.get_username(), "")
    except SecondPersonNeeded as needed:
        data = filled_in(form)
        data.pop("seen", None)  # a comment moves the version, and is no reason to ask anew
        return second_person.ask(
            needed.demand,
            user,
            page=PAGE,
            slug=act.slug,
            object_id=letter.pk,
            data=data,
            shown="",
            permission=act.permission,
        )


def _form(act: LetterAct, letter: DeadLetter, request: HttpRequest, data: Any) -> LetterForm:
    # Several may be open on one page.
    form = act.form(data, subjects=[letter], user=request.user, auto_id=f"id_{letter.pk}_%s")
    assert isinstance(form, LetterForm)
    return form


def _fieldset(form: forms.Form) -> AdminForm:
    plain_form: Any = form  # the fieldset template takes any form; the stubs do not know
    visible = [field.name for field in form.visible_fields()]
    return AdminForm(plain_form, [(None, {"fields": visible})] if visible else [], {})


# --- all that match --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    letter: DeadLetter
    why_not: str
    will: str


def _retry_all(request: HttpRequest) -> HttpResponse:
    """GET lists per letter what will happen; POST has each tried again that was shown and chosen."""
    act = ACTS["retry"]
    if not act.allowed_for(request):
        raise PermissionDenied
    tab = _tab(request)
    chosen = _Filter(request.GET)
    letters = chosen.applied_to(TABS[tab][1](DeadLetter.objects.all()), request.user.get_username())
    rows = [
        _Row(letter, act.why_not(letter), act.will(letter))
        for letter in letters.select_related("saga__order").order_by("created_at", "pk")[:MOST_AT_ONCE]
    ]
    posted = request.POST if request.method == "POST" else None
    form = act.form(posted, subjects=[row.letter for row in rows], user=request.user)
    if posted is not None and form.is_valid():
        if asked := _asked(posted.getlist("do")):
            return _retry_each(request, asked, form.cleaned_data)
        form.add_error(None, _("Choose at least one."))
    query = request.GET.urlencode()
    return _page(
        request,
        "admin/ops/dead_letters_retry.html",
        {
            "title": _("Retry all that match"),
            "act": act,
            "rows": rows,
            "possible": any(not row.why_not for row in rows),
            "unchecked": set() if posted is None else {str(r.letter.pk) for r in rows} - _pks(posted),
            "left": max(0, letters.order_by().count() - MOST_AT_ONCE),
            "back": f"{reverse('admin:dead_letters')}?{query}",
            "form": form,
            "adminform": _fieldset(form),
            "media": form.media,
        },
    )


def _pks(posted: Any) -> set[str]:
    return {text.partition(":")[0] for text in posted.getlist("do")}


def _asked(texts: list[str]) -> dict[int, int]:
    """The letters to retry with their versions as they were shown, from `5:2`."""
    found = {}
    for text in texts[:MOST_AT_ONCE]:
        pk, _colon, version = text.partition(":")
        if all(part.isascii() and part.isdigit() and len(part) < 10 for part in (pk, version)):
            found[int(pk)] = int(version)
    return found


def _retry_each(request: HttpRequest, asked: dict[int, int], data: dict[str, Any]) -> HttpResponse:
    actor, key = request.user.get_username(), data["key"]
    letters = DeadLetter.objects.select_related("saga__order").in_bulk(list(asked))
    for pk, seen in asked.items():
        if pk not in letters:
            continue
        try:
            acted = dead_letters.retry(pk, actor, data["reason"], key=str(key), seen=seen)
            if acted.repeated and not letters[pk].acts.filter(key=str(key)).exists():
                messages.info(request, f"{letters[pk]}: {acted.message}")
        except ActionRefused as refusal:
            messages.warning(request, f"{letters[pk]}: {refusal}")
    return HttpResponseRedirect(reverse("admin:dead_letters_retried", args=[key]))


def _retried(request: HttpRequest, key: UUID) -> HttpResponse:
    """What came of the letters that were retried together, renewing itself until all have come to an end."""
    return _page(
        request,
        "admin/ops/dead_letters_retried.html",
        {"title": _("Retried together"), **_together(key)},
    )


def _retried_live(request: HttpRequest, key: UUID) -> HttpResponse:
    context = _together(key)
    if request.GET.get("stamp") == context["stamp"]:
        return HttpResponse(status=204)
    return TemplateResponse(request, "admin/ops/_dead_letters_retried.html", context)


def _together(key: UUID) -> dict[str, Any]:
    letters = list(
        dead_letter_facts.with_facts(DeadLetter.objects.filter(acts__key=str(key))).order_by(
            "created_at", "pk"
        )
    )
    rows = [(letter, dead_letter_facts.progress(letter)) for letter in letters]
    shown = "/".join(f"{letter.pk}:{letter.version}:{progress}" for letter, progress in rows)
    return {
        "key": key,
        "rows": rows,
        "under_way": sum(letter.state == State.RETRYING for letter in letters),
        "resolved": sum(letter.state == State.RESOLVED for letter in letters),
        "open": sum(letter.state == State.OPEN for letter in letters),
        "stamp": hashlib.sha256(shown.encode()).hexdigest()[:16],
    }


def _page(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    return TemplateResponse(request, template, {**admin.site.each_context(request), **context})
