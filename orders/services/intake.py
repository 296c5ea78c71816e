"""Taking orders in bulk, from imports and migrations: many at once, and without a workflow each.

One that is taken waits for its money like any other. The hybrid check finds it when it is paid, or overdue.
"""

from __future__ import annotations

from enum import StrEnum

from django.db import transaction
from django.utils import timezone

from orders.models import Order, Saga
from orders.services import lifecycle, steps
from orders.services.audit import StepRef, StepRefused, write_failure
from orders.services.placing import FieldError, OrderDraft, OrderInvalid, earlier_order, place_order
from orders.services.stock import OutOfStock
from orders.workflows.types import Step
from payments.gateways import gateway
from payments.gateways.base import GatewayRefused, RemotePayment


class Taken(StrEnum):
    """What came of an order that was to be taken."""

    NEW = "new"
    RESUMED = "resumed"  # it had been taken, but an earlier import stopped before its payment was open
    KNOWN = "known"


def take(
    draft: OrderDraft, actor: str, *, idempotency_key: str, body_digest: str, payment_reference: str = ""
) -> Taken:
    """Take an order, reserve its pieces, and open its payment, or take over the one with `payment_reference`.

    The same key with the same body goes on where the first time stopped, and adds nothing. Raises
    `OrderInvalid` and `KeyReused`, and nothing is stored then; `GatewayRefused` and `StepRefused` where the
    payment cannot be opened: the order is rolled back; `GatewayUnavailable` and `GatewayMisconfigured` where it
    is not open yet: call again.
    """
    order = earlier_order(idempotency_key, body_digest)
    new = order is None
    if order is None:
        order = _place(draft, actor, idempotency_key, body_digest, payment_reference)
    saga = order.saga
    if not order.in_bulk or saga is None or not lifecycle.is_being_taken(saga):
        return Taken.NEW if new else Taken.KNOWN
    _open_payment(saga)
    return Taken.NEW if new else Taken.RESUMED


def _place(
    draft: OrderDraft, actor: str, idempotency_key: str, body_digest: str, payment_reference: str
) -> Order:
    remote = _find(draft.payment_method, payment_reference) if payment_reference else None
    with transaction.atomic():
        order, new = place_order(
            draft, actor, idempotency_key=idempotency_key, body_digest=body_digest, way=Order.Way.BULK
        )
        if not new:
            return order
        Saga.objects.create(order=order, attempt=1)
        try:
            steps.reserve_inventory(StepRef(order.number, 1, Step.INVENTORY))
            if remote is not None:
                deadline = timezone.now() + order.payment_window
                steps.adopt_payment(StepRef(order.number, 1, Step.PAYMENT_HOLD), deadline, remote)
        except OutOfStock as error:
            raise OrderInvalid([FieldError("lines", str(error))]) from error
        except StepRefused as error:
            raise OrderInvalid([FieldError("payment_reference", str(error))]) from error
    return order


def _find(payment_method: str, payment_reference: str) -> RemotePayment:
    try:
        return gateway(payment_method).status(payment_reference)
    except GatewayRefused as error:
        raise OrderInvalid([FieldError("payment_reference", str(error))]) from error


def _open_payment(saga: Saga) -> None:
    ref = StepRef(saga.order.number, saga.attempt, Step.PAYMENT_HOLD)
    started_at = timezone.now()
    try:
        steps.create_payment_hold(ref, started_at + saga.order.payment_window)
    except (GatewayRefused, StepRefused) as error:
        write_failure(ref, str(error), started_at)
        lifecycle.roll_back(saga, "payment-refused", str(error))
        raise
    except Exception as error:
        write_failure(ref, str(error) or type(error).__name__, started_at)
        raise
