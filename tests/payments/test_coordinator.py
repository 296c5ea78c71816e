"""Many monitors at once. Each order's payment ends as its number says.

What takes days is on the time-skipping engine. It tells no parent that its child was terminated, so what is about
lives that are cut short is on the real one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import CancelledError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from payments import activities
from payments.workflows.coordinator import CoordinatorCounts, CoordinatorInput, PaymentCheckCoordinator
from payments.workflows.monitor import (
    MonitorInput,
    MonitorResult,
    OrderPaymentMonitorWorkflow,
    monitor_id,
)
from payments.workflows.types import TASK_QUEUE, PaymentsToCheck
from tests.servers import time_skipping
from tests.waiting import wait_until


class Provider:
    """`ORD-paid-7-…` is paid with its seventh check, `failed` likewise, `never` stays pending."""

    def __init__(self) -> None:
        self.checks: Counter[str] = Counter()
        self.undecided: set[str] = set()
        self.most_at_once = 0

    @activity.defn(name="check_payments_batch")
    async def check(self, asked: PaymentsToCheck) -> dict[str, str]:
        (number,) = asked.order_numbers
        _, how, when, *_ = number.split("-")
        self.checks[number] += 1
        decided = self.checks[number] >= int(when)
        self.undecided.add(number)
        self.most_at_once = max(self.most_at_once, len(self.undecided))
        if decided:
            self.undecided.discard(number)
        return {number: how if decided and how != "never" else "pending"}


def working(client: Client, provider: Provider) -> Worker:
    return Worker(
        client,
        task_queue=TASK_QUEUE,
        workflows=[OrderPaymentMonitorWorkflow, PaymentCheckCoordinator],
        activities=[provider.check, activities.ended_monitors],
    )


async def start(client: Client, numbers: list[str], **options: Any) -> WorkflowHandle[Any, CoordinatorCounts]:
    return await client.start_workflow(
        PaymentCheckCoordinator.run,
        CoordinatorInput(numbers, **options),
        id=f"payment-coordinator-{uuid4()}",
        task_queue=TASK_QUEUE,
    )


async def watch(client: Client, number: str, **options: Any) -> WorkflowHandle[Any, MonitorResult]:
    return await client.start_workflow(
        OrderPaymentMonitorWorkflow.run,
        MonitorInput(number, **options),
        id=monitor_id(number),
        task_queue=TASK_QUEUE,
    )


def skipping_time(test: Callable[[WorkflowEnvironment], Awaitable[None]], provider: Provider) -> None:
    async def body() -> None:
        async with time_skipping() as env, working(env.client, provider):
            await test(env)

    asyncio.run(body())


@pytest.fixture
def in_real_time(temporal_server: str) -> Callable[..., None]:
    """Runs a test against the development server; checks are half a second apart there."""

    def run(test: Callable[[Client], Awaitable[None]], provider: Provider) -> None:
        async def body() -> None:
            client = await Client.connect(temporal_server)
            async with working(client, provider):
                await test(client)

        asyncio.run(body())

    return run


async def until(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_until, condition)


def numbered(*parts: str) -> list[str]:
    """Order numbers that no other test has used on the shared server."""
    mark = uuid4().hex[:8]
    return [f"ORD-{part}-{mark}-{n}" for n, part in enumerate(parts)]


def test_each_end_is_counted_and_no_more_than_so_many_run_at_once() -> None:
    provider = Provider()
    paid, failed = [f"paid-{n % 4 + 1}" for n in range(12)], [f"failed-{n % 3 + 1}" for n in range(5)]
    numbers = numbered(*paid, *failed, "never-1", "never-1")

    async def test(env: WorkflowEnvironment) -> None:
        handle = await start(env.client, [*numbers, numbers[0]], at_most=4, max_days=1)
        assert await handle.result() == CoordinatorCounts(confirmed=12, failed=5, timeout=2)

    skipping_time(test, provider)
    assert provider.most_at_once <= 4
    assert set(provider.checks) == set(numbers)


def test_one_slow_payment_does_not_hold_up_the_others() -> None:
    provider = Provider()
    slow, *others = numbered("never-1", *["paid-1"] * 6)

    async def test(env: WorkflowEnvironment) -> None:
        handle = await start(env.client, [slow, *others], at_most=2)
        await env.sleep(timedelta(hours=2))
        progress = await handle.query(PaymentCheckCoordinator.progress)
        assert progress.counts.confirmed == 6
        assert progress.running == [slow]

    skipping_time(test, provider)


def test_too_many_orders_are_refused_with_a_sentence() -> None:
    async def test(env: WorkflowEnvironment) -> None:
        handle = await start(env.client, numbered(*["paid-1"] * 10_001))
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
        assert "at most 10000" in str(caught.value.cause)

    skipping_time(test, Provider())


def test_a_monitor_that_is_terminated_is_an_error_and_the_others_go_on(
    in_real_time: Callable[..., None],
) -> None:
    provider = Provider()
    terminated, other = numbered("never-1", "paid-3")

    async def test(client: Client) -> None:
        handle = await start(client, [terminated, other], interval_s=1)
        await until(lambda: provider.checks[terminated])
        await client.get_workflow_handle(monitor_id(terminated)).terminate()
        assert await handle.result() == CoordinatorCounts(confirmed=1, error=1)

    in_real_time(test, provider)


def test_an_order_that_is_watched_already_is_not_watched_twice_and_is_counted(
    in_real_time: Callable[..., None],
) -> None:
    provider = Provider()
    watched, other = numbered("paid-4", "paid-2")

    async def test(client: Client) -> None:
        earlier = await watch(client, watched, interval_s=1)
        handle = await start(client, [watched, other], interval_s=1)
        assert await handle.result() == CoordinatorCounts(confirmed=2)
        assert (await earlier.result()).checks == 4

    in_real_time(test, provider)
    assert provider.checks[watched] == 4


def test_it_continues_as_new_while_monitors_run_and_counts_those_all_the_same(
    in_real_time: Callable[..., None],
) -> None:
    provider = Provider()
    # Two runs, and two monitors of the first that outlive it.
    numbers = numbered("paid-12", "failed-15", *["paid-1"] * 180)

    async def test(client: Client) -> None:
        handle = await start(client, numbers, at_most=40, interval_s=1)
        assert await handle.result() == CoordinatorCounts(confirmed=181, failed=1)
        first = client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id)
        history = await first.fetch_history()
        assert history.events[-1].HasField("workflow_execution_continued_as_new_event_attributes")
        assert len(history.events) < 2000

    in_real_time(test, provider)
    assert provider.checks[numbers[1]] == 15
    assert provider.most_at_once <= 40


@pytest.mark.parametrize("cancel_children", [False, True])
def test_a_cancel_is_passed_on_to_the_monitors_only_if_asked(
    cancel_children: bool, in_real_time: Callable[..., None]
) -> None:
    provider = Provider()
    theirs, ours = numbered("never-1", "never-1")

    async def test(client: Client) -> None:
        await watch(client, theirs)
        handle = await start(client, [theirs, ours], cancel_children=cancel_children)
        await until(lambda: provider.checks[ours])
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        for number in (theirs, ours):
            monitor = client.get_workflow_handle(monitor_id(number))
            if cancel_children:
                with pytest.raises(WorkflowFailureError) as caught:
                    await monitor.result()
                assert isinstance(caught.value.cause, CancelledError)
            else:
                assert (await monitor.describe()).status == WorkflowExecutionStatus.RUNNING
                await monitor.terminate()

    in_real_time(test, provider)
