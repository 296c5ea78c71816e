"""What all workers and web processes know together about each provider: when it may be called, and how it is."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import pgtrigger
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _


class GatewayState(models.Model):
    """One row per gateway, written by `payments.services.availability` only. Times are the database's clock.

    `arrival` is the theoretical arrival time of the generic cell rate algorithm: the rate is kept by moving it on
    with every call. `appointment` is the last time that was named to a caller who was sent away. `not_before` is
    the provider's own word. The circuit is open while `open_until` is set, also when that time is over: then one
    call, until `probing_until`, tries whether the provider is back. `failures` counts no payment twice in a row:
    one that the provider chokes on, again and again, does not make it down for all others.
    """

    gateway = models.CharField(_("gateway"), max_length=30, unique=True)
    arrival = models.DateTimeField(db_default=Now(), editable=False)
    appointment = models.DateTimeField(db_default=Now(), editable=False)
    not_before = models.DateTimeField(_("no call before"), null=True)
    too_many = models.PositiveIntegerField(_("refused as too many, in a row"), db_default=0)
    failures = models.PositiveIntegerField(_("failures in a row"), db_default=0)
    failing_since = models.DateTimeField(_("failing since"), null=True)
    times_opened = models.PositiveIntegerField(_("tried in vain"), db_default=0)
    open_until = models.DateTimeField(_("next asked"), null=True)
    probing_until = models.DateTimeField(null=True, editable=False)
    last_failed = models.CharField(_("last failed for"), max_length=120, db_default="")
    last_error = models.TextField(_("last error"), db_default="")
    last_success_at = models.DateTimeField(_("last answered"), null=True)
    last_failure_at = models.DateTimeField(_("last failed"), null=True)

    class Meta:
        verbose_name = _("payment provider")
        verbose_name_plural = _("payment providers")
        ordering: ClassVar = ["gateway"]
        permissions: ClassVar = [("ask_gateway", "Can have a provider that is down asked at once")]

    def __str__(self) -> str:
        return called(self.gateway)

    @property
    def is_down(self) -> bool:
        """Whether its circuit is open, and calls fail without being sent."""
        return self.open_until is not None

    def is_told_to_wait(self, now: datetime) -> bool:
        return self.not_before is not None and self.not_before > now

    @property
    def state(self) -> str:
        """`down`, `asked to wait`, `failing` or `working`."""
        if self.is_down:
            return "down"
        if self.is_told_to_wait(timezone.now()):
            return "asked to wait"
        return "failing" if self.failures else "working"

    @property
    def sentence(self) -> str:
        """What is wrong, since when, and when it is asked again; empty if calls go through."""
        now = timezone.now()
        if self.open_until is not None:
            since = date_format(self.failing_since or self.open_until, "SHORT_DATETIME_FORMAT")
            told = gettext("%(provider)s has not answered since %(since)s: %(error)s") % {
                "provider": self,
                "since": f"{since} UTC",
                "error": self.last_error,
            }
            return f"{told} {_asked_again(self.open_until if self.open_until > now else None)}"
        if self.not_before is not None and self.not_before > now:
            told = gettext("%(provider)s has asked us to wait: %(error)s") % {
                "provider": self,
                "error": self.last_error,
            }
            return f"{told} {_asked_again(self.not_before)}"
        return ""


class GatewayIncident(models.Model):
    """One turn in a provider's availability. Append-only: the database refuses UPDATE and DELETE."""

    class Kind(models.TextChoices):
        WENT_DOWN = "went down", _("went down")
        CAME_BACK = "came back", _("came back")
        ASKED_NOW = "asked now", _("to be asked at once")

    gateway = models.ForeignKey(GatewayState, models.PROTECT, related_name="incidents")
    kind = models.CharField(_("what"), max_length=10, choices=Kind)
    actor = models.CharField(_("actor"), max_length=150, blank=True, db_default="")
    detail = models.TextField(_("detail"), blank=True, db_default="")
    at = models.DateTimeField(_("at"), db_default=Now())

    class Meta:
        verbose_name = _("incident")
        verbose_name_plural = _("incidents")
        ordering: ClassVar = ["-id"]
        triggers: ClassVar = [
            pgtrigger.Protect(name="append_only", operation=pgtrigger.Update | pgtrigger.Delete)
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {date_format(self.at, 'SHORT_DATETIME_FORMAT')} UTC"


def called(gateway: str) -> str:
    """A gateway's name for people."""
    return str(_NAMES.get(gateway) or gateway.replace("_", " ").capitalize())


_NAMES = {"bank_transfer": _("Bank transfer"), "sandbox": _("Sandbox")}


def _asked_again(moment: datetime | None) -> str:
    if moment is None:
        return gettext("It is asked again with the next call.")
    return gettext("It is asked again at %s.") % f"{moment:%H:%M:%S} UTC"
