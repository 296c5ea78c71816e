"""The only places where an order's or a saga's status changes. Both rows are locked by the caller."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from orders.models import Order, Saga
from shop.kernel import second_person

O = Order.Status  # noqa: E741
S = Saga.Status

_ORDER: dict[str, set[str]] = {
    O.PLACED: {O.AWAITING_PAYMENT, O.ROLLING_BACK, O.CANCELLED},
    O.AWAITING_PAYMENT: {O.PAID, O.ROLLING_BACK},
    O.PAID: {O.SHIPPED, O.ROLLING_BACK},
    O.SHIPPED: {O.COMPLETED, O.ROLLING_BACK},
    O.COMPLETED: set(),
    O.ROLLING_BACK: {O.CANCELLED, O.COMPENSATION_FAILED},
    O.CANCELLED: {O.PLACED},
    O.COMPENSATION_FAILED: {O.CANCELLED},
}
_SAGA: dict[str, set[str]] = {
    S.PENDING: {S.RUNNING, S.COMPENSATING},
    S.RUNNING: {S.WAITING, S.COMPENSATING, S.COMPLETED},
    S.WAITING: {S.RUNNING, S.COMPENSATING},
    S.COMPENSATING: {S.CANCELLED, S.COMPENSATION_FAILED},
    S.COMPLETED: set(),
    S.CANCELLED: set(),
    S.COMPENSATION_FAILED: {S.CANCELLED},
}


class WrongTransition(Exception):
    """A status was asked to change in a way that an order's life does not have."""


def subject_of(order_number: str) -> str:
    """What requests to a second person call an order."""
    return f"order/{order_number}"


def move_order(order: Order, to: str) -> None:
    """Change an order's status; to the one it has already is a no-op."""
    if order.status == to:
        return
    if to not in _ORDER[order.status]:
        raise WrongTransition(f"Order {order.number} is {order.status} and cannot become {to}.")
    order.status = to
    order.save(update_fields=["status"])


def move_saga(saga: Saga, to: str, **changes: Any) -> None:
    """Change a saga's status and, in the same write, the given fields."""
    if saga.status != to:
        if to not in _SAGA[saga.status]:
            raise WrongTransition(f"Saga {saga} is {saga.status} and cannot become {to}.")
        saga.status = to
        changes["status"] = to
        # A rollback that failed has ended; that people close it later is no second end.
        if to in Saga.FINAL and saga.ended_at is None:
            changes["ended_at"] = timezone.now()
    for name, value in changes.items():
        setattr(saga, name, value)
    if changes:
        saga.save(update_fields=list(changes))
    if changes.get("status") in (S.COMPENSATING, *Saga.FINAL):
        why = _("The order is {status}.").format(status=saga.get_status_display())
        second_person.lapse([subject_of(saga.order.number)], why)
