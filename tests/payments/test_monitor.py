"""The watching of single payments on the time-skipping engine; what the provider says is written in each test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from payments.workflows.monitor import (
    MonitorInput,
    MonitorResult,
    MonitorStatus,
    OrderPaymentMonitorWorkflow,
    StopMonitor,
    monitor_id,
)
from payments.workflows.types import TASK_QUEUE, PaymentsToCheck
from tests.servers import time_skipping

QUEUE = "payment-checks"
NUMBER = "ORD-1"


class Provider:
    """Answers the n-th check of an order as the test says; counts the checks."""

    def __init__(self, answer: Callable[[int], str]) -> None:
        self.answer = answer
        self.checks = 0

    @activity.defn(name="check_payments_batch")
    async def check(self, asked: PaymentsToCheck) -> dict[str, str]:
        self.checks += 1
        return {number: self.answer(self.checks) for number in asked.order_numbers}


@asynccontextmanager
async def watching(provider: Provider) -> AsyncIterator[WorkflowEnvironment]:
    async with (
        time_skipping() as env,
        Worker(
            env.client,
            task_queue=TASK_QUEUE,
            workflows=[OrderPaymentMonitorWorkflow],
            activities=[provider.check],
        ),
    ):
        yield env


async def start(client: Client, **options: Any) -> WorkflowHandle[Any, MonitorResult]:
    return await client.start_workflow(
        OrderPaymentMonitorWorkflow.run,
        MonitorInput(NUMBER, **options),
        id=monitor_id(NUMBER),
        task_queue=TASK_QUEUE,
    )


def watched(provider: Provider, **options: Any) -> MonitorResult:
    async def run() -> MonitorResult:
        async with watching(provider) as env:
            return await (await start(env.client, **options)).result()

    return asyncio.run(run())


def test_money_that_comes_is_noticed_with_the_next_hour() -> None:
    provider = Provider(lambda n: "paid" if n == 31 else "pending")
    assert watched(provider) == MonitorResult(MonitorStatus.CONFIRMED, hours_waited=30, checks=31)


def test_a_failed_payment_ends_the_watching() -> None:
    provider = Provider(lambda n: "failed" if n == 2 else "pending")
    assert watched(provider) == MonitorResult(MonitorStatus.FAILED, hours_waited=1, checks=2)


def test_336_checks_and_then_it_is_over_with_short_histories() -> None:
    provider = Provider(lambda n: "pending")

    async def run() -> tuple[MonitorResult, list[int]]:
        async with watching(provider) as env:
            handle = await start(env.client, max_days=14)
            result = await handle.result()
            lengths = []
            run_id = handle.first_execution_run_id
            while run_id:
                history = await env.client.get_workflow_handle(handle.id, run_id=run_id).fetch_history()
                lengths.append(len(history.events))
                last = history.events[-1]
                run_id = last.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
            return result, lengths

    result, lengths = asyncio.run(run())
    assert result == MonitorResult(MonitorStatus.TIMEOUT, hours_waited=336, checks=336)
    assert provider.checks == 336
    assert len(lengths) == 4
    assert max(lengths) < 2000


def test_a_check_that_fails_for_good_is_no_answer_and_the_next_hour_asks_again() -> None:
    def answer(n: int) -> str:
        if n == 1:
            raise ApplicationError("The provider is misconfigured", non_retryable=True)
        return "paid"

    result = watched(Provider(answer))
    assert (result.status, result.hours_waited) == (MonitorStatus.CONFIRMED, 1)


def test_a_gateway_that_is_misconfigured_to_the_end_is_named_in_the_result() -> None:
    def answer(n: int) -> str:
        raise ApplicationError("The provider refuses our key.", non_retryable=True)

    result = watched(Provider(answer), max_days=1)
    assert (result.status, result.checks) == (MonitorStatus.TIMEOUT, 24)
    assert result.reason == "The provider refuses our key."


@pytest.mark.parametrize("checks_before", [1, 120])
def test_staff_stop_it_in_the_middle(checks_before: int) -> None:
    provider = Provider(lambda n: "pending")

    async def run() -> MonitorResult:
        async with watching(provider) as env:
            handle = await start(env.client)
            await env.sleep(timedelta(hours=checks_before - 1, minutes=30))
            latest = env.client.get_workflow_handle(handle.id)
            await latest.signal(OrderPaymentMonitorWorkflow.stop_monitoring, StopMonitor("paid in cash"))
            return await handle.result()

    result = asyncio.run(run())
    assert result.status == MonitorStatus.STOPPED
    assert result.reason == "paid in cash"
    assert result.checks == provider.checks == checks_before
    assert result.hours_waited == checks_before - 1


def test_a_cancel_in_temporal_ends_it_as_cancelled() -> None:
    from temporalio.client import WorkflowFailureError
    from temporalio.exceptions import CancelledError

    async def run() -> None:
        async with watching(Provider(lambda n: "pending")) as env:
            handle = await start(env.client)
            await env.sleep(timedelta(minutes=30))
            await handle.cancel()
            with pytest.raises(WorkflowFailureError) as caught:
                await handle.result()
            assert isinstance(caught.value.cause, CancelledError)

    asyncio.run(run())
