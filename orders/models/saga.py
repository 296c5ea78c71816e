"""A saga as the database knows it: its state, and its append-only audit rows."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from shop.kernel.models import AppendOnly


class Saga(models.Model):
    """One attempt to bring an order to its end. The workflow decides; this row is what people read."""

    class Status(models.TextChoices):
        PENDING = "pending", _("pending")
        RUNNING = "running", _("running")
        WAITING = "waiting", _("waiting for payment")
        COMPENSATING = "compensating", _("rolling back")
        COMPLETED = "completed", _("completed")
        CANCELLED = "cancelled", _("cancelled")
        COMPENSATION_FAILED = "compensation_failed", _("rollback failed")

    FINAL: ClassVar = (Status.COMPLETED, Status.CANCELLED, Status.COMPENSATION_FAILED)

    order = models.ForeignKey("orders.Order", models.PROTECT, related_name="sagas")
    attempt = models.PositiveIntegerField(_("attempt"))
    status = models.CharField(_("status"), max_length=20, choices=Status, default=Status.PENDING)
    payment = models.OneToOneField(
        "payments.Payment", models.PROTECT, null=True, blank=True, related_name="saga"
    )
    deadline = models.DateTimeField(_("payment deadline"), null=True, blank=True, db_index=True)
    reason = models.TextField(_("reason"), blank=True, default="")
    rollback_run = models.CharField(_("rollback run"), max_length=36, blank=True, default="")
    result = models.JSONField(_("result"), null=True, blank=True)
    created_at = models.DateTimeField(_("started"), auto_now_add=True)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)

    class Meta:
        verbose_name = _("saga")
        verbose_name_plural = _("sagas")
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["order", "attempt"], name="saga_attempt_once"),
            models.UniqueConstraint(
                fields=["order"],
                condition=~Q(status__in=["completed", "cancelled", "compensation_failed"]),
                name="one_open_saga_per_order",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["ended_at"], name="saga_by_end"),
            models.Index(
                fields=["ended_at"],
                condition=Q(status__in=["cancelled", "compensation_failed"]),
                name="saga_rolled_back_by_end",
            ),
            models.Index(fields=["deadline"], condition=Q(status="waiting"), name="saga_waiting_by_deadline"),
        ]

    def __str__(self) -> str:
        return f"{self.order_id}/{self.attempt}"

    @property
    def is_final(self) -> bool:
        return self.status in self.FINAL

    @property
    def pay_until(self) -> datetime | None:
        """Until when the customer's money must have come: the deadline, or the authorization's end before it."""
        lapses = self.payment.authorized_until if self.payment else None
        return min(self.deadline, lapses or self.deadline) if self.deadline else None

    def key(self, step: str) -> str:
        """The idempotency key of a step: the same for every retry, replay and worker of this attempt."""
        return f"{self.order.number}/{self.attempt}/{step}"


class PaidInBulk(models.Model):
    """The saga of a bulk order whose money is complete, and which nobody has begun to fulfil.

    Written with the money; gone when somebody begins. The hybrid check reads these and not all that wait, so
    its cost does not grow with them. No decision is taken by it: that is for the books, under the order's lock.
    """

    # A key to the saga, not the order: whoever holds an order's lock may want the payment's next.
    saga = models.OneToOneField(Saga, models.PROTECT, primary_key=True, related_name="paid_in_bulk")

    class Meta:
        verbose_name = _("paid bulk order")
        verbose_name_plural = _("paid bulk orders")
        default_permissions = ()  # nobody sees it

    def __str__(self) -> str:
        return str(self.saga)


class SagaStep(models.Model):
    """The audit row of one attempt at a step or its undo, written in the transaction of its effect.

    Append-only: the database refuses UPDATE and DELETE. All rows of one rollback share `rollback_run`.
    """

    class Kind(models.TextChoices):
        ACTION = "action", _("action")
        COMPENSATION = "compensation", _("compensation")

    class Outcome(models.TextChoices):
        SUCCEEDED = "succeeded", _("succeeded")
        FAILED = "failed", _("failed")
        SKIPPED = "skipped", _("skipped")

    saga = models.ForeignKey(Saga, models.PROTECT, related_name="steps")
    step = models.CharField(_("step"), max_length=30)
    kind = models.CharField(_("kind"), max_length=15, choices=Kind)
    outcome = models.CharField(_("outcome"), max_length=10, choices=Outcome)
    attempt = models.PositiveIntegerField(_("attempt"))
    reference = models.CharField(_("reference"), max_length=160, blank=True, default="")
    idempotency_key = models.CharField(_("idempotency key"), max_length=120)
    error = models.TextField(_("error"), blank=True, default="")
    actor = models.CharField(_("actor"), max_length=150)
    rollback_run = models.CharField(_("rollback run"), max_length=36, blank=True, default="")
    started_at = models.DateTimeField(_("started"))
    at = models.DateTimeField(_("at"), auto_now_add=True)

    class Meta:
        verbose_name = _("audit row")
        verbose_name_plural = _("audit rows")
        ordering: ClassVar = ["id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["saga", "step", "kind"],
                condition=~Q(outcome="failed"),
                name="saga_step_done_once",
            ),
            models.UniqueConstraint(
                fields=["saga", "step", "kind", "attempt"], name="saga_step_attempt_once"
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["at"],
                condition=Q(step="payment_captured", kind="action", outcome="succeeded"),
                name="saga_step_paid",
            ),
        ]
        triggers: ClassVar = [AppendOnly(personal=["error"])]

    def __str__(self) -> str:
        return f"{self.step} {self.kind} {self.outcome}"
