"""The bridge between the payment workflows and the services: each activity calls one service, and no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from temporalio.exceptions import ApplicationError

from payments.gateways.base import GatewayMisconfigured, GatewayRefused
from payments.services import refunding
from payments.workflows.refund import RefundFailure, RefundInput
from shop.kernel.activities import orm_activity, pause_after

PERMANENT = (GatewayRefused, GatewayMisconfigured, refunding.RefundRefused)


@orm_activity
def refund_requested_payment(refund: RefundInput) -> str:
    try:
        return refunding.perform(refund.key)
    except Exception as error:
        raise ApplicationError(
            str(error) or type(error).__name__,
            type=type(error).__name__,
            non_retryable=isinstance(error, PERMANENT),
            next_retry_delay=pause_after(error),
        ) from error


@orm_activity
def give_up_refund(failure: RefundFailure) -> None:
    refunding.give_up(failure.key, failure.error, refused=failure.refused)


ALL: list[Callable[..., Any]] = [refund_requested_payment, give_up_refund]
