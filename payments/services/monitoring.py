"""How monitors have ended, for a coordinator that has not started them itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from payments.workflows.coordinator import OUTCOME
from payments.workflows.monitor import MonitorResult, monitor_id

GOING_ON = (WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.CONTINUED_AS_NEW)


async def ended_monitors(client: Client, order_numbers: Sequence[str]) -> dict[str, str]:
    """Of these orders' monitors those that have ended, and how: a field of `CoordinatorCounts`."""
    found = await asyncio.gather(*(_outcome(client, number) for number in order_numbers))
    return {number: outcome for number, outcome in zip(order_numbers, found, strict=True) if outcome}


async def _outcome(client: Client, order_number: str) -> str:
    handle = client.get_workflow_handle(monitor_id(order_number), result_type=MonitorResult)
    try:
        status = (await handle.describe()).status
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return "error"
        raise
    if status in GOING_ON:
        return ""
    if status is not WorkflowExecutionStatus.COMPLETED:
        return "error"
    return OUTCOME[(await handle.result()).status]
