"""Bank statements: uploaded here, and looked at line by line with what became of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payments.admin import searching
from payments.admin.lines import amount_of, fate, position_in_words, report_of, text_of, whereabouts
from payments.admin.linking import with_links
from payments.admin.review import NONE, order_link
from payments.models import Allocation, BankStatement, BankTransaction, ReviewItem
from payments.services.importing import our_ibans
from payments.services.statement_files import receive
from payments.statements import StatementError
from shop.kernel.admin.date_ranges import DayRange
from shop.kernel.admin.exporting import Column
from shop.kernel.admin.lists import Tab
from shop.kernel.admin.readonly import LookOnlyAdmin, LookOnlyInline
from shop.kernel.money import Money

IMPORT = "payments.import_statement"


class UploadForm(forms.Form):
    file = forms.FileField(
        label=_("Statement file"), help_text=_("camt.053, camt.054 or MT940; also several in a zip file.")
    )


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
    list_select_related = ("source",)
    search_fields = ("file_name", "statement_id")
    sortable_by: ClassVar = ()
    fields = (
        "file_name", "kind", "statement_id", "account_iban", "opening_shown", "closing_shown",
        "transactions_in_file", "transactions_new", "imported_at", "imported_by", "file_link",
    )  # fmt: skip
    readonly_fields = fields

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.upload)
        return [path("import/", view, name="payments_bankstatement_import"), *super().get_urls()]

    def upload(self, request: HttpRequest) -> HttpResponse:
        """A form for the file; it is stored at once, and its page says how the import goes."""
        if not request.user.has_perm(IMPORT):
            raise PermissionDenied
        form = UploadForm(request.POST or None, request.FILES or None)
        if request.method == "POST" and form.is_valid():
            uploaded = form.cleaned_data["file"]
            try:
                file = receive(uploaded.name, uploaded, request.user.get_username())
            except StatementError as error:
                form.add_error("file", str(error))
            else:
                return HttpResponseRedirect(reverse("admin:payments_statementfile_change", args=[file.pk]))
        context = {
            **self.admin_site.each_context(request),
            "title": gettext("Import a bank statement"),
            "opts": self.opts,
            "form": form,
            "ibans": our_ibans(),
        }
        return TemplateResponse(request, "admin/payments/bankstatement/import.html", context)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        may_import = request.user.has_perm(IMPORT)
        return super().changelist_view(request, {"may_import": may_import, **(extra_context or {})})

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kw: Any) -> Any:
        statement = context.get("original")
        if statement is not None:
            context["report"] = report_of(request, [statement.pk])
        return super().render_change_form(request, context, *args, **kw)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """The file itself is for those who import."""
        fields = super().get_fields(request, obj)
        return fields if request.user.has_perm(IMPORT) else [name for name in fields if name != "file_link"]

    @admin.display(description=_("statement file"))
    def file_link(self, statement: BankStatement) -> SafeString | str:
        if statement.source is None:
            return NONE
        url = reverse("admin:payments_statementfile_change", args=[statement.source_id])
        return format_html('<a href="{}">{}</a>', url, statement.source)

    @admin.display(description=_("opening balance"))
    def opening_shown(self, statement: BankStatement) -> str:
        return statement.opening_money.format() if statement.opening_money is not None else NONE

    @admin.display(description=_("closing balance"))
    def closing_shown(self, statement: BankStatement) -> str:
        return statement.closing_money.format() if statement.closing_money is not None else NONE


class AllocationInline(LookOnlyInline):
    model = Allocation
    fields = ("at", "purpose", "amount_shown", "order", "payment_shown", "actor", "reason_shown")
    readonly_fields = fields
    ordering = ("id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Allocation]:
        return super().get_queryset(request).select_related("payment", "transaction")

    @admin.display(description=_("order"))
    def order(self, allocation: Allocation) -> SafeString | str:
        return order_link(allocation.payment.merchant_reference) if allocation.payment else NONE

    @admin.display(description=_("payment"))
    def payment_shown(self, allocation: Allocation) -> str:
        return str(allocation.payment or NONE)

    @admin.display(description=_("reason"))
    def reason_shown(self, allocation: Allocation) -> SafeString:
        return with_links(allocation.reason)

    @admin.display(description=_("amount"))
    def amount_shown(self, allocation: Allocation) -> str:
        return Money(allocation.amount, allocation.transaction.currency).format()


class ReviewInline(LookOnlyInline):
    model = ReviewItem
    fields = ("reason", "item", "order", "state", "resolution_shown", "resolved_by")
    readonly_fields = fields
    ordering = ("id",)

    @admin.display(description=_("resolution"))
    def resolution_shown(self, item: ReviewItem) -> SafeString:
        return with_links(item.resolution)

    @admin.display(description=_("review item"))
    def item(self, item: ReviewItem) -> SafeString:
        url = reverse("admin:payments_reviewitem_change", args=[item.pk])
        return format_html('<a href="{}">{}</a>', url, item.detail)

    @admin.display(description=_("order"))
    def order(self, item: ReviewItem) -> SafeString | str:
        return order_link(item.merchant_reference) or NONE


class BookedRange(DayRange):
    title = _("booking date")
    field, name = "booking_date", "booked"


def in_review(bookings: QuerySet[BankTransaction]) -> QuerySet[BankTransaction]:
    """Those that a person still has to decide about."""
    items = ReviewItem.objects.filter(state=ReviewItem.State.OPEN, transaction__isnull=False)
    return bookings.filter(pk__in=items.values("transaction"))


class InReviewFilter(admin.SimpleListFilter):
    title = _("review")
    parameter_name = "review"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [("open", str(_("in review")))]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[BankTransaction]
    ) -> QuerySet[BankTransaction]:
        return in_review(queryset) if self.value() == "open" else queryset


EXPORT_COLUMNS = (
    Column(_("booking date"), lambda booking: booking.booking_date),
    Column(_("value date"), lambda booking: booking.value_date),
    Column(_("direction"), lambda booking: str(booking.get_direction_display())),
    Column(_("amount"), lambda booking: booking.money.decimal),
    Column(_("currency"), lambda booking: booking.currency),
    Column(_("payer or payee"), lambda booking: booking.counterparty_name),
    Column(_("IBAN"), lambda booking: booking.counterparty_iban),
    Column(_("text"), text_of),
    Column(_("end-to-end id"), lambda booking: booking.end_to_end_id),
    Column(_("bank's reference"), lambda booking: booking.bank_reference),
)


@admin.register(BankTransaction)
class BankTransactionAdmin(LookOnlyAdmin):
    list_display = ("booking_date", "amount_shown", "counterparty_name", "text", "where")
    list_filter = ("direction", "is_reversal", InReviewFilter, BookedRange)
    tabs = (
        Tab(_("In review"), "review=open", in_review),
        Tab(_("In"), "direction__exact=credit", lambda rows: rows.filter(direction="credit")),
        Tab(_("Out"), "direction__exact=debit", lambda rows: rows.filter(direction="debit")),
        Tab(_("Reversals and returns"), "is_reversal__exact=1", lambda rows: rows.filter(is_reversal=True)),
    )
    export_columns = EXPORT_COLUMNS
    ordering = ("-booking_date", "-id")
    search_fields = ("counterparty_iban",)  # there is a search; where it looks is in `finds`
    search_help_text = _("Amount, name, IBAN, RF reference, order number or text")
    sortable_by: ClassVar = ()
    inlines: ClassVar = [AllocationInline, ReviewInline]
    fields = (
        "amount_shown", "direction", "is_reversal", "return_reason", "booking_date", "value_date",
        "counterparty_name", "counterparty_iban", "creditor_reference", "end_to_end_id",
        "remittance_information", "bank_reference", "statement_link", "position_shown", "recorded_at", "key_shown",
    )  # fmt: skip
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[BankTransaction]:
        return super().get_queryset(request).prefetch_related(*whereabouts())

    def finds(
        self, rows: QuerySet[BankTransaction], term: str, most: int | None
    ) -> Iterable[QuerySet[BankTransaction]]:
        return searching.bookings(rows, term)

    @admin.display(description=_("amount"))
    def amount_shown(self, booking: BankTransaction) -> str:
        return amount_of(booking)

    @admin.display(description=_("statement"))
    def statement_link(self, booking: BankTransaction) -> SafeString:
        url = reverse("admin:payments_bankstatement_change", args=[booking.statement_id])
        return format_html('<a href="{}">{}</a>', url, booking.statement)

    @admin.display(description=_("position"))
    def position_shown(self, booking: BankTransaction) -> str:
        return position_in_words(booking.position)

    @admin.display(description=_("key"))
    def key_shown(self, booking: BankTransaction) -> str:
        return booking.key

    @admin.display(description=_("text"), empty_value="–")
    def text(self, booking: BankTransaction) -> str | None:
        return text_of(booking) or None

    @admin.display(description=_("where it is"))
    def where(self, booking: BankTransaction) -> SafeString:
        return fate(booking, {})
