"""The staff site: Django's admin, with a work queue for an index."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, reverse
from django.utils.translation import gettext_lazy as _


class StaffSite(AdminSite):
    site_header = "Vorkasse"
    site_title = "Vorkasse"
    index_title = _("Work queue")
    site_url = None
    enable_nav_sidebar = False

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        # The models are not loaded yet when this module is.
        from payments.services.availability import troubles
        from shop.work_queue import tasks

        context = {"tasks": tasks(request.user), "provider_troubles": troubles()}
        return super().index(request, context | (extra_context or {}))

    def get_urls(self) -> list[URLPattern | URLResolver]:
        from shop import dead_letter_pages, schedule_pages

        return [*dead_letter_pages.urls(self), *schedule_pages.urls(self), *super().get_urls()]

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """With the pages that belong to no model."""
        app_list: list[Any] = super().get_app_list(request, app_label)
        pages = [("Dead letters", _("Dead letters"), "admin:dead_letters")]
        if not request.user.has_perm("orders.view_deadletter"):
            pages = []
        pages.append(("Schedules", _("Schedules"), "admin:schedules"))
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
