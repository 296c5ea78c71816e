"""What ops are told, in groups: a storm of failures is one alert and one follow-up."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from shop.kernel.models import AppendOnly


class OpsAlert(models.Model):
    """A group of things to tell, of one topic. While it is open, what else comes joins it."""

    topic = models.CharField(_("topic"), max_length=40)
    opened_at = models.DateTimeField(_("opened"), auto_now_add=True)
    closed_at = models.DateTimeField(_("closed"), null=True, blank=True)

    class Meta:
        verbose_name = _("alert")
        verbose_name_plural = _("alerts")
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["topic"], condition=Q(closed_at=None), name="one_open_alert_per_topic"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.topic} {self.opened_at:%Y-%m-%d %H:%M}"


class OpsAlertEntry(models.Model):
    """One thing to tell. Its `key` makes the same thing, told twice, one entry. No personal data."""

    alert = models.ForeignKey(OpsAlert, models.PROTECT, related_name="entries")
    key = models.CharField(_("key"), max_length=200, unique=True)
    order_number = models.CharField(_("order"), max_length=40)
    subject = models.CharField(_("subject"), max_length=200)
    text = models.TextField(_("text"))
    at = models.DateTimeField(_("at"), auto_now_add=True)

    class Meta:
        verbose_name = _("alert entry")
        verbose_name_plural = _("alert entries")
        ordering: ClassVar = ["id"]
        triggers: ClassVar = [AppendOnly(personal=["text"])]

    def __str__(self) -> str:
        return f"{self.order_number}: {self.subject}"


class OpsAlertNotice(models.Model):
    """What was told of a group: the alert, and a follow-up if more came. Written once, then sent by each way."""

    class Part(models.TextChoices):
        FIRST = "first", _("alert")
        FOLLOW_UP = "follow-up", _("follow-up")

    alert = models.ForeignKey(OpsAlert, models.PROTECT, related_name="notices")
    part = models.CharField(_("part"), max_length=10, choices=Part)
    told = models.PositiveIntegerField(_("entries told so far"))
    subject = models.CharField(_("subject"), max_length=250)
    text = models.TextField(_("text"))
    orders = models.JSONField(_("orders"), default=list)
    at = models.DateTimeField(_("at"), auto_now_add=True)
    mailed_at = models.DateTimeField(_("mailed"), null=True, blank=True)
    posted_at = models.DateTimeField(_("posted to the webhook"), null=True, blank=True)
    error = models.TextField(_("error"), blank=True, default="")

    class Meta:
        verbose_name = _("alert to ops")
        verbose_name_plural = _("alerts to ops")
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["alert", "part"], name="alert_part_once"),
        ]

    def __str__(self) -> str:
        return self.subject
