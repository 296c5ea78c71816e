"""Make the engine's schedules as they are declared."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils.translation import gettext, gettext_noop, pgettext
from google.protobuf.duration_pb2 import Duration
from temporalio.api.common.v1 import Payloads, WorkflowType
from temporalio.api.enums.v1 import ScheduleOverlapPolicy
from temporalio.api.schedule.v1 import IntervalSpec, ScheduleAction, SchedulePolicies, ScheduleSpec
from temporalio.api.schedule.v1 import Schedule as Made
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import NewWorkflowExecutionInfo
from temporalio.client import Client
from temporalio.service import RPCError

from shop.kernel.encryption import KEY_NAME, PayloadUnreadable
from shop.schedules import engine, verbs
from shop.schedules.declared import Schedule, ours
from shop.schedules.engine import ScheduleProblem, TemporalAway, UnknownSchedule, patient

log = logging.getLogger(__name__)

ATTEMPTS = 5  # at an update that others get in the way of
PATIENCE_S = 30
TRY_AGAIN_S = 30


@dataclass(frozen=True, slots=True)
class Synced:
    """What `sync` did, and what it could not do, in sentences."""

    done: list[str]
    problems: list[str]


@patient(PATIENCE_S)
async def sync(client: Client) -> Synced:
    """Make the engine's schedules as declared; raises `TemporalAway`.

    May run as often as one likes and many times at once. Changes only what differs, keeps a pause and its
    note, and removes schedules of ours that are no longer declared.
    """
    done, problems = [], []
    schedules = ours()
    for schedule in schedules:
        try:
            if told := await _make_as_declared(client, schedule, schedule.id):
                done.append(told)
        except ScheduleProblem as problem:
            problems.append(str(problem))
        except RPCError as error:
            if isinstance(refusal := engine.as_problem(error), TemporalAway):
                raise refusal from error
            problems.append(f"{schedule.id}: {refusal}")
    for schedule_id in await engine.list_ours(client) - {schedule.id for schedule in schedules}:
        if await engine.delete(client, schedule_id):
            done.append(gettext("%s was removed: it is no longer declared.") % schedule_id)
    return Synced(done, problems)


@patient(verbs.PATIENCE_S)
async def sync_one(client: Client, schedule_id: str, note: str, key: str) -> str:
    """Make one schedule as declared; what came of it, in a sentence."""
    for schedule in ours():
        if schedule.id == schedule_id:
            told = await _make_as_declared(client, schedule, pgettext("schedule", "It"))
            return told or gettext("It is as declared; nothing was to do.")
    raise ScheduleProblem(gettext("We have no schedule “%s”.") % schedule_id)


async def differences(client: Client, schedule: Schedule, found: Made) -> list[str]:
    """In what the engine's schedule is other than declared, in words: what `sync` would change."""
    return await _different(client, found, await _as_declared(client, schedule))


async def _different(client: Client, found: Made, wanted: Made) -> list[str]:
    there, here = await _facts(client, found), await _facts(client, wanted)
    return sorted(gettext(name) for name in here if here[name] != there[name])


async def sync_in_the_end(client: Client) -> None:
    """For the worker: try until nothing is left to do, and say why not where it cannot be done."""
    while True:
        try:
            synced = await sync(client)
        except ScheduleProblem as problem:
            synced = Synced([], [str(problem)])
        except Exception:
            log.exception("The schedules could not be brought up to date")
            synced = Synced([], [gettext("Something is wrong with the shop itself.")])
        for sentence in synced.done:
            log.info("Schedule %s", sentence)
        if not synced.problems:
            return
        for sentence in synced.problems:
            log.warning("A schedule could not be brought up to date, and is tried again: %s", sentence)
        await asyncio.sleep(TRY_AGAIN_S)


async def _make_as_declared(client: Client, schedule: Schedule, called: str) -> str:
    """What was done, in a sentence that calls it so; empty if nothing was to do."""
    wanted = await _as_declared(client, schedule)
    changed: set[str] = set()
    for _ in range(ATTEMPTS):
        try:
            found = await engine.describe(client, schedule.id)
        except UnknownSchedule:
            if await engine.create(client, schedule.id, wanted):
                told = {"what": called, "times": schedule.times}
                return gettext("%(what)s was made: it runs %(times)s.") % told
            continue
        differs = await _different(client, found.schedule, wanted)
        if not differs:
            told = {"what": called, "changed": ", ".join(sorted(changed))}
            return gettext("%(what)s was changed: %(changed)s.") % told if changed else ""
        changed.update(differs)
        # The state as found: with the token, the update is void if somebody has changed it in the meantime.
        wanted.state.CopyFrom(found.schedule.state)
        await engine.update(client, schedule.id, wanted, found.conflict_token)
    raise ScheduleProblem(gettext("%s is changed by others all the time. Try again later.") % schedule.id)


async def _as_declared(client: Client, schedule: Schedule) -> Made:
    # The server makes calendars of a cron expression and keeps its comment, by which we know it again.
    spec = (
        ScheduleSpec(cron_string=[f"{schedule.cron} # {schedule.cron}"])
        if schedule.cron
        else ScheduleSpec(interval=[IntervalSpec(interval=_duration(schedule.every))])
    )
    spec.jitter.CopyFrom(_duration(schedule.jitter))
    start = NewWorkflowExecutionInfo(
        workflow_id=schedule.workflow_id,
        workflow_type=WorkflowType(name=schedule.workflow),
        task_queue=TaskQueue(name=schedule.queue),
        input=Payloads(payloads=await client.data_converter.encode([schedule.argument])),
        workflow_execution_timeout=_duration(schedule.limit),
    )
    policies = SchedulePolicies(
        overlap_policy=ScheduleOverlapPolicy.SCHEDULE_OVERLAP_POLICY_BUFFER_ONE,
        catchup_window=_duration(schedule.catch_up),
    )
    return Made(spec=spec, action=ScheduleAction(start_workflow=start), policies=policies)


async def _facts(client: Client, made: Made) -> dict[str, Any]:
    """All that is declared of a schedule, comparable between what we send and what the server makes of it."""
    spec, start = ScheduleSpec(), made.action.start_workflow
    spec.CopyFrom(made.spec)
    crons = [calendar.comment for calendar in spec.structured_calendar]
    crons += [cron.partition(" # ")[2] for cron in spec.cron_string]
    for made_of_cron in ("structured_calendar", "cron_string", "timezone_name"):
        spec.ClearField(made_of_cron)
    return {
        gettext_noop("times"): (crons, spec),
        gettext_noop("workflow"): (start.workflow_id, start.workflow_type.name, start.task_queue.name),
        gettext_noop("argument"): await _decrypted(client, start.input),
        # Else it would need a key for ever that has long been replaced by another.
        gettext_noop("encryption"): [payload.metadata.get(KEY_NAME) for payload in start.input.payloads],
        gettext_noop("limit"): start.workflow_execution_timeout,
        gettext_noop("policies"): made.policies,
    }


async def _decrypted(client: Client, sent: Payloads) -> list[Any] | None:
    """The argument itself, because encrypted the same looks different each time; None if we have not the key."""
    try:
        return await client.data_converter.decode(sent.payloads)
    except PayloadUnreadable:
        return None


def _duration(length: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(length)
    return duration
