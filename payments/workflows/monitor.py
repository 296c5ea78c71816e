"""The payment of one order, asked after every hour: for gateways that tell nobody when money comes."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from payments.workflows.types import PaymentState, PaymentsToCheck

ATTEMPT = timedelta(seconds=20)
# About five minutes in all. A provider that stays away is asked again with the next check.
POLICY = RetryPolicy(
    initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=2), maximum_attempts=8
)
# Eleven events each: a history ends long before the engine's own limit.
CHECKS_PER_RUN = 100


def monitor_id(order_number: str) -> str:
    """The id of the workflow that watches this order's payment."""
    return f"payment-monitor-{order_number}"


class MonitorStatus(StrEnum):
    CONFIRMED = "payment_confirmed"
    FAILED = "payment_failed"
    TIMEOUT = "timeout"
    STOPPED = "stopped"


DECIDED = {PaymentState.PAID: MonitorStatus.CONFIRMED, PaymentState.FAILED: MonitorStatus.FAILED}


@dataclass(frozen=True)
class MonitorInput:
    """`interval_s` lies between two checks. What follows it is carried from run to run."""

    order_id: str
    max_days: int = 14
    interval_s: int = 3600
    checks_done: int = 0
    started_at: str = ""

    @property
    def most_checks(self) -> int:
        """As many as fit into `max_days`, `max_days * 24` when hourly."""
        return self.max_days * 86_400 // self.interval_s


@dataclass(frozen=True)
class MonitorResult:
    """`hours_waited` are whole hours since the first run began; `reason`: of a stop, or why the last check failed."""

    status: MonitorStatus
    hours_waited: int
    checks: int
    reason: str = ""


@dataclass(frozen=True)
class StopMonitor:
    reason: str = ""


@workflow.defn
class OrderPaymentMonitorWorkflow:
    """Checks at once, and then every hour, until the payment is decided, the days are over, or it is stopped.

    What a check finds is in the books before the check has ended, and they tell the order's saga; this workflow
    only sees to it that somebody asks. A check that fails is no answer: the next one asks again.
    """

    @workflow.init
    def __init__(self, monitor: MonitorInput) -> None:
        self._monitor = replace(monitor, started_at=monitor.started_at or workflow.now().isoformat())
        self._stop: StopMonitor | None = None
        self._trouble = ""

    @workflow.run
    async def run(self, monitor: MonitorInput) -> MonitorResult:
        """What became of the payment, or of the watching."""
        for _ in range(CHECKS_PER_RUN):
            if self._monitor.checks_done >= self._monitor.most_checks:
                return self._result(MonitorStatus.TIMEOUT, self._trouble)
            found = await self._check()
            self._monitor = replace(self._monitor, checks_done=self._monitor.checks_done + 1)
            if found in DECIDED:
                return self._result(DECIDED[found])
            with contextlib.suppress(asyncio.TimeoutError):
                await workflow.wait_condition(
                    lambda: self._stop is not None,
                    timeout=timedelta(seconds=self._monitor.interval_s),
                    timeout_summary="next check",
                )
            if self._stop is not None:
                return self._result(MonitorStatus.STOPPED, self._stop.reason)
        workflow.continue_as_new(self._monitor)

    async def _check(self) -> PaymentState:
        number = self._monitor.order_id
        try:
            found: dict[str, PaymentState] = await workflow.execute_activity(
                "check_payments_batch",
                PaymentsToCheck([number]),
                result_type=dict[str, PaymentState],
                start_to_close_timeout=ATTEMPT,
                retry_policy=POLICY,
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            self._trouble = error.cause.message if isinstance(error.cause, FailureError) else str(error.cause)
            workflow.logger.warning("The payment of %s could not be checked: %s", number, self._trouble)
            return PaymentState.PENDING
        self._trouble = ""
        return found.get(number, PaymentState.PENDING)

    def _result(self, status: MonitorStatus, reason: str = "") -> MonitorResult:
        waited = workflow.now() - datetime.fromisoformat(self._monitor.started_at)
        return MonitorResult(status, int(waited.total_seconds() // 3600), self._monitor.checks_done, reason)

    @workflow.signal
    def stop_monitoring(self, stop: StopMonitor) -> None:
        """Ends the watching at once, whatever the payment stands at."""
        self._stop = self._stop or stop

    @workflow.query
    def progress(self) -> MonitorInput:
        return self._monitor
