"""Payments with their events and totals, and the refund. The books are written nowhere but in services."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payments.admin import searching
from payments.admin.gateways import warn
from payments.admin.refund_acts import PAYMENT_ACTS, PayBackReceived, Refund
from payments.admin.review import NONE, order_link
from payments.models import OutgoingTransfer, Payment, PaymentEvent
from payments.models.gateway_state import called
from payments.models.payment import source_in_words, status_in_words
from payments.services.refunding import failed_refunds
from payments.services.transfers import paid_back
from shop.kernel.admin.acting import ActingAdmin, Button
from shop.kernel.admin.date_ranges import DateRange
from shop.kernel.admin.exporting import Column, Value
from shop.kernel.admin.labels import label
from shop.kernel.admin.lists import Tab
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
        "source_shown",
        "actor",
        "detail",
    )
    readonly_fields = fields
    ordering = ("id",)

    @admin.display(description=_("amount"))
    def amount_shown(self, event: PaymentEvent) -> str:
        return event.money.format()

    @admin.display(description=_("source"))
    def source_shown(self, event: PaymentEvent) -> str:
        return source_in_words(event.source)

    @admin.display(description=_("outcome"))
    def outcome_label(self, event: PaymentEvent) -> SafeString:
        return label(event.outcome, event.get_outcome_display())


def _total(name: str, words: StrOrPromise) -> object:
    @admin.display(description=words)
    def shown(admin_: object, payment: Payment) -> str:
        return Money(getattr(payment.totals(), name), payment.currency).format()

    return shown


class OpenedRange(DateRange):
    title = _("day it was opened")


class GatewayFilter(admin.SimpleListFilter):
    """By those that the shop has now: to look which there ever were takes reading all payments."""

    title = _("gateway")
    parameter_name = "gateway"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [(name, called(name)) for name in sorted(settings.PAYMENT_GATEWAYS)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Payment]) -> QuerySet[Payment]:
        return queryset.filter(gateway=self.value()) if self.value() else queryset


class OpenFilter(admin.SimpleListFilter):
    title = _("use of its money")
    parameter_name = "open"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [("yes", str(_("open"))), ("no", str(_("closed")))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Payment]) -> QuerySet[Payment]:
        return queryset.filter(closed_at__isnull=self.value() == "yes") if self.value() else queryset


def _sum(name: str) -> Callable[[Payment], Value]:
    return lambda payment: Money(getattr(payment.totals(), name), payment.currency).decimal


EXPORT_COLUMNS = (
    Column(_("merchant reference"), lambda payment: payment.merchant_reference),
    Column(_("gateway"), lambda payment: payment.gateway),
    Column(_("PSP reference"), lambda payment: payment.reference),
    Column(_("payer"), lambda payment: payment.payer_name),
    Column(_("status"), lambda payment: status_in_words(payment.totals().status)),
    Column(_("amount due"), lambda payment: payment.due.decimal),
    Column(_("received"), _sum("received")),
    Column(_("captured"), _sum("captured")),
    Column(_("refunded"), _sum("refunded")),
    Column(_("currency"), lambda payment: payment.currency),
    Column(_("opened (UTC)"), lambda payment: payment.created_at),
)


@admin.register(Payment)
class PaymentAdmin(ActingAdmin, LookOnlyAdmin):
    acts = PAYMENT_ACTS
    change_form_template = "admin/acting_change_form.html"
    list_display = (
        "merchant_reference",
        "gateway_shown",
        "status",
        "due_shown",
        "received",
        "captured",
        "created_at",
    )
    list_filter = (GatewayFilter, OpenFilter, OpenedRange)
    tabs = (Tab(_("Open"), "open=yes", lambda payments: payments.filter(closed_at=None)),)
    export_columns = EXPORT_COLUMNS
    ordering = ("-created_at", "-id")
    search_fields = ("merchant_reference",)  # there is a search; where it looks is in `finds`
    search_help_text = _("Order number, RF or PSP reference, payer, IBAN or amount")
    sortable_by: ClassVar = ()
    inlines: ClassVar = [PaymentEventInline]
    fields = (
        "order", "gateway_shown", "reference", "status", "due_shown", "authorized", "received", "captured",
        "on_its_way_back", "refunded", "paid_back", "failed", "transfers", "voided", "authorized_until",
        "idempotency_key", "created_at",
    )  # fmt: skip
    readonly_fields = fields

    authorized = _total("authorized", _("authorized"))
    received = _total("received", _("received"))
    captured = _total("captured", _("captured"))
    on_its_way_back = _total("refund_requested", _("refund asked for, not done yet"))
    refunded = _total("refunded", _("refunded"))
    voided = _total("voided", _("voided"))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        warn(request)
        return super().changelist_view(request, extra_context)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kw: Any) -> Any:
        payment = context.get("original")
        if payment is not None:
            warn(request, [payment.gateway])
        return super().render_change_form(request, context, *args, **kw)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Payment]:
        return super().get_queryset(request).prefetch_related("events")

    def order_number_of(self, subject: Payment) -> str:
        return subject.merchant_reference

    def finds(self, rows: QuerySet[Payment], term: str, most: int | None) -> Iterable[QuerySet[Payment]]:
        return searching.payments(rows, term, most)

    def buttons(self, request: HttpRequest, subject: Any) -> list[Button]:
        """Only the refund is greyed where it is not possible, unless what came in can be paid back instead."""
        found = super().buttons(request, subject)
        possible = [button for button in found if not button.why_not]
        if any(button.label == PayBackReceived.label for button in possible):
            return possible
        return [button for button in found if button in possible or button.label == Refund.label]

    @admin.display(description=_("failed refunds"))
    def failed(self, payment: Payment) -> SafeString | str:
        rows = [
            (
                label("failed", gettext("failed")),
                reverse("admin:payments_reviewitem_change", args=[item.pk]),
                item.detail,
            )
            for item in failed_refunds(payment)
        ]
        return format_html_join("", '<p>{} <a href="{}">{}</a></p>', rows) or NONE

    @admin.display(description=_("transfers back"))
    def transfers(self, payment: Payment) -> SafeString | str:
        rows = [
            (
                reverse("admin:payments_outgoingtransfer_change", args=[transfer.pk]),
                transfer.money.format(),
                transfer.get_state_display(),
            )
            for transfer in OutgoingTransfer.objects.filter(payment=payment).order_by("id")
        ]
        return format_html_join("", '<p><a href="{}">{}</a> {}</p>', rows) or NONE

    @admin.display(description=_("order"))
    def order(self, payment: Payment) -> SafeString | str:
        return order_link(payment.merchant_reference)

    @admin.display(description=_("gateway"))
    def gateway_shown(self, payment: Payment) -> str:
        return called(payment.gateway)

    @admin.display(description=_("paid back, never captured"))
    def paid_back(self, payment: Payment) -> Money:
        return Money(paid_back(payment), payment.currency)

    @admin.display(description=_("amount due"))
    def due_shown(self, payment: Payment) -> str:
        waived = Money(payment.waived(payment.totals()), payment.currency)
        return (
            gettext("%(due)s, accepted %(waived)s short") % {"due": payment.due, "waived": waived}
            if waived
            else str(payment.due)
        )

    @admin.display(description=_("status"))
    def status(self, payment: Payment) -> SafeString:
        status = payment.totals().status
        return label(status, status_in_words(status))
