"""The worker: runs the workflows and activities of a task queue, and the outbox dispatcher beside them.

Life of the process: wait for the database and the engine, work, and on the first SIGTERM or SIGINT drain (take
nothing new, finish what is under way within the grace period). A second signal stops it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvicorn
from django.conf import settings
from django.db import OperationalError, connection
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError
from temporalio.worker import Worker, WorkerDeploymentConfig

from orders import activities
from orders.workflows.compensation_retry import CompensationRetryWorkflow
from orders.workflows.fulfillment import OrderFulfillmentWorkflow
from orders.workflows.hybrid import HybridPaymentCheckWorkflow
from orders.workflows.mail import MentionMailWorkflow, OrderMailWorkflow
from orders.workflows.ops_alert import OpsAlertWorkflow
from orders.workflows.reconcile import ReconcileWorkflow
from orders.workflows.saga import OrderSagaWorkflow
from payments import activities as payment_activities
from payments.statement_folder import StatementFolder
from payments.watching import Watcher
from payments.workflows.batch import BatchPaymentCheckWorkflow, PinnedBatchPaymentCheck
from payments.workflows.coordinator import PaymentCheckCoordinator
from payments.workflows.monitor import OrderPaymentMonitorWorkflow
from payments.workflows.refund import RefundWorkflow
from shop.kernel import temporal, tracing
from shop.kernel.dispatcher import Dispatcher
from shop.metrics import engine, exposition
from shop.schedules.syncing import sync_in_the_end

log = logging.getLogger("shop.worker")

WORKFLOWS: dict[str, list[type]] = {
    "orders": [
        OrderSagaWorkflow,
        OrderFulfillmentWorkflow,
        HybridPaymentCheckWorkflow,
        CompensationRetryWorkflow,
        OrderMailWorkflow,
        MentionMailWorkflow,
        OpsAlertWorkflow,
        ReconcileWorkflow,
    ],
    "payment-checks": [
        BatchPaymentCheckWorkflow,
        OrderPaymentMonitorWorkflow,
        PaymentCheckCoordinator,
        RefundWorkflow,
    ],
}
PINNED: dict[type, type] = {BatchPaymentCheckWorkflow: PinnedBatchPaymentCheck}
"""What takes the place of a workflow on workers that have versions."""
ACTIVITIES: dict[str, list[Callable[..., Any]]] = {
    "orders": activities.ALL,
    "payment-checks": [activities.check_payment_status, *payment_activities.ALL],
}
QUEUES = tuple(WORKFLOWS)
GRACE = timedelta(seconds=30)
# Each of the two that work beside the activities may finish what it has in hand.
LAST_BATCH = timedelta(seconds=10)
LONGEST_DRAIN = GRACE + 2 * LAST_BATCH
# A waiting saga that is not in the cache is replayed from its history when it wakes up.
CACHED_WORKFLOWS = 4000


def build(client: Client, queue: str, executor: ThreadPoolExecutor, concurrency: int) -> Worker:
    """The Temporal worker of one queue. Tests use it too."""
    return Worker(
        client,
        task_queue=queue,
        workflows=[PINNED.get(each, each) if settings.BUILD_ID else each for each in WORKFLOWS[queue]],
        activities=ACTIVITIES[queue],
        activity_executor=executor,
        max_concurrent_activities=concurrency,
        max_concurrent_local_activities=concurrency,
        max_cached_workflows=CACHED_WORKFLOWS,
        graceful_shutdown_timeout=GRACE,
        deployment_config=deployment(),
    )


def deployment() -> WorkerDeploymentConfig | None:
    """This build as a version of the worker deployment; None without BUILD_ID: then any worker takes any task.

    A saga waits for weeks and goes on with the current version, whose code has to replay it (patches, and the
    gate `make replay`). `PINNED` workflows, of minutes, end with the version they began with.
    """
    if not settings.BUILD_ID:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(settings.WORKER_DEPLOYMENT, settings.BUILD_ID),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )


class WorkerProcess:
    """`manage.py runworker`."""

    def __init__(
        self, queues: list[str], concurrency: int, health_port: int | None, health_address: str = "127.0.0.1"
    ) -> None:
        self._queues = queues
        self._concurrency = concurrency
        self._health_port = health_port
        self._health_address = health_address
        self._state = "starting"
        self._dispatcher: Dispatcher | None = None

    def run(self) -> int:
        """Work until told to stop; the exit code."""
        tracing.start("worker")
        return asyncio.run(self._run())

    async def _run(self) -> int:
        stop = asyncio.Event()
        signals = 0

        def on_signal() -> None:
            nonlocal signals
            signals += 1
            if signals > 1:
                log.warning("Stopped at once; the engine gives what was under way to another worker.")
                os._exit(1)
            log.info("Draining: finishing what is under way (at most %d s).", GRACE.total_seconds())
            stop.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        async with self._health_server():
            if not await asyncio.to_thread(_database_answers):
                return 1
            client = await self._connect(stop)
            if client is not None:
                await self._work(client, stop)
        return 0

    async def _connect(self, stop: asyncio.Event) -> Client | None:
        """Wait until Temporal answers; None if told to stop meanwhile."""
        said = float("-inf")
        while not stop.is_set():
            try:
                client = await temporal.connect()
                await temporal.register_search_attributes(client)
                return client
            except (RPCError, RuntimeError, OSError) as error:
                self._state = "waiting for Temporal"
                if time.monotonic() - said > 30:
                    said = time.monotonic()
                    log.warning("Waiting for Temporal at %s: %s", settings.TEMPORAL_ADDRESS, str(error)[:200])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1)
        return None

    async def _work(self, client: Client, stop: asyncio.Event) -> None:
        executor = ThreadPoolExecutor(self._concurrency, thread_name_prefix="activity")
        workers = [build(client, queue, executor, self._concurrency) for queue in self._queues]
        self._dispatcher = Dispatcher(client)
        self._dispatcher.start()
        folder = StatementFolder(Path(settings.STATEMENT_FOLDER)) if settings.STATEMENT_FOLDER else None
        watcher = Watcher(folder)
        watcher.start()
        syncing = asyncio.create_task(sync_in_the_end(client))
        running = [asyncio.create_task(worker.run()) for worker in workers]
        self._state = "working"
        log.info("Working on %s, %d at a time.", ", ".join(self._queues), self._concurrency)
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([*running, stopped], return_when=asyncio.FIRST_COMPLETED)
        self._state = "draining"
        syncing.cancel()
        self._dispatcher.stop()
        watcher.stop()
        await asyncio.gather(*(worker.shutdown() for worker in workers))
        await asyncio.gather(*running)
        await asyncio.to_thread(self._dispatcher.join, LAST_BATCH.total_seconds())
        await asyncio.to_thread(watcher.join, LAST_BATCH.total_seconds())
        executor.shutdown(wait=False)

    # --- health and metrics ------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _health_server(self) -> Any:
        if self._health_port is None:
            yield
            return
        engine.keep_sdk_metrics()
        config = uvicorn.Config(
            self._answer,
            host=self._health_address,
            port=self._health_port,
            log_level="warning",
            lifespan="off",
            interface="asgi3",
        )
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        with _no_signal_capture(server):
            task = asyncio.create_task(server.serve())
            try:
                yield
            finally:
                server.should_exit = True
                await task

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        """`GET /health`: 200 while working, 503 otherwise, with the state in a word. `GET /metrics`.

        `GET /health/live`: 503 only where starting the process again would help; it does not bring Temporal back.
        """
        status, kind, body = 404, "text/plain", b"Not found. There are /health, /health/live and /metrics.\n"
        if scope["path"] in ("/health", "/health/live"):
            dispatcher = self._dispatcher
            stuck = dispatcher is not None and time.monotonic() - dispatcher.last_seen > 60
            state = "the outbox dispatcher is stuck" if stuck else self._state
            well = not stuck if scope["path"] == "/health/live" else state == "working"
            status, body = (200 if well else 503), f"{state}\n".encode()
        elif scope["path"] == "/metrics":
            await exposition.answer(send)
            return
        headers = [(b"content-type", kind.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def _no_signal_capture(server: uvicorn.Server) -> Any:
    """Signals are the worker's, not the health server's."""
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    yield


def _database_answers() -> bool:
    try:
        temporary = connection.copy()  # outside the pool, which would go on trying
        temporary.settings_dict["OPTIONS"] = temporary.settings_dict["OPTIONS"] | {
            "pool": False,
            "connect_timeout": 5,
        }
        temporary.ensure_connection()
        temporary.close()
    except OperationalError as error:
        print(f"The database does not answer: {str(error).strip()}", file=sys.stderr)
        print("Set DATABASE_URL to a PostgreSQL that runs, and start the worker again.", file=sys.stderr)
        return False
    return True


def exit_now(code: int) -> None:
    """Leave without the interpreter's teardown, which crashes now and then after a worker has run."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and isinstance(thread, Dispatcher):
            thread.join(5)
    tracing.stop()
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(code)
