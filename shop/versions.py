"""Versions of the worker as Temporal knows them: which is current, and which still has work of its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from temporalio.api.enums.v1 import WorkerDeploymentVersionStatus
from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentRequest,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

RPC_TIMEOUT = timedelta(seconds=10)
_S = WorkerDeploymentVersionStatus
STATES = {
    _S.WORKER_DEPLOYMENT_VERSION_STATUS_CREATED: "made known, takes no work",
    _S.WORKER_DEPLOYMENT_VERSION_STATUS_INACTIVE: "takes no work",
    _S.WORKER_DEPLOYMENT_VERSION_STATUS_CURRENT: "current",
    _S.WORKER_DEPLOYMENT_VERSION_STATUS_RAMPING: "takes a share of the new work",
    _S.WORKER_DEPLOYMENT_VERSION_STATUS_DRAINING: "finishes what it has; leave its workers running",
    _S.WORKER_DEPLOYMENT_VERSION_STATUS_DRAINED: "has nothing left; its workers can go",
}


class VersionProblem(Exception):
    """The message is a sentence for people."""


@dataclass(frozen=True, slots=True)
class Version:
    build_id: str
    state: str
    current: bool


async def versions(client: Client, deployment: str) -> list[Version]:
    """All of the deployment, oldest first; none if no worker with a BUILD_ID has ever connected.

    What drains is told a few minutes late. Raises `RPCError`, or `RuntimeError` without a connection.
    """
    request = DescribeWorkerDeploymentRequest(namespace=client.namespace, deployment_name=deployment)
    try:
        found = await client.workflow_service.describe_worker_deployment(request, timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND and "namespace" not in error.message.lower():
            return []
        raise
    info = found.worker_deployment_info
    current = info.routing_config.current_deployment_version.build_id
    summaries = sorted(info.version_summaries, key=lambda summary: summary.create_time.ToNanoseconds())
    return [
        Version(
            summary.deployment_version.build_id,
            STATES.get(summary.status, "unknown"),
            summary.deployment_version.build_id == current,
        )
        for summary in summaries
    ]


async def activate(client: Client, deployment: str, build_id: str) -> bool:
    """Make a version the current one; False if it is already. Raises `VersionProblem`.

    Temporal refuses a version whose workers do not serve all the queues of the one before.
    """
    known = await versions(client, deployment)
    if any(version.current and version.build_id == build_id for version in known):
        return False
    if not any(version.build_id == build_id for version in known):
        raise VersionProblem(
            f"No worker of build “{build_id}” has connected yet. Start the new workers first, and wait until they "
            "are ready."
        )
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace,
        deployment_name=deployment,
        build_id=build_id,
        identity=client.identity,
    )
    try:
        await client.workflow_service.set_worker_deployment_current_version(request, timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status is RPCStatusCode.FAILED_PRECONDITION:
            raise VersionProblem(f"Temporal refuses that: {error.message}") from error
        raise
    return True
