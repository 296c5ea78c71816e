"""What people did to an order, and why."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
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
        NOTE = "note", _("notes changed")
        COMMENT = "comment", _("comment")
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


class Mention(models.Model):
    """Somebody was named in what was written about an order, and is told of it until they have seen it."""

    event = models.ForeignKey(OrderEvent, models.PROTECT, related_name="mentions")
    # Who leaves has nothing more to see; what was written stays.
    person = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="mentions")
    seen_at = models.DateTimeField(_("seen"), null=True, blank=True)

    class Meta:
        verbose_name = _("mention")
        verbose_name_plural = _("mentions")
        ordering: ClassVar = ["-id"]
        default_permissions: ClassVar = ()
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["event", "person"], name="mentioned_once"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["person", "-id"], name="mention_unseen", condition=Q(seen_at=None)),
        ]

    def __str__(self) -> str:
        return f"@{self.person} {self.event}"
