"""The raw request of every webhook, kept whatever happens next."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class WebhookDelivery(models.Model):
    """One webhook as it came in. `event_id` is the provider's id of the message, unique per gateway."""

    class State(models.TextChoices):
        RECEIVED = "received", _("received")
        PROCESSED = "processed", _("processed")
        WAITING = "waiting", _("waiting for its payment")
        REJECTED = "rejected", _("rejected")

    gateway = models.CharField(_("gateway"), max_length=30)
    event_id = models.CharField(_("event id"), max_length=120, blank=True, default="")
    payment_reference = models.CharField(_("PSP reference"), max_length=120, blank=True, default="")
    headers = models.JSONField(_("headers"), default=dict)
    body = models.BinaryField(_("body"))
    events = models.JSONField(
        _("events"), default=list, help_text=_("What it says, once its signature held.")
    )
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.RECEIVED)
    error = models.TextField(_("error"), blank=True, default="")
    received_at = models.DateTimeField(_("received"), auto_now_add=True)
    processed_at = models.DateTimeField(_("processed"), null=True, blank=True)

    class Meta:
        verbose_name = _("webhook")
        verbose_name_plural = _("webhooks")
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [models.Index("gateway", "payment_reference", name="webhook_by_payment")]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["gateway", "event_id"],
                condition=~models.Q(event_id=""),
                name="webhook_event_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.gateway} {self.event_id or self.pk}"

    def processed(self, note: str = "") -> None:
        """Its effect is in the books."""
        self.state = self.State.PROCESSED
        self.error = note
        self.processed_at = timezone.now()
        self.save(update_fields=["event_id", "payment_reference", "events", "state", "error", "processed_at"])
