"""Bulk orders: which are paid and to be fulfilled, which have waited long enough, and who takes one on."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence

from django.db import transaction
from django.utils import timezone

from orders.models import Order, PaidInBulk, Saga
from orders.services import lifecycle
from orders.services.audit import lock_saga
from orders.services.status import move_saga
from orders.workflows.types import FulfillmentStart, OverdueOrders, PaidOrders, SagaResult, Status
from payments.gateways.base import GatewayError
from payments.services import checking

log = logging.getLogger(__name__)
PAGE = 100
S = Saga.Status


@transaction.atomic
def begin(start: FulfillmentStart) -> SagaResult | None:
    """Take a paid bulk order on. Returns the result of one that has ended, or why this one is not begun.

    The saga of one that was begun before runs, and goes on: only one workflow at a time can have its id.
    """
    saga = lock_saga(start.order_number, start.attempt)
    if saga.is_final:
        return SagaResult(**(saga.result or {}))
    why_not = _why_not_begin(saga)
    if why_not:
        return SagaResult(Status.REFUSED, order_id=start.order_number, reason=why_not)
    move_saga(saga, S.RUNNING)
    PaidInBulk.objects.filter(saga=saga).delete()
    return None


def _why_not_begin(saga: Saga) -> str:
    order, payment = saga.order, saga.payment
    if not order.in_bulk:
        return "The order has its own saga."
    if lifecycle.is_being_fulfilled(saga):
        return ""
    if saga.status != S.WAITING or payment is None:
        return lifecycle.why_not_waiting(order)
    if lifecycle.cancel_asked_for(saga):
        return "Its cancellation was asked for and is on its way."
    if payment.missing(payment.totals()) > 0:
        return "The order is not paid in full."
    return ""


def paid_page(after: int) -> PaidOrders:
    """The next bulk orders that are paid and wait to be fulfilled, after the key `after`."""
    rows = list(
        PaidInBulk.objects.filter(pk__gt=after)
        .select_related("saga__order", "saga__payment")
        .prefetch_related("saga__payment__events")
        .order_by("pk")[:PAGE]
    )
    # Money that came on top, when somebody had begun already. A saga never waits a second time.
    over = [row.pk for row in rows if row.saga.status != S.WAITING]
    PaidInBulk.objects.filter(pk__in=over).delete()
    orders = [
        lifecycle.saga_input(row.saga)
        for row in rows
        if row.saga.status == S.WAITING and not _why_not_begin(row.saga)
    ]
    return PaidOrders(orders, rows[-1].pk if len(rows) == PAGE else 0)


def pending() -> int:
    """How many bulk orders wait for money."""
    return Saga.objects.filter(status=S.WAITING, order__way=Order.Way.BULK, paid_in_bulk=None).count()


# --- the end of the wait ---------------------------------------------------------------------------------


def overdue_page(after: int) -> OverdueOrders:
    """Ask a last time about the next bulk orders whose deadline has passed, and roll back those not paid."""
    sagas = list(
        Saga.objects.filter(
            status=S.WAITING,
            deadline__lte=timezone.now(),
            order__way=Order.Way.BULK,
            paid_in_bulk=None,
            pk__gt=after,
        )
        .select_related("order")
        .order_by("pk")[:PAGE]
    )
    unanswered = _ask(sagas)
    given_up = sum(_give_up(saga) for saga in sagas if saga.pk not in unanswered)
    return OverdueOrders(given_up, len(unanswered), sagas[-1].pk if len(sagas) == PAGE else 0)


def _ask(sagas: Sequence[Saga]) -> set[int]:
    """Have the books know what providers know of these. The keys of those whose provider gave no answer."""
    by_gateway: dict[str, list[Saga]] = defaultdict(list)
    for saga in sagas:
        by_gateway[saga.order.payment_method].append(saga)
    unanswered: set[int] = set()
    for asked in by_gateway.values():
        try:
            checking.check_orders([saga.order.number for saga in asked])
        except GatewayError as error:
            log.warning("%d overdue orders are left to the next check: %s", len(asked), error)
            unanswered |= {saga.pk for saga in asked}
    return unanswered


@transaction.atomic
def _give_up(found: Saga) -> bool:
    saga = lock_saga(found.order.number, found.attempt)
    payment = saga.payment
    overdue = saga.status == S.WAITING and saga.deadline is not None and saga.deadline <= timezone.now()
    if not overdue or payment is None or payment.missing(payment.totals()) <= 0:
        return False
    if lifecycle.cancel_asked_for(saga):
        return False  # on its way already
    lifecycle.roll_back(saga, "overdue", "No payment arrived before the deadline")
    return True
