"""`manage.py runworker` as a process: killed, drained, and without what it needs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from temporalio.client import Client, WorkflowHandle

from orders.models import DeadLetter, Mail, Order, PaidInBulk, Product, Saga, SagaStep
from orders.services import lifecycle
from payments.models import BatchRun, ChangeCursor, Payment, PaymentEvent
from shop.kernel.listening import own_connection
from shop.kernel.models import OutboxMessage
from shop.up import ports
from tests import factories
from tests.orders.bulk_shop import taken
from tests.payments.sandbox_process import SandboxProcess
from tests.servers import Mailbox
from tests.shop.processes import WorkerUnderTest
from tests.waiting import wait_until

database = pytest.mark.django_db(transaction=True)


def confirm(order: Order) -> None:
    lifecycle.confirm_payment(
        order.number,
        "ada",
        "seen on the statement",
        amount=order.total_money,
        received_on=timezone.now().date(),
        bank_reference="B1",
    )


@database
def test_worker_killed_again_and_again_loses_nothing_and_does_nothing_twice(
    start_worker: Callable[..., WorkerUnderTest], provider: SandboxProcess, mailbox: Mailbox
) -> None:
    factories.product(on_hand=20)
    kept = [factories.place(("TEA", 1)) for _ in range(6)]
    dropped = [factories.place(("TEA", 1)) for _ in range(3)]
    worker = start_worker()
    for rows in (3, 9):  # in the middle of reserving and authorizing
        wait_until(lambda rows=rows: SagaStep.objects.count() >= rows)  # type: ignore[misc]
        worker.kill()
        worker = start_worker()
    wait_until(lambda: Saga.objects.filter(status="waiting").count() == 9)
    for order in kept:
        confirm(order)
    for order in dropped:
        lifecycle.cancel(order.number, "ada", "changed their mind")
    for rows in (20, 29):  # in the middle of capturing, shipping and rolling back
        wait_until(lambda rows=rows: SagaStep.objects.count() >= rows)  # type: ignore[misc]
        worker.kill()
        worker = start_worker()
    wait_until(lambda: not Saga.objects.exclude(status__in=Saga.FINAL).exists(), 120)

    assert Counter(Order.objects.values_list("status", flat=True)) == {"completed": 6, "cancelled": 3}
    assert not DeadLetter.objects.exists()
    product = Product.objects.get()
    assert (product.on_hand, product.reserved) == (14, 0)
    with provider.client() as client:
        books = {p["merchant_reference"]: p for p in client.get("/payments?limit=1000").json()["payments"]}
    for order in kept:
        assert (books[order.number]["captured"], books[order.number]["voided"]) == (order.total, 0)
    for order in dropped:
        assert (books[order.number]["captured"], books[order.number]["voided"]) == (0, order.total)
    # A mail is lost at most where the worker died between sending it and writing so down, and then it says so.
    wait_until(lambda: not Mail.objects.filter(state__in=("queued", "failed")).exists())
    mails = Counter((m["to"], m["message-id"]) for m in mailbox.messages)
    assert set(mails.values()) == {1}


@database
def test_worker_killed_in_the_middle_of_a_page_loses_nothing_and_repeats_nothing(
    start_worker: Callable[..., WorkerUnderTest], provider: SandboxProcess, temporal_server: str
) -> None:
    factories.product(on_hand=20)
    orders = [factories.place(("TEA", 1)) for _ in range(5)]
    worker = start_worker()
    wait_until(lambda: Saga.objects.filter(status="waiting").count() == 5)
    payments = list(Payment.objects.order_by("pk"))
    with provider.client() as customer:
        for payment in payments:
            customer.post(f"/customer/{payment.reference}/pay", json={}).raise_for_status()

    async def check(number: int) -> WorkflowHandle[Any, Any]:
        client = await Client.connect(temporal_server)
        return await client.start_workflow(
            "BatchPaymentCheckWorkflow", {}, id=f"payment-batch-killed-{number}", task_queue="payment-checks"
        )

    async def result(handle: WorkflowHandle[Any, Any]) -> dict[str, Any]:
        client = await Client.connect(temporal_server)
        found: dict[str, Any] = await client.get_workflow_handle(handle.id).result()
        return found

    with own_connection() as other:
        other.execute("SELECT 1 FROM payments_payment WHERE id = %s FOR UPDATE", [payments[-1].pk])
        first = asyncio.run(check(1))
        wait_until(_someone_waits_for_a_lock)  # the page is read, and about to be written
        worker.kill()
        other.rollback()
    assert not PaymentEvent.objects.filter(type="receipt").exists()
    assert ChangeCursor.objects.get().cursor == ""

    start_worker()
    second = asyncio.run(
        check(2)
    )  # the next hour's, while the engine still waits for the one that was killed
    results = [asyncio.run(result(handle)) for handle in (second, first)]
    assert [found["paid"] for found in results] == [5, 0]
    assert [run.state for run in BatchRun.objects.order_by("id")] == ["finished", "finished"]
    wait_until(lambda: Order.objects.filter(status="completed").count() == 5)
    for order in orders:
        payment = Payment.objects.get(merchant_reference=order.number)
        assert payment.totals().received == payment.totals().captured == order.total
    assert OutboxMessage.objects.filter(name="confirm_payment").count() == 5


@database
def test_worker_killed_while_bulk_orders_are_fulfilled_fulfils_each_once(
    start_worker: Callable[..., WorkerUnderTest], provider: SandboxProcess, temporal_server: str
) -> None:
    factories.product(on_hand=20)
    orders = [taken(("TEA", 1), carrier="practice") for _ in range(5)]
    with provider.client() as customer:
        for payment in Payment.objects.all():
            customer.post(f"/customer/{payment.reference}/pay", json={}).raise_for_status()
    provider.faults(capture={"latency_ms": 1000})

    async def check(number: int) -> None:
        client = await Client.connect(temporal_server)
        await client.start_workflow(
            "HybridPaymentCheckWorkflow", {}, id=f"bulk-killed-{number}", task_queue="orders"
        )

    worker = start_worker()
    asyncio.run(check(1))
    wait_until(lambda: Saga.objects.filter(status="running").exists())
    worker.kill()
    provider.faults()
    start_worker()
    asyncio.run(check(2))
    wait_until(lambda: Order.objects.filter(status="completed").count() == 5)
    for order in orders:
        with provider.client() as client:
            found = client.get("/payments", params={"merchant_reference": order.number}).json()["payments"]
            parcels = client.get("/shipments", params={"merchant_reference": order.number}).json()
        assert [event["type"] for event in found[0]["events"]].count("capture") == 1
        assert (len(found), len(parcels["shipments"])) == (1, 1)
    product = Product.objects.get()
    assert (product.on_hand, product.reserved) == (15, 0)
    assert not PaidInBulk.objects.exists()


def _someone_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return cursor.fetchone() is not None


@database
def test_sigterm_drains_and_exits_with_zero(start_worker: Callable[..., WorkerUnderTest]) -> None:
    worker = start_worker()
    wait_until(lambda: worker.health() == (200, "working"))
    worker.process.terminate()
    assert worker.process.wait(40) == 0


@database
def test_worker_waits_for_temporal_and_says_so(start_worker: Callable[..., WorkerUnderTest]) -> None:
    nobody = f"127.0.0.1:{ports.any_free()}"
    worker = start_worker(TEMPORAL_ADDRESS=nobody)
    wait_until(lambda: worker.health() == (503, "waiting for Temporal"))
    wait_until(lambda: f"Waiting for Temporal at {nobody}" in worker.log.read_text())
    worker.process.terminate()
    assert worker.process.wait(20) == 0


@database
def test_worker_without_a_database_exits_with_a_sentence(
    start_worker: Callable[..., WorkerUnderTest],
) -> None:
    worker = start_worker(DATABASE_URL=f"postgresql://a:b@127.0.0.1:{ports.any_free()}/c")
    assert worker.process.wait(30) == 1
    said = worker.log.read_text()
    assert "The database does not answer" in said
    assert "Set DATABASE_URL" in said
    assert "Traceback" not in said


@database
def test_worker_makes_the_schedules_and_works_on_where_it_cannot(
    start_worker: Callable[..., WorkerUnderTest],
) -> None:
    refused = start_worker(PAYMENT_CHECK_CRON="61 * * * *")
    wait_until(lambda: "Minute is not in range" in refused.log.read_text())
    wait_until(lambda: refused.health() == (200, "working"))
    refused.kill()
    worker = start_worker(PAYMENT_CHECK_INTERVAL="36h")
    wait_until(lambda: "Schedule hourly-payment-batch was " in worker.log.read_text())
    worker.process.terminate()
    assert worker.process.wait(40) == 0
