"""Addresses."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from payments.views import webhook
from shop.views import health

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("health/", health, name="health"),
    path("webhooks/payments/<slug:gateway>/", webhook, name="payment-webhook"),
    path("api/", include("orders.api.routes")),
    path("admin/", admin.site.urls),
]
