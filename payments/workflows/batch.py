"""The hourly check: what has become of payments at each gateway since the last one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy, VersioningBehavior
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from payments.workflows.types import (
        BatchCheckInput,
        BatchCheckResult,
        BatchEnd,
        BatchStart,
        GatewayCheck,
        PageChecked,
        Progress,
    )

# Of each gateway, before the run goes on as a new one: so the history stays short.
PAGES_PER_RUN = 10
# A change feed without an end must not keep us for ever; the next run goes on where this one stops.
MOST_CHANGES_PAGES = 1000

# One call, and one transaction of some hundred payments.
PAGE = timedelta(seconds=30)
# A hundred calls one after the other.
SLOW_PAGE = timedelta(minutes=5)
ATTEMPT = timedelta(seconds=20)
# About two minutes: there is another run in an hour. A provider's Retry-After goes before.
STUBBORN = RetryPolicy(
    initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=1), maximum_attempts=8
)
PATIENT = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5))


@workflow.defn
class BatchPaymentCheckWorkflow:
    """Checks gateways side by side, page by page. What it promises:

    1. What a page says, the messages to the sagas and how far it went are written together by its activity. So
       a run that is killed, late, missed, or one of two at once, loses nothing and repeats nothing.
    2. A gateway that stays away stops no other: it is named in the result, and the run ends well.
    3. The history holds counts and one key for each page, never orders, and starts anew after ten pages.
    """

    @workflow.run
    async def run(self, check: BatchCheckInput) -> BatchCheckResult:
        started_at = check.progress.started_at if check.progress else workflow.now().isoformat()
        todo = await self._start(check.gateways, started_at)
        so_far = check.progress or Progress(started_at, todo)
        self._tally = so_far.tally
        self._unavailable = dict(so_far.unavailable)
        checks = await asyncio.gather(*(self._check(one) for one in so_far.todo))
        rest = [one for one in checks if one is not None]
        if rest:
            progress = Progress(started_at, rest, self._tally, self._unavailable)
            workflow.continue_as_new(replace(check, progress=progress))
        return await self._finish(datetime.fromisoformat(started_at))

    async def _check(self, check: GatewayCheck) -> GatewayCheck | None:
        """Some pages of one gateway; how far it came, or None if that was all."""
        for _ in range(PAGES_PER_RUN):
            try:
                page = await self._page(check)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                cause = error.cause
                said = cause.message if isinstance(cause, FailureError) else str(cause)
                self._unavailable[check.gateway] = said
                return None
            self._tally += page.tally
            check = replace(check, pages=check.pages + 1, after=page.after)
            if not page.more or (check.changes and check.pages >= MOST_CHANGES_PAGES):
                return None
        return check

    async def _page(self, check: GatewayCheck) -> PageChecked:
        page: PageChecked = await workflow.execute_activity(
            "check_changes_page" if check.changes else "check_pending_page",
            check,
            result_type=PageChecked,
            start_to_close_timeout=PAGE if check.changes else SLOW_PAGE,
            retry_policy=STUBBORN,
            summary=f"{check.gateway}, page {check.pages + 1}",
        )
        return page

    async def _start(self, gateways: list[str], started_at: str) -> list[GatewayCheck]:
        info = workflow.info()
        todo: list[GatewayCheck] = await workflow.execute_activity(
            "start_payment_batch",
            BatchStart(info.workflow_id, info.first_execution_run_id, started_at, gateways),
            result_type=list[GatewayCheck],
            start_to_close_timeout=ATTEMPT,
            retry_policy=PATIENT,
        )
        return todo

    async def _finish(self, started_at: datetime) -> BatchCheckResult:
        info, now, found = workflow.info(), workflow.now(), self._tally
        await workflow.execute_activity(
            "finish_payment_batch",
            BatchEnd(
                info.workflow_id, info.first_execution_run_id, now.isoformat(), found, self._unavailable
            ),
            result_type=type(None),
            start_to_close_timeout=ATTEMPT,
            retry_policy=PATIENT,
        )
        return BatchCheckResult(
            total_checked=found.total_checked,
            paid=found.paid,
            pending=found.pending,
            failed=found.failed,
            timeout=found.timeout,
            provider_calls=found.provider_calls,
            duration=(now - started_at).total_seconds(),
            unavailable=sorted(self._unavailable),
        )


@workflow.defn(name="BatchPaymentCheckWorkflow", versioning_behavior=VersioningBehavior.PINNED)
class PinnedBatchPaymentCheck(BatchPaymentCheckWorkflow):
    """The same for workers that have versions: a run of minutes ends with the version it began with. The server
    takes a behaviour from such workers only.
    """

    @workflow.run
    async def run(self, check: BatchCheckInput) -> BatchCheckResult:
        return await super().run(check)
