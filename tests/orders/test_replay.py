"""The present workflows replay what earlier ones recorded, so a release breaks no order that is waiting."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from orders.workflows.compensation_retry import CompensationRetryWorkflow
from orders.workflows.fulfillment import OrderFulfillmentWorkflow
from orders.workflows.hybrid import HybridPaymentCheckWorkflow
from orders.workflows.saga import OrderSagaWorkflow
from tests.orders.histories import HISTORIES, STORIES


@pytest.mark.parametrize("name", STORIES)
def test_recorded_history_is_replayed(name: str) -> None:
    path = HISTORIES / f"{name}.json"
    assert path.exists(), "record it: python -m tests.orders.record_histories"
    history = WorkflowHistory.from_json(f"recorded-{name}", path.read_text())
    assert history.events[-1].HasField("workflow_execution_completed_event_attributes")
    replayer = Replayer(
        workflows=[
            OrderSagaWorkflow,
            CompensationRetryWorkflow,
            OrderFulfillmentWorkflow,
            HybridPaymentCheckWorkflow,
        ]
    )
    asyncio.run(replayer.replay_workflow(history))


def test_every_recorded_history_is_replayed() -> None:
    assert {path.stem for path in HISTORIES.glob("*.json")} == set(STORIES)
