"""Bank statements: uploaded here, and looked at line by line with what became of each."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _gettext
from django.utils.translation import gettext_lazy as _

from payments.admin.review import NONE, amounts_meant, compact_iban
from payments.models import Allocation, BankStatement, BankTransaction, ReviewItem
from payments.services.importing import Report, import_file, our_ibans
from payments.statements import StatementError
from shop.kernel.admin.labels import label
from shop.kernel.admin.readonly import LookOnlyAdmin, LookOnlyInline
from shop.kernel.money import Money

LINES = 500
"""Shown on a statement's page; the list of transactions has them all."""


class UploadForm(forms.Form):
    file = forms.FileField(
        label=_("Statement file"), help_text=_("camt.053, camt.054 or MT940; also several in a zip file.")
    )


def where_it_is(booking: BankTransaction) -> list[tuple[str, str, Money]]:
    """Where the booking's money is: purpose, in words (with the order's number), and how much."""
    sums: Counter[tuple[str, str]] = Counter()
    for allocation in booking.allocations.all():
        order = allocation.payment.merchant_reference if allocation.payment else ""
        sums[allocation.purpose, order] += allocation.amount
    return [
        (
            purpose,
            f"{Allocation.Purpose(purpose).label}{f': {order}' if order else ''}",
            Money(amount, booking.currency),
        )
        for (purpose, order), amount in sums.items()
        if amount
    ]


def whereabouts() -> Prefetch[Any]:
    """What `where_it_is` reads."""
    return Prefetch("allocations", Allocation.objects.select_related("payment"))


_TONES = {
    "matched": "paid", "review": "open", "refunded": "closed", "discarded": "", "outgoing": "sent", "foreign": "",
}  # fmt: skip


def labels(booking: BankTransaction) -> SafeString:
    """`where_it_is` as coloured labels; the amount is told where the booking was split."""
    parts = where_it_is(booking)
    shown = SafeString("")
    for purpose, words, money in parts:
        text = f"{words} ({money.format()})" if len(parts) > 1 else words
        shown += format_html("{} ", label(_TONES[purpose], text))
    return shown


@admin.register(BankStatement)
class BankStatementAdmin(LookOnlyAdmin):
    change_list_template = "admin/payments/bankstatement/change_list.html"
    change_form_template = "admin/payments/bankstatement/change_form.html"
    list_display = (
        "imported_at", "file_name", "kind", "statement_id", "account_iban", "transactions_in_file",
        "transactions_new", "closing_shown", "imported_by",
    )  # fmt: skip
    list_display_links = ("imported_at", "file_name")
    list_filter = ("imported_at", "account_iban")
    search_fields = ("file_name", "statement_id")
    sortable_by: ClassVar = ()
    fields = (
        "file_name", "kind", "statement_id", "account_iban", "opening_shown", "closing_shown",
        "transactions_in_file", "transactions_new", "imported_at", "imported_by",
    )  # fmt: skip
    readonly_fields = fields

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.upload)
        return [path("import/", view, name="payments_bankstatement_import"), *super().get_urls()]

    def upload(self, request: HttpRequest) -> HttpResponse:
        """A form for the file; afterwards the page of its statement, with what became of each line."""
        if not request.user.has_perm("payments.import_statement"):
            raise PermissionDenied
        form = UploadForm(request.POST or None, request.FILES or None)
        if request.method == "POST" and form.is_valid():
            file = form.cleaned_data["file"]
            try:
                report = import_file(file.name, file, request.user.get_username())
            except StatementError as error:
                form.add_error("file", str(error))
            else:
                return self._after(request, report)
        context = {
            **self.admin_site.each_context(request),
            "title": _gettext("Import a bank statement"),
            "opts": self.opts,
            "form": form,
            "ibans": our_ibans(),
        }
        return TemplateResponse(request, "admin/payments/bankstatement/import.html", context)

    def _after(self, request: HttpRequest, report: Report) -> HttpResponse:
        text = _gettext("%(new)d new bookings were imported; %(known)d were known before.")
        self.message_user(request, text % {"new": report.new, "known": report.known})
        if len(report.statements) == 1:
            page = reverse("admin:payments_bankstatement_change", args=[report.statements[0].pk])
            return HttpResponseRedirect(page)
        pks = ",".join(str(statement.pk) for statement in report.statements[:200])
        return HttpResponseRedirect(f"{reverse('admin:payments_bankstatement_changelist')}?id__in={pks}")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        may_import = request.user.has_perm("payments.import_statement")
        return super().changelist_view(request, {"may_import": may_import, **(extra_context or {})})

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        bookings: QuerySet[BankTransaction] = (
            BankTransaction.objects.filter(statement_id=int(object_id)).order_by("id")
            if object_id.isascii() and object_id.isdigit()
            else BankTransaction.objects.none()
        )
        lines = list(bookings.prefetch_related(whereabouts(), "reviews")[: LINES + 1])
        context = {
            "lines": [(line, labels(line), _open_item(line)) for line in lines[:LINES]],
            "more_lines": len(lines) > LINES,
            "all_lines": f"{reverse('admin:payments_banktransaction_changelist')}?statement__id__exact={object_id}",
        }
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    @admin.display(description=_("opening balance"))
    def opening_shown(self, statement: BankStatement) -> str:
        return NONE if statement.opening is None else Money(statement.opening, statement.currency).format()

    @admin.display(description=_("closing balance"))
    def closing_shown(self, statement: BankStatement) -> str:
        return NONE if statement.closing is None else Money(statement.closing, statement.currency).format()


def _open_item(booking: BankTransaction) -> ReviewItem | None:
    return next((i for i in booking.reviews.all() if i.state == ReviewItem.State.OPEN), None)


class AllocationInline(LookOnlyInline):
    model = Allocation
    fields = ("at", "purpose", "amount_shown", "payment", "actor", "reason")
    readonly_fields = fields
    ordering = ("id",)

    @admin.display(description=_("amount"))
    def amount_shown(self, allocation: Allocation) -> str:
        return Money(allocation.amount, allocation.transaction.currency).format()


class ReviewInline(LookOnlyInline):
    model = ReviewItem
    fields = ("reason", "item", "state", "resolution", "resolved_by")
    readonly_fields = fields
    ordering = ("id",)

    @admin.display(description=_("review item"))
    def item(self, item: ReviewItem) -> SafeString:
        url = reverse("admin:payments_reviewitem_change", args=[item.pk])
        return format_html('<a href="{}">{}</a>', url, item.detail)


@admin.register(BankTransaction)
class BankTransactionAdmin(LookOnlyAdmin):
    list_display = ("booking_date", "amount_shown", "counterparty_name", "text", "where")
    list_filter = ("direction", "booking_date", "is_reversal")
    search_fields = (
        "counterparty_name", "counterparty_iban", "remittance_information", "end_to_end_id", "creditor_reference",
    )  # fmt: skip
    search_help_text = _("Amount, name, IBAN or text")
    sortable_by: ClassVar = ()
    inlines: ClassVar = [AllocationInline, ReviewInline]
    fields = (
        "amount_shown", "direction", "is_reversal", "return_reason", "booking_date", "value_date",
        "counterparty_name", "counterparty_iban", "creditor_reference", "end_to_end_id",
        "remittance_information", "bank_reference", "statement", "position", "recorded_at", "key",
    )  # fmt: skip
    readonly_fields = fields

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup == "statement__id__exact" or super().lookup_allowed(lookup, value, request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[BankTransaction]:
        return super().get_queryset(request).prefetch_related(whereabouts())

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[BankTransaction], search_term: str
    ) -> tuple[QuerySet[BankTransaction], bool]:
        found, distinct = super().get_search_results(request, queryset, compact_iban(search_term))
        if amounts := amounts_meant(search_term):
            found |= queryset.filter(amount__in=amounts)
        return found, distinct

    @admin.display(description=_("amount"))
    def amount_shown(self, booking: BankTransaction) -> str:
        money = booking.money
        return (money if booking.direction == BankTransaction.Direction.CREDIT else -money).format()

    @admin.display(description=_("text"), empty_value="–")
    def text(self, booking: BankTransaction) -> str | None:
        told = (booking.creditor_reference, booking.remittance_information)
        return " ".join(filter(None, told))[:140] or None

    @admin.display(description=_("where it is"))
    def where(self, booking: BankTransaction) -> SafeString:
        return labels(booking)
