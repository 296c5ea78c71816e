"""Lists that stay fast and helpful, however long: tabs, search, what was looked at last, and the list as a file.

Nothing is counted beyond a cap. A page's rows are found by their keys first, and only they are completed. A search
asks each place where the words may be by itself, because no index serves an OR over several tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl

from django.contrib import admin, messages
from django.contrib.admin.options import IS_POPUP_VAR, TO_FIELD_VAR
from django.contrib.admin.views.main import ERROR_FLAG, PAGE_VAR, SEARCH_VAR, ChangeList
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import connection
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.formats import number_format
from django.utils.functional import cached_property
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from shop.kernel.admin import exporting
from shop.kernel.bulk import any_key

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

    _Paginator = Paginator[Any]
    _Admin = admin.ModelAdmin[Any]
    Rows = QuerySet[Any]
else:
    _Paginator = Paginator
    _Admin = admin.ModelAdmin
    Rows = QuerySet

CAP = 10_000
MOST_ON_A_TAB = 1000
MOST_FOUND = 200
RESET = "reset"
_PASSING = (PAGE_VAR, ERROR_FLAG, RESET, IS_POPUP_VAR, TO_FIELD_VAR)
"""What of an address is not remembered."""


class CappedPaginator(_Paginator):
    """Counts up to `CAP` rows; what lies beyond is found by search and filters, not by paging."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by().values("pk")[:CAP].count())

    @property
    def is_capped(self) -> bool:
        return self.count >= CAP


class FastChangeList(ChangeList):
    """Django's, for `FastListAdmin`."""

    def get_results(self, request: HttpRequest) -> None:
        """What is shown beside a row is looked up for the rows of the page only, not for those that it skips."""
        super().get_results(request)
        keys = list(self.result_list.values_list("pk", flat=True))
        rows = self.root_queryset.filter(pk__in=keys).order_by(*self.queryset.query.order_by)
        self.result_list = rows if rows.query.select_related else self.apply_select_related(rows)

    def get_query_string(self, new_params: Any = None, remove: Any = None) -> str:
        """Nothing chosen is a choice too: an address without any leads to what was looked at last."""
        query: str = super().get_query_string(new_params, remove)
        return f"?{RESET}=1" if query == "?" else query

    @property
    def without_search(self) -> str:
        return self.get_query_string(remove=[SEARCH_VAR])


@dataclass(frozen=True, slots=True)
class Tab:
    """A filter that is often wanted. `query` is what its link asks for, `rows` the same for the count."""

    label: StrOrPromise
    query: str
    rows: Callable[[Rows], Rows]

    def is_chosen(self, request: HttpRequest) -> bool:
        return all(request.GET.get(name) == value for name, value in parse_qsl(self.query))


@dataclass(frozen=True, slots=True)
class ShownTab:
    label: StrOrPromise
    url: str
    chosen: bool
    count: str = ""


class FastListAdmin(_Admin):
    """Lists without an exact count, and nothing to delete."""

    show_full_result_count = False
    paginator = CappedPaginator
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    tabs: ClassVar[tuple[Tab, ...]] = ()
    export_columns: ClassVar[tuple[exporting.Column, ...]] = ()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return FastChangeList

    # --- the page ----------------------------------------------------------------------------------------

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        key = f"list:{self.opts.label_lower}"
        if RESET in request.GET:
            request.session.pop(key, None)
            return HttpResponseRedirect(request.path)
        if request.method == "GET" and not request.GET and request.session.get(key):
            return HttpResponseRedirect(f"{request.path}?{request.session[key]}")
        asked = _worth_keeping(request)
        context = {
            "title": capfirst(self.opts.verbose_name_plural),
            "tabs": self._shown_tabs(request),
            "is_narrowed": bool(asked),
            "export_query": request.GET.urlencode() if self.export_columns else None,
        }
        answer: HttpResponse = super().changelist_view(request, context | (extra_context or {}))
        if request.method == "GET" and answer.status_code == 200 and IS_POPUP_VAR not in request.GET:
            if asked and request.session.get(key) != asked:
                request.session[key] = asked
            elif not asked and key in request.session:
                del request.session[key]
        return answer

    def _shown_tabs(self, request: HttpRequest) -> list[ShownTab]:
        if not self.tabs or request.method != "GET":
            return []
        rows: Rows = self.model._default_manager.order_by()
        counts = _counts([tab.rows(rows).values("pk")[: MOST_ON_A_TAB + 1] for tab in self.tabs])
        shown = [
            ShownTab(tab.label, f"?{tab.query}", tab.is_chosen(request), _capped(count))
            for tab, count in zip(self.tabs, counts, strict=True)
        ]
        return [ShownTab(_("All"), f"?{RESET}=1", not any(tab.chosen for tab in shown)), *shown]

    # --- search ------------------------------------------------------------------------------------------

    def finds(self, rows: Rows, term: str, most: int | None) -> Iterable[Rows]:
        """For a list with a search of its own: `rows` by each thing that the words may be. Each has an index.

        On the way over other tables no more than the newest `most` need be followed, if it is given.
        """
        raise NotImplementedError

    def get_search_results(self, request: HttpRequest, queryset: Rows, search_term: str) -> tuple[Rows, bool]:
        """A page shows `MOST_FOUND`, the newest of what is likeliest meant; a file has them all."""
        if type(self).finds is FastListAdmin.finds:
            found, distinct = super().get_search_results(request, queryset, search_term)
            return found, distinct
        if not search_term.strip():
            return queryset, False
        rows = queryset.order_by(*(self.ordering or ("-pk",)))
        most = None if self._is_export(request) else MOST_FOUND
        parts = list(self.finds(rows, search_term.strip(), most))
        if not parts:
            return queryset.none(), False
        if most is None:
            first, *others = (part.order_by().values("pk") for part in parts)
            return queryset.filter(pk__in=first.union(*others) if others else first), False
        first, *others = (part.values("pk")[:MOST_FOUND] for part in parts)
        # PostgreSQL asks one after the other, and stops when it has enough.
        found = first.union(*others, all=True)[:MOST_FOUND] if others else first
        keys = [row["pk"] for row in found]
        if len(keys) >= MOST_FOUND and request.method == "GET":
            words = _("Very many are found: the newest %d are listed. An export has them all.") % MOST_FOUND
            messages.info(request, words)
        return queryset.filter(pk__in=any_key(set(keys))), False

    # --- the list as a file ------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        if not self.export_columns:
            return super().get_urls()
        name = f"{self.opts.app_label}_{self.opts.model_name}_export"
        view = self.admin_site.admin_view(self.export_view)
        return [path("export.<str:kind>", view, name=name), *super().get_urls()]

    def _is_export(self, request: HttpRequest) -> bool:
        match = request.resolver_match
        return match is not None and str(match.url_name).endswith("_export")

    def export_rows(self, rows: Rows) -> Rows:
        """The rows with what their export reads beside them."""
        return rows

    def export_view(self, request: HttpRequest, kind: str) -> HttpResponseBase:
        """What the list shows under the same address, all of it, in the list's order."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if kind not in exporting.KINDS:
            raise Http404
        rows = self.export_rows(self.get_changelist_instance(request).queryset)
        name = str(self.opts.verbose_name_plural).replace(" ", "-")
        try:
            return exporting.response(request, kind, name, self.export_columns, rows)
        except exporting.TooMany as refusal:
            self.message_user(request, str(refusal), level=messages.ERROR)
            return HttpResponseRedirect(f"./?{request.GET.urlencode()}")


def _worth_keeping(request: HttpRequest) -> str:
    """The filter, search and order of an address."""
    query = request.GET.copy()
    for name in list(query):
        if name in _PASSING or not query[name]:
            del query[name]
    return query.urlencode()


def _counts(several: list[Rows]) -> tuple[int, ...]:
    """How many rows each has, with one query."""
    queries = [rows.query.sql_with_params() for rows in several]
    counted = ", ".join(f"(SELECT count(*) FROM ({query}) AS found)" for query, _params in queries)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {counted}", [value for _query, params in queries for value in params])
        return tuple(cursor.fetchone() or ())


def _capped(count: int) -> str:
    shown = number_format(min(count, MOST_ON_A_TAB), force_grouping=True)
    return f"{shown}+" if count > MOST_ON_A_TAB else shown


def each_word(field: str, term: str) -> Q:
    """For `filter`: each word is somewhere in the field, in any order and case.

    A trigram index knows no less than three characters; shorter ones are looked for where a word begins.
    """
    wanted = Q()
    for word in term.split():
        anywhere = Q(**{f"{field}__icontains": word})
        beginning = Q(**{f"{field}__istartswith": word}) | Q(**{f"{field}__icontains": f" {word}"})
        wanted &= anywhere if len(word) > 2 else beginning
    return wanted
