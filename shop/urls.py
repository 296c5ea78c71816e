"""Addresses."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from django.views.i18n import set_language

from payments.views import webhook

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("webhooks/payments/<slug:gateway>/", webhook, name="payment-webhook"),
    path("api/", include("orders.api.routes")),
    path("language/", set_language, name="set_language"),
    path("admin/", admin.site.urls),
]
