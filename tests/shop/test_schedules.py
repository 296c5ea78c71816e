"""Our schedules on a real Temporal server: what sync does and leaves alone, and what comes of missed and slow runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from pytest_django.fixtures import Settings
from temporalio import workflow
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from shop.schedules import declared, engine, syncing, verbs
from shop.schedules.engine import ForeignSchedule, ScheduleProblem, TemporalAway
from shop.schedules.standing import Standing, standings
from shop.schedules.syncing import sync
from shop.up import ports

HOURLY = "hourly-payment-batch"
On = Callable[[Callable[["Temporal"], Awaitable[None]]], None]
Declare = Callable[..., declared.Schedule]


@workflow.defn(name="BatchPaymentCheckWorkflow")
class SomeBatch:
    """Stands in for the real one; ends when told to."""

    def __init__(self) -> None:
        self._released = False

    @workflow.signal
    def release(self) -> None:
        self._released = True

    @workflow.run
    async def run(self, check: dict[str, Any]) -> dict[str, Any]:
        await workflow.wait_condition(lambda: self._released or not check.get("wait"))
        return {"total_checked": 7, "paid": 2, "duration": 0.5}


class Temporal:
    """A client of the server, on which nothing of ours is scheduled at the start of a test."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def sync(self) -> list[str]:
        synced = await sync(self.client)
        assert not synced.problems
        return synced.done

    async def standing(self) -> Standing:
        (standing,) = await standings(self.client, declared.ours())
        return standing

    async def pause(self, note: str = "ada: the bank is closed") -> None:
        await verbs.pause(self.client, HOURLY, note, str(uuid4()))

    async def until(self, condition: Callable[[Standing], object]) -> Standing:
        async with asyncio.timeout(30):
            while not condition(standing := await self.standing()):
                await asyncio.sleep(0.05)
        return standing

    async def clear(self) -> None:
        for schedule_id in await engine.list_ours(self.client):
            await engine.delete(self.client, schedule_id)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        async with Worker(
            self.client,
            task_queue=declared.ours()[0].queue,
            workflows=[SomeBatch],
            workflow_runner=UnsandboxedWorkflowRunner(),
        ):
            yield


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Callable[..., declared.Schedule]:
    """Declares our schedule with changes; its runs are taken by no worker of another test."""
    settings.PAYMENT_CHECK_CRON = ""
    hourly = next(each for each in declared.ours() if each.id == HOURLY)
    name = uuid4().hex[:8]

    def declare(**changes: Any) -> declared.Schedule:
        schedule = replace(
            hourly, **{"queue": f"checks-{name}", "workflow_id": f"payment-batch-{name}", **changes}
        )
        for module in (declared, syncing, verbs):
            monkeypatch.setattr(module, "ours", lambda: [schedule])
        return schedule

    declare()
    return declare


@pytest.fixture
def on(temporal_server: str, declare: object) -> On:
    """Runs a test's coroutine with the server, and clears away what it has left."""

    def run(test: Callable[[Temporal], Awaitable[None]]) -> None:
        async def running() -> None:
            temporal = Temporal(await Client.connect(temporal_server))
            await temporal.clear()
            try:
                await test(temporal)
            finally:
                await temporal.clear()

        asyncio.run(running())

    return run


def test_sync_makes_what_is_declared_once(on: On) -> None:
    async def test(temporal: Temporal) -> None:
        assert await temporal.sync() == [f"{HOURLY} was made: it runs every 1 h."]
        assert await temporal.sync() == []
        standing = await temporal.standing()
        assert (standing.state, len(standing.next)) == ("active", 3)
        made = (await temporal.client.get_schedule_handle(HOURLY).describe()).raw_description.schedule
        start = made.action.start_workflow
        assert start.workflow_type.name == "BatchPaymentCheckWorkflow"
        assert start.input.payloads[0].data == b'{"gateways":[]}'
        assert start.workflow_execution_timeout.ToTimedelta() == timedelta(hours=1)
        assert made.policies.catchup_window.ToTimedelta() == timedelta(hours=6)

    on(test)


@pytest.mark.parametrize("cron", ["5 * * * *", "CRON_TZ=Europe/Berlin 0 6 * * 1-5", "@daily"])
def test_cron_is_kept_and_known_again(cron: str, on: On, declare: Declare) -> None:
    async def test(temporal: Temporal) -> None:
        declare(cron=cron)
        assert await temporal.sync() == [f"{HOURLY} was made: it runs by “{cron}”."]
        assert await temporal.sync() == []
        declare(cron="7 * * * *")
        assert await temporal.sync() == [f"{HOURLY} was changed: times."]
        declare()
        assert await temporal.sync() == [f"{HOURLY} was changed: times."]
        assert {moment.minute for moment in (await temporal.standing()).next} <= {
            0,
            1,
            2,
            3,
        }  # with its jitter

    on(test)


def test_pause_survives_sync_and_a_changed_interval_is_applied_all_the_same(on: On, declare: Declare) -> None:
    async def test(temporal: Temporal) -> None:
        await temporal.sync()
        await temporal.pause()
        assert await temporal.sync() == []
        declare(every=timedelta(hours=2))
        assert await temporal.sync() == [f"{HOURLY} was changed: limit, times."]
        standing = await temporal.standing()
        assert (standing.paused, standing.note) == (True, "ada: the bank is closed")
        described = await temporal.client.get_schedule_handle(HOURLY).describe()
        assert described.schedule.spec.intervals == [ScheduleIntervalSpec(timedelta(hours=2))]
        assert await verbs.resume(temporal.client, HOURLY, "ada", "k") == "It runs again."
        assert not (await temporal.standing()).paused

    on(test)


def test_pause_in_the_middle_of_a_sync_is_kept(
    on: On, declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(temporal: Temporal) -> None:
        await temporal.sync()
        declare(every=timedelta(hours=2))
        update = engine.update

        async def pause_first(*args: Any) -> None:
            monkeypatch.setattr(engine, "update", update)
            await temporal.pause()
            await update(*args)

        monkeypatch.setattr(engine, "update", pause_first)
        assert await temporal.sync() == [f"{HOURLY} was changed: limit, times."]
        standing = await temporal.standing()
        assert (standing.paused, standing.note) == (True, "ada: the bank is closed")
        described = await temporal.client.get_schedule_handle(HOURLY).describe()
        assert described.schedule.spec.intervals == [ScheduleIntervalSpec(timedelta(hours=2))]

    on(test)


def test_what_somebody_changed_in_temporal_is_put_right(on: On) -> None:
    async def test(temporal: Temporal) -> None:
        await temporal.sync()

        def slower(found: ScheduleUpdateInput) -> ScheduleUpdate:
            schedule = found.description.schedule
            schedule.spec.intervals = [ScheduleIntervalSpec(timedelta(days=30))]
            schedule.policy.catchup_window = timedelta(minutes=1)
            return ScheduleUpdate(schedule)

        await temporal.client.get_schedule_handle(HOURLY).update(slower)
        assert await temporal.sync() == [f"{HOURLY} was changed: policies, times."]
        assert await temporal.sync() == []

    on(test)


def test_many_syncs_at_once_make_and_change_one_schedule(on: On, declare: Declare) -> None:
    async def test(temporal: Temporal) -> None:
        for every in (1, 2, 3):
            declare(every=timedelta(hours=every))
            synced = await asyncio.gather(*(sync(temporal.client) for _ in range(8)))
            assert [one.problems for one in synced] == [[]] * 8
            assert await temporal.sync() == []
        assert await engine.list_ours(temporal.client) == {HOURLY}

    on(test)


def test_our_schedule_that_is_no_longer_declared_goes_and_foreign_ones_stay(on: On, declare: Declare) -> None:
    async def test(temporal: Temporal) -> None:
        foreign = await temporal.client.create_schedule(
            f"foreign-{uuid4().hex[:8]}",
            Schedule(
                action=ScheduleActionStartWorkflow("Theirs", id="theirs", task_queue="theirs"),
                spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(timedelta(days=1))]),
            ),
        )
        before = (await foreign.describe()).raw_description
        declare(id="renamed-since")
        await temporal.sync()
        declare()
        assert await temporal.sync() == [
            f"{HOURLY} was made: it runs every 1 h.",
            "renamed-since was removed: it is no longer declared.",
        ]
        for verb in (verbs.pause, verbs.resume, verbs.trigger, verbs.delete):
            with pytest.raises(ForeignSchedule, match="was not made by this shop"):
                await verb(temporal.client, foreign.id, "ada", "k")
        declare(id=foreign.id)
        synced = await sync(temporal.client)
        assert synced.problems == [str(ForeignSchedule(foreign.id))]
        after = (await foreign.describe()).raw_description
        assert (after.schedule, after.conflict_token) == (before.schedule, before.conflict_token)
        await foreign.delete()

    on(test)


def test_cron_that_temporal_refuses_is_said(on: On, declare: Declare) -> None:
    async def test(temporal: Temporal) -> None:
        declare(cron="61 * * * *")
        (problem,) = (await sync(temporal.client)).problems
        assert problem.startswith(f"{HOURLY}: Temporal refuses that: ")
        assert "Minute is not in range" in problem

    on(test)


def test_trigger_runs_once_for_each_key_also_while_paused(on: On) -> None:
    async def test(temporal: Temporal) -> None:
        await temporal.sync()
        await temporal.pause()
        async with temporal.worker():
            for key in ("one", "one", "two"):
                await verbs.trigger(temporal.client, HOURLY, "ada", f"{key}-{declared.ours()[0].queue}")
            standing = await temporal.until(lambda it: [r.state for r in it.runs] == ["completed"] * 2)
        assert standing.total == 2
        assert {run.result for run in standing.runs} == {"duration 0.5 s, paid 2, total checked 7"}
        assert all(
            run.workflow_id.startswith(f"{declared.ours()[0].workflow_id}-20") for run in standing.runs
        )
        assert standing.paused

    on(test)


def test_slow_run_is_followed_by_exactly_one(on: On, declare: Declare) -> None:
    async def test(temporal: Temporal) -> None:
        declare(every=timedelta(seconds=1), argument={"wait": True})
        await temporal.sync()
        async with temporal.worker():
            standing = await temporal.until(
                lambda it: it.running == 1 and it.waiting == 1 and it.skipped >= 2
            )
            assert len(standing.runs) == 1
            declare(argument={"wait": True})  # hourly: nothing new comes
            await temporal.sync()
            first = standing.runs[0].workflow_id
            await temporal.client.get_workflow_handle(first).signal(SomeBatch.release)
            standing = await temporal.until(lambda it: len(it.runs) == 2 and it.runs[1].state == "completed")
            await temporal.client.get_workflow_handle(standing.runs[0].workflow_id).signal(SomeBatch.release)
            standing = await temporal.until(lambda it: it.running == 0)
        assert (standing.total, standing.waiting) == (2, 0)

    on(test)


def test_run_that_no_worker_took_is_made_up_for(on: On, declare: Declare) -> None:
    async def test(temporal: Temporal) -> None:
        declare(every=timedelta(seconds=1))
        await temporal.sync()
        await temporal.until(lambda it: it.running == 1 and it.waiting == 1)
        declare()  # hourly: nothing new comes
        await temporal.sync()
        async with temporal.worker():
            standing = await temporal.until(lambda it: [run.state for run in it.runs] == ["completed"] * 2)
        assert (standing.running, standing.waiting) == (0, 0)

    on(test)


def test_deleted_schedule_is_made_again_by_the_next_sync(on: On) -> None:
    async def test(temporal: Temporal) -> None:
        await temporal.sync()
        assert "The next worker that starts makes it again" in await verbs.delete(
            temporal.client, HOURLY, "", "k"
        )
        assert (await temporal.standing()).state == "not made yet"
        assert await verbs.delete(temporal.client, HOURLY, "", "k") == "It was not there any more."
        with pytest.raises(ScheduleProblem, match="Temporal has no schedule"):
            await verbs.pause(temporal.client, HOURLY, "", "k")
        assert len(await temporal.sync()) == 1

    on(test)


def test_engine_that_is_away_is_a_sentence(settings: Settings, declare: Declare) -> None:
    async def ask() -> None:
        nobody = await Client.connect(settings.TEMPORAL_ADDRESS, lazy=True)
        with pytest.raises(TemporalAway, match=f"Temporal does not answer at {settings.TEMPORAL_ADDRESS}"):
            await standings(nobody, declared.ours())

    settings.TEMPORAL_ADDRESS = f"127.0.0.1:{ports.any_free()}"
    asyncio.run(ask())
