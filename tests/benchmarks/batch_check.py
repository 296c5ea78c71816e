"""The hourly check of orders that wait for their money, against a workflow that asks for each of them.

The worker, the practice provider, Temporal and PostgreSQL are processes of their own. Sagas are workflows that
nobody works on, so what is measured is the check and the delivery to the engine, not what the sagas do then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
from django.conf import settings
from django.db import connection
from django.utils import timezone
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

from payments.gateways import gateway
from payments.gateways.base import RemoteStatus
from payments.models import ChangeCursor, Payment
from payments.sandbox.books import Books
from payments.sandbox.books import Payment as Held
from payments.sandbox.store import Store
from payments.services.recording import absorb
from payments.workflows.types import BatchCheckInput, BatchCheckResult
from shop.kernel.activities import orm_activity
from shop.kernel.models import OutboxMessage
from shop.kernel.money import Money
from shop.up import ports, temporal
from shop.up.processes import spawn
from tests.payments.sandbox_process import SandboxProcess, sandbox
from tests.payments.waiting_orders import PRICE, waiting_orders
from tests.servers import NEVER, temporary_folder
from tests.waiting import wait_until

UNIT = "orders/s"
BASELINE_IS = "one activity and one provider call per waiting order"
ROOT = Path(__file__).parents[2]
AT_ONCE = 16  # activities, in both
NOBODY = "nobody-works-here"


def round(number: int, size: float) -> tuple[float, float, dict[str, Any]]:
    waiting, many, paid = (max(20, int(n * size)) for n in (10_000, 100_000, 20_000))
    naive_orders = max(20, int(1_000 * size))
    with _world() as world:
        world.check()  # so that nothing is measured cold
        world.have_waiting(waiting)
        idle_few = world.check_idle()
        world.pay(naive_orders // 100 or 1, start=0)
        naive = world.check_naively(naive_orders)
        world.pay(waiting // 100, start=naive_orders)
        world.forget_nothing()
        ours = world.check()
        assert ours.result.paid == waiting // 100, ours.result
        world.have_waiting(many)
        world.forget_nothing()
        idle_many = world.check_idle()
        assert idle_many.result.paid == idle_few.result.paid == 0, (idle_many, idle_few)
        world.pay(min(paid, many - waiting), start=waiting)
        rush = world.check()
        told = rush.result.paid
        delivered = world.delivered_after(rush.started)
    mine, theirs = waiting / ours.wall, naive_orders / naive.wall
    figures = {
        "waiting": waiting,
        "paid_since": ours.result.paid,
        "calls": ours.result.provider_calls,
        "wall_s": _short(ours.wall),
        "history_events": ours.events,
        "history_bytes": ours.bytes,
        "naive_orders": naive_orders,
        "naive_wall_s": _short(naive.wall),
        "naive_calls_for_all": waiting,
        "naive_wall_for_all_s": _short(waiting / theirs),
        "naive_history_events_per_order": _short(naive.events / naive_orders),
        "naive_history_bytes_per_order": _short(naive.bytes / naive_orders),
        "fewer_calls": _short(waiting / ours.result.provider_calls),
        "less_wall_time": _short(mine / theirs),
        "idle_calls": idle_many.result.provider_calls,
        f"idle_wall_s_with_{waiting}": _short(idle_few.wall),
        f"idle_wall_s_with_{many}": _short(idle_many.wall),
        "rush_paid": told,
        "rush_calls": rush.result.provider_calls,
        "rush_recorded_per_s": _short(told / rush.wall),
        "rush_delivered_per_s": _short(told / delivered),
        "rush_worker_mb_before": rush.mb_before,
        "rush_worker_mb_most": rush.mb_most,
        "rush_largest_history_events": rush.largest_events,
        "rush_largest_history_bytes": rush.largest_bytes,
    }
    return mine, theirs, figures


def _short(number: float) -> float:
    return float(f"{number:.3g}")


# --- the naive way ---------------------------------------------------------------------------------------


@orm_activity
def ask_for_one(reference: str) -> str:
    payment = Payment.objects.get(gateway="sandbox", reference=reference)
    remote = gateway("sandbox").status(reference)
    if remote.status == RemoteStatus.PAID:
        absorb(payment, remote, "check")
    return remote.status.value


@workflow.defn(sandboxed=False)
class NaiveCheck:
    @workflow.run
    async def run(self, references: list[str]) -> int:
        slots = asyncio.Semaphore(AT_ONCE)

        async def ask(reference: str) -> str:
            async with slots:
                return await workflow.execute_activity(
                    ask_for_one, reference, start_to_close_timeout=timedelta(seconds=20)
                )

        found = await asyncio.gather(*(ask(reference) for reference in references))
        return found.count("paid")


# --- the world -------------------------------------------------------------------------------------------


@dataclass
class Checked:
    result: BatchCheckResult
    started: float
    wall: float
    events: int
    bytes: int
    largest_events: int
    largest_bytes: int
    mb_before: int
    mb_most: int


@dataclass
class Naive:
    wall: float
    events: int
    bytes: int


@dataclass
class World:
    """A shop with waiting orders, its provider, its engine and its worker."""

    provider: SandboxProcess
    loop: asyncio.Runner
    client: Client
    worker: subprocess.Popen[bytes]
    checks: int = 0

    def have_waiting(self, count: int) -> None:
        """As many orders wait, in the provider's books and in ours; none of it is news."""
        known = Payment.objects.count()
        with self._books() as books:
            for n in range(known, count):
                books.authorize(f"ORD-{500_001 + n}", Money(PRICE, "EUR"), timedelta(days=30))
            after = [payment.psp_reference for payment in books.payments(known, count)]
            cursor = books.last_event_seq()
        for start in range(0, len(after), 10_000):
            waiting_orders(after[start : start + 10_000], first=500_001 + known + start)
        # As their own calls have told: the overlap of a check is no news of it.
        Payment.objects.filter(authorized_until=None).update(
            authorized_until=timezone.now() + timedelta(days=31)
        )
        ChangeCursor.objects.update_or_create(gateway="sandbox", defaults={"cursor": str(cursor)})
        with connection.cursor() as cursor_:
            cursor_.execute("ANALYZE")

    def pay(self, count: int, start: int) -> None:
        """The customers of as many orders pay, from the order with the number `start` on."""
        with self._books() as books:
            held = books.payments(start, count)
            for payment in held:
                books.receive(payment, None)
        self.loop.run(self._start_sagas(held))

    async def _start_sagas(self, held: list[Held]) -> None:
        for start in range(0, len(held), 200):
            await asyncio.gather(
                *(
                    self.client.start_workflow(
                        "Saga", id=f"order-saga-{payment.merchant_reference}", task_queue=NOBODY
                    )
                    for payment in held[start : start + 200]
                )
            )

    @contextlib.contextmanager
    def _books(self) -> Iterator[Books]:
        """The provider's books, while it is closed."""
        self.provider.stop()
        store = Store(self.provider.data_path)
        try:
            with store.transaction():
                yield Books(store, announce=False)
        finally:
            store.close()
            self.provider.start()

    def forget_nothing(self) -> None:
        """Until the outbox is empty, so that no earlier part is paid for by a later one."""
        queued = OutboxMessage.objects.filter(state="queued")
        wait_until(lambda: not queued.exists(), 600)
        assert not OutboxMessage.objects.filter(state="undeliverable").exists()

    def check(self) -> Checked:
        self.forget_nothing()
        with _watched(self.worker.pid) as memory:
            before = memory[-1]
            started = time.perf_counter()
            result, histories = self.loop.run(self._check())
            wall = result[1] - started
        return Checked(
            result=result[0],
            started=started,
            wall=wall,
            events=sum(events for events, _ in histories),
            bytes=sum(size for _, size in histories),
            largest_events=max(events for events, _ in histories),
            largest_bytes=max(size for _, size in histories),
            mb_before=before,
            mb_most=max(memory),
        )

    def check_idle(self) -> Checked:
        """The quickest of three: it takes so little that whatever else runs is most of it."""
        return min((self.check() for _ in range(3)), key=lambda checked: checked.wall)

    async def _check(self) -> tuple[tuple[BatchCheckResult, float], list[tuple[int, int]]]:
        self.checks += 1
        handle = await self.client.start_workflow(
            "BatchPaymentCheckWorkflow",
            BatchCheckInput(),
            id=f"payment-batch-{self.checks}",
            task_queue="payment-checks",
            result_type=BatchCheckResult,
        )
        result = await handle.result()
        ended = time.perf_counter()
        found, run_id = [], (await handle.describe()).run_id
        while run_id:
            history = await self.client.get_workflow_handle(handle.id, run_id=run_id).fetch_history()
            found.append((len(history.events), sum(event.ByteSize() for event in history.events)))
            run_id = history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id
        return (result, ended), found

    def delivered_after(self, started: float) -> float:
        """Seconds from then until every saga was told."""
        self.forget_nothing()
        return time.perf_counter() - started

    def check_naively(self, count: int) -> Naive:
        references = list(Payment.objects.order_by("pk").values_list("reference", flat=True)[:count])
        return self.loop.run(self._check_naively(references))

    async def _check_naively(self, references: list[str]) -> Naive:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            async with Worker(
                self.client,
                task_queue="naive",
                workflows=[NaiveCheck],
                activities=[ask_for_one],
                activity_executor=pool,
                max_concurrent_activities=AT_ONCE,
            ):
                for asked in (references[:AT_ONCE], references):  # nothing is measured cold
                    started = time.perf_counter()
                    handle = await self.client.start_workflow(
                        NaiveCheck.run, asked, id=f"naive-{len(asked)}", task_queue="naive"
                    )
                    await handle.result()
                wall = time.perf_counter() - started
        history = await handle.fetch_history()
        return Naive(wall, len(history.events), sum(event.ByteSize() for event in history.events))


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[list[int]]:
    """What a process holds in memory, in MB, from now until the end of the block; ten times a second."""
    stop = threading.Event()
    page_mb = os.sysconf("SC_PAGE_SIZE") / 2**20
    seen: list[int] = []

    def look() -> None:
        seen.append(int(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page_mb))

    def watch() -> None:
        while not stop.wait(0.1):
            look()

    look()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def _world() -> Iterator[World]:
    with connection.cursor() as cursor:
        cursor.execute(
            "TRUNCATE payments_payment, orders_order, payments_changecursor, kernel_outboxmessage CASCADE"
        )
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        engine = stack.enter_context(_engine(folder))
        provider = stack.enter_context(sandbox(folder / "provider.sqlite3"))
        settings.SANDBOX_URL, settings.SANDBOX_API_KEY = provider.url, provider.api_key
        settings.PAYMENT_GATEWAYS = {"sandbox": "payments.gateways.sandbox.SandboxGateway"}
        gateway.cache_clear()
        worker = stack.enter_context(_worker(folder, engine, provider))
        loop = stack.enter_context(asyncio.Runner())
        yield World(provider, loop, loop.run(Client.connect(engine)), worker)


@contextlib.contextmanager
def _engine(folder: Path) -> Iterator[str]:
    port = ports.any_free()
    with (folder / "temporal.log").open("wb") as log:
        process = spawn(temporal.command(port), log, env=temporal.environment(), cwd=folder)
    try:
        wait_until(lambda: temporal.is_ready(port))
        yield f"{ports.HOST}:{port}"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _worker(folder: Path, engine: str, provider: SandboxProcess) -> Iterator[subprocess.Popen[bytes]]:
    health = ports.any_free()
    env = os.environ | {
        "TEMPORAL_ADDRESS": engine,
        "SANDBOX_URL": provider.url,
        "SANDBOX_API_KEY": provider.api_key,
        "BANK_IBAN": "",
        "PAYMENT_CHECK_CRON": NEVER,
    }
    command = [sys.executable, "manage.py", "runworker", "--queue", "payment-checks"]
    command += ["--concurrency", str(AT_ONCE), "--health-port", str(health)]
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)

    def works() -> bool:
        with contextlib.suppress(httpx2.HTTPError):
            url = f"http://127.0.0.1:{health}/health"
            return httpx2.get(url, trust_env=False).status_code == 200
        return False

    try:
        wait_until(works)
        yield process
    finally:
        process.kill()
        process.wait()
