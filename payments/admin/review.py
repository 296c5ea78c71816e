"""Money that does not fit, and messages that came too late: looked at, decided, closed with a sentence."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from payments.models import ReviewItem
from payments.services import reviewing
from shop.kernel.admin.acting import Act, ActForm, ActingAdmin
from shop.kernel.admin.labels import label
from shop.kernel.admin.readonly import LookOnlyAdmin
from shop.kernel.forms import ReasonField
from shop.kernel.money import Money


class CloseForm(ActForm):
    resolution = ReasonField(label=_("Resolution"), help_text=_("What was decided and done."))


class Close(Act):
    slug = "close"
    label = "Close"
    permission = "payments.change_reviewitem"
    form = CloseForm
    refusals = (reviewing.ReviewRefused,)
    follows = (
        "Closing moves no money. It writes down what was decided, and takes the item off the work queue."
    )

    def why_not(self, subject: ReviewItem) -> str:
        return f"It was closed by {subject.resolved_by}." if subject.state == "closed" else ""

    def will(self, subject: ReviewItem) -> str:
        return subject.detail

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> reviewing.Closed:
        return reviewing.close(subject.pk, actor, data["resolution"])


@admin.register(ReviewItem)
class ReviewItemAdmin(ActingAdmin, LookOnlyAdmin):
    acts = (Close(),)
    change_form_template = "admin/acting_change_form.html"
    list_display = ("reason", "merchant_reference", "amount_shown", "state_label", "detail", "created_at")
    list_filter = ("state", "reason")
    search_fields = ("merchant_reference",)
    sortable_by: ClassVar = ()
    fields = (
        "reason", "merchant_reference", "payment_link", "amount_shown", "detail", "state_label", "created_at",
        "resolution", "resolved_by", "resolved_at",
    )  # fmt: skip
    readonly_fields = fields

    @admin.display(description=_("amount"), empty_value="–")
    def amount_shown(self, item: ReviewItem) -> str | None:
        return None if item.amount is None else Money(item.amount, item.currency).format()

    @admin.display(description=_("state"))
    def state_label(self, item: ReviewItem) -> SafeString:
        return label(item.state, item.get_state_display())

    @admin.display(description=_("payment"), empty_value="–")
    def payment_link(self, item: ReviewItem) -> SafeString | None:
        if item.payment is None:
            return None
        url = reverse("admin:payments_payment_change", args=[item.payment_id])
        return format_html('<a href="{}">{}</a>', url, item.payment)
