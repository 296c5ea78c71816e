"""An order: who, what, where to, how it is paid, and which way it goes. What happens to it is its saga's matter."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

import pgtrigger
from django.conf import settings
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Upper
from django.utils.translation import gettext_lazy as _

from shop.kernel.money import Money

if TYPE_CHECKING:
    from orders.models.saga import Saga


def shop_language() -> str:
    """That of a customer of whom we know no other."""
    return settings.LANGUAGE_CODE


class Order(models.Model):
    """A customer's order. Amounts are gross and in minor units of `currency`."""

    class Status(models.TextChoices):
        PLACED = "placed", _("placed")
        AWAITING_PAYMENT = "awaiting_payment", _("awaiting payment")
        PAID = "paid", _("paid")
        SHIPPED = "shipped", _("shipped")
        COMPLETED = "completed", _("completed")
        ROLLING_BACK = "rolling_back", _("rolling back")
        CANCELLED = "cancelled", _("cancelled")
        COMPENSATION_FAILED = "compensation_failed", _("rollback failed")

    class Way(models.TextChoices):
        """Who carries the order to its end: a workflow from the start, or the hybrid check once it is paid."""

        SAGA = "saga", _("own saga")
        BULK = "bulk", _("taken in bulk")

    # What comes before the number in the ids of their workflows.
    WORKFLOW_PREFIX: ClassVar = {Way.SAGA: "order-saga-", Way.BULK: "fulfillment-"}

    number = models.CharField(_("number"), max_length=20, unique=True, editable=False)
    way = models.CharField(_("way"), max_length=10, choices=Way, default=Way.SAGA, editable=False)
    status = models.CharField(
        _("status"), max_length=20, choices=Status, default=Status.PLACED, editable=False
    )
    customer_name = models.CharField(_("customer"), max_length=200)
    customer_email = models.EmailField(_("e-mail"))
    language = models.CharField(
        _("language"),
        max_length=10,
        choices=settings.LANGUAGES,
        default=shop_language,
        help_text=_("Mails to the customer are written in it."),
    )
    shipping_name = models.CharField(_("name"), max_length=200)
    shipping_street = models.CharField(_("street"), max_length=200)
    shipping_postal_code = models.CharField(_("postal code"), max_length=20)
    shipping_city = models.CharField(_("city"), max_length=100)
    shipping_country = models.CharField(_("country"), max_length=2, help_text=_("ISO 3166 code, such as DE."))
    # Empty: the same as the shipping address.
    billing_name = models.CharField(_("name"), max_length=200, blank=True, default="")
    billing_street = models.CharField(_("street"), max_length=200, blank=True, default="")
    billing_postal_code = models.CharField(_("postal code"), max_length=20, blank=True, default="")
    billing_city = models.CharField(_("city"), max_length=100, blank=True, default="")
    billing_country = models.CharField(_("country"), max_length=2, blank=True, default="")
    currency = models.CharField(_("currency"), max_length=3)
    shipping_cost = models.BigIntegerField(_("shipping cost"), default=0)
    discount = models.BigIntegerField(_("discount"), default=0)
    total = models.BigIntegerField(_("total"), editable=False)
    payment_method = models.CharField(_("payment method"), max_length=30)
    carrier = models.CharField(_("carrier"), max_length=30)
    payment_window = models.DurationField(_("payment window"), default=timedelta(days=14))
    notes = models.TextField(_("notes"), blank=True, default="")
    placed_by = models.CharField(_("placed by"), max_length=150, blank=True, default="", editable=False)
    # The shop's frontend retries with the same key; the digest of the body tells a retry from a mistake.
    api_idempotency_key = models.CharField(max_length=200, unique=True, null=True, blank=True, editable=False)
    api_body_digest = models.CharField(max_length=64, blank=True, default="", editable=False)
    created_at = models.DateTimeField(_("placed"), auto_now_add=True)
    # Its customer's personal data was erased; what is left are the books.
    erased_at = models.DateTimeField(_("customer erased"), null=True, blank=True, editable=False)

    class Meta:
        verbose_name = _("order")
        verbose_name_plural = _("orders")
        ordering: ClassVar = ["-id"]
        permissions: ClassVar = [
            ("start_saga", "Can start an order's saga"),
            ("cancel_saga", "Can cancel an order's saga"),
            ("confirm_payment", "Can confirm an order's payment by hand"),
            ("extend_deadline", "Can extend an order's payment deadline"),
            ("export_customer", "Can export the personal data of an order's customer"),
            ("erase_customer", "Can erase the personal data of an order's customer"),
        ]
        indexes: ClassVar = [
            # For the list: newest first, also within a filter; a search by amount or by a part of name or e-mail.
            models.Index(fields=["-created_at", "-id"], name="order_by_age"),
            models.Index(fields=["status", "-created_at", "-id"], name="order_by_status"),
            models.Index(fields=["payment_method", "-created_at", "-id"], name="order_by_method"),
            models.Index(fields=["total", "-created_at", "-id"], name="order_by_total"),
            models.Index(fields=["customer_email"], name="order_by_email"),
            models.Index(fields=["created_at", "status"], name="order_by_day"),
            GinIndex(
                OpClass(Upper("customer_name"), name="gin_trgm_ops"),
                OpClass(Upper("customer_email"), name="gin_trgm_ops"),
                name="order_by_part_of_customer",
            ),
            models.Index(F("id").desc(), condition=Q(way="bulk"), name="order_in_bulk"),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(way__in=["saga", "bulk"]), name="order_goes_one_of_two_ways"),
            models.CheckConstraint(
                condition=Q(language__in=[code for code, _name in settings.LANGUAGES]),
                name="order_language_is_ours",
            ),
            models.CheckConstraint(
                condition=Q(total__gte=0, shipping_cost__gte=0, discount__gte=0),
                name="order_amounts_not_negative",
            ),
        ]
        triggers: ClassVar = [pgtrigger.ReadOnly(name="way_is_fixed", fields=["way"])]

    def __str__(self) -> str:
        return self.number

    @classmethod
    def workflow_id_of(cls, way: str, number: str) -> str:
        """The id of the workflow that carries an order of this way, the same for every attempt."""
        return f"{cls.WORKFLOW_PREFIX[cls.Way(way)]}{number}"

    @classmethod
    def number_in(cls, workflow_id: str) -> str:
        """The number of the order whose `workflow_id` this is; empty if it is that of another workflow."""
        for prefix in cls.WORKFLOW_PREFIX.values():
            if workflow_id.startswith(prefix):
                return workflow_id.removeprefix(prefix)
        return ""

    @property
    def total_money(self) -> Money:
        return Money(self.total, self.currency)

    @property
    def may_be_packed(self) -> bool:
        """Paid, and not on its way back."""
        return self.status in {self.Status.PAID, self.Status.SHIPPED, self.Status.COMPLETED}

    @property
    def in_bulk(self) -> bool:
        return self.way == self.Way.BULK

    @property
    def workflow_id(self) -> str:
        return self.workflow_id_of(self.way, self.number)

    @property
    def saga(self) -> Saga | None:
        """The latest attempt, if any."""
        return self.sagas.order_by("-attempt").first()

    @property
    def received(self) -> Money:
        """What has come in for the attempt that counts: the latest one."""
        saga = self.saga
        amount = saga.payment.totals().received if saga and saga.payment else 0
        return Money(amount, self.currency)


class OrderLine(models.Model):
    """What was ordered, at the price and tax of that day."""

    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    product = models.ForeignKey("orders.Product", models.PROTECT, verbose_name=_("product"))
    sku = models.CharField(_("SKU"), max_length=40, editable=False)
    name = models.CharField(_("name"), max_length=200, editable=False)
    quantity = models.PositiveIntegerField(_("quantity"), default=1)
    unit_price = models.BigIntegerField(_("unit price"), editable=False)
    tax_rate = models.PositiveIntegerField(_("tax rate"), editable=False)

    class Meta:
        verbose_name = _("line")
        verbose_name_plural = _("lines")
        ordering: ClassVar = ["id"]
        indexes: ClassVar = [models.Index(fields=["sku"], name="order_line_by_sku")]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(quantity__gt=0), name="order_line_quantity_positive"),
            models.CheckConstraint(condition=Q(unit_price__gte=0), name="order_line_price_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} × {self.name}"

    @property
    def amount(self) -> int:
        return self.quantity * self.unit_price
