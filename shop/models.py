"""What people did to the schedules; and, from a module of their own, the second factors of staff."""

from __future__ import annotations

from typing import ClassVar

import pgtrigger
from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from shop.authenticators import Authenticator, RecoveryCode

__all__ = ["Authenticator", "RecoveryCode", "ScheduleAct"]


class ScheduleAct(models.Model):
    """One thing that a person asked of a schedule. `key` is the form's, so the same form acts once.

    Written before Temporal is asked, with `done_at` when it has answered: a row without it is something that
    was asked for, and may or may not have happened. What is done can be changed by nobody.
    """

    class Verb(models.TextChoices):
        PAUSE = "pause", _("pause")
        RESUME = "resume", _("resume")
        TRIGGER = "trigger", _("run now")
        SYNC = "sync", _("bring up to date")
        DELETE = "delete", _("delete")

    key = models.UUIDField(_("key"), unique=True)
    schedule = models.CharField(_("schedule"), max_length=200)
    verb = models.CharField(pgettext_lazy("done to a schedule", "what"), max_length=10, choices=Verb)
    actor = models.CharField(_("who"), max_length=150)
    reason = models.TextField(_("why"), blank=True, default="")
    outcome = models.TextField(_("what came of it"), blank=True, default="")
    asked_at = models.DateTimeField(_("asked"), auto_now_add=True)
    done_at = models.DateTimeField(_("done"), null=True, blank=True)

    class Meta:
        verbose_name = _("schedule history")
        verbose_name_plural = _("schedule history")
        ordering: ClassVar = ["-id"]
        permissions: ClassVar = [
            ("operate_schedules", "Can pause, resume, trigger, sync and delete schedules")
        ]
        indexes: ClassVar = [models.Index(fields=["schedule", "-id"], name="act_by_schedule")]
        triggers: ClassVar = [
            pgtrigger.Protect(name="never_deleted", operation=pgtrigger.Delete),
            pgtrigger.Protect(
                name="done_is_done",
                operation=pgtrigger.Update,
                condition=pgtrigger.Q(old__done_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_verb_display()} {self.schedule} ({self.actor})"

    @property
    def note(self) -> str:
        """What Temporal is told: who and why."""
        return f"{self.actor}: {self.reason}" if self.reason else self.actor
