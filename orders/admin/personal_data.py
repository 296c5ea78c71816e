"""The customer's personal data, from the page of one of their orders: a file with all of it, and its erasure."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from orders.models import Order
from orders.services import personal_data
from orders.services.personal_data import Erased, ErasureRefused
from orders.words import day
from shop.kernel.admin.acting import Act, ActForm
from shop.kernel.admin.readonly import LookOnlyAdmin
from shop.kernel.forms import ReasonField
from shop.kernel.models import Erasure

log = logging.getLogger(__name__)

EXPORT = "orders.export_customer"


class EraseForm(ActForm):
    reason = ReasonField(label=_("Reason"), help_text=_("Their request and its date, without their name."))


class EraseCustomer(Act):
    """The page lists what goes and what stays; `seen` is that list."""

    slug = "erase-customer"
    label = _("Erase customer")
    permission = "orders.erase_customer"
    form = EraseForm
    on_list = False
    dangerous = True
    refusals = (ErasureRefused,)
    follows = _(
        "Names, addresses, mails, accounts and texts of these orders are written over, and nobody can bring them back. "
        "Numbers, amounts, references, dates and what staff did stay, so the books add up as before. Export the "
        "customer's data first, if they want it."
    )

    def applies(self, subject: Order) -> bool:
        return subject.erased_at is None

    def why_not(self, subject: Order) -> str:
        if not self.applies(subject):
            return gettext("Its customer is erased already.")
        if subject.status not in personal_data.OVER:
            return gettext("Not before the order has come to its end.")
        return ""

    def will(self, subject: Order) -> Any:
        found = personal_data.preview(subject.customer_email)
        rows = [
            *(("bad", gettext("erased"), number) for number in found.to_erase if not found.under_way),
            *(
                (
                    "wait",
                    gettext("kept"),
                    gettext("{order} until {until}: bookings have to be kept.").format(
                        order=kept.number, until=day(kept.until)
                    ),
                )
                for kept in found.kept
            ),
            *(("warn", gettext("under way"), why) for why in found.under_way),
            *(
                ("wait", gettext("kept"), gettext("{file}: others' bookings are in it.").format(file=name))
                for name in found.files
            ),
        ]
        lines = format_html_join(
            "",
            '<p class="vk-line"><span class="vk-label vk-{}">{}</span> {}</p>',
            rows,
        )
        if found.under_way:
            return format_html("{} {}", _("Nothing is erased before all of it has come to its end."), lines)
        return lines or found.why_not

    def seen(self, subject: Order) -> str:
        return personal_data.preview(subject.customer_email).sentence

    def do(self, subject: Order, data: dict[str, Any], actor: str, seen: str) -> Erased:
        return personal_data.erase(subject.customer_email, actor, data["reason"], seen=seen)


def export_view(request: HttpRequest, object_id: int) -> HttpResponse:
    """All that is stored of the order's customer, as a file."""
    if not request.user.has_perm(EXPORT):
        raise PermissionDenied
    order = get_object_or_404(Order, pk=object_id, erased_at=None)
    log.info("%s exports the personal data of the customer of %s", request.user.get_username(), order.number)
    return JsonResponse(
        personal_data.export(order.customer_email),
        json_dumps_params={"indent": 1, "ensure_ascii": False},
        headers={
            "Content-Disposition": f'attachment; filename="customer-of-{order.number}.json"',
            "Cache-Control": "no-store",
        },
    )


@admin.register(Erasure)
class ErasureAdmin(LookOnlyAdmin):
    list_display = ("at", "actor", "reason", "orders")
    sortable_by: ClassVar = ()
    fields = ("at", "actor", "reason", "orders", "person")
    readonly_fields = fields
