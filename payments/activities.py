"""The bridge between the payment workflows and the services: each activity calls one service, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from payments.gateways.base import GatewayMisconfigured, GatewayRefused
from payments.services import batch_runs, checking, monitoring, refunding
from payments.workflows.coordinator import MonitorsToLookAt
from payments.workflows.refund import RefundFailure, RefundInput
from payments.workflows.types import (
    BatchEnd,
    BatchStart,
    GatewayCheck,
    PageChecked,
    PaymentsToCheck,
    PendingOrders,
    PendingQuery,
)
from shop.kernel.activities import orm_activity, pause_after

PERMANENT = (
    GatewayRefused,
    GatewayMisconfigured,
    refunding.RefundRefused,
    checking.TooManyOrders,
    checking.FeedStands,
)


@contextmanager
def _for_the_engine() -> Iterator[None]:
    """An error with what the engine should do about it."""
    try:
        yield
    except Exception as error:
        raise ApplicationError(
            str(error) or type(error).__name__,
            type=type(error).__name__,
            non_retryable=isinstance(error, PERMANENT),
            next_retry_delay=pause_after(error),
        ) from error


@orm_activity
def refund_requested_payment(refund: RefundInput) -> str:
    with _for_the_engine():
        return refunding.perform(refund.key)


@orm_activity
def give_up_refund(failure: RefundFailure) -> None:
    refunding.give_up(failure.key, failure.error, refused=failure.refused)


@orm_activity
def start_payment_batch(start: BatchStart) -> list[GatewayCheck]:
    with _for_the_engine():
        return batch_runs.start(start)


@orm_activity
def check_changes_page(check: GatewayCheck) -> PageChecked:
    with _for_the_engine():
        return checking.check_changes_page(check.gateway, overlap=check.pages == 0)


@orm_activity
def check_pending_page(check: GatewayCheck) -> PageChecked:
    with _for_the_engine():
        return checking.check_pending_page(check.gateway, check.after)


@orm_activity
def get_pending_payment_orders(query: PendingQuery) -> PendingOrders:
    return checking.pending_orders(query.gateway, query.after, query.limit)


@orm_activity
def check_payments_batch(orders: PaymentsToCheck) -> dict[str, str]:
    with _for_the_engine():
        return {number: str(state) for number, state in checking.check_orders(orders.order_numbers).items()}


@orm_activity
def finish_payment_batch(end: BatchEnd) -> None:
    batch_runs.finish(end)


@activity.defn
async def ended_monitors(monitors: MonitorsToLookAt) -> dict[str, str]:
    return await monitoring.ended_monitors(activity.client(), monitors.order_numbers)


ALL: list[Callable[..., Any]] = [
    refund_requested_payment,
    give_up_refund,
    start_payment_batch,
    check_changes_page,
    check_pending_page,
    get_pending_payment_orders,
    check_payments_batch,
    finish_payment_batch,
    ended_monitors,
]
