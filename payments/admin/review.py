"""Money that does not fit, and messages that came too late: what it probably is, and what can be done with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payments.admin import searching
from payments.admin.review_acts import REVIEW_ACTS
from payments.models import ReviewItem
from shop.kernel.admin.acting import ActingAdmin, Button
from shop.kernel.admin.date_ranges import DateRange
from shop.kernel.admin.exporting import Column
from shop.kernel.admin.labels import label
from shop.kernel.admin.lists import Tab
from shop.kernel.admin.readonly import LookOnlyAdmin
from shop.kernel.money import Money

Reason = ReviewItem.Reason
AMOUNT_IS = {
    ReviewItem.Reason.TOO_LITTLE: _("missing"),
    ReviewItem.Reason.TOO_MUCH: _("too much"),
    ReviewItem.Reason.CHARGEBACK: _("taken back"),
    ReviewItem.Reason.REFUND_FAILED: _("not refunded"),
}
NONE = "–"
"""Where there is nothing. Django's `empty_value` does it for lists, but not on a page."""


def order_link(number: str) -> SafeString | str:
    """To the order, by its number: payments know no more of it."""
    if not number:
        return ""
    return format_html('<a href="{}">{}</a>', reverse("admin:orders_order_by_number", args=[number]), number)


def _why(proposal: dict[str, str]) -> str:
    """They are stored in English, and few."""
    return gettext(proposal["why"]) if proposal["why"] else ""


class NoticedRange(DateRange):
    title = _("day it was noticed")


def _open_for(reason: str) -> Callable[[QuerySet[ReviewItem]], QuerySet[ReviewItem]]:
    return lambda items: items.filter(state=ReviewItem.State.OPEN, reason=reason)


EXPORT_COLUMNS = (
    Column(_("reason"), lambda item: str(item.get_reason_display())),
    Column(_("state"), lambda item: str(item.get_state_display())),
    Column(
        _("amount"),
        lambda item: None if item.amount is None else Money(item.amount, item.currency).decimal,
    ),
    Column(_("currency"), lambda item: item.currency),
    Column(_("order"), lambda item: item.merchant_reference),
    Column(_("payer"), lambda item: item.transaction and item.transaction.counterparty_name),
    Column(_("IBAN"), lambda item: item.transaction and item.transaction.counterparty_iban),
    Column(_("what happened"), lambda item: item.detail),
    Column(_("resolution"), lambda item: item.resolution),
    Column(_("resolved by"), lambda item: item.resolved_by),
    Column(_("created (UTC)"), lambda item: item.created_at),
)


@admin.register(ReviewItem)
class ReviewItemAdmin(ActingAdmin, LookOnlyAdmin):
    acts = REVIEW_ACTS
    change_form_template = "admin/acting_change_form.html"
    list_display = ("reason", "amount_shown", "payer", "proposed", "text", "state_label", "age")
    list_filter = ("state", "reason", NoticedRange)
    tabs = (
        Tab(_("Open"), "state__exact=open", lambda items: items.filter(state="open")),
        *(
            Tab(reason.label, f"state__exact=open&reason__exact={reason}", _open_for(reason))
            for reason in (Reason.UNKNOWN_REFERENCE, Reason.TOO_LITTLE, Reason.TOO_MUCH, Reason.LATE)
        ),
        Tab(_("Closed"), "state__exact=closed", lambda items: items.filter(state="closed")),
    )
    export_columns = EXPORT_COLUMNS
    search_fields = ("merchant_reference",)  # there is a search; where it looks is in `finds`
    search_help_text = _("Amount, payer, IBAN, text or order number")
    sortable_by: ClassVar = ()
    ordering = ("-state", "-created_at", "-id")  # what is open first
    fields = (
        "reason", "amount_shown", "detail", "proposals_shown", "payer", "iban", "text", "booking", "order",
        "payment_link", "state_label", "created_at",
    )  # fmt: skip
    so_far, resolved = ("resolution",), ("resolution", "resolved_by", "resolved_at")
    readonly_fields = fields + resolved

    def order_number_of(self, subject: ReviewItem) -> str:
        return subject.merchant_reference

    def get_queryset(self, request: HttpRequest) -> QuerySet[ReviewItem]:
        found = super().get_queryset(request).select_related("transaction", "payment", "webhook")
        return found.defer("webhook__body", "webhook__headers", "webhook__events")

    def get_fields(self, request: HttpRequest, obj: ReviewItem | None = None) -> tuple[str, ...]:
        """Of an open item's money a part may have been decided on."""
        if obj is None or not obj.resolution:
            return self.fields
        return self.fields + (self.so_far if obj.state == ReviewItem.State.OPEN else self.resolved)

    def finds(
        self, rows: QuerySet[ReviewItem], term: str, most: int | None
    ) -> Iterable[QuerySet[ReviewItem]]:
        return searching.review_items(rows, term)

    def export_rows(self, rows: QuerySet[ReviewItem]) -> QuerySet[ReviewItem]:
        return rows.select_related("transaction")

    def buttons(self, request: HttpRequest, subject: Any) -> list[Button]:
        """Only what can be done with it: half of the acts never apply to an item's reason."""
        return [button for button in super().buttons(request, subject) if not button.why_not]

    @admin.display(description=_("amount"))
    def amount_shown(self, item: ReviewItem) -> str:
        """With what it is: the same figure may have come in, or be missing."""
        if item.amount is None:
            return NONE
        what: Any = AMOUNT_IS.get(ReviewItem.Reason(item.reason))
        if what is None and item.transaction is not None and item.amount < item.transaction.amount:
            what = gettext("of the %s that came in") % item.transaction.money  # a part was decided before
        if what is None:
            what = gettext("came in")
        return f"{Money(item.amount, item.currency)} {what}"

    @admin.display(description=_("payer"))
    def payer(self, item: ReviewItem) -> str:
        return (item.transaction and item.transaction.counterparty_name) or NONE

    @admin.display(description=_("IBAN"))
    def iban(self, item: ReviewItem) -> str:
        return (item.transaction and item.transaction.counterparty_iban) or NONE

    @admin.display(description=_("text"))
    def text(self, item: ReviewItem) -> SafeString | str:
        if item.webhook is not None:
            url = reverse("admin:payments_webhookdelivery_change", args=[item.webhook_id])
            shown = gettext("Webhook of %(gateway)s: %(payment)s") % {
                "gateway": item.webhook.gateway,
                "payment": item.webhook.payment_reference,
            }
            return format_html('<a href="{}">{}</a>', url, shown)
        if item.transaction is None:
            return NONE
        told = (item.transaction.creditor_reference, item.transaction.remittance_information)
        return " ".join(filter(None, told))[:140] or NONE

    @admin.display(description=_("proposed order"))
    def proposed(self, item: ReviewItem) -> SafeString | str:
        """The likeliest, and why."""
        if not item.proposals:
            return order_link(item.merchant_reference) or NONE
        first, *others = item.proposals
        more = f" (+{len(others)})" if others else ""
        link = order_link(first["merchant_reference"])
        return format_html('{}{}<br><span class="vk-why">{}</span>', link, more, _why(first))

    @admin.display(description=_("proposed orders"))
    def proposals_shown(self, item: ReviewItem) -> SafeString | str:
        if not item.proposals:
            return NONE
        rows = ((order_link(p["merchant_reference"]), _why(p)) for p in item.proposals)
        return format_html_join("", '<p class="vk-line">{}: {}</p>', rows)

    @admin.display(description=_("age"))
    def age(self, item: ReviewItem) -> str:
        return timesince(item.created_at, depth=1)

    @admin.display(description=_("state"))
    def state_label(self, item: ReviewItem) -> SafeString:
        return label(item.state, item.get_state_display())

    @admin.display(description=_("order"))
    def order(self, item: ReviewItem) -> SafeString | str:
        return order_link(item.merchant_reference) or NONE

    @admin.display(description=_("bank transaction"))
    def booking(self, item: ReviewItem) -> SafeString | str:
        if item.transaction is None:
            return NONE
        url = reverse("admin:payments_banktransaction_change", args=[item.transaction_id])
        return format_html('<a href="{}">{}</a>', url, item.transaction)

    @admin.display(description=_("payment"))
    def payment_link(self, item: ReviewItem) -> SafeString | str:
        if item.payment is None:
            return NONE
        url = reverse("admin:payments_payment_change", args=[item.payment_id])
        return format_html('<a href="{}">{}</a>', url, item.payment)
