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
        from orders.services.notes import unseen_mentions
        from payments.services.availability import troubles
        from shop import first_steps
        from shop.work_queue import tasks

        queue = tasks(request.user)
        clear = [task for task in queue if not task.count]
        context = {
            "tasks": queue,
            "clear_tasks": clear,
            "nothing_waits": len(clear) == len(queue),
            "mentions": unseen_mentions(request.user),
            "provider_troubles": troubles(),
            "needs_first_steps": first_steps.is_needed(),
        }
        return super().index(request, context | (extra_context or {}))

    def get_urls(self) -> list[URLPattern | URLResolver]:
        from shop import dead_letter_pages, front_pages, schedule_pages

        pages = (dead_letter_pages, front_pages, schedule_pages)
        return [*(url for page in pages for url in page.urls(self)), *super().get_urls()]

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """With the pages that belong to no model."""
        app_list: list[Any] = super().get_app_list(request, app_label)
        pages = [("Dead letters", _("Dead letters"), "admin:dead_letters")]
        if not request.user.has_perm("orders.view_deadletter"):
            pages = []
        pages.append(("Schedules", _("Schedules"), "admin:schedules"))
        pages.append(("Health", _("Health"), "admin:health"))
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
