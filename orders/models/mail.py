"""Mails to customers: one row each, sent at most once."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class Mail(models.Model):
    """One mail about one saga. (saga, kind, about) is unique and gives the Message-ID: a retry sends none twice.

    `about` tells mails of one kind apart: for a refund that staff made, which refund.

    `sending` is written before the mail server is asked. Found again in that state, nobody knows whether
    the server took it: it becomes `unknown` and a person decides, because SMTP cannot be asked.
    """

    class Kind(models.TextChoices):
        RECEIVED = "received", _("order received")
        REMINDER = "reminder", _("payment reminder")
        CONFIRMED = "confirmed", _("order confirmed")
        CANCELLED = "cancelled", _("order cancelled")
        REFUNDED = "refunded", _("payment refunded")

    class State(models.TextChoices):
        QUEUED = "queued", _("queued")
        SENDING = "sending", _("sending")
        SENT = "sent", _("sent")
        UNKNOWN = "unknown", _("sent, or not: the mail server did not answer")
        FAILED = "failed", _("failed")

    saga = models.ForeignKey("orders.Saga", models.PROTECT, related_name="mails")
    kind = models.CharField(_("kind"), max_length=20, choices=Kind)
    about = models.CharField(max_length=40, blank=True, default="", editable=False)
    message_id = models.CharField(_("Message-ID"), max_length=200, unique=True)
    recipient = models.EmailField(_("to"))
    subject = models.CharField(_("subject"), max_length=300)
    text = models.TextField(_("text"))
    html = models.TextField(_("HTML"))
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.QUEUED)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    error = models.TextField(_("error"), blank=True, default="")
    created_at = models.DateTimeField(_("written"), auto_now_add=True)
    sending_since = models.DateTimeField(_("sending since"), null=True, blank=True)
    sent_at = models.DateTimeField(_("sent"), null=True, blank=True)

    class Meta:
        verbose_name = _("mail")
        verbose_name_plural = _("mails")
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["saga", "kind", "about"], name="mail_once_per_saga_and_kind")
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} → {self.recipient}"
