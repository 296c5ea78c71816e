"""The outbox table: what the web process wants the engine to do, written in the transaction of its effect."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class OutboxMessage(models.Model):
    """One message to a workflow, delivered at least once and in order per workflow.

    `message_id` is the sender's key: a second message with the same id is not written. Workflows drop
    duplicates by it too, because a dispatcher may die between delivering and writing so down.
    """

    class Kind(models.TextChoices):
        START = "start", _("start workflow")
        SIGNAL = "signal", _("signal")

    class State(models.TextChoices):
        QUEUED = "queued", _("queued")
        DELIVERED = "delivered", _("delivered")
        UNDELIVERABLE = "undeliverable", _("undeliverable")

    message_id = models.CharField(_("message id"), max_length=200, unique=True)
    workflow_id = models.CharField(_("workflow id"), max_length=200)
    kind = models.CharField(_("kind"), max_length=10, choices=Kind)
    name = models.CharField(_("name"), max_length=100, help_text=_("Workflow type or signal name."))
    payload = models.JSONField(
        _("payload"), default=dict, help_text=_("The one argument: ids, amounts and codes only.")
    )
    options = models.JSONField(
        _("options"), default=dict, help_text=_("Start options: task queue, timeout, summary, stage.")
    )
    state = models.CharField(_("state"), max_length=15, choices=State, default=State.QUEUED)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    available_at = models.DateTimeField(_("available at"), auto_now_add=True)
    last_error = models.TextField(_("last error"), blank=True, default="")
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    delivered_at = models.DateTimeField(_("delivered at"), null=True, blank=True)

    class Meta:
        verbose_name = _("outbox message")
        verbose_name_plural = _("outbox messages")
        indexes: ClassVar = [
            models.Index("workflow_id", "id", name="outbox_queued_by_workflow", condition=Q(state="queued")),
            models.Index("id", name="outbox_queued", condition=Q(state="queued")),
            models.Index("workflow_id", "id", name="outbox_by_workflow"),
        ]

    def __str__(self) -> str:
        return f"{self.name} → {self.workflow_id} ({self.get_state_display()})"
