"""Two builds of the worker on a real server: an order that waits goes over to the new one, a batch does not."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import VersioningBehavior
from temporalio.api.workflow.v1 import WorkflowExecutionVersioningInfo
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client

from shop import worker
from shop.kernel import temporal
from tests import factories
from tests.shop.processes import WorkerUnderTest, start_worker
from tests.shop.test_engine_access import saga_status, status
from tests.shop.test_worker import confirm
from tests.waiting import wait_until

__all__ = ["start_worker"]


@pytest.fixture
def namespace(temporal_server: str, settings: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """One of its own: a current version keeps workers without one from all work in its namespace."""
    name = f"versions-{uuid.uuid4()}"

    async def register() -> None:
        client = await Client.connect(temporal_server)
        keep = Duration()
        keep.FromTimedelta(timedelta(days=1))
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=keep)
        )

    asyncio.run(register())
    settings.TEMPORAL_ADDRESS, settings.TEMPORAL_NAMESPACE = temporal_server, name
    monkeypatch.setattr(temporal, "_client", None)
    return name


def versions(*args: str) -> str:
    said = StringIO()
    call_command("worker_versions", *args, stdout=said)
    return said.getvalue().strip()


def activate(build_id: str) -> str:
    """Once its workers have connected with both queues."""

    def told() -> str:
        try:
            return versions("activate", build_id)
        except CommandError:
            return ""

    return wait_until(told)


def info(workflow_id: str) -> WorkflowExecutionVersioningInfo:
    async def describe() -> WorkflowExecutionVersioningInfo:
        client = await temporal.connect()
        found = await client.get_workflow_handle(workflow_id).describe()
        return found.raw_description.workflow_execution_info.versioning_info

    return asyncio.run(describe())


@pytest.mark.django_db(transaction=True)
def test_waiting_saga_goes_on_with_the_new_build_and_a_batch_stays_with_its_own(
    start_worker: Callable[..., WorkerUnderTest], namespace: str
) -> None:
    factories.product()
    order = factories.place(("TEA", 1))
    assert "every worker takes any work" in versions("list")
    with pytest.raises(CommandError, match="No worker of build “1” has connected yet"):
        versions("activate", "1")

    first = start_worker(TEMPORAL_NAMESPACE=namespace, BUILD_ID="1")
    assert activate("1") == "New work goes to 1."
    assert versions("activate", "1") == "1 is current already."
    wait_until(lambda: saga_status(order) == "waiting")
    assert info(order.workflow_id).deployment_version.build_id == "1"

    async def check_payments() -> None:
        client = await temporal.connect()
        await client.execute_workflow(
            "BatchPaymentCheckWorkflow", {}, id="payment-batch-pinned", task_queue="payment-checks"
        )

    asyncio.run(check_payments())
    batch = info("payment-batch-pinned")
    assert batch.behavior == VersioningBehavior.VERSIONING_BEHAVIOR_PINNED
    assert batch.deployment_version.build_id == "1"

    start_worker(TEMPORAL_NAMESPACE=namespace, BUILD_ID="2")
    assert activate("2") == "New work goes to 2."
    first.kill()
    assert "2: current" in versions("list")
    confirm(order)
    wait_until(lambda: status(order) == "completed")
    saga = info(order.workflow_id)
    assert saga.behavior == VersioningBehavior.VERSIONING_BEHAVIOR_AUTO_UPGRADE
    assert saga.deployment_version.build_id == "2"


def test_without_a_build_id_workers_have_no_versions() -> None:
    assert worker.deployment() is None
