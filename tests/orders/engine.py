"""A saga in a test: the real workflow and activities on the time-skipping server, the real database, the real
practice provider over HTTP, and mail over SMTP."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.db import connections
from temporalio.client import WorkflowHandle, WorkflowHistory
from temporalio.testing import WorkflowEnvironment

from orders.models import Order
from orders.workflows.types import Progress
from shop import worker
from shop.kernel import outbox
from tests.servers import time_skipping

T = TypeVar("T")
PATIENCE_S = 20


class Engine:
    """The engine of one test, driven from the test's own thread.

    Engine time stands still, unless `result` or `sleep` is waited for: then it jumps from timer to timer.
    """

    def __init__(self, env: WorkflowEnvironment, loop: asyncio.AbstractEventLoop) -> None:
        self.env = env
        self.client = env.client
        self._loop = loop

    def wait(self, work: Coroutine[Any, Any, T], seconds: float = 60) -> T:
        """The result of a coroutine, run on the engine's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def deliver(self) -> None:
        """Empty the outbox, as the dispatcher does."""
        with asyncio.Runner() as runner:
            while outbox.deliver_batch(self.client, runner):
                pass

    def until(self, condition: Callable[[], object], *, seconds: float = PATIENCE_S) -> None:
        """Wait, in real time, until a condition on the world holds."""
        give_up_at = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < give_up_at, f"{condition} did not become true in {seconds} s"
            time.sleep(0.02)

    def handle(self, workflow_id: str) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(workflow_id)

    def result(self, workflow_id: str, *, skip: bool = True) -> Any:
        """What the workflow comes to.

        With `skip` the time until then is skipped, and some more, to the next timer of anything on the engine.
        The provider's clock does not go along: an order that is started again needs `skip=False`.
        """

        async def wait() -> Any:
            async with self.env.time_skipping_unlocked() if skip else contextlib.nullcontext():  # type: ignore[attr-defined]
                return await self.handle(workflow_id).result()

        return self.wait(wait())

    def now(self) -> datetime:
        return self.wait(self.env.get_current_time())

    def sleep_until(self, moment: datetime) -> None:
        self.wait(self.env.sleep(moment - self.now()))

    def history(self, workflow_id: str) -> WorkflowHistory:
        """What the engine has recorded of the workflow's latest run."""
        return self.wait(self.handle(workflow_id).fetch_history())

    def took(self, order: Order) -> timedelta:
        """How long the workflow's latest run took, in the engine's time."""
        events = self.history(order.workflow_id).events
        return events[-1].event_time.ToDatetime() - events[0].event_time.ToDatetime()

    def failures(self, order: Order, activity: str) -> int:
        """How many tries at an activity have failed that is being tried again now."""
        found = self.wait(self.handle(order.workflow_id).describe()).raw_description.pending_activities
        return sum(max(a.attempt - 1, 0) for a in found if a.activity_type.name == activity)

    def progress(self, order: Order) -> Progress:
        progress: Progress = self.wait(self.handle(order.workflow_id).query("progress", result_type=Progress))
        return progress


@contextlib.contextmanager
def engine(concurrency: int = 8) -> Iterator[Engine]:
    """A time-skipping server with our worker on it, for as long as the block runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="engine")
    thread.start()
    made = _Running(concurrency)
    try:
        yield Engine(asyncio.run_coroutine_threadsafe(made.start(), loop).result(60), loop)
    finally:
        asyncio.run_coroutine_threadsafe(made.stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _Running:
    """Started and stopped on the same loop, by two calls."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._stack = contextlib.AsyncExitStack()

    async def start(self) -> WorkflowEnvironment:
        pool = self._stack.enter_context(ThreadPoolExecutor(self._concurrency, "activity"))
        env = await self._stack.enter_async_context(time_skipping())
        for queue in worker.QUEUES:
            await self._stack.enter_async_context(worker.build(env.client, queue, pool, self._concurrency))
        return env

    async def stop(self) -> None:
        await self._stack.aclose()
        connections.close_all()
