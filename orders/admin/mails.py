"""Mails to customers, as they were written."""

from __future__ import annotations

from typing import Any, ClassVar

from csp.decorators import csp
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.views.decorators.clickjacking import xframe_options_sameorigin

from orders.models import Mail
from shop.kernel.admin.labels import label
from shop.kernel.admin.readonly import LookOnlyAdmin

# A mail brings its own styles and images, and nothing else: no script, no form, no address to fetch from.
AS_SENT = {
    "default-src": ["'none'"],
    "style-src": ["'unsafe-inline'"],
    "img-src": ["data:"],
    "form-action": ["'none'"],
    "frame-ancestors": ["'self'"],
}


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
        return format_html(
            '<iframe class="vk-mail-frame" sandbox src="{}" title="{}"></iframe>'
            '<details><summary>{}</summary><pre class="vk-text">{}</pre></details>',
            reverse("admin:orders_mail_html", args=[mail.pk]),
            _("The mail as it was sent"),
            _("Source"),
            mail.html,
        )

    def get_urls(self) -> list[URLPattern]:
        shown: Any = self.html_view  # csp's types know only views without arguments
        view = self.admin_site.admin_view(csp(AS_SENT)(xframe_options_sameorigin(shown)))
        return [path("<int:pk>/html/", view, name="orders_mail_html"), *super().get_urls()]

    def html_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The mail's HTML as a page of its own, for the frame in the mail's page."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return HttpResponse(get_object_or_404(Mail, pk=pk).html)
