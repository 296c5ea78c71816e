"""Mails to customers, as they were written."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from orders.models import Mail
from shop.kernel.admin.labels import label
from shop.kernel.admin.readonly import LookOnlyAdmin


@admin.register(Mail)
class MailAdmin(LookOnlyAdmin):
    list_display = ("subject", "order_number", "recipient", "state_label", "created_at", "sent_at")
    list_filter = ("state", "kind")
    search_fields = ("saga__order__number", "recipient")
    sortable_by: ClassVar = ()
    fields = (
        "order_number", "subject", "recipient", "state_label", "error", "attempts", "message_id",
        "created_at", "sent_at", "text_shown", "html_shown",
    )  # fmt: skip
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Mail]:
        return super().get_queryset(request).select_related("saga__order")

    @admin.display(description=_("order"))
    def order_number(self, mail: Mail) -> SafeString:
        order = mail.saga.order
        url = reverse("admin:orders_order_change", args=[order.pk])
        return format_html('<a href="{}">{}</a>', url, order.number)

    @admin.display(description=_("state"))
    def state_label(self, mail: Mail) -> SafeString:
        return label(mail.state, mail.get_state_display())

    @admin.display(description=_("text"))
    def text_shown(self, mail: Mail) -> SafeString:
        return format_html('<pre class="vk-text">{}</pre>', mail.text)

    @admin.display(description=_("HTML"))
    def html_shown(self, mail: Mail) -> SafeString:
        # As source: rendered, a mail's own styles would need a hole in the content security policy.
        return format_html(
            '<details><summary>{}</summary><pre class="vk-text">{}</pre></details>', _("Source"), mail.html
        )
