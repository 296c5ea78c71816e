"""How far the news of each gateway have been read, and the runs that read them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar

from django.db import models
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext_lazy as _


class ChangeCursor(models.Model):
    """Where the next page of a gateway's change feed begins: all that came before it is in the books."""

    gateway = models.CharField(_("gateway"), max_length=30, primary_key=True)
    cursor = models.TextField(_("cursor"), blank=True, default="")
    moved_at = models.DateTimeField(_("moved"), auto_now=True)

    class Meta:
        verbose_name = _("change cursor")
        verbose_name_plural = _("change cursors")

    def __str__(self) -> str:
        return self.gateway


class BatchRun(models.Model):
    """One run of `BatchPaymentCheckWorkflow`: when, and what it found (`payments.workflows.types.Tally`).

    `seen_at` is when it was last heard of. One that is silent for `SILENT_FOR` and has not finished has died.
    """

    # A run reports with every ten pages, each of which is given up after a few minutes.
    SILENT_FOR = timedelta(hours=2)

    class State(models.TextChoices):
        RUNNING = "running", _("running")
        FINISHED = "finished", _("finished")
        INCOMPLETE = "incomplete", _("incomplete")
        DIED = "died", _("died")

    workflow_id = models.CharField(_("workflow"), max_length=200)
    run_id = models.CharField(_("first run"), max_length=36)
    gateways = models.JSONField(_("gateways"), default=list)
    started_at = models.DateTimeField(_("started"))
    seen_at = models.DateTimeField(_("last heard of"), auto_now=True)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)
    total_checked = models.PositiveIntegerField(_("checked"), default=0)
    paid = models.PositiveIntegerField(_("paid"), default=0)
    pending = models.PositiveIntegerField(_("pending"), default=0)
    failed = models.PositiveIntegerField(_("failed"), default=0)
    timeout = models.PositiveIntegerField(_("lapsed"), default=0)
    provider_calls = models.PositiveIntegerField(_("calls"), default=0)
    # Why, by gateway, in a sentence.
    unavailable = models.JSONField(_("stayed away"), default=dict, blank=True)

    class Meta:
        verbose_name = _("batch payment check")
        verbose_name_plural = _("batch payment checks")
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["workflow_id", "run_id"], name="batch_run_once"),
        ]

    def __str__(self) -> str:
        return f"{date_format(self.started_at, 'SHORT_DATETIME_FORMAT')} UTC"

    @property
    def state(self) -> State:
        if self.finished_at is not None:
            return self.State.INCOMPLETE if self.unavailable else self.State.FINISHED
        return self.State.DIED if self.seen_at < self.silent_since() else self.State.RUNNING

    @classmethod
    def not_made_up_for(cls) -> models.QuerySet[BatchRun]:
        """Those that died or left gateways out, since the last one that did neither: it took up what they left."""
        last = cls.objects.filter(finished_at__isnull=False, unavailable={}).order_by("-id").values("id")[:1]
        since = cls.objects.filter(id__gt=Coalesce(models.Subquery(last), 0))
        silent = models.Q(finished_at=None, seen_at__lt=cls.silent_since())
        return since.filter(models.Q(finished_at__isnull=False) | silent)

    @classmethod
    def silent_since(cls) -> datetime:
        """Who was last heard of before has died."""
        return timezone.now() - cls.SILENT_FOR

    @property
    def duration(self) -> timedelta | None:
        return self.finished_at - self.started_at if self.finished_at else None
