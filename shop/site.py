"""The staff site: Django's admin, with a work queue for an index."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.template.response import TemplateResponse
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
