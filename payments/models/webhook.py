"""The raw request of every webhook, kept whatever happens next."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext_lazy as _

from payments.gateways.base import GatewayEvent
from payments.models.gateway_state import called
from shop.kernel.models import AppendOnly


class WebhookDelivery(models.Model):
    """One webhook as it came in. `event_id` is the provider's id of the message, unique per gateway."""

    class State(models.TextChoices):
        RECEIVED = "received", _("received")
        PROCESSED = "processed", _("processed")
        WAITING = "waiting", _("waiting for its payment")
        REJECTED = "rejected", _("rejected")
        DISCARDED = "discarded", _("discarded")

    # Their news are not in the books, and are booked as soon as their payment is known.
    STRAY = (State.WAITING, State.DISCARDED)

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
        permissions: ClassVar = [("reprocess_webhook", "Can have webhooks processed again")]
        indexes: ClassVar = [
            models.Index("gateway", "payment_reference", name="webhook_by_payment"),
            models.Index("received_at", name="webhook_waiting", condition=models.Q(state="waiting")),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["gateway", "event_id"],
                condition=~models.Q(event_id=""),
                name="webhook_event_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{called(self.gateway)} {self.event_id or self.pk}"

    @property
    def news(self) -> list[GatewayEvent]:
        """What it says, once its signature held."""
        return [GatewayEvent.from_json(event) for event in self.events]

    def processed(self, note: str = "") -> None:
        """Its effect is in the books."""
        self.state = self.State.PROCESSED
        self.error = note
        self.processed_at = timezone.now()
        self.save(update_fields=["event_id", "payment_reference", "events", "state", "error", "processed_at"])


class WebhookReprocessing(models.Model):
    """That somebody had a webhook processed again, and what came of it. Append-only."""

    delivery = models.ForeignKey(WebhookDelivery, models.PROTECT, related_name="reprocessings")
    at = models.DateTimeField(_("when"), auto_now_add=True)
    actor = models.CharField(_("who"), max_length=150)
    state = models.CharField(_("state after it"), max_length=10, choices=WebhookDelivery.State)
    result = models.TextField(_("result"))

    class Meta:
        verbose_name = _("reprocessing")
        verbose_name_plural = _("processed again")
        ordering: ClassVar = ["id"]
        triggers: ClassVar = [AppendOnly(personal=["result"])]

    def __str__(self) -> str:
        return f"{date_format(self.at, 'SHORT_DATETIME_FORMAT')} {self.actor}"
