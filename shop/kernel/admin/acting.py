"""Things that staff do to one object or several, always by way of a page that says first what will happen.

GET lists per object what will happen, or why it is left out, and shows the form. POST does it object by object
through a service and says what came of each. Nothing acts on GET. Without its permission an act has no
button, no entry in the list's menu, and its addresses answer 403.

What its service says takes a second person is not done but asked for; see `shop.kernel.second_person`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.helpers import AdminForm
from django.core.exceptions import PermissionDenied
from django.db.models import Model, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _

from shop.kernel import second_person
from shop.kernel.forms import AmountField
from shop.kernel.models import ActRequest
from shop.kernel.money import Money
from shop.kernel.second_person import SecondPersonNeeded

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

    _Admin = admin.ModelAdmin[Any]
else:
    _Admin = object

MOST_AT_ONCE = 200


class Result(Protocol):
    """What a service says about what it did. `repeated`: it had been done before."""

    @property
    def message(self) -> str: ...

    @property
    def repeated(self) -> bool: ...


class Person(Protocol):
    """The user, as far as a form asks."""

    def has_perm(self, perm: str) -> bool: ...


class ActForm(forms.Form):
    """The form of an act. `subjects` are the objects that it is about, `user` is who fills it in."""

    def __init__(self, *args: Any, subjects: Sequence[Any], user: Person, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.subjects, self.user = subjects, user


class Act:
    """One thing that staff may do. `follows` says what comes of it, below the form's heading."""

    slug: ClassVar[str]  # in addresses, and the name in the list's menu
    label: ClassVar[StrOrPromise]
    permission: ClassVar[str]
    form: ClassVar[type[ActForm]] = ActForm
    follows: ClassVar[StrOrPromise] = ""
    dangerous: ClassVar[bool] = False
    on_list: ClassVar[bool] = True
    may_take_two: ClassVar[bool] = False  # above an amount its service demands a second person
    refusals: ClassVar[tuple[type[Exception], ...]] = ()

    def name(self, subject: Any) -> str:
        """What the page calls it."""
        return str(subject)

    def applies(self, subject: Any) -> bool:
        """Whether an object of this kind has it at all: without, its page has no button."""
        return True

    def why_not(self, subject: Any) -> str:
        """Why it is not possible now, in a sentence; empty if it is."""
        return ""

    def will(self, subject: Any) -> str:
        """What will happen to this one."""
        return ""

    def seen(self, subject: Any) -> str:
        """What the page showed, handed back with the form, so that a stale page can be told from a fresh one."""
        return ""

    def do(self, subject: Any, data: dict[str, Any], actor: str, seen: str) -> Result:
        """Call the service; raises one of `refusals` with a sentence.

        A refusal with an attribute `field` is shown beside the field of that name.
        """
        raise NotImplementedError

    def allowed_for(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(self.permission))


@dataclass
class Row:
    """One object on the page."""

    subject: Any
    name: str
    url: str
    why_not: str
    will: str
    seen: str
    outcome: str = ""  # done, repeated, refused, asked
    message: str = ""
    field: str = ""  # that the refusal is about


@dataclass(frozen=True)
class Button:
    """An act on an object's own page; with `why_not` it is shown greyed, and says why."""

    label: StrOrPromise
    url: str
    why_not: str
    dangerous: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Where acts are asked for: how to find them, what they are about, and its address, by the key of an object."""

    acts: Mapping[str, Act]
    subject: Callable[[int], Any]
    url: Callable[[int], str]

    def act(self, slug: str) -> Act:
        return self.acts[slug]


PAGES: dict[str, Page] = {}


def page_of(name: str) -> Page:
    return PAGES[name]


def filled_in(form: ActForm) -> dict[str, Any]:
    """What was typed, so that the same form can be made again; amounts as they were understood.

    Who fills it in again may read another language.
    """
    typed = {
        name: form.cleaned_data[name]
        if isinstance(field, AmountField)
        else form.data.get(form.add_prefix(name))
        for name, field in form.fields.items()
    }
    return {name: value for name, value in typed.items() if value is not None}


def second_person_above(act: Act, subject: Any) -> Money | None:
    """For the act's page: the amount above which it takes a second person, if it may."""
    limit, currency = settings.SECOND_PERSON_ABOVE, getattr(subject, "currency", "") or settings.CURRENCY
    return Money(limit, currency) if limit and act.may_take_two else None


class ActingAdmin(_Admin):
    """A `ModelAdmin` whose objects have acts."""

    acts: ClassVar[tuple[Act, ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        PAGES[self._page_name] = Page(
            acts={act.slug: act for act in self.acts},
            subject=lambda pk: self.model._base_manager.filter(pk=pk).first(),
            url=lambda pk: reverse(
                f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_change", args=[pk]
            ),
        )

    @property
    def _page_name(self) -> str:
        return str(self.opts.label_lower)

    def act_subjects(self, request: HttpRequest) -> QuerySet[Any]:
        """The objects with what `why_not` and `will` read of them."""
        return self.get_queryset(request)

    def may(self, request: HttpRequest, act: Act, subject: Any) -> bool:
        """Whether this person may do it to this object, beyond the act's own permission."""
        return True

    def order_number_of(self, subject: Any) -> str:
        """What is asked of a second person about this order is shown too."""
        return ""

    def requests_about(self, subject: Any) -> QuerySet[ActRequest]:
        """What waits for a second person here, or anywhere about the same order."""
        about = Q(page=self._page_name, object_id=subject.pk)
        if number := self.order_number_of(subject):
            about |= Q(order_number=number)
        return second_person.waiting().filter(about).select_related("asked_by").order_by("pk")

    # --- where they are reached --------------------------------------------------------------------------

    def _url_name(self, act: Act, many: bool = False) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{act.slug}" + ("_many" if many else "")

    def get_urls(self) -> list[URLPattern]:
        urls = []
        for act in self.acts:
            view = self.admin_site.admin_view(self._view_of(act))
            urls.append(path(f"{act.slug}/", view, name=self._url_name(act, many=True)))
            urls.append(path(f"<int:object_id>/{act.slug}/", view, name=self._url_name(act)))
        return urls + super().get_urls()

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)
        for act in self.acts:
            if act.on_list and act.allowed_for(request):
                actions[act.slug] = (self._menu_entry_of(act), act.slug, act.label)
        return actions

    def buttons(self, request: HttpRequest, subject: Any) -> list[Button]:
        """The acts that this person may do, in the state that the object is in."""
        return [
            Button(
                label=act.label,
                url=reverse(f"{self.admin_site.name}:{self._url_name(act)}", args=[subject.pk]),
                why_not=act.why_not(subject),
                dangerous=act.dangerous,
            )
            for act in self.acts
            if act.allowed_for(request) and act.applies(subject) and self.may(request, act, subject)
        ]

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kw: Any) -> Any:
        subject = context.get("original")
        if subject is not None:
            context["act_buttons"] = self.buttons(request, subject)
            context["act_requests"] = self.requests_about(subject)
        return super().render_change_form(request, context, *args, **kw)

    def _menu_entry_of(self, act: Act) -> Any:
        def go(model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
            pks = list(queryset.values_list("pk", flat=True)[: MOST_AT_ONCE + 1])
            if len(pks) > MOST_AT_ONCE:
                self.message_user(
                    request, _("Choose at most %d at once.") % MOST_AT_ONCE, level=messages.ERROR
                )
                return None
            address = reverse(f"{self.admin_site.name}:{self._url_name(act, many=True)}")
            return HttpResponseRedirect(f"{address}?{urlencode({'ids': ','.join(map(str, pks))})}")

        return go

    # --- the page ----------------------------------------------------------------------------------------

    def _view_of(self, act: Act) -> Any:
        def view(request: HttpRequest, object_id: int | None = None) -> HttpResponse:
            if not (act.allowed_for(request) and self.has_view_permission(request)):
                raise PermissionDenied
            subjects = self._chosen(request, object_id)
            if len(subjects) > 1 and not act.on_list:
                raise Http404(_("This is done one by one."))
            if not all(self.may(request, act, subject) for subject in subjects):
                raise PermissionDenied
            rows = [self._row(act, subject) for subject in subjects]
            data = request.POST if request.method == "POST" else None
            form = act.form(data, subjects=subjects, user=request.user)
            if data is not None and form.is_valid():
                single = object_id is not None
                chosen = set(data.getlist("do"))
                for row in rows:
                    if single or str(row.subject.pk) in chosen:
                        self._do(act, row, form, request, single)
                if not single:
                    return self._page(request, act, rows, form, "admin/act_results.html")
                (row,) = rows
                if row.outcome != "refused":
                    self.message_user(request, row.message, level=_LEVELS[row.outcome])
                    return HttpResponseRedirect(row.url)
                form.add_error(row.field if row.field in form.fields else None, row.message)
                rows = [self._row(act, subject) for subject in self._chosen(request, object_id)]
            return self._page(request, act, rows, form, "admin/act.html")

        return view

    def _chosen(self, request: HttpRequest, object_id: int | None) -> list[Any]:
        if object_id is not None:
            pks: Iterable[str] = [str(object_id)]
        elif request.method == "POST":
            pks = request.POST.getlist("ids")
        else:
            pks = request.GET.get("ids", "").split(",")
        numbers = [int(pk) for pk in pks if pk.isascii() and pk.isdigit() and len(pk) < 19][:MOST_AT_ONCE]
        found = self.act_subjects(request).in_bulk(numbers)
        if not found:
            raise Http404(_("None of them exists."))
        return [found[pk] for pk in numbers if pk in found]

    def _row(self, act: Act, subject: Model) -> Row:
        name = f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_change"
        why_not = act.why_not(subject)
        return Row(
            subject=subject,
            name=act.name(subject),
            url=reverse(name, args=[subject.pk]),
            why_not=why_not,
            will="" if why_not else act.will(subject),
            seen=act.seen(subject),
        )

    def _do(self, act: Act, row: Row, form: ActForm, request: HttpRequest, single: bool) -> None:
        seen = request.POST.get(f"seen-{row.subject.pk}", "")
        try:
            result = act.do(row.subject, form.cleaned_data, request.user.get_username(), seen)
        except SecondPersonNeeded as needed:
            if not single:  # the form of several is not that of one
                row.outcome, row.message = "refused", str(needed)
                return
            asked = second_person.ask(
                needed.demand,
                request.user,
                page=self._page_name,
                slug=act.slug,
                object_id=row.subject.pk,
                data=filled_in(form),
                shown=seen,
                permission=act.permission,
            )
            row.outcome, row.message = ("repeated" if asked.repeated else "asked"), asked.message
        except act.refusals as refusal:
            row.outcome, row.message = "refused", str(refusal)
            row.field = getattr(refusal, "field", "")
        else:
            row.outcome, row.message = ("repeated" if result.repeated else "done"), result.message

    def _page(
        self, request: HttpRequest, act: Act, rows: list[Row], form: ActForm, template: str
    ) -> HttpResponse:
        plain_form: Any = form  # the fieldset template takes any form; the stubs do not know
        visible = [name for name, field in form.fields.items() if not field.widget.is_hidden]
        context = {
            **self.admin_site.each_context(request),
            "title": act.label if len(rows) > 1 else f"{act.label}: {rows[0].name}",
            "opts": self.opts,
            "act": act,
            "rows": rows,
            "possible": any(not row.why_not for row in rows),
            "single": rows[0] if len(rows) == 1 else None,
            "second_person_above": second_person_above(act, rows[0].subject),
            "form": form,
            "adminform": AdminForm(plain_form, [(None, {"fields": visible})], {}, (), self),
            "media": self.media + form.media,
        }
        return TemplateResponse(request, template, context)


_LEVELS = {"done": messages.SUCCESS, "repeated": messages.INFO, "asked": messages.WARNING}
