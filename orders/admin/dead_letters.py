"""Undos that failed for good: what is at stake, why it failed, and a way to have them tried again."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from orders.models import DeadLetter
from orders.services.ending import retry_dead_letter
from orders.services.lifecycle import Acted, ActionRefused
from shop.kernel.admin.acting import Act, ActForm, ActingAdmin
from shop.kernel.admin.labels import label
from shop.kernel.admin.readonly import LookOnlyAdmin
from shop.kernel.forms import ReasonField
from shop.kernel.money import Money


class RetryForm(ActForm):
    reason = ReasonField(label=_("Reason"), help_text=_("What has changed since it failed, for instance."))


class Retry(Act):
    slug = "retry"
    label = "Retry"
    permission = "orders.retry_deadletter"
    form = RetryForm
    refusals = (ActionRefused,)
    follows = (
        "The undo is tried again under its old idempotency key, so what has happened already does not "
        "happen twice. With its last dead letter resolved, the order is cancelled."
    )

    def name(self, subject: DeadLetter) -> str:
        return f"{subject.saga.order.number}, {subject.step.replace('_', ' ')}"

    def why_not(self, subject: DeadLetter) -> str:
        match subject.state:
            case DeadLetter.State.RESOLVED:
                return "It is resolved."
            case DeadLetter.State.RETRYING:
                return "It is being retried already."
        return ""

    def will(self, subject: DeadLetter) -> str:
        stake = f" ({Money(subject.amount, subject.currency).format()})" if subject.amount else ""
        return f"The undo of {subject.step.replace('_', ' ')}{stake} is tried again."

    def do(self, subject: DeadLetter, data: dict[str, Any], actor: str, seen: str) -> Acted:
        return retry_dead_letter(subject.pk, actor, data["reason"])


@admin.register(DeadLetter)
class DeadLetterAdmin(ActingAdmin, LookOnlyAdmin):
    acts = (Retry(),)
    change_form_template = "admin/acting_change_form.html"
    list_display = ("undo", "order_number", "state_label", "stake", "short_error", "retries", "created_at")
    list_filter = ("state", "step")
    search_fields = ("saga__order__number", "reference")
    sortable_by: ClassVar = ()
    fields = (
        "order_number", "undo", "state_label", "stake", "error_type", "error", "attempts", "retries",
        "reference", "idempotency_key", "rollback_run", "reason", "created_at",
        "resolved_at", "resolved_by", "resolution",
    )  # fmt: skip
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeadLetter]:
        return super().get_queryset(request).select_related("saga__order")

    @admin.display(description=_("undo of"))
    def undo(self, letter: DeadLetter) -> str:
        return letter.step.replace("_", " ")

    @admin.display(description=_("order"))
    def order_number(self, letter: DeadLetter) -> SafeString:
        order = letter.saga.order
        url = reverse("admin:orders_order_change", args=[order.pk])
        return format_html('<a href="{}">{}</a>', url, order.number)

    @admin.display(description=_("state"))
    def state_label(self, letter: DeadLetter) -> SafeString:
        return label(letter.state, letter.get_state_display())

    @admin.display(description=_("at stake"), empty_value="–")
    def stake(self, letter: DeadLetter) -> str | None:
        return Money(letter.amount, letter.currency).format() if letter.amount else None

    @admin.display(description=_("error"))
    def short_error(self, letter: DeadLetter) -> str:
        return letter.error[:80] + ("…" if len(letter.error) > 80 else "")

    @admin.display(description=_("reason of the rollback"))
    def reason(self, letter: DeadLetter) -> str:
        return letter.saga.reason
