"""Our schedules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from orders.models import ReconcileRun
from orders.workflows.hybrid import CHECK_ID
from payments.models import BatchRun
from shop.kernel.durations import in_words

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


@dataclass(frozen=True, slots=True)
class Schedule:
    """One thing that runs by itself. It is never run twice at once: one further run waits for the end of a slow one.

    `every` is the time between two runs. With `cron`, Temporal goes by that (UTC, or with `CRON_TZ=… ` before
    it), and `every` says after how long a run would be missed. `runs` is the admin list of the runs, as
    `app_model`, and `last_run` tells from the database when the last one began.
    """

    id: str
    does: StrOrPromise
    workflow: str
    queue: str
    argument: dict[str, Any]
    workflow_id: str  # to which Temporal appends the run's time
    every: timedelta
    cron: str = ""
    catch_up: timedelta = timedelta(hours=6)  # how late a run that was missed still starts
    runs: str = ""
    last_run: Callable[[], datetime | None] | None = None

    @property
    def limit(self) -> timedelta:
        """The longest that a run may take: one that hangs holds up one other, and no run is ever dropped."""
        return max(self.every, timedelta(minutes=15))

    @property
    def jitter(self) -> timedelta:
        return min(self.every / 20, timedelta(minutes=5))

    @property
    def times(self) -> str:
        return gettext("by “%s”") % self.cron if self.cron else gettext("every %s") % in_words(self.every)

    @property
    def missed_after(self) -> timedelta:
        return 2 * self.every


def ours() -> list[Schedule]:
    """All our schedules. To add one, add it here."""
    return [
        Schedule(
            id="hourly-payment-batch",
            does=_(
                "Asks each payment provider what has changed since the last time, and tells the orders that wait."
            ),
            workflow="BatchPaymentCheckWorkflow",
            queue="payment-checks",
            argument={"gateways": []},  # all
            workflow_id="payment-batch",
            every=settings.PAYMENT_CHECK_INTERVAL,
            cron=settings.PAYMENT_CHECK_CRON,
            runs="payments_batchrun",
            last_run=lambda: _last_batch(~Q(workflow_id__startswith=CHECK_ID)),
        ),
        Schedule(
            id="hourly-bulk-fulfillment",
            does=_(
                "Checks the payments, and has orders that were taken in bulk fulfilled when they are paid, or rolled "
                "back when their deadline has passed."
            ),
            workflow="HybridPaymentCheckWorkflow",
            queue="orders",
            argument={"gateways": []},
            workflow_id="bulk-fulfillment",
            every=settings.PAYMENT_CHECK_INTERVAL,
            cron=settings.PAYMENT_CHECK_CRON,
            # It begins with a batch check of its own.
            last_run=lambda: _last_batch(Q(workflow_id__startswith=CHECK_ID)),
        ),
        Schedule(
            id="daily-reconcile",
            does=_(
                "Sets money, stock, orders and messages against each other, the providers' lists and Temporal; mends "
                "what is safe, and tells ops where money or stock disagrees."
            ),
            workflow="ReconcileWorkflow",
            queue="orders",
            argument={"fix": True},
            workflow_id="reconcile",
            every=timedelta(days=1),
            cron=settings.RECONCILE_CRON,
            runs="orders_reconcilerun",
            last_run=_last_reconciliation,
        ),
    ]


def _last_reconciliation() -> datetime | None:
    runs = ReconcileRun.objects.filter(actor="schedule").order_by("-id")
    return runs.values_list("started_at", flat=True).first()


def _last_batch(which: Q) -> datetime | None:
    runs = BatchRun.objects.filter(which).order_by("-id")
    return runs.values_list("started_at", flat=True).first()


def is_late(schedule: Schedule) -> bool:
    """Whether no run has begun for two intervals, by the database; before the first one, since the set-up."""
    if schedule.last_run is None:
        return False
    last = schedule.last_run() or _set_up_at()
    return last is not None and last < timezone.now() - schedule.missed_after


def _set_up_at() -> datetime | None:
    """When the database got this version's tables."""
    applied = MigrationRecorder.Migration.objects.filter(app="ops").order_by("id")
    return applied.values_list("applied", flat=True).first()
