"""Payments with their events and totals. The books are looked at here, and written nowhere but in services."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from payments.models import Payment, PaymentEvent
from shop.kernel.admin.labels import label
from shop.kernel.admin.readonly import LookOnlyAdmin, LookOnlyInline
from shop.kernel.money import Money

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


class PaymentEventInline(LookOnlyInline):
    model = PaymentEvent
    fields = (
        "occurred_at",
        "type",
        "outcome_label",
        "amount_shown",
        "psp_reference",
        "source",
        "actor",
        "detail",
    )
    readonly_fields = fields
    ordering = ("id",)

    @admin.display(description=_("amount"))
    def amount_shown(self, event: PaymentEvent) -> str:
        return event.money.format()

    @admin.display(description=_("outcome"))
    def outcome_label(self, event: PaymentEvent) -> SafeString:
        return label(event.outcome, event.outcome)


def _total(name: str, words: StrOrPromise) -> object:
    @admin.display(description=words)
    def shown(admin_: object, payment: Payment) -> str:
        return Money(getattr(payment.totals(), name), payment.currency).format()

    return shown


@admin.register(Payment)
class PaymentAdmin(LookOnlyAdmin):
    list_display = (
        "merchant_reference",
        "gateway",
        "status",
        "due_shown",
        "received",
        "captured",
        "created_at",
    )
    list_filter = ("gateway", "created_at")
    search_fields = ("merchant_reference", "reference")
    sortable_by: ClassVar = ()
    inlines: ClassVar = [PaymentEventInline]
    fields = (
        "merchant_reference", "gateway", "reference", "status", "due_shown", "authorized", "received",
        "captured", "refunded", "voided", "authorized_until", "idempotency_key", "created_at",
    )  # fmt: skip
    readonly_fields = fields

    authorized = _total("authorized", _("authorized"))
    received = _total("received", _("received"))
    captured = _total("captured", _("captured"))
    refunded = _total("refunded", _("refunded"))
    voided = _total("voided", _("voided"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Payment]:
        return super().get_queryset(request).prefetch_related("events")

    @admin.display(description=_("amount due"))
    def due_shown(self, payment: Payment) -> str:
        return payment.due.format()

    @admin.display(description=_("status"))
    def status(self, payment: Payment) -> SafeString:
        status = payment.totals().status
        return label(status, status.replace("_", " "))
