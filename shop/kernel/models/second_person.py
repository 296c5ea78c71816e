"""What one person has asked for and another has to approve."""

from __future__ import annotations

from typing import ClassVar

import pgtrigger
from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from shop.kernel.models.erasure import AppendOnly
from shop.kernel.money import Money

PERSONAL = ("what", "reason", "data", "shown", "outcome")


class ActRequest(models.Model):
    """An act above `SECOND_PERSON_ABOVE`, as somebody asked for it: nothing of it has been done yet.

    `act` and `subject` say what is done to what; of each pair one request is open. `standing` is how the subject
    stood: it must not have moved when another person approves. `page`, `slug` and `object_id` are where the act is
    found, `data` is its form as it was filled in, and `shown` what its page had shown.
    """

    class State(models.TextChoices):
        OPEN = "open", _("waits for a second person")
        APPROVED = "approved", _("approved and done")
        DECLINED = "declined", _("declined")
        LAPSED = "lapsed", _("lapsed")

    act = models.CharField(max_length=40)
    subject = models.CharField(max_length=80)
    order_number = models.CharField(_("order"), max_length=40, blank=True, default="", db_index=True)
    what = models.TextField(_("what"))
    amount = models.BigIntegerField(_("amount"))
    currency = models.CharField(_("currency"), max_length=3)
    reason = models.TextField(_("reason"), blank=True, default="")
    standing = models.CharField(max_length=200, blank=True, default="")
    page = models.CharField(max_length=80)
    slug = models.CharField(max_length=40)
    object_id = models.BigIntegerField()
    data = models.JSONField(default=dict)
    shown = models.CharField(max_length=200, blank=True, default="")
    permission = models.CharField(_("who may approve it"), max_length=100)
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("asked by")
    )
    asked_at = models.DateTimeField(_("asked"), auto_now_add=True)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.OPEN)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("decided by"),
    )
    decided_at = models.DateTimeField(_("decided"), null=True, blank=True)
    outcome = models.TextField(_("what came of it"), blank=True, default="")

    class Meta:
        verbose_name = _("request to a second person")
        verbose_name_plural = _("requests to a second person")
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["subject", "act"],
                condition=Q(state="open"),
                name="one_open_request_per_act_and_subject",
            ),
            models.CheckConstraint(
                condition=~Q(state="approved") | Q(decided_by__isnull=False) & ~Q(decided_by=F("asked_by")),
                name="request_approved_by_another_person",
            ),
            models.CheckConstraint(
                condition=Q(state="open") | Q(decided_at__isnull=False), name="request_decided_at_a_time"
            ),
        ]
        triggers: ClassVar = [
            pgtrigger.Protect(name="never_deleted", operation=pgtrigger.Delete),
            AppendOnly(
                name="decided_is_decided",
                operation=pgtrigger.Update,
                condition=pgtrigger.Q(old__state__in=["approved", "declined", "lapsed"]),
                personal=PERSONAL,
            ),
            AppendOnly(
                name="asked_is_asked",
                operation=pgtrigger.Update,
                condition=pgtrigger.AnyChange(exclude=["state", "decided_by", "decided_at", "outcome"]),
                personal=PERSONAL,
            ),
        ]

    def __str__(self) -> str:
        return self.what

    @property
    def money(self) -> Money:
        return Money(self.amount, self.currency)

    @property
    def is_open(self) -> bool:
        return self.state == self.State.OPEN
