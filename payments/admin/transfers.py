"""Money to be sent back: the transfers, and the files (pain.001) in which they go to the bank."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payments.admin import searching
from payments.admin.iban import IbanField
from payments.admin.lines import transfer_link
from payments.admin.refund_acts import REFUND
from payments.admin.review import NONE, order_link
from payments.models import OutgoingTransfer, TransferBatch
from payments.services import transfers
from shop.kernel.admin.acting import Act, ActForm, ActingAdmin
from shop.kernel.admin.date_ranges import DateRange
from shop.kernel.admin.exporting import Column
from shop.kernel.admin.labels import label
from shop.kernel.admin.lists import Tab
from shop.kernel.admin.readonly import LookOnlyAdmin, LookOnlyInline
from shop.kernel.forms import ReasonField
from shop.kernel.money import Money

State = OutgoingTransfer.State
AT_ONCE = 900
"""Transfers on the page that makes a file: a form has at most 1000 fields."""
_TONES = {
    State.NEEDS_ACCOUNT: "open", State.READY: "waiting", State.EXPORTED: "running", State.BOOKED: "closed",
    State.RETURNED: "failed",
}  # fmt: skip


def state_label(transfer: OutgoingTransfer) -> SafeString:
    return label(_TONES[State(transfer.state)], transfer.get_state_display())


@dataclass(frozen=True, slots=True)
class Done:
    message: str
    repeated: bool = False


# --- transfers -------------------------------------------------------------------------------------------


class AccountForm(ActForm):
    name = forms.CharField(label=_("Payee"), max_length=70)
    iban = IbanField(label=_("IBAN"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        transfer: OutgoingTransfer = self.subjects[0]
        self.initial.update(name=transfer.payee_name[:70], iban=transfer.payee_iban)


class SetAccount(Act):
    slug = "account"
    label = _("Enter the account")
    permission = REFUND
    form = AccountForm
    refusals = (transfers.TransferRefused,)
    on_list = False
    follows = _("The transfer is ready then, and goes out with the next file for the bank.")

    def why_not(self, subject: OutgoingTransfer) -> str:
        if subject.state in (State.NEEDS_ACCOUNT, State.READY):
            return ""
        return gettext("It is %s: its account stays as it is.") % subject.get_state_display()

    def will(self, subject: OutgoingTransfer) -> str:
        return gettext("%s go to this account.") % subject.money.format()

    def do(self, subject: OutgoingTransfer, data: dict[str, Any], actor: str, seen: str) -> Done:
        row = transfers.set_account(subject, data["name"], data["iban"], actor)
        return Done(
            gettext("%(money)s go to %(name)s.") % {"money": row.money.format(), "name": row.payee_name}
        )


class AskedRange(DateRange):
    title = _("day it was asked for")


def _in(state: str) -> Callable[[QuerySet[OutgoingTransfer]], QuerySet[OutgoingTransfer]]:
    return lambda transfers: transfers.filter(state=state)


EXPORT_COLUMNS = (
    Column(_("end-to-end id"), lambda transfer: transfer.end_to_end_id),
    Column(_("amount"), lambda transfer: transfer.money.decimal),
    Column(_("currency"), lambda transfer: transfer.currency),
    Column(_("payee"), lambda transfer: transfer.payee_name),
    Column(_("IBAN"), lambda transfer: transfer.payee_iban),
    Column(_("order"), lambda transfer: transfer.payment and transfer.payment.merchant_reference),
    Column(_("state"), lambda transfer: str(transfer.get_state_display())),
    Column(_("transfer batch"), lambda transfer: transfer.batch and transfer.batch.message_id),
    Column(_("created (UTC)"), lambda transfer: transfer.created_at),
    Column(_("booked at (UTC)"), lambda transfer: transfer.booked_at),
)


@admin.register(OutgoingTransfer)
class OutgoingTransferAdmin(ActingAdmin, LookOnlyAdmin):
    acts = (SetAccount(),)
    change_form_template = "admin/acting_change_form.html"
    change_list_template = "admin/payments/outgoingtransfer/change_list.html"
    list_display = (
        "end_to_end_id",
        "amount_shown",
        "payee_name",
        "order",
        "state_label",
        "created_at",
        "batch_link",
    )
    list_filter = ("state", AskedRange)
    list_select_related = ("payment", "batch")
    tabs = tuple(Tab(state.label, f"state__exact={state}", _in(state)) for state in State)
    export_columns = EXPORT_COLUMNS
    ordering = ("-created_at", "-id")
    search_fields = ("end_to_end_id",)  # there is a search; where it looks is in `finds`
    search_help_text = _("Order number, RF reference, payee, IBAN, amount or end-to-end id")
    sortable_by: ClassVar = ()
    fields = (
        "end_to_end_id", "amount_shown", "state_label", "payee_name", "payee_iban", "remittance_information",
        "order", "batch_link", "created_at", "requested_by", "account_set_by", "booked_at", "bank_reference",
        "returned_at", "return_reason",
    )  # fmt: skip
    readonly_fields = fields

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.make_batch)
        return [path("batch/", view, name="payments_outgoingtransfer_batch"), *super().get_urls()]

    def finds(
        self, rows: QuerySet[OutgoingTransfer], term: str, most: int | None
    ) -> Iterable[QuerySet[OutgoingTransfer]]:
        return searching.transfers(rows, term)

    def make_batch(self, request: HttpRequest) -> HttpResponse:
        """Choose among the transfers that are ready; POST puts them into a file."""
        if not request.user.has_perm(REFUND):
            raise PermissionDenied
        ready = list(
            OutgoingTransfer.objects.filter(state=State.READY)
            .order_by("id")
            .select_related("payment")[:AT_ONCE]
        )
        rows = [(transfer, transfers.why_not_export(transfer)) for transfer in ready]
        total = Money(sum(transfer.amount for transfer, why_not in rows if not why_not), "EUR")
        error = ""
        if request.method == "POST":
            chosen = [int(pk) for pk in request.POST.getlist("transfer") if pk.isascii() and pk.isdigit()]
            try:
                batch = transfers.make_batch(
                    OutgoingTransfer.objects.filter(pk__in=chosen), request.user.get_username()
                )
            except transfers.TransferRefused as refused:
                error = str(refused)
            else:
                self.message_user(
                    request,
                    gettext("The file is made. Download it, hand it to the bank, and mark it as sent."),
                    level=messages.SUCCESS,
                )
                page = reverse("admin:payments_transferbatch_change", args=[batch.pk])
                return HttpResponseRedirect(page)
        context = {
            **self.admin_site.each_context(request),
            "title": gettext("File for the bank"),
            "opts": self.opts,
            "rows": rows,
            "number": sum(not why_not for _transfer, why_not in rows),
            "total": total.format(),
            "without_account": OutgoingTransfer.objects.filter(state=State.NEEDS_ACCOUNT).count(),
            "error": error,
        }
        return TemplateResponse(request, "admin/payments/outgoingtransfer/batch.html", context)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        may_refund = request.user.has_perm(REFUND)
        return super().changelist_view(request, {"may_refund": may_refund, **(extra_context or {})})

    @admin.display(description=_("amount"))
    def amount_shown(self, transfer: OutgoingTransfer) -> str:
        return transfer.money.format()

    @admin.display(description=_("state"))
    def state_label(self, transfer: OutgoingTransfer) -> SafeString:
        return state_label(transfer)

    @admin.display(description=_("order"))
    def order(self, transfer: OutgoingTransfer) -> SafeString | str:
        return order_link(transfer.payment.merchant_reference) if transfer.payment else NONE

    @admin.display(description=_("transfer batch"))
    def batch_link(self, transfer: OutgoingTransfer) -> SafeString | str:
        if transfer.batch is None:
            return NONE
        url = reverse("admin:payments_transferbatch_change", args=[transfer.batch_id])
        return format_html('<a href="{}">{}</a>', url, transfer.batch)


# --- files -----------------------------------------------------------------------------------------------


class MarkSent(Act):
    slug = "sent"
    label = _("Mark as sent")
    permission = REFUND
    refusals = (transfers.TransferRefused,)
    follows = _("It is written down who handed the file to the bank. Statements close its transfers.")

    def why_not(self, subject: TransferBatch) -> str:
        if subject.refused_at is not None:
            return gettext("The bank has refused this file.")
        return gettext("It was sent by %s.") % subject.sent_by if subject.sent_at else ""

    def will(self, subject: TransferBatch) -> str:
        return gettext("The file has been handed to the bank.")

    def do(self, subject: TransferBatch, data: dict[str, Any], actor: str, seen: str) -> Done:
        row = transfers.mark_sent(subject, actor)
        return Done(gettext("It was handed to the bank by %s.") % row.sent_by, repeated=row.sent_by != actor)


class RefusedForm(ActForm):
    reason = ReasonField(label=_("Reason"), help_text=_("What the bank says."))


class MarkRefused(Act):
    slug = "refused"
    label = _("The bank refused the file")
    permission = REFUND
    form = RefusedForm
    refusals = (transfers.TransferRefused,)
    on_list = False
    dangerous = True
    follows = _("All its transfers are ready for another file, and can be corrected.")

    def why_not(self, subject: TransferBatch) -> str:
        return transfers.why_not_refused(subject)

    def will(self, subject: TransferBatch) -> str:
        return gettext("Only if the bank has taken none of it: otherwise money would be sent twice.")

    def do(self, subject: TransferBatch, data: dict[str, Any], actor: str, seen: str) -> Done:
        transfers.mark_refused(subject, actor, data["reason"])
        return Done(gettext("Its transfers are ready for another file."))


class TransferInline(LookOnlyInline):
    model = OutgoingTransfer
    fields = ("transfer", "amount_shown", "payee_name", "payee_iban", "order", "state_label")
    readonly_fields = fields
    ordering = ("id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[OutgoingTransfer]:
        return super().get_queryset(request).select_related("payment")

    @admin.display(description=_("transfer"))
    def transfer(self, transfer: OutgoingTransfer) -> SafeString:
        return transfer_link(transfer)

    @admin.display(description=_("order"))
    def order(self, transfer: OutgoingTransfer) -> SafeString | str:
        return order_link(transfer.payment.merchant_reference) if transfer.payment else NONE

    @admin.display(description=_("state"))
    def state_label(self, transfer: OutgoingTransfer) -> SafeString:
        return state_label(transfer)

    @admin.display(description=_("amount"))
    def amount_shown(self, transfer: OutgoingTransfer) -> str:
        return transfer.money.format()


@admin.register(TransferBatch)
class TransferBatchAdmin(ActingAdmin, LookOnlyAdmin):
    acts = (MarkSent(), MarkRefused())
    change_form_template = "admin/acting_change_form.html"
    list_display = (
        "message_id",
        "number",
        "total",
        "created_at",
        "created_by",
        "sent_at",
        "sent_by",
        "refused_at",
    )
    list_filter = ("created_at",)
    search_fields = ("message_id",)
    sortable_by: ClassVar = ()
    inlines: ClassVar = [TransferInline]
    fields = (
        "message_id", "number", "total", "download_link", "created_at", "created_by", "sent_at", "sent_by",
        "refused_at", "refused_by", "refusal",
    )  # fmt: skip
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[TransferBatch]:
        rows: QuerySet[TransferBatch] = super().get_queryset(request)
        return rows.defer("xml").annotate(
            number_of=Count("transfers"), total_of=Sum("transfers__amount", default=0)
        )

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.download)
        name = "payments_transferbatch_download"
        return [path("<int:pk>/pain001/", view, name=name), *super().get_urls()]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """The link to the file for those who may follow it."""
        fields = super().get_fields(request, obj)
        return [name for name in fields if name != "download_link" or request.user.has_perm(REFUND)]

    def download(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The file itself. It names customers and their accounts: only for those who send it."""
        if not request.user.has_perm(REFUND):
            raise PermissionDenied
        batch = get_object_or_404(TransferBatch, pk=pk)
        name = f"{batch.message_id}.xml"
        return HttpResponse(
            batch.xml,
            content_type="application/xml",
            headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"},
        )

    @admin.display(description=_("transfers"))
    def number(self, batch: TransferBatch) -> int:
        return int(getattr(batch, "number_of", 0))

    @admin.display(description=_("total"))
    def total(self, batch: TransferBatch) -> str:
        """A SEPA file holds euros only."""
        return Money(int(getattr(batch, "total_of", 0)), "EUR").format()

    @admin.display(description=_("file"))
    def download_link(self, batch: TransferBatch) -> SafeString:
        url = reverse("admin:payments_transferbatch_download", args=[batch.pk])
        return format_html('<a href="{}">{}.xml</a>', url, batch.message_id)
