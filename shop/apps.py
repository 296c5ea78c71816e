from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps


class ShopConfig(AppConfig):
    name = "shop"


class StaffAdminConfig(admin_apps.AdminConfig):
    """Django's admin with our staff site in place of the stock one."""

    default = False
    default_site = "shop.site.StaffSite"
