"""`manage.py reconcile` beside a worker, on the real engine: what was lost in Temporal is rolled back in full."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from pytest_django.fixtures import Settings
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from orders.models import Difference, OpsAlertEntry, Order, Product, ReconcileRun, Saga, SagaStep, Shipment
from orders.workflows.types import ReconcileInput
from payments.gateways import gateway
from payments.models import Payment
from payments.services.recording import record
from shop.kernel import temporal
from tests import factories
from tests.payments.sandbox_process import SandboxProcess
from tests.shop.processes import ROOT, WorkerUnderTest, database_url
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
Start = Callable[..., WorkerUnderTest]


class Shop:
    """Orders of tea, with a worker that carries them out in a process of its own."""

    def __init__(self, provider: SandboxProcess, temporal_server: str) -> None:
        self.provider = provider
        self.environment = os.environ | {
            "DATABASE_URL": database_url(),
            "TEMPORAL_ADDRESS": temporal_server,
            "SANDBOX_URL": provider.url,
            "SANDBOX_API_KEY": provider.api_key,
        }

    def authorized(self) -> Order:
        order = factories.place(carrier="practice")
        wait_until(lambda: Saga.objects.filter(order=order, status="waiting").first())
        return order

    def captured(self) -> Order:
        """Its parcel is asked for again and again."""
        self.provider.faults(create_shipment={"error_rate": 1})
        order = self.authorized()
        payment = Payment.objects.get()
        with self.provider.client() as customer:
            customer.post(f"/customer/{payment.reference}/pay", json={}).raise_for_status()
        record(payment, gateway("sandbox").status(payment.reference).events, "webhook")
        failed = SagaStep.objects.filter(saga__order=order, step="shipping", outcome="failed")
        wait_until(lambda: failed.first())
        return order

    def reconcile(self, *arguments: str) -> tuple[int, str]:
        """The command as people run it: its exit code, and what it says."""
        ended = subprocess.run(
            [sys.executable, "manage.py", "reconcile", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Traceback" not in ended.stderr, ended.stderr
        return ended.returncode, ended.stdout

    def in_temporal(self, work: Callable[[Client], Any]) -> Any:
        async def go() -> Any:
            return await work(await temporal.connect())

        return asyncio.run(go())

    def terminate(self, order: Order) -> None:
        self.in_temporal(lambda client: client.get_workflow_handle(order.workflow_id).terminate("by mistake"))

    def delete(self, order: Order) -> None:
        """The workflow and all that Temporal knew of it."""

        async def delete(client: Client) -> None:
            execution = WorkflowExecution(workflow_id=order.workflow_id)
            request = DeleteWorkflowExecutionRequest(namespace=client.namespace, workflow_execution=execution)
            await client.workflow_service.delete_workflow_execution(request)

        self.in_temporal(delete)
        wait_until(lambda: not self.is_there(order))

    def is_there(self, order: Order) -> bool:
        async def look(client: Client) -> bool:
            try:
                found = await client.get_workflow_handle(order.workflow_id).describe()
            except RPCError:
                return False
            return found.status is not None

        return bool(self.in_temporal(look))

    def until_cancelled(self, order: Order) -> None:
        wait_until(lambda: Order.objects.filter(pk=order.pk, status="cancelled").first())

    def assert_rolled_back(self, order: Order, undone: list[str], at_provider: str) -> None:
        """Newest first, once, and nothing is left anywhere."""
        self.until_cancelled(order)
        saga = Saga.objects.get(order=order)
        undos = saga.steps.filter(kind="compensation", outcome="succeeded").order_by("id")
        assert list(undos.values_list("step", flat=True)) == undone
        assert len(set(undos.values_list("rollback_run", flat=True))) == 1
        assert (saga.status, (saga.result or {})["compensated_steps"]) == ("cancelled", undone)
        product = Product.objects.get()
        assert (product.on_hand, product.reserved) == (10, 0)
        remote = gateway("sandbox").status(Payment.objects.get().reference)
        assert (remote.status, Payment.objects.get().totals().kept) == (at_provider, 0)
        assert not Shipment.objects.filter(state="created").exists()


@pytest.fixture
def shop(
    provider: SandboxProcess,
    temporal_server: str,
    settings: Settings,
    start_worker: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> Shop:
    settings.TEMPORAL_ADDRESS = temporal_server
    monkeypatch.setattr(temporal, "_client", None)
    factories.product(on_hand=10)
    start_worker()
    return Shop(provider, temporal_server)


def rows() -> list[tuple[str, str, str]]:
    return [(row.kind, row.subject, row.state) for row in Difference.objects.order_by("id")]


def test_a_saga_that_was_terminated_after_the_authorization_is_rolled_back(shop: Shop) -> None:
    order = shop.authorized()
    assert shop.reconcile() == (0, "The books agree.\n")
    shop.terminate(order)
    code, said = shop.reconcile()
    assert code == 1
    assert f"{order.number}: Its workflow in Temporal was terminated in the middle." in said
    assert "(--fix does it.)\n1 difference.\n" in said
    assert rows() == [("saga", order.number, "open")]
    code, said = shop.reconcile("--fix")
    assert code == 0
    assert said.endswith("– its rollback starts.\nThe books agree.\n")
    assert rows() == [("saga", order.number, "mended")]
    shop.assert_rolled_back(order, ["payment_hold", "inventory"], "voided")
    assert shop.reconcile("--fix") == (0, "The books agree.\n")
    assert rows() == [("saga", order.number, "closed")]
    assert list(ReconcileRun.objects.order_by("id").values_list("found", "new", "mended", "closed")) == [
        (0, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0), (0, 0, 0, 1),
    ]  # fmt: skip


def test_a_saga_that_was_terminated_after_the_capture_is_rolled_back(shop: Shop) -> None:
    order = shop.captured()
    shop.terminate(order)
    shop.provider.faults()
    assert shop.reconcile()[0] == 1
    assert shop.reconcile("--fix")[0] == 0
    shop.assert_rolled_back(order, ["payment_captured", "inventory"], "refunded")
    assert shop.reconcile() == (0, "The books agree.\n")


def test_a_saga_that_was_deleted_is_rolled_back_and_again_if_its_rollback_is_deleted(shop: Shop) -> None:
    shop.provider.faults(void={"error_rate": 1})
    order = shop.authorized()
    shop.delete(order)
    code, said = shop.reconcile("--fix")
    assert (code, "was deleted in the middle" in said) == (0, True)
    failed = SagaStep.objects.filter(saga__order=order, step="payment_hold", outcome="failed")
    wait_until(lambda: failed.first())
    shop.delete(order)
    shop.provider.faults()
    assert shop.reconcile()[0] == 1
    assert shop.reconcile("--fix")[0] == 0
    shop.assert_rolled_back(order, ["payment_hold", "inventory"], "voided")
    assert shop.reconcile() == (0, "The books agree.\n")


def test_the_daily_run_mends_it_and_tells_ops_once(shop: Shop) -> None:
    order = shop.authorized()
    shop.terminate(order)

    def run(number: int) -> Any:
        return shop.in_temporal(
            lambda client: client.execute_workflow(
                "ReconcileWorkflow",
                ReconcileInput(fix=True),
                id=f"reconcile-{order.number}-{number}",
                task_queue="orders",
            )
        )

    assert run(1) == {"found": 1, "mended": 1, "left_out": []}
    entry = OpsAlertEntry.objects.get(alert__topic="books")
    assert (entry.order_number, entry.subject) == (order.number, "Money disagrees: sagas and Temporal")
    assert entry.text.endswith("in the middle. Mended: its rollback starts.")
    shop.assert_rolled_back(order, ["payment_hold", "inventory"], "voided")
    assert run(2) == {"found": 0, "mended": 0, "left_out": []}
    assert OpsAlertEntry.objects.filter(alert__topic="books").count() == 1
    assert set(ReconcileRun.objects.values_list("actor", flat=True)) == {"schedule"}


def test_without_temporal_the_rest_is_compared_and_nobody_is_told_that_all_is_well(
    shop: Shop, start_worker: Start
) -> None:
    order = shop.authorized()
    Product.objects.update(reserved=7)
    shop.environment["TEMPORAL_ADDRESS"] = "127.0.0.1:9"
    code, said = shop.reconcile()
    assert code == 1
    assert "TEA: 7 pieces are reserved, but open orders hold 2." in said
    assert "Not compared: sagas and Temporal. " in said
    Product.objects.update(reserved=2)
    assert shop.reconcile()[0] == 1, "what could not be compared may disagree"
    assert (
        shop.in_temporal(lambda client: client.get_workflow_handle(order.workflow_id).describe()).status
        == WorkflowExecutionStatus.RUNNING
    )
