"""A saga in a test: the real workflow and activities on the time-skipping server, the real database, the real
practice provider over HTTP, and mail over SMTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections
from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from orders.models import Order
from shop import worker
from shop.kernel import outbox
from tests.servers import time_skipping

T = TypeVar("T")


class Engine:
    """The engine of one test. `orm` runs sync code; `deliver` empties the outbox, as the dispatcher does."""

    def __init__(self, env: WorkflowEnvironment, pool: ThreadPoolExecutor) -> None:
        self.env = env
        self.client = env.client
        self._pool = pool

    async def orm(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await sync_to_async(function, thread_sensitive=False, executor=self._pool)(*args, **kwargs)

    async def deliver(self) -> None:
        def all_of_it() -> None:
            with asyncio.Runner() as runner:
                while outbox.deliver_batch(self.client, runner):
                    pass
            connections.close_all()

        await asyncio.to_thread(all_of_it)

    def handle(self, order: Order) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(order.workflow_id)

    async def until(self, condition: Callable[[], bool], *, seconds: float = 15) -> None:
        """Wait, in real time, until a condition on the database holds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not await self.orm(condition):
            assert loop.time() < end, f"{condition} did not become true in {seconds} s"
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def engine(concurrency: int = 8) -> AsyncIterator[Engine]:
    """A time-skipping server with our worker on it."""
    with ThreadPoolExecutor(concurrency) as activities, ThreadPoolExecutor(2) as own:
        async with time_skipping() as env:
            async with worker.build(env.client, "orders", activities, concurrency):
                yield Engine(env, own)
        for pool in (activities, own):
            list(pool.map(lambda _: connections.close_all(), range(concurrency)))


def run(scenario: Callable[[Engine], Awaitable[None]]) -> None:
    """Run a test's story on an engine of its own."""

    async def story() -> None:
        async with engine() as made:
            await scenario(made)

    asyncio.run(story())
