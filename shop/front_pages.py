"""What the first page fetches once it is there (charts, guided start, the engine's notice), and the health page.

All of them may take a moment, and none of them may keep the work queue from being shown.
"""

from __future__ import annotations

import time
from typing import Any

from django.contrib import admin
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django_htmx.http import HttpResponseClientRefresh

from shop import charts, first_steps, probing
from shop.figures import Figure, figures

VIEW_HEALTH = "ops.view_scheduleact"
VIEW_ORDERS = "orders.view_order"
# Every open page asks; the engine is asked no more often than this.
NOTICE_KEPT_S = 10


def urls(site: admin.AdminSite) -> list[URLPattern]:
    def fragment(view: Any, permission: str) -> Any:
        # Not behind the site's guard: a redirect to the login page would end up inside the page.
        def guarded(request: HttpRequest) -> HttpResponse:
            if not site.has_permission(request):
                return HttpResponseClientRefresh()
            if not request.user.has_perm(permission):
                raise PermissionDenied
            answer: HttpResponse = view(request)
            return answer

        return never_cache(guarded)

    return [
        path("ops/health/", site.admin_view(_health), name="health"),
        path("ops/health/live/", fragment(_health_live, VIEW_HEALTH), name="health_live"),
        path("ops/health/notice/", fragment(_notice, VIEW_ORDERS), name="health_notice"),
        path("ops/charts/", fragment(_charts, VIEW_ORDERS), name="charts"),
        path("ops/first-steps/", fragment(_first_steps, VIEW_ORDERS), name="first_steps"),
    ]


def _health(request: HttpRequest) -> HttpResponse:
    if not request.user.has_perm(VIEW_HEALTH):
        raise PermissionDenied
    context = {**admin.site.each_context(request), "title": _("Health"), "parts": probing.everything()}
    return TemplateResponse(request, "admin/ops/health.html", context)


def _health_live(request: HttpRequest) -> HttpResponse:
    return TemplateResponse(request, "admin/ops/_health.html", {"parts": probing.everything()})


def _notice(request: HttpRequest) -> HttpResponse:
    """What of the engine does not work, if anything."""
    down = cache.get_or_set(
        f"engine-is-down-{get_language()}",
        lambda: [part for part in probing.engine() if part.is_down],
        NOTICE_KEPT_S,
    )
    return TemplateResponse(request, "admin/ops/_notice.html", {"parts": (down or [])[:1]})


def _charts(request: HttpRequest) -> HttpResponse:
    drawn = [(figure, charts.drawn(figure), charts.table(figure)) for figure in _counted()]
    return TemplateResponse(request, "admin/ops/_charts.html", {"charts": drawn})


def _counted() -> list[Figure]:
    """The figures, kept for a hundred times as long as they took: so counting never takes more of a process's time."""
    key = f"figures-{get_language()}"
    kept: list[Figure] | None = cache.get(key)
    if kept is None:
        began = time.monotonic()
        kept = figures()
        cache.set(key, kept, 100 * (time.monotonic() - began))
    return kept


def _first_steps(request: HttpRequest) -> HttpResponse:
    steps = first_steps.first_steps(request.user)
    all_done = all(step.is_done or step.optional for step in steps)
    return TemplateResponse(request, "admin/ops/_first_steps.html", {"steps": steps, "all_done": all_done})
