"""What people did to an order, and why."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from shop.kernel.models import AppendOnly


class OrderEvent(models.Model):
    """One thing a person or the shop's frontend did. Append-only.

    `message` is the outbox message that carries it to the engine, so a screen can say queued or delivered.
    """

    class Kind(models.TextChoices):
        PLACED = "placed", _("order placed")
        START = "start", _("saga start asked for")
        CANCEL = "cancel", _("cancellation asked for")
        CONFIRM = "confirm", _("payment confirmed by hand")
        EXTEND = "extend", _("deadline extended")
        RETRY = "retry", _("dead letter retried")
        RESOLVE = "resolve", _("dead letter resolved by hand")
        TRACKING = "tracking", _("tracking number entered")
        WATCH = "watch", _("payment watched")
        UNWATCH = "unwatch", _("payment no longer watched")
        NOTE = "note", _("note")
        LAPSE = "lapse", _("authorization about to expire")
        LATE = "late", _("came too late")
        ERASED = "erased", _("customer's personal data erased")

    order = models.ForeignKey("orders.Order", models.PROTECT, related_name="events")
    kind = models.CharField(_("kind"), max_length=20, choices=Kind)
    actor = models.CharField(_("actor"), max_length=150)
    reason = models.TextField(_("reason"), blank=True, default="")
    data = models.JSONField(_("details"), default=dict, blank=True)
    message = models.ForeignKey("kernel.OutboxMessage", models.PROTECT, null=True, blank=True)
    at = models.DateTimeField(_("at"), auto_now_add=True)

    class Meta:
        verbose_name = _("order event")
        verbose_name_plural = _("order events")
        ordering: ClassVar = ["id"]
        triggers: ClassVar = [AppendOnly(personal=["reason", "data"])]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} ({self.actor})"
