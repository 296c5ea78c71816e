"""The staff site: Django's admin, with a work queue for an index."""

from __future__ import annotations

from functools import wraps
from typing import Any

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse
from django.utils.translation import gettext_lazy as _


class StaffSite(AdminSite):
    site_header = "Vorkasse"
    site_title = "Vorkasse"
    index_title = _("Work queue")
    site_url = None
    enable_nav_sidebar = False

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        # The models are not loaded yet when this module is.
        from orders.services.notes import unseen_mentions
        from payments.services.availability import troubles
        from shop import first_steps
        from shop.work_queue import tasks

        queue = tasks(request.user)
        clear = [task for task in queue if not task.count]
        may_see_providers = request.user.has_perm("payments.view_gatewaystate")
        context = {
            "tasks": queue,
            "clear_tasks": clear,
            "nothing_waits": len(clear) == len(queue),
            "mentions": unseen_mentions(request.user),
            "provider_troubles": troubles() if may_see_providers else [],
            "needs_first_steps": first_steps.is_needed(),
        }
        return super().index(request, context | (extra_context or {}))

    def get_urls(self) -> list[URLPattern | URLResolver]:
        from shop import (
            dead_letter_pages,
            front_pages,
            logging_in,
            schedule_pages,
            second_factor_pages,
            session_pages,
        )

        pages = (dead_letter_pages, front_pages, schedule_pages, second_factor_pages, session_pages)
        return [
            path("login/code/", logging_in.code_step, name="login_code"),
            # Not behind the guard: who still has to set up a second factor may log out all the same.
            path("logout/", self.logout, name="logout"),
            *(url for page in pages for url in page.urls(self)),
            *super().get_urls(),
        ]

    # --- who is let in ---------------------------------------------------------------------------------------

    def is_staff(self, request: HttpRequest) -> bool:
        """Whether somebody of the staff is logged in, proved by a second factor or not."""
        return super().has_permission(request)

    def has_permission(self, request: HttpRequest) -> bool:
        """Staff, with the second factor that they have set up, or have to (`REQUIRE_TOTP`)."""
        from shop.second_factor import is_enough

        return self.is_staff(request) and is_enough(request.user)

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Django's guard; who sends a form without a session, or from inside a page, comes back to that page."""
        guarded: Any = super().admin_view(view, cacheable)

        @wraps(guarded)
        def guard(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            from shop.session_pages import to_log_in

            is_part = request.method == "POST" or bool(getattr(request, "htmx", False))
            if is_part and not self.has_permission(request):
                return to_log_in(request)
            return guarded(request, *args, **kwargs)

        return guard

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        from shop.logging_in import PasswordStep
        from shop.second_factor import enrolled

        index = reverse("admin:index")
        if request.method == "GET" and self.is_staff(request):
            if self.has_permission(request):
                return HttpResponseRedirect(index)
            if enrolled(request.user) is None:
                return HttpResponseRedirect(reverse("admin:second_factor"))
            # It began before the second factor was set up.
            logout(request)
            messages.info(request, _("A second factor was set up. Log in with it."))
        context = {
            **self.each_context(request),
            "title": _("Log in"),
            "app_path": request.get_full_path(),
            "username": request.user.get_username(),
            **({} if "next" in request.GET or "next" in request.POST else {"next": index}),
            **(extra_context or {}),
        }
        return PasswordStep.as_view(extra_context=context)(request)

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        answer = super().logout(request, extra_context)
        if request.is_secure():  # browsers take it from no other
            answer["Clear-Site-Data"] = '"cache"'
        return answer

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """With the pages that belong to no model."""
        app_list: list[Any] = super().get_app_list(request, app_label)
        pages = [
            (key, name, url)
            for key, name, url, permission in (
                ("Dead letters", _("Dead letters"), "admin:dead_letters", "orders.view_deadletter"),
                ("Schedules", _("Schedules"), "admin:schedules", "ops.view_scheduleact"),
                ("Health", _("Health"), "admin:health", "ops.view_scheduleact"),
            )
            if request.user.has_perm(permission)
        ]
        for app in app_list:
            if app["app_label"] == "ops":
                app["models"][:0] = [
                    {
                        "name": name,
                        "object_name": key,
                        "admin_url": reverse(url),
                        "add_url": None,
                        "view_only": True,
                    }
                    for key, name, url in pages
                ]
        return app_list
