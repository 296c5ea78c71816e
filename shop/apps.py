from axes.apps import AppConfig as AxesConfig
from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class ShopConfig(AppConfig):
    name = "shop"
    label = "ops"
    verbose_name = _("Operations")

    def ready(self) -> None:
        from django.apps import apps
        from django.contrib.auth.signals import user_logged_in

        from shop import session_pages
        from shop.roles import ensure_roles

        user_logged_in.connect(session_pages.begin)

        # Of all apps this one is told after the groups' tables are there.
        post_migrate.connect(ensure_roles, sender=apps.get_app_config("auth"))


class StaffAdminConfig(admin_apps.AdminConfig):
    """Django's admin with our staff site in place of the stock one."""

    default = False
    default_site = "shop.site.StaffSite"


class LogInsConfig(AxesConfig):  # type: ignore[misc]  # it has no types
    """Axes, under the name that the staff site shows."""

    default = False
    verbose_name = _("Log-ins")
