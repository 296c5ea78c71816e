"""Webhooks as they came in."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from payments.admin.webhook_acts import DELIVERY_ACTS
from payments.models import WebhookDelivery, WebhookReprocessing
from payments.services import strays
from shop.kernel.admin.acting import ActingAdmin
from shop.kernel.admin.labels import label
from shop.kernel.admin.readonly import LookOnlyAdmin, LookOnlyInline


class ReprocessingInline(LookOnlyInline):
    model = WebhookReprocessing
    fields = ("at", "actor", "state_label", "result")
    readonly_fields = fields

    @admin.display(description=_("state after it"))
    def state_label(self, reprocessing: WebhookReprocessing) -> SafeString:
        return label(reprocessing.state, reprocessing.get_state_display())


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ActingAdmin, LookOnlyAdmin):
    acts = DELIVERY_ACTS
    change_form_template = "admin/acting_change_form.html"
    inlines = (ReprocessingInline,)
    list_display = ("received_at", "gateway", "event_id", "payment_reference", "state_label", "error")
    list_display_links = ("received_at", "event_id")
    list_filter = ("state", "gateway", "received_at")
    search_fields = ("payment_reference", "event_id")
    sortable_by: ClassVar = ()
    fields = (
        "gateway", "event_id", "payment_reference", "state_label", "error", "received_at", "processed_at",
        "review_item", "events", "headers", "body_shown",
    )  # fmt: skip
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookDelivery]:
        return super().get_queryset(request).defer("body")

    @admin.display(description=_("state"))
    def state_label(self, delivery: WebhookDelivery) -> SafeString:
        return label(delivery.state, delivery.get_state_display())

    @admin.display(description=_("review item"))
    def review_item(self, delivery: WebhookDelivery) -> SafeString | str:
        item = strays.item_about(delivery)
        if item is None:
            return "–"
        url = reverse("admin:payments_reviewitem_change", args=[item.pk])
        return format_html('<a href="{}">{}</a>', url, item)

    @admin.display(description=_("body"))
    def body_shown(self, delivery: WebhookDelivery) -> SafeString:
        text = bytes(delivery.body).decode("utf-8", "replace")
        return format_html('<pre class="vk-text">{}</pre>', text[:20_000])
