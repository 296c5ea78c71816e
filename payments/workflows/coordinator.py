"""Many monitors side by side: the payments of a given set of orders, at most so many at a time."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, FailureError, WorkflowAlreadyStartedError
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from payments.workflows.monitor import (
        MonitorInput,
        MonitorResult,
        MonitorStatus,
        OrderPaymentMonitorWorkflow,
        monitor_id,
    )

# The numbers travel in the input, and on with each new run; the engine takes 2 MB.
MOST_ORDERS = 10_000
# A run starts no more than this; nine events each.
STARTS_PER_RUN = 150
LOOKS_PER_RUN = 100
LOOK_AT = 100
ASKING = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=1))


@dataclass(frozen=True)
class CoordinatorCounts:
    """How the monitors ended. `stopped` were stopped by somebody; `error` failed, were cancelled or terminated."""

    confirmed: int = 0
    timeout: int = 0
    failed: int = 0
    stopped: int = 0
    error: int = 0

    def plus(self, outcome: str) -> CoordinatorCounts:
        return replace(self, **{outcome: getattr(self, outcome) + 1})


@dataclass(frozen=True)
class CoordinatorInput:
    """`order_ids`, at most `MOST_ORDERS`, are yet to be watched; `at_most` of them at a time.

    `cancel_children`: whether a cancel of the coordinator is passed on, or the monitors go on without it.
    `running` and `counts` are carried from run to run.
    """

    order_ids: list[str]
    at_most: int = 100
    max_days: int = 14
    interval_s: int = 3600
    cancel_children: bool = False
    running: list[str] = field(default_factory=list)
    counts: CoordinatorCounts = CoordinatorCounts()


@dataclass(frozen=True)
class MonitorsToLookAt:
    """At most `LOOK_AT` order numbers."""

    order_numbers: list[str]


OUTCOME = {
    MonitorStatus.CONFIRMED: "confirmed",
    MonitorStatus.TIMEOUT: "timeout",
    MonitorStatus.FAILED: "failed",
    MonitorStatus.STOPPED: "stopped",
}


@workflow.defn
class PaymentCheckCoordinator:
    """Keeps `at_most` monitors running until each order has had one. What it promises:

    1. As one ends the next begins; a slow one holds up no other, and a failing one is counted and stops no other.
    2. An order that is watched already is not watched twice: its monitor takes a place in the window, and what
       it comes to is counted.
    3. Its history stays short: it continues as new while monitors run. The new run has not started these, so it
       looks four times between two checks how they have ended.
    """

    @workflow.init
    def __init__(self, work: CoordinatorInput) -> None:
        self._work = work
        self._to_do = list(dict.fromkeys(work.order_ids))
        self._counts = work.counts
        self._starting: set[str] = set()
        self._ours: dict[str, asyncio.Task[None]] = {}
        self._others = set(work.running)

    @workflow.run
    async def run(self, work: CoordinatorInput) -> CoordinatorCounts:
        """How the monitors of all runs have ended."""
        if len(work.order_ids) > MOST_ORDERS:
            raise ApplicationError(
                f"{len(work.order_ids)} orders are too many for one coordinator: give at most {MOST_ORDERS}.",
                non_retryable=True,
            )
        if work.at_most < 1:
            raise ApplicationError("At least one monitor has to run at a time.", non_retryable=True)
        try:
            await self._watch_all()
        except asyncio.CancelledError:
            if work.cancel_children:
                await self._cancel_children()
            raise
        return self._counts

    async def _watch_all(self) -> None:
        starts = looks = 0
        pause = timedelta(seconds=self._work.interval_s) / 4
        look_at = workflow.now() + pause
        while True:
            while self._to_do and self._running() < self._work.at_most:
                if starts >= STARTS_PER_RUN:
                    await self._continue_as_new()
                starts += 1
                self._start(self._to_do.pop(0))
            if not self._running():
                return
            if self._others and workflow.now() >= look_at:
                if looks >= LOOKS_PER_RUN:
                    await self._continue_as_new()
                looks += 1
                await self._look_at_others()
                look_at = workflow.now() + pause
                continue
            await self._one_more_has_ended(look_at)

    async def _one_more_has_ended(self, look_at: datetime) -> None:
        """Wait until one of ours has ended; while there are others, until they are to be looked at."""
        before, others = self._running(), bool(self._others)
        with contextlib.suppress(asyncio.TimeoutError):
            await workflow.wait_condition(
                lambda: self._running() < before or bool(self._others) != others,
                timeout=max(look_at - workflow.now(), timedelta()) if others else None,
                timeout_summary="look at the others",
            )

    def _running(self) -> int:
        return len(self._ours) + len(self._others)

    def _start(self, number: str) -> None:
        self._starting.add(number)
        self._ours[number] = asyncio.create_task(self._watch(number))

    async def _watch(self, number: str) -> None:
        work = self._work
        try:
            try:
                child = await workflow.start_child_workflow(
                    OrderPaymentMonitorWorkflow.run,
                    MonitorInput(number, work.max_days, work.interval_s),
                    id=monitor_id(number),
                    # A run that continues as new must leave them be; a cancel is passed on by `run`.
                    parent_close_policy=ParentClosePolicy.ABANDON,
                )
            finally:
                self._starting.discard(number)
            result: MonitorResult = await child
            self._counts = self._counts.plus(OUTCOME[result.status])
        except WorkflowAlreadyStartedError:
            self._others.add(number)
        except FailureError:
            self._counts = self._counts.plus("error")
        finally:
            del self._ours[number]

    async def _look_at_others(self) -> None:
        others = sorted(self._others)
        for first in range(0, len(others), LOOK_AT):
            ended: dict[str, str] = await workflow.execute_activity(
                "ended_monitors",
                MonitorsToLookAt(others[first : first + LOOK_AT]),
                result_type=dict[str, str],
                start_to_close_timeout=timedelta(minutes=1),
                retry_policy=ASKING,
            )
            for number, outcome in ended.items():
                self._others.discard(number)
                self._counts = self._counts.plus(outcome)

    async def _continue_as_new(self) -> None:
        # The engine drops the start of a child that its parent has asked for and not seen.
        await workflow.wait_condition(lambda: not self._starting)
        workflow.continue_as_new(
            replace(
                self._work,
                order_ids=self._to_do,
                running=sorted(self._ours.keys() | self._others),
                counts=self._counts,
            )
        )

    async def _cancel_children(self) -> None:
        await workflow.wait_condition(lambda: not self._starting)
        cancelling = [
            workflow.get_external_workflow_handle(monitor_id(number)).cancel()
            for number in sorted(self._ours.keys() | self._others)
        ]
        # One that has ended meanwhile cannot be cancelled, and need not be.
        await asyncio.gather(*cancelling, return_exceptions=True)

    @workflow.query
    def progress(self) -> CoordinatorInput:
        """What is left to do, what runs, and how the others have ended."""
        return replace(
            self._work,
            order_ids=self._to_do,
            running=sorted(self._ours.keys() | self._others),
            counts=self._counts,
        )
