"""A parcel on its way, or called back."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class Shipment(models.Model):
    """One shipment of a saga. `reference` is the carrier's; staff may add a tracking number later."""

    class State(models.TextChoices):
        CREATED = "created", _("created")
        CANCELLED = "cancelled", _("cancelled")

    saga = models.OneToOneField("orders.Saga", models.PROTECT, related_name="shipment")
    carrier = models.CharField(_("carrier"), max_length=30)
    reference = models.CharField(_("reference"), max_length=120, unique=True)
    tracking_number = models.CharField(_("tracking number"), max_length=80, blank=True, default="")
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.CREATED)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("shipment")
        verbose_name_plural = _("shipments")
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [
            models.Index(
                fields=["tracking_number"],
                opclasses=["varchar_pattern_ops"],
                condition=~models.Q(tracking_number=""),
                name="shipment_by_tracking_number",
            ),
        ]

    def __str__(self) -> str:
        return self.reference
