"""When a log-in ends, and what becomes of a form that was being filled in.

A session ends at the moment that was fixed when it began, unless its person says that they stay. Two minutes before,
the page says so (`session.js`). A form that is sent too late, or from a page whose token is out of date because
somebody has logged in meanwhile, is not carried out. What was typed waits in the browser's own tab (`unsaved.js`)
until the same person is back on that form, for an hour at most, and they have to press the button again.

It waits in the browser because there it takes no copy of customers' data on the server, no table and no clean-up, it
needs no guess at whose form came without a session, and it goes with the tab.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django_htmx.http import HttpResponseClientRedirect


def urls(site: admin.AdminSite) -> list[URLPattern]:
    # Not behind the guard: both are for those whose session has ended, too.
    return [
        path("session/", session, name="session"),
        path("form-expired/", form_expired, name="form_expired"),
    ]


def begin(request: HttpRequest, **_signal: Any) -> None:
    """Fix the end of the session: one that is written to does not go on longer for that. At log-in, by its signal."""
    request.session.set_expiry(timezone.now() + timedelta(seconds=settings.SESSION_COOKIE_AGE))


@never_cache
@csrf_protect
def session(request: HttpRequest) -> HttpResponse:
    """GET: how many seconds it lasts yet, 0 if it has ended. POST: as long as after a log-in, again."""
    if request.method not in ("GET", "POST"):
        return HttpResponseNotAllowed(["GET", "POST"])
    if not admin.site.has_permission(request):
        return JsonResponse({"seconds": 0})
    if request.method == "POST":
        begin(request)
    return JsonResponse({"seconds": request.session.get_expiry_age()})


# --- a form that comes too late ---------------------------------------------------------------------------


def to_log_in(request: HttpRequest) -> HttpResponse:
    """To the log-in, and from there back to the page with the form: its address need not be the form's own."""
    if request.htmx:  # type: ignore[attr-defined]  # the middleware sets it
        # An act that opens inside a page has a page of its own.
        back = request.path if request.method == "POST" else request.htmx.current_url_abs_path  # type: ignore[attr-defined]
        return HttpResponseClientRedirect(_log_in_address(back or request.path))
    return HttpResponseRedirect(_log_in_address(_came_from(request)))


def refuse(request: HttpRequest, reason: str = "") -> HttpResponse:
    """In place of Django's page for a wrong or missing token (`CSRF_FAILURE_VIEW`)."""
    if getattr(request, "htmx", False):
        return HttpResponseClientRedirect(
            f"{reverse('admin:form_expired')}?{urlencode({'next': request.path})}"
        )
    return _refused(request, _came_from(request))


@never_cache
def form_expired(request: HttpRequest) -> HttpResponse:
    """The same for a form inside a page."""
    back = request.GET.get("next", "")
    return _refused(request, back if _is_ours(back, request) else reverse("admin:index"))


def _refused(request: HttpRequest, back: str) -> HttpResponse:
    context = {
        **admin.site.each_context(request),
        "title": _("This form was out of date"),
        "back": back,
        "no_cookies": not request.COOKIES.get(settings.CSRF_COOKIE_NAME),
    }
    return TemplateResponse(request, "admin/form_expired.html", context, status=403).render()


def _log_in_address(back: str) -> str:
    return f"{reverse('admin:login')}?{urlencode({'next': back})}"


def _came_from(request: HttpRequest) -> str:
    """The page that the form stood on, as far as the browser says so."""
    page = request.headers.get("Referer", "")
    if not page or not _is_ours(page, request):
        return request.get_full_path()
    parts = urlsplit(page)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _is_ours(address: str, request: HttpRequest) -> bool:
    return url_has_allowed_host_and_scheme(address, {request.get_host()}, require_https=request.is_secure())
