"""How our schedules stand: what the engine knows of them and of their runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils.formats import number_format
from django.utils.translation import gettext, gettext_noop
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.schedule.v1 import ScheduleActionResult
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.service import RPCError, RPCStatusCode

from shop.schedules import engine
from shop.schedules.declared import Schedule
from shop.schedules.engine import UnknownSchedule, patient
from shop.schedules.syncing import differences

PATIENCE_S = 4
RUNS = 5
STEPS_AHEAD = 3

Status = WorkflowExecutionStatus
_STATES = (
    gettext_noop("running"), gettext_noop("completed"), gettext_noop("failed"), gettext_noop("canceled"),
    gettext_noop("terminated"), gettext_noop("timed out"), gettext_noop("gone"),
)  # fmt: skip
# What runs count.
_RESULTS = (
    gettext_noop("total checked"), gettext_noop("paid"), gettext_noop("pending"), gettext_noop("timeout"),
    gettext_noop("provider calls"), gettext_noop("duration"), gettext_noop("unavailable"),
    gettext_noop("fulfillment started"), gettext_noop("given up"), gettext_noop("unanswered"),
    gettext_noop("check failed"), gettext_noop("found"), gettext_noop("mended"), gettext_noop("left out"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One run, by the workflow that it started. `state` is a word of Temporal's, such as `timed_out`."""

    workflow_id: str
    planned_at: datetime
    started_at: datetime
    state: str
    ended_at: datetime | None = None
    result: str = ""

    @property
    def duration(self) -> timedelta | None:
        return self.ended_at - self.started_at if self.ended_at else None

    @property
    def words(self) -> str:
        return gettext(self.state.replace("_", " "))

    @property
    def tone(self) -> str:
        """A state that has the colour of this one."""
        return self.state if self.state in ("running", "completed", "gone") else "failed"


@dataclass(frozen=True, slots=True)
class Standing:
    """`made`: Temporal has it, but for `differs` as declared. Newest run first.

    `waiting` runs start when the one under way ends.
    """

    schedule: Schedule
    made: bool = False
    differs: Sequence[str] = ()
    paused: bool = False
    note: str = ""
    next: Sequence[datetime] = ()
    runs: Sequence[Run] = ()
    running: int = 0
    waiting: int = 0
    total: int = 0
    missed: int = 0  # later than the catch-up window
    skipped: int = 0  # one was waiting already

    @property
    def state(self) -> str:
        """In a word or two."""
        if not self.made:
            return gettext("not made yet")
        return gettext("paused") if self.paused else gettext("active")


@patient(PATIENCE_S)
async def standings(client: Client, schedules: Sequence[Schedule]) -> list[Standing]:
    """How each of them stands; raises `ScheduleProblem`."""
    return await asyncio.gather(*(_standing(client, schedule) for schedule in schedules))


async def _standing(client: Client, schedule: Schedule) -> Standing:
    try:
        found = await engine.describe(client, schedule.id)
    except UnknownSchedule:
        return Standing(schedule)
    info, state = found.info, found.schedule.state
    latest = list(info.recent_actions)[: -RUNS - 1 : -1]
    return Standing(
        schedule,
        made=True,
        differs=await differences(client, schedule, found.schedule),
        paused=state.paused,
        note=state.notes,
        next=[_at(moment) for moment in info.future_action_times[:STEPS_AHEAD]],
        runs=await asyncio.gather(*(_run(client, action) for action in latest)),
        running=len(info.running_workflows),
        waiting=info.buffer_size,
        total=info.action_count,
        missed=info.missed_catchup_window,
        skipped=info.overlap_skipped,
    )


async def _run(client: Client, action: ScheduleActionResult) -> Run:
    workflow_id = action.start_workflow_result.workflow_id
    planned_at, started_at = _at(action.schedule_time), _at(action.actual_time)
    handle = client.get_workflow_handle(workflow_id)
    try:
        found = await handle.describe()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return Run(workflow_id, planned_at, started_at, "gone")  # Temporal keeps it for some time only
    status = found.status
    if status is None or status in (Status.RUNNING, Status.CONTINUED_AS_NEW):
        return Run(workflow_id, planned_at, started_at, "running")
    try:
        result = _in_words(await handle.result())
    except WorkflowFailureError as failure:
        result = str(failure.cause) if status is Status.FAILED else ""
    return Run(workflow_id, planned_at, started_at, status.name.lower(), found.close_time, result)


def _in_words(result: Any) -> str:
    """Counts and the like, as `total checked 5, paid 1`."""
    if not isinstance(result, dict):
        return "" if result is None else str(result)
    shown = {name: value for name, value in result.items() if value or isinstance(value, int | float)}
    return ", ".join(f"{gettext(name.replace('_', ' '))} {_value(value)}" for name, value in shown.items())


def _value(value: Any) -> str:
    if isinstance(value, list):
        return gettext(" and ").join(map(str, value))
    return f"{number_format(f'{value:.1f}')} s" if isinstance(value, float) else f"{value}"


def _at(moment: Timestamp) -> datetime:
    return moment.ToDatetime(UTC)
