"""What Temporal knows: the backlog of the task queues and how workflows stand; and the SDK's own figures."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import httpx2
from prometheus_client.core import GaugeMetricFamily, Metric
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.service import RPCError

from orders.workflows.types import TASK_QUEUE as ORDERS
from payments.workflows.types import TASK_QUEUE as PAYMENT_CHECKS
from shop.kernel import temporal
from shop.metrics.books import BOUNDS
from shop.up import ports

log = logging.getLogger(__name__)

TIMEOUT_S = 3
KINDS = {
    "workflow": TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    "activity": TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
}
# The completed ones are in the books; these are for whoever looks after the engine.
STATUSES = {
    "Running": "running",
    "Failed": "failed",
    "TimedOut": "timed_out",
    "Terminated": "terminated",
    "Canceled": "canceled",
}


async def read() -> tuple[list[Metric], bool]:
    """All figures, and whether they are there: none where Temporal does not answer in time."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            client = await asyncio.to_thread(temporal.client)
            backlog, workflows = await asyncio.gather(_backlog(client), _workflows(client))
    except (RPCError, RuntimeError, OSError, TimeoutError) as error:
        log.warning("Temporal's figures could not be read: %s", str(error)[:200])
        return [], False
    return [*backlog, workflows], True


async def _backlog(client: Client) -> list[Metric]:
    number = GaugeMetricFamily(
        "vorkasse_task_queue_backlog",
        "Tasks that wait for a worker.",
        labels=["task_queue", "kind"],
    )
    age = GaugeMetricFamily(
        "vorkasse_task_queue_backlog_age_seconds",
        "Age of the oldest task that waits for a worker.",
        labels=["task_queue", "kind"],
    )
    for queue in (ORDERS, PAYMENT_CHECKS):
        for kind, code in KINDS.items():
            request = DescribeTaskQueueRequest(
                namespace=client.namespace,
                task_queue=TaskQueue(name=queue),
                task_queue_type=code,
                report_stats=True,
            )
            answer = await client.workflow_service.describe_task_queue(
                request, timeout=timedelta(seconds=TIMEOUT_S)
            )
            number.add_metric([queue, kind], answer.stats.approximate_backlog_count)
            age.add_metric([queue, kind], answer.stats.approximate_backlog_age.ToTimedelta().total_seconds())
    return [number, age]


async def _workflows(client: Client) -> Metric:
    metric = GaugeMetricFamily(
        "vorkasse_workflows",
        "Workflows that run, or ended badly and are still kept by Temporal.",
        labels=["status"],
    )
    names = ", ".join(f"'{name}'" for name in STATUSES)
    found = await client.count_workflows(
        f"ExecutionStatus IN ({names}) GROUP BY ExecutionStatus", rpc_timeout=timedelta(seconds=TIMEOUT_S)
    )
    numbers = {str(group.group_values[0]): group.count for group in found.groups}
    for name, status in STATUSES.items():
        metric.add_metric([status], numbers.get(name, 0))
    return metric


# --- the SDK's own ---------------------------------------------------------------------------------------

_sdk_url = ""


def keep_sdk_metrics() -> None:
    """Have the SDK measure clients and workers of this process. Before the first client is made, and once.

    The SDK tells them on a port of its own; `sdk` fetches them from there, so that a process has one address.
    """
    global _sdk_url
    address = f"{ports.HOST}:{ports.any_free()}"
    metrics = PrometheusConfig(
        bind_address=address,
        counters_total_suffix=True,
        unit_suffix=True,
        durations_as_seconds=True,
        histogram_bucket_overrides={"temporal_workflow_endtoend_latency": BOUNDS},
    )
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(metrics=metrics, attach_service_name=False)))
    _sdk_url = f"http://{address}/metrics"


def sdk() -> bytes:
    """The SDK's metrics in Prometheus' text format; empty where they are not kept."""
    if not _sdk_url:
        return b""
    try:
        answer = httpx2.get(_sdk_url, timeout=TIMEOUT_S, trust_env=False, verify=False)
    except httpx2.HTTPError as error:
        log.warning("The SDK's metrics could not be read: %s", error)
        return b""
    return answer.content
