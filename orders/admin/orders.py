"""Orders: the list, an order's page, and taking one by hand. An order is never changed here, only acted on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode
from uuid import uuid4

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.safestring import SafeString
from django.utils.translation import gettext, override
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST
from django_htmx.http import HttpResponseClientRefresh

from orders.admin import listing, placing
from orders.admin.acts import ORDER_ACTS
from orders.admin.order_page import page_context, renewed
from orders.admin.personal_data import export_view
from orders.admin.searching import finds
from orders.models import Order
from orders.services import notes
from orders.services.packing import packing_slip
from payments.models.gateway_state import called
from shop.kernel.admin.acting import ActingAdmin
from shop.kernel.admin.labels import label
from shop.kernel.admin.lists import FastListAdmin
from shop.kernel.money import Money

if TYPE_CHECKING:
    from datetime import datetime

    OrderForm = ModelForm[Order]
else:
    OrderForm = ModelForm

COMMENT = "orders.add_orderevent"
COLLEAGUES = 10  # as many names as a line has room for


class CommentForm(forms.Form):
    """`form_id` is new with each page, so that a button pressed twice writes one comment."""

    text = forms.CharField(max_length=2000)
    form_id = forms.UUIDField()


@admin.register(Order)
class OrderAdmin(ActingAdmin, FastListAdmin):
    acts = ORDER_ACTS
    list_display = (
        "number",
        "state",
        "customer_name",
        "total_shown",
        "received_shown",
        "payment_method_shown",
        "deadline",
        "created_at",
    )
    list_filter = (
        "status",
        "way",
        listing.PaymentMethodFilter,
        listing.DeadlineFilter,
        listing.AuthorizationFilter,
        listing.PlacedRange,
        listing.DeadlineRange,
    )
    tabs = listing.TABS
    export_columns = listing.EXPORT_COLUMNS
    ordering = ("-created_at", "-id")
    search_fields = ("number",)  # there is a search; where it looks is in `finds`
    search_help_text = _(
        "Number, RF reference, customer, e-mail, payer, IBAN, amount, tracking number or SKU"
    )
    sortable_by: ClassVar = ("number", "created_at")
    fields = ("notes",)
    change_form_template = "admin/orders/order/change_form.html"

    # --- the list ----------------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Order]:
        return listing.with_money_and_deadline(super().get_queryset(request))

    def finds(self, rows: QuerySet[Order], term: str, most: int | None) -> Iterable[QuerySet[Order]]:
        return finds(rows, term, most)

    @admin.display(description=_("status"))
    def state(self, order: Order) -> SafeString:
        shown = label(order.status, order.get_status_display())
        return format_html("{} {}", shown, _("in bulk")) if order.in_bulk else shown

    @admin.display(description=_("total"))
    def total_shown(self, order: Order) -> str:
        return order.total_money.format()

    @admin.display(description=_("payment method"))
    def payment_method_shown(self, order: Order) -> str:
        return called(order.payment_method)

    @admin.display(description=_("received"), empty_value="–")
    def received_shown(self, order: Any) -> str | None:
        if order.amount_received is None:
            return None
        received = Money(order.amount_received, order.currency)
        if order.amount_adjusted:
            waived = Money(-order.amount_adjusted, order.currency)
            return gettext("%(received)s, accepted %(waived)s short") % {
                "received": received,
                "waived": waived,
            }
        return str(received)

    @admin.display(description=_("deadline (UTC)"), empty_value="–")
    def deadline(self, order: Any) -> datetime | None:
        waiting = order.status == Order.Status.AWAITING_PAYMENT
        return order.pay_until if waiting else None

    # --- acts --------------------------------------------------------------------------------------------

    def act_subjects(self, request: HttpRequest) -> QuerySet[Order]:
        return Order.objects.prefetch_related("sagas__payment__events")

    def order_number_of(self, subject: Order) -> str:
        return subject.number

    # --- an order's page ---------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        guard = self.admin_site.admin_view
        return [
            # Not behind the guard: a redirect to the login page would end up inside the page.
            path("<int:object_id>/live/", never_cache(self.live_view), name="orders_order_live"),
            path("number/<path:number>/", guard(self.by_number), name="orders_order_by_number"),
            path(
                "<int:object_id>/comment/",
                guard(require_POST(self.comment_view)),
                name="orders_order_comment",
            ),
            path("mentions/<int:pk>/seen/", guard(require_POST(self.seen_view)), name="orders_mention_seen"),
            path("<int:object_id>/personal-data/", guard(export_view), name="orders_order_personal_data"),
            path("<int:object_id>/packing-slip/", guard(self.packing_slip_view), name="orders_order_slip"),
            *super().get_urls(),
        ]

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kw: Any) -> Any:
        order = context.get("original")
        if order is not None:
            found = self._for_page(order.pk)
            context |= page_context(request, found, self.buttons(request, found), self.requests_about(found))
            context |= {
                "lines": found.lines.all(),
                "title": gettext("Order %s") % order.number,
                "subtitle": None,
            }
            context |= {"show_save_and_add_another": False, "show_save_and_continue": False}
            about = notes.unseen_mentions(request.user)
            context |= {"mentions": [one for one in about if one.event.order_id == order.pk]}
            if request.user.has_perm(COMMENT):
                names = User.objects.filter(is_staff=True, is_active=True).exclude(
                    username=request.user.get_username()
                )
                colleagues = list(names.order_by("username").values_list("username", flat=True)[:COLLEAGUES])
                context |= {"may_comment": True, "colleagues": colleagues, "comment_form_id": uuid4()}
        return super().render_change_form(request, context, *args, **kw)

    def live_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Panel and timeline, if they have changed."""
        if not self.admin_site.has_permission(request):
            return HttpResponseClientRefresh()  # the session has ended: the whole page goes to the login
        if not self.has_view_permission(request):
            raise PermissionDenied
        order = self._for_page(object_id)
        return renewed(request, order, self.buttons(request, order), self.requests_about(order))

    def by_number(self, request: HttpRequest, number: str) -> HttpResponse:
        """To the order's page, for those who know its number only; to the list if there is no such order."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        pk = Order.objects.filter(number=number).values_list("pk", flat=True).first()
        if pk is None:
            return HttpResponseRedirect(
                f"{reverse('admin:orders_order_changelist')}?{urlencode({'q': number})}"
            )
        return HttpResponseRedirect(reverse("admin:orders_order_change", args=[pk]))

    def comment_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        if not (self.has_view_permission(request) and request.user.has_perm(COMMENT)):
            raise PermissionDenied
        order = get_object_or_404(Order, pk=object_id)
        form = CommentForm(request.POST)
        if form.is_valid():
            text, form_id = form.cleaned_data["text"], form.cleaned_data["form_id"]
            written = notes.comment(order.number, request.user.get_username(), text, form_id)
            if written.told:
                names = ", ".join(written.told)
                self.message_user(
                    request, gettext("%s will see it on their first page.") % names, messages.SUCCESS
                )
            if written.unknown:
                names = ", ".join(f"@{name}" for name in written.unknown)
                says = gettext("Nobody here who may see orders is called %s, so nobody is told.") % names
                self.message_user(request, says, messages.WARNING)
        else:
            self.message_user(request, gettext("A comment has one to 2000 characters."), messages.ERROR)
        return HttpResponseRedirect(f"{reverse('admin:orders_order_change', args=[order.pk])}#comment")

    def seen_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        notes.seen(pk, request.user)
        back = request.POST.get("next", "")
        if not url_has_allowed_host_and_scheme(back, None):
            back = reverse("admin:index")
        return HttpResponseRedirect(back)

    def packing_slip_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        order = get_object_or_404(Order.objects.prefetch_related("lines"), pk=object_id)
        if not order.may_be_packed:
            sentence = gettext(
                "Nothing is packed before it is paid, and nothing of an order that was rolled back."
            )
            self.message_user(request, sentence, level=messages.ERROR)
            return HttpResponseRedirect(reverse("admin:orders_order_change", args=[order.pk]))
        with override(order.language):  # it goes to the customer
            slip = packing_slip(order, settings.SHOP_NAME)
        disposition = f'inline; filename="{order.number}.pdf"'
        return HttpResponse(
            slip, content_type="application/pdf", headers={"Content-Disposition": disposition}
        )

    def _for_page(self, pk: int) -> Order:
        wanted = Order.objects.prefetch_related("lines", "sagas__payment__events", "sagas__dead_letters")
        order = get_object_or_404(wanted, pk=pk)
        # Once more, after its sagas: the page stops asking when a saga has ended, and both end together.
        order.refresh_from_db(fields=["status"])
        return order

    def save_model(self, request: HttpRequest, obj: Order, form: OrderForm, change: bool) -> None:
        notes.change_notes(obj.number, request.user.get_username(), obj.notes)

    # --- taking an order by hand -------------------------------------------------------------------------

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        more = "more" in request.POST
        data = placing.with_more_lines(request.POST) if more else request.POST
        sent = data if request.method == "POST" else None
        form, lines = placing.PlaceOrderForm(sent), placing.LineFormSet(sent)
        if sent is not None and not more:
            order = placing.place(form, lines, request.user.get_username())
            if order is not None:
                self.message_user(request, gettext("%s is placed.") % order.number, level=messages.SUCCESS)
                return HttpResponseRedirect(reverse("admin:orders_order_change", args=[order.pk]))
        context = {
            **self.admin_site.each_context(request),
            "title": _("Take an order"),
            "opts": self.opts,
            "form": form,
            "lines": lines,
            "silent": more,
            "groups": placing.groups(form),
            "products": placing.suggestions(),
            "media": self.media,
            **(extra_context or {}),
        }
        return TemplateResponse(request, "admin/orders/order/place.html", context)
