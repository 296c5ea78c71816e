"""What the shop sells, and how much of it there is."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from shop.kernel.money import Money


class Product(models.Model):
    """A thing to sell. Available = on hand minus reserved; the database keeps it from going below zero."""

    sku = models.CharField(_("SKU"), max_length=40, unique=True)
    name = models.CharField(_("name"), max_length=200)
    price = models.BigIntegerField(_("price"), help_text=_("Gross, in minor units: 1999 is 19.99 EUR."))
    currency = models.CharField(_("currency"), max_length=3, default="EUR")
    tax_rate = models.PositiveIntegerField(
        _("tax rate"), default=1900, help_text=_("In hundredths of a percent: 1900 is 19 %.")
    )
    on_hand = models.IntegerField(_("on hand"), default=0)
    reserved = models.IntegerField(_("reserved"), default=0, editable=False)
    active = models.BooleanField(_("for sale"), default=True)

    class Meta:
        verbose_name = _("product")
        verbose_name_plural = _("products")
        ordering: ClassVar = ["sku"]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(price__gte=0), name="product_price_not_negative"),
            models.CheckConstraint(condition=Q(on_hand__gte=0), name="product_on_hand_not_negative"),
            models.CheckConstraint(
                condition=Q(reserved__gte=0) & Q(reserved__lte=F("on_hand")),
                name="product_reserved_within_on_hand",
                violation_error_message=_(
                    "Open orders have reserved more than that. Cancel some of them first."
                ),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.sku})"

    @property
    def available(self) -> int:
        return self.on_hand - self.reserved

    @property
    def price_money(self) -> Money:
        return Money(self.price, self.currency)
