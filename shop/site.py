"""The staff site: Django's admin, with a work queue for an index."""

from __future__ import annotations

from django.contrib.admin import AdminSite
from django.utils.translation import gettext_lazy as _


class StaffSite(AdminSite):
    site_header = "Vorkasse"
    site_title = "Vorkasse"
    index_title = _("Work queue")
    enable_nav_sidebar = False
