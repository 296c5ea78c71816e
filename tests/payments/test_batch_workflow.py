"""`BatchPaymentCheckWorkflow` on a real Temporal server: its result, its row, its histories, and its bad days."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from django.db import connections
from pytest_django.fixtures import Settings
from temporalio.client import Client, WorkflowHandle, WorkflowHistory

from payments.gateways import gateway
from payments.models import BatchRun, ChangeCursor, Payment, PaymentEvent
from payments.workflows.types import BatchCheckInput, BatchCheckResult
from shop import worker
from shop.kernel.models import OutboxMessage
from tests.payments.odd_feed import OddFeed, happened
from tests.payments.sandbox_process import SandboxProcess, sandbox
from tests.payments.test_checking import connect, opened, pay, waiting
from tests.servers import time_skipping

pytestmark = pytest.mark.django_db(transaction=True)
T = TypeVar("T")
EVENT_LIMIT, BYTE_LIMIT = 2_000, 2_000_000


@dataclass
class Runs:
    """Batch runs on one engine, with our worker."""

    client: Client
    count: int = 0

    async def start(self, *gateways: str) -> WorkflowHandle[Any, BatchCheckResult]:
        self.count += 1
        return await self.client.start_workflow(
            "BatchPaymentCheckWorkflow",
            BatchCheckInput(list(gateways)),
            id=f"payment-batch-{id(self)}-{self.count}",
            task_queue="payment-checks",
            result_type=BatchCheckResult,
        )

    async def result(self, *gateways: str) -> BatchCheckResult:
        return await (await self.start(*gateways)).result()

    async def histories(self) -> list[WorkflowHistory]:
        """Of the latest workflow, all its runs, the first one first."""
        found: list[WorkflowHistory] = []
        handle = self.client.get_workflow_handle(f"payment-batch-{id(self)}-{self.count}")
        run_id = (await handle.describe()).run_id
        while run_id:
            history = await self.client.get_workflow_handle(handle.id, run_id=run_id).fetch_history()
            found.insert(0, history)
            first = history.events[0].workflow_execution_started_event_attributes
            run_id = first.continued_execution_run_id
        return found


def size(history: WorkflowHistory) -> int:
    return sum(event.ByteSize() for event in history.events)


Engine = Callable[[Callable[[Runs], Coroutine[Any, Any, Any]]], Any]


@pytest.fixture
def on_the_engine(temporal_server: str) -> Engine:
    """Runs a test's coroutine on the dev server, with a worker beside it."""

    async def run(story: Callable[[Runs], Coroutine[Any, Any, T]]) -> T:
        client = await Client.connect(temporal_server)
        return await _with_worker(client, story)

    return lambda story: asyncio.run(run(story))


async def _with_worker(client: Client, story: Callable[[Runs], Coroutine[Any, Any, T]]) -> T:
    with ThreadPoolExecutor(8, "activity") as pool:
        async with worker.build(client, "payment-checks", pool, 8):
            try:
                return await story(Runs(client))
            finally:
                await asyncio.gather(
                    *(
                        asyncio.get_running_loop().run_in_executor(pool, connections.close_all)
                        for _ in range(8)
                    )
                )


def told() -> set[str]:
    return set(OutboxMessage.objects.filter(name="confirm_payment").values_list("workflow_id", flat=True))


def test_a_run_of_many_pages_carries_its_counts_and_keeps_its_histories_small(
    feed: OddFeed, on_the_engine: Engine
) -> None:
    payments = waiting(75)
    feed.events, feed.size = [happened(payment) for payment in payments], 3

    async def story(runs: Runs) -> tuple[BatchCheckResult, list[WorkflowHistory]]:
        return await runs.result(), await runs.histories()

    result, histories = on_the_engine(story)
    assert (result.total_checked, result.paid, result.provider_calls) == (75, 75, 25)
    assert len(histories) == 3, "ten pages each"
    assert (len(told()), ChangeCursor.objects.get().cursor) == (75, "75")
    run = BatchRun.objects.get()
    assert (run.state, run.paid, run.provider_calls, run.gateways) == ("finished", 75, 25, ["sandbox"])
    assert run.duration is not None
    assert abs(run.duration.total_seconds() - result.duration) < 0.001
    for history in histories:
        assert len(history.events) < EVENT_LIMIT
        assert size(history) < BYTE_LIMIT
        text = history.to_json()
        assert not any(p.merchant_reference in text or p.reference in text for p in payments)


def test_a_gateway_that_is_not_usable_stops_no_other(
    feed: OddFeed, settings: Settings, on_the_engine: Engine, tmp_path: Path
) -> None:
    feed.events = [happened(payment) for payment in waiting(3)]
    settings.PAYMENT_GATEWAYS |= {"stripe": "payments.gateways.stripe.StripeGateway"}
    settings.STRIPE_API_KEY = ""
    gateway.cache_clear()
    result = on_the_engine(lambda runs: runs.result())
    assert (result.paid, result.unavailable) == (3, ["stripe"])
    run = BatchRun.objects.get()
    assert (run.state, run.unavailable) == ("incomplete", {"stripe": "Set STRIPE_API_KEY to use Stripe."})


def test_an_unknown_gateway_is_named_and_leaves_no_row(feed: OddFeed, on_the_engine: Engine) -> None:
    async def story(runs: Runs) -> str:
        with pytest.raises(Exception, match="failed") as failed:
            await runs.result("nowhere")
        return str(failed.value.__cause__.__cause__)  # type: ignore[union-attr]

    assert "“nowhere” is not set up" in on_the_engine(story)
    assert not BatchRun.objects.exists()


def test_two_runs_at_once_tell_each_saga_once(feed: OddFeed, on_the_engine: Engine) -> None:
    feed.events, feed.size = [happened(payment) for payment in waiting(200)], 5

    async def story(runs: Runs) -> list[BatchCheckResult]:
        started = [await runs.start() for _ in range(2)]
        return list(await asyncio.gather(*(handle.result() for handle in started)))

    results = on_the_engine(story)
    assert sum(result.paid for result in results) == 200
    assert len(told()) == PaymentEvent.objects.filter(type="receipt").count() == 200
    assert [run.state for run in BatchRun.objects.all()] == ["finished", "finished"]


def test_a_provider_without_an_end_does_not_keep_the_run_for_ever(
    feed: OddFeed, on_the_engine: Engine
) -> None:
    (payment,) = waiting(1)
    feed.answer = lambda cursor: {"events": [happened(payment)], "cursor": "7", "more": True}
    result = on_the_engine(lambda runs: runs.result())
    assert (result.paid, result.unavailable) == (1, ["sandbox"])
    assert len(feed.asked) == 2
    assert "again and again" in BatchRun.objects.get().unavailable["sandbox"]


# --- with the practice provider --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with sandbox(tmp_path_factory.mktemp("provider") / "provider.sqlite3") as process:
        yield process


@pytest.fixture
def provider(shared_provider: SandboxProcess, settings: Settings) -> Iterator[SandboxProcess]:
    connect(settings, shared_provider)
    yield shared_provider
    shared_provider.faults()
    gateway.cache_clear()


def test_a_provider_that_wants_us_to_wait_is_waited_for(
    provider: SandboxProcess, on_the_engine: Engine
) -> None:
    pay(provider, opened())
    provider.faults(changes={"rate_limit_per_s": 1})
    with provider.client() as client:
        client.get("/changes").raise_for_status()  # that was this second's

    async def story(runs: Runs) -> tuple[BatchCheckResult, WorkflowHistory]:
        return await runs.result(), (await runs.histories())[-1]

    result, history = on_the_engine(story)
    assert (result.paid, result.unavailable) == (1, [])
    attempts = [
        event.activity_task_started_event_attributes.attempt
        for event in history.events
        if event.HasField("activity_task_started_event_attributes")
    ]
    assert sorted(attempts) == [1, 1, 2]
    assert result.duration >= 1


@pytest.mark.parametrize("kind", ["Feedless", "OneAtATime"])
def test_a_gateway_without_a_change_feed_is_asked_for_all_that_wait(
    provider: SandboxProcess, settings: Settings, on_the_engine: Engine, kind: str
) -> None:
    paid = opened("ORD-1")
    pay(provider, paid)
    Payment.objects.bulk_create(
        Payment(
            gateway="sandbox",
            merchant_reference=f"ORD-{n}",
            idempotency_key=f"k{n}",
            reference=f"pay_of_others_{n}",
            amount=100,
            currency="EUR",
        )
        for n in range(2, 252)
    )
    pay(provider, opened("ORD-999"))
    connect(settings, provider, f"tests.payments.feedless.{kind}")
    result = on_the_engine(lambda runs: runs.result())
    assert (result.total_checked, result.paid, result.pending) == (252, 2, 250)
    assert result.provider_calls == (3 if kind == "Feedless" else 252)
    assert set(
        Payment.objects.filter(events__type="receipt").values_list("merchant_reference", flat=True)
    ) == {
        "ORD-1",
        "ORD-999",
    }


def test_an_outage_is_waited_for_a_while_and_then_left_to_the_next_run(
    provider: SandboxProcess, settings: Settings
) -> None:
    # The engine skips the time that it is told to wait; the clock by which a provider counts as down does not.
    settings.GATEWAY_DOWN_AFTER = 1_000_000
    pay(provider, opened())
    provider.faults(changes={"down": True})

    async def an_hour(runs: Runs) -> BatchCheckResult:
        return await runs.result()

    async def on_an_engine_that_skips_time() -> BatchCheckResult:
        async with time_skipping() as env:
            return await _with_worker(env.client, an_hour)

    result = asyncio.run(on_an_engine_that_skips_time())
    assert (result.paid, result.unavailable) == (0, ["sandbox"])
    assert 60 < result.duration < 600
    run = BatchRun.objects.get()
    assert run.state == "incomplete"
    assert "connection" in run.unavailable["sandbox"].lower()
    provider.faults()
    assert asyncio.run(on_an_engine_that_skips_time()).paid == 1
