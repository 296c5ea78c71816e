"""Who holds which stock."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class Reservation(models.Model):
    """Stock held for one saga. `reserved` counts in the product's `reserved`; `consumed` has left the shelf."""

    class State(models.TextChoices):
        RESERVED = "reserved", _("reserved")
        CONSUMED = "consumed", _("consumed")
        RELEASED = "released", _("released")

    saga = models.ForeignKey("orders.Saga", models.PROTECT, related_name="reservations")
    product = models.ForeignKey("orders.Product", models.PROTECT)
    quantity = models.PositiveIntegerField(_("quantity"))
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.RESERVED)

    class Meta:
        verbose_name = _("reservation")
        verbose_name_plural = _("reservations")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["saga", "product"], name="reservation_once_per_saga"),
            models.CheckConstraint(condition=Q(quantity__gt=0), name="reservation_quantity_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} × {self.product_id} {self.state}"
