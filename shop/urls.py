"""Addresses."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from payments.views import webhook

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("webhooks/payments/<slug:gateway>/", webhook, name="payment-webhook"),
    path("api/", include("orders.api.routes")),
    path("admin/", admin.site.urls),
]
