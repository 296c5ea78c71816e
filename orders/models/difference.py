"""What does not agree: between our books themselves, the providers' and Temporal's; and the runs that looked."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from orders.words import moment


class ReconcileRun(models.Model):
    """One comparison of all books, known by its `key`. `left_out`: why, by the name of the check, in a sentence."""

    SILENT_FOR = timedelta(hours=12)  # longer than any takes

    key = models.CharField(_("key"), max_length=200, unique=True)
    actor = models.CharField(_("who"), max_length=150)
    fix = models.BooleanField(_("mends"), default=False)
    started_at = models.DateTimeField(_("started"), default=timezone.now)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)
    found = models.PositiveIntegerField(_("differences"), default=0)
    new = models.PositiveIntegerField(_("new"), default=0)
    mended = models.PositiveIntegerField(_("mended"), default=0)
    closed = models.PositiveIntegerField(_("gone"), default=0)
    left_out = models.JSONField(_("left out"), default=dict, blank=True)

    class Meta:
        verbose_name = _("reconciliation")
        verbose_name_plural = _("reconciliations")
        ordering: ClassVar = ["-id"]

    def __str__(self) -> str:
        return moment(self.started_at)

    @property
    def state(self) -> str:
        if self.finished_at is not None:
            return "incomplete" if self.left_out else "finished"
        return "died" if self.started_at < timezone.now() - self.SILENT_FOR else "running"


class Difference(models.Model):
    """One thing that does not agree, from the first run that saw it to the first that no longer did.

    `subject` names it within its kind. There is one open row for both, however many runs see it at once.
    """

    class Kind(models.TextChoices):
        STOCK = "stock", _("stock and reservations")
        SHIPMENT = "shipment", _("shipments and stock")
        MONEY = "money", _("orders and their money")
        PROVIDER = "provider", _("books and provider")
        STATEMENT = "statement", _("bank statements and receipts")
        ORDER = "order", _("orders and sagas")
        SAGA = "saga", _("sagas and Temporal")
        REFUND = "refund", _("refunds and Temporal")
        WEBHOOK = "webhook", _("webhooks left behind")
        OUTBOX = "outbox", _("messages left behind")

    class Weight(models.TextChoices):
        """What disagrees, or will if nobody acts."""

        MONEY = "money", _("money")
        STOCK = "stock", _("stock")
        WORK = "work", _("work left behind")

    # While one of these is open, the books do not agree.
    HEAVY: ClassVar = (Weight.MONEY, Weight.STOCK)

    kind = models.CharField(_("kind"), max_length=15, choices=Kind)
    subject = models.CharField(_("about"), max_length=200)
    weight = models.CharField(_("at stake"), max_length=10, choices=Weight)
    sentence = models.TextField(_("difference"))
    to_do = models.TextField(_("what to do"), blank=True, default="")
    # What `--fix` does; empty where it takes a person.
    remedy = models.CharField(_("remedy"), max_length=200, blank=True, default="")
    order = models.ForeignKey("orders.Order", models.PROTECT, null=True, blank=True, related_name="+")
    payment = models.ForeignKey("payments.Payment", models.PROTECT, null=True, blank=True, related_name="+")
    first_seen_at = models.DateTimeField(_("first seen"))
    last_seen_at = models.DateTimeField(_("last seen"))
    mended_at = models.DateTimeField(_("mended"), null=True, blank=True)
    mended_by = models.CharField(_("mended by"), max_length=150, blank=True, default="")
    closed_at = models.DateTimeField(_("gone"), null=True, blank=True)

    class Meta:
        verbose_name = _("difference")
        verbose_name_plural = _("differences")
        ordering: ClassVar = ["-id"]
        permissions: ClassVar = [("fix_difference", "Can have a difference in the books mended")]
        indexes: ClassVar = [
            models.Index(
                fields=["kind", "last_seen_at"], condition=Q(closed_at=None), name="difference_open"
            ),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["kind", "subject"],
                condition=Q(closed_at=None),
                name="one_open_difference_per_subject",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.about}: {self.get_kind_display()}"

    @property
    def about(self) -> str:
        """What people know it by: the order, where there is one."""
        if self.order is not None:
            return self.order.number
        return self.payment.merchant_reference if self.payment else self.subject

    @property
    def state(self) -> str:
        if self.closed_at is not None:
            return "closed"
        return "mended" if self.mended_at else "open"

    @property
    def state_in_words(self) -> Promise:
        return _STATES[self.state]

    @property
    def age(self) -> timedelta:
        end: datetime = self.closed_at or timezone.now()
        return end - self.first_seen_at


_STATES = {
    "open": _("open"),
    "mended": _("mended; the next run looks"),
    "closed": _("gone"),
}
