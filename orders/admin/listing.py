"""The order list: what it shows comes with the page of orders itself, whatever their number."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import F, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Least
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from orders.models import Order, Saga
from payments.gateways.base import EventOutcome, EventType
from payments.models import PaymentEvent
from payments.models.gateway_state import called
from shop.kernel.admin.date_ranges import DateRange, within
from shop.kernel.admin.exporting import Column, Value
from shop.kernel.admin.lists import Tab
from shop.kernel.money import Money

SOON = timedelta(hours=48)
LAPSING = timedelta(hours=24)


def with_money_and_deadline(orders: QuerySet[Order]) -> QuerySet[Order]:
    """Each order with what its latest attempt has: `amount_received` (minor units, or None) and `pay_until`.

    `amount_adjusted` is what staff have accepted less, below zero.
    """
    latest = Saga.objects.filter(order=OuterRef("pk")).order_by("-attempt")
    succeeded = PaymentEvent.objects.filter(
        payment=OuterRef("latest_payment"), outcome=EventOutcome.SUCCEEDED
    ).order_by()

    def sum_of(events: QuerySet[PaymentEvent]) -> Subquery:
        return Subquery(events.values("payment").annotate(sum=Sum("amount")).values("sum"))

    return orders.annotate(
        latest_payment=Subquery(latest.values("payment")[:1]),
        # PostgreSQL's LEAST passes over what is not known.
        pay_until=Least(
            Subquery(latest.values("deadline")[:1]), Subquery(latest.values("payment__authorized_until")[:1])
        ),
        amount_received=sum_of(succeeded.filter(type=EventType.RECEIPT)),
        amount_adjusted=sum_of(succeeded.filter(type=EventType.AUTHORIZATION_ADJUSTMENT, source="staff")),
    )


def sagas_due_soon() -> QuerySet[Saga]:
    """Those whose wait for money ends within 48 hours."""
    return Saga.objects.filter(
        status=Saga.Status.WAITING,
        deadline__lt=timezone.now() + SOON,
        order__status=Order.Status.AWAITING_PAYMENT,
    )


def sagas_lapsing() -> QuerySet[Saga]:
    """Those whose authorization ends within 24 hours, before their money was taken or their wait has ended."""
    return Saga.objects.filter(
        status__in=(Saga.Status.WAITING, Saga.Status.RUNNING),
        payment__closed_at=None,
        payment__authorized_until__lt=timezone.now() + LAPSING,
        order__status=Order.Status.AWAITING_PAYMENT,
    ).exclude(status=Saga.Status.WAITING, deadline__lte=F("payment__authorized_until"))


def due_soon(orders: QuerySet[Order]) -> QuerySet[Order]:
    """Those of `sagas_due_soon`."""
    return orders.filter(status=Order.Status.AWAITING_PAYMENT, pk__in=sagas_due_soon().values("order"))


def lapsing(orders: QuerySet[Order]) -> QuerySet[Order]:
    """Those of `sagas_lapsing`."""
    return orders.filter(status=Order.Status.AWAITING_PAYMENT, pk__in=sagas_lapsing().values("order"))


class PaymentMethodFilter(admin.SimpleListFilter):
    title = _("payment method")
    parameter_name = "payment_method"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [(name, called(name)) for name in sorted(settings.PAYMENT_GATEWAYS)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Order]) -> QuerySet[Order]:
        return queryset.filter(payment_method=self.value()) if self.value() else queryset


class DeadlineFilter(admin.SimpleListFilter):
    title = _("deadline")
    parameter_name = "deadline"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [("soon", str(_("within 48 hours")))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Order]) -> QuerySet[Order]:
        return due_soon(queryset) if self.value() == "soon" else queryset


class AuthorizationFilter(admin.SimpleListFilter):
    title = _("authorization")
    parameter_name = "authorization"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [("lapsing", str(_("ends within 24 hours")))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Order]) -> QuerySet[Order]:
        return lapsing(queryset) if self.value() == "lapsing" else queryset


class PlacedRange(DateRange):
    title = _("day it was placed")
    field, name = "created_at", "placed"


class DeadlineRange(DateRange):
    """Of the orders that wait for their money: no others have a deadline."""

    title = _("deadline of those that wait")
    name = "deadline"

    def between(self, rows: QuerySet[Order], first: date | None, last: date | None) -> QuerySet[Order]:
        waiting = Saga.objects.filter(status=Saga.Status.WAITING, **within("deadline", first, last))
        return rows.filter(status=Order.Status.AWAITING_PAYMENT, pk__in=waiting.values("order"))


def _in(status: Order.Status) -> Callable[[QuerySet[Order]], QuerySet[Order]]:
    return lambda orders: orders.filter(status=status)


TABS = (
    Tab(_("Awaiting payment"), "status__exact=awaiting_payment", _in(Order.Status.AWAITING_PAYMENT)),
    Tab(_("Due within 48 hours"), "deadline=soon", due_soon),
    Tab(_("Authorization ends"), "authorization=lapsing", lapsing),
    Tab(_("Paid"), "status__exact=paid", _in(Order.Status.PAID)),
    Tab(_("Shipped"), "status__exact=shipped", _in(Order.Status.SHIPPED)),
    Tab(_("Completed"), "status__exact=completed", _in(Order.Status.COMPLETED)),
    Tab(_("Cancelled"), "status__exact=cancelled", _in(Order.Status.CANCELLED)),
    Tab(_("Rollback failed"), "status__exact=compensation_failed", _in(Order.Status.COMPENSATION_FAILED)),
)


def _money(name: str) -> Callable[[Any], Value]:
    def amount(order: Any) -> Value:
        minor = getattr(order, name)
        return None if minor is None else Money(minor, order.currency).decimal

    return amount


EXPORT_COLUMNS = (
    Column(_("number"), lambda order: order.number),
    Column(_("status"), lambda order: str(order.get_status_display())),
    Column(_("customer"), lambda order: order.customer_name),
    Column(_("e-mail"), lambda order: order.customer_email),
    Column(_("language"), lambda order: order.language),
    Column(_("postal code"), lambda order: order.shipping_postal_code),
    Column(_("city"), lambda order: order.shipping_city),
    Column(_("country"), lambda order: order.shipping_country),
    Column(_("total"), _money("total")),
    Column(_("received"), _money("amount_received")),
    Column(_("currency"), lambda order: order.currency),
    Column(_("payment method"), lambda order: order.payment_method),
    Column(_("payment deadline (UTC)"), lambda order: order.pay_until),
    Column(_("placed (UTC)"), lambda order: order.created_at),
)
