"""Webhooks as they came in."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from payments.models import WebhookDelivery
from shop.kernel.admin.labels import label
from shop.kernel.admin.readonly import LookOnlyAdmin


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(LookOnlyAdmin):
    list_display = ("received_at", "gateway", "event_id", "payment_reference", "state_label", "error")
    list_display_links = ("received_at", "event_id")
    list_filter = ("state", "gateway", "received_at")
    search_fields = ("payment_reference", "event_id")
    sortable_by: ClassVar = ()
    fields = (
        "gateway", "event_id", "payment_reference", "state_label", "error", "received_at", "processed_at",
        "events", "headers", "body_shown",
    )  # fmt: skip
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookDelivery]:
        return super().get_queryset(request).defer("body")

    @admin.display(description=_("state"))
    def state_label(self, delivery: WebhookDelivery) -> SafeString:
        return label(delivery.state, delivery.get_state_display())

    @admin.display(description=_("body"))
    def body_shown(self, delivery: WebhookDelivery) -> SafeString:
        text = bytes(delivery.body).decode("utf-8", "replace")
        return format_html('<pre class="vk-text">{}</pre>', text[:20_000])
