"""A refund that a person asked for, carried to the provider."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, FailureError
from temporalio.workflow import ActivityCancellationType

TASK_QUEUE = "payment-checks"

ATTEMPT = timedelta(seconds=20)
# 1 s to 5 min, ten attempts, about nine minutes; as long as the undo of a saga's capture is tried.
HARD = RetryPolicy(
    initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5), maximum_attempts=10
)
PATIENT = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5))


@dataclass(frozen=True)
class RefundInput:
    """`key`: the idempotency key, under which amount and payment are written down."""

    key: str


@dataclass(frozen=True)
class RefundFailure:
    """Why a refund is given up. `refused`: the provider said no; otherwise nobody knows what it did."""

    key: str
    error: str
    refused: bool


@dataclass(frozen=True)
class RefundResult:
    """`status`: `accepted` with the provider's `reference`, or `failed` with the `reason`."""

    status: str
    reference: str = ""
    reason: str = ""


@workflow.defn
class RefundWorkflow:
    """Asks until the provider has answered. What fails for good, or is cancelled, becomes a review item."""

    @workflow.run
    async def run(self, refund: RefundInput) -> RefundResult:
        try:
            reference: str = await workflow.execute_activity(
                "refund_requested_payment",
                refund,
                result_type=str,
                start_to_close_timeout=ATTEMPT,
                retry_policy=HARD,
                cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                summary="refund",
            )
        except (asyncio.CancelledError, FailureError) as error:
            return await self._give_up(refund, error)
        return RefundResult("accepted", reference=reference)

    async def _give_up(self, refund: RefundInput, error: BaseException) -> RefundResult:
        cause = error.cause if isinstance(error, ActivityError) and error.cause else error
        said = cause.message if isinstance(cause, FailureError) else "Cancelled in Temporal"
        refused = isinstance(cause, ApplicationError) and cause.type == "GatewayRefused"
        writing = asyncio.create_task(
            workflow.execute_activity(
                "give_up_refund",
                RefundFailure(refund.key, said, refused),
                result_type=type(None),
                start_to_close_timeout=ATTEMPT,
                retry_policy=PATIENT,
                summary="refund failed",
            )
        )
        while not writing.done():  # a second cancel would defeat a single shield
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(writing)
        return RefundResult("failed", reason=said)
