"""Watching one order's payment: a workflow of its own asks the provider every hour while the order waits.

Whether it is watched is read from what was asked for; the workflow ends by itself when the payment is decided.
"""

from __future__ import annotations

from datetime import timedelta
from math import ceil

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from orders.models import Order, OrderEvent, Saga
from orders.services.lifecycle import Acted, ActionRefused, locked, why_not_waiting, why_stale
from orders.workflows.policies import MAX_EXTENSION
from payments.gateways import gateway
from payments.workflows.monitor import MonitorInput, StopMonitor, monitor_id
from payments.workflows.types import TASK_QUEUE
from shop.kernel import outbox

Kind = OrderEvent.Kind


def is_watched(order: Order, saga: Saga) -> bool:
    """Whether the latest that was asked for is to watch this attempt's payment."""
    if saga.status != Saga.Status.WAITING:
        return False
    kinds = [event.kind for event in _asked(order, saga)]
    return bool(kinds) and kinds[-1] == Kind.WATCH


def can_be_watched(saga: Saga) -> bool:
    """Whether it waits for money of which somebody could be asked."""
    return (
        saga.status == Saga.Status.WAITING
        and saga.payment is not None
        and saga.payment.gateway in settings.PAYMENT_GATEWAYS
        and gateway(saga.payment.gateway).capabilities.remote
    )


def why_not_watch(order: Order, saga: Saga | None) -> str:
    if saga is None or saga.payment is None or saga.status != Saga.Status.WAITING:
        return why_not_waiting(order)
    if not can_be_watched(saga):
        return _("A bank cannot be asked: its statements say what has come.")
    return _("The payment is watched already.") if is_watched(order, saga) else ""


def why_not_stop_watching(order: Order, saga: Saga | None) -> str:
    if saga is None or not is_watched(order, saga):
        return _("The payment is not watched.")
    return ""


@transaction.atomic
def watch(order_number: str, actor: str, *, attempt: int | None = None) -> Acted:
    """Have the provider asked every hour whether this order is paid."""
    order, saga = locked(order_number)
    stale = why_stale(saga, attempt)
    if stale:
        raise ActionRefused(stale)
    if saga is not None and is_watched(order, saga):
        return Acted(_("The payment is watched already."), repeated=True)
    why_not = why_not_watch(order, saga)
    if why_not:
        raise ActionRefused(why_not)
    assert saga is not None
    begin(saga, actor)
    return Acted(_("The provider is asked now, and then every hour."))


@transaction.atomic
def stop_watching(order_number: str, actor: str, reason: str, *, attempt: int | None = None) -> Acted:
    """Ask no more for this order alone. Webhooks and the batch check go on."""
    order, saga = locked(order_number)
    stale = why_stale(saga, attempt)
    if stale:
        raise ActionRefused(stale)
    if saga is None or not is_watched(order, saga):
        return Acted(_("The payment is not watched."), repeated=True)
    message_id = f"{monitor_id(order.number)}/{saga.attempt}/{len(_asked(order, saga))}"
    message = outbox.signal_workflow(
        message_id, monitor_id(order.number), "stop_monitoring", StopMonitor(reason)
    )
    OrderEvent.objects.create(
        order=order,
        kind=Kind.UNWATCH,
        actor=actor,
        reason=reason,
        message=message,
        data={"attempt": saga.attempt},
    )
    return Acted(_("The provider is asked no more for this order alone."))


def begin(saga: Saga, actor: str) -> None:
    """Start the monitor of a waiting saga's payment. The caller holds the order's lock."""
    order, deadline = saga.order, saga.deadline
    assert deadline is not None
    # The deadline may be extended, and a monitor that is not needed any more ends by itself.
    left = deadline + MAX_EXTENSION - timezone.now()
    message = outbox.start_workflow(
        f"{monitor_id(order.number)}/{saga.attempt}/{len(_asked(order, saga))}",
        monitor_id(order.number),
        "OrderPaymentMonitorWorkflow",
        MonitorInput(order.number, max_days=max(1, ceil(left / timedelta(days=1)))),
        task_queue=TASK_QUEUE,
        summary=f"payment of {order.number}",
        order_number=order.number,
    )
    OrderEvent.objects.create(
        order=order, kind=Kind.WATCH, actor=actor, message=message, data={"attempt": saga.attempt}
    )


def _asked(order: Order, saga: Saga) -> list[OrderEvent]:
    return list(
        order.events.filter(kind__in=[Kind.WATCH, Kind.UNWATCH], data__attempt=saga.attempt).order_by("id")
    )
