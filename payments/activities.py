"""The bridge between the payment workflows and the services: each activity calls one service, and no more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from payments.gateways.base import GatewayMisconfigured, GatewayRefused
from payments.services import monitoring, refunding
from payments.workflows.coordinator import MonitorsToLookAt
from payments.workflows.refund import RefundFailure, RefundInput
from shop.kernel.activities import orm_activity

PERMANENT = (GatewayRefused, GatewayMisconfigured, refunding.RefundRefused)


@orm_activity
def refund_requested_payment(refund: RefundInput) -> str:
    try:
        return refunding.perform(refund.key)
    except Exception as error:
        pause = getattr(error, "retry_after", None)
        raise ApplicationError(
            str(error) or type(error).__name__,
            type=type(error).__name__,
            non_retryable=isinstance(error, PERMANENT),
            next_retry_delay=timedelta(seconds=min(pause, 300)) if pause else None,
        ) from error


@orm_activity
def give_up_refund(failure: RefundFailure) -> None:
    refunding.give_up(failure.key, failure.error, refused=failure.refused)


@activity.defn
async def ended_monitors(monitors: MonitorsToLookAt) -> dict[str, str]:
    return await monitoring.ended_monitors(activity.client(), monitors.order_numbers)


ALL: list[Callable[..., Any]] = [refund_requested_payment, give_up_refund, ended_monitors]
