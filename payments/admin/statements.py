"""Bank statements: uploaded here, and looked at line by line with what became of each."""

from __future__ import annotations

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
from django.utils.translation import gettext as _gettext
from django.utils.translation import gettext_lazy as _

from payments.admin.lines import amount_of, fate, report_of, text_of, whereabouts
from payments.admin.linking import with_links
from payments.admin.review import NONE, amounts_meant, compact_iban, order_link
from payments.models import Allocation, BankStatement, BankTransaction, ReviewItem
from payments.services.importing import our_ibans
from payments.services.statement_files import receive
from payments.statements import StatementError
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
            "title": _gettext("Import a bank statement"),
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
    fields = ("at", "purpose", "amount_shown", "order", "payment", "actor", "reason_shown")
    readonly_fields = fields
    ordering = ("id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Allocation]:
        return super().get_queryset(request).select_related("payment", "transaction")

    @admin.display(description=_("order"))
    def order(self, allocation: Allocation) -> SafeString | str:
        return order_link(allocation.payment.merchant_reference) if allocation.payment else NONE

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

    def get_queryset(self, request: HttpRequest) -> QuerySet[BankTransaction]:
        return super().get_queryset(request).prefetch_related(*whereabouts())

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[BankTransaction], search_term: str
    ) -> tuple[QuerySet[BankTransaction], bool]:
        found, distinct = super().get_search_results(request, queryset, compact_iban(search_term))
        if amounts := amounts_meant(search_term):
            found |= queryset.filter(amount__in=amounts)
        return found, distinct

    @admin.display(description=_("amount"))
    def amount_shown(self, booking: BankTransaction) -> str:
        return amount_of(booking)

    @admin.display(description=_("text"), empty_value="–")
    def text(self, booking: BankTransaction) -> str | None:
        return text_of(booking) or None

    @admin.display(description=_("where it is"))
    def where(self, booking: BankTransaction) -> SafeString:
        return fate(booking, {})
