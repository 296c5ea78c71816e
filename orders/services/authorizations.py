"""Authorizations end: keeping one alive while its order waits, telling people of one that will lapse, and not
taking money from one that has.

`Payment.authorized_until` says how long, as far as anybody has told us; it never becomes earlier.
"""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_noop

from orders.models import OrderEvent, Saga
from orders.services.audit import StepRefused, lock_saga
from orders.workflows.types import Step
from payments.gateways import gateway
from payments.gateways.base import RemoteStatus
from payments.models import Payment
from payments.services.recording import absorb

LAPSED = (RemoteStatus.EXPIRED, RemoteStatus.VOIDED, RemoteStatus.DECLINED)


def renew(order_number: str, attempt: int, lapses: datetime) -> datetime:
    """Have the authorization that ends at `lapses` last longer; until when it does, then.

    Nothing is asked for if it lasts longer already, or if the money is there. Raises `GatewayRefused` and
    `StepRefused` where it cannot be renewed, `GatewayUnavailable` where nobody knows.
    """
    saga = Saga.objects.select_related("order", "payment").get(order__number=order_number, attempt=attempt)
    payment = saga.payment
    if payment is None:
        raise StepRefused("This saga has no payment: its authorization never happened.")
    known = payment.authorized_until or lapses
    if known > lapses or saga.status != Saga.Status.WAITING or payment.missing(payment.totals()) <= 0:
        return known
    key = f"{saga.key(Step.PAYMENT_HOLD)}/renew/{lapses.isoformat()}"
    result = gateway(payment.gateway).renew(payment.reference, key)
    renewed = absorb(payment, result.payment, source="call").authorized_until
    if renewed is None or renewed <= lapses:
        raise StepRefused(
            gettext_noop("The provider renewed the authorization, but it lasts no longer than before.")
        )
    return renewed


@transaction.atomic
def note_lapse(order_number: str, attempt: int, lapses: datetime, why: str) -> None:
    """Write down, once, that the authorization will lapse and why it could not be renewed."""
    saga = lock_saga(order_number, attempt)
    if saga.status == Saga.Status.WAITING and not lapse_noted(saga, lapses):
        OrderEvent.objects.create(
            order=saga.order,
            kind=OrderEvent.Kind.LAPSE,
            actor="saga",
            reason=f"It ends on {lapses:%Y-%m-%d %H:%M} UTC and could not be renewed: {why}",
            data={"attempt": attempt, "authorized_until": lapses.isoformat()},
        )


def lapse_noted(saga: Saga, lapses: datetime) -> bool:
    """Whether people have been told that the authorization will lapse then."""
    about = {"attempt": saga.attempt, "authorized_until": lapses.isoformat()}
    return saga.order.events.filter(kind=OrderEvent.Kind.LAPSE, data=about).exists()


def last_moment(saga: Saga) -> datetime | None:
    """When the authorization ends for good. None if it does not, or can still be renewed as far as we know."""
    payment = saga.payment
    if payment is None or payment.authorized_until is None:
        return None
    # Nobody renews that of a bulk order, which has no workflow.
    renewable = gateway(payment.gateway).capabilities.renewal and not saga.order.in_bulk
    if renewable and not lapse_noted(saga, payment.authorized_until):
        return None
    return payment.authorized_until


def refuse_if_lapsed(payment: Payment) -> None:
    """Ask the provider, and raise `StepRefused` if nothing can be captured any more."""
    remote = gateway(payment.gateway).status(payment.reference)
    if remote.status not in LAPSED:
        return
    absorb(payment, remote, source="call")
    if remote.status == RemoteStatus.EXPIRED:
        when = f" on {payment.authorized_until:%Y-%m-%d %H:%M} UTC" if payment.authorized_until else ""
        raise StepRefused(f"The authorization lapsed{when}, before the money was taken.")
    raise StepRefused(f"The authorization was {remote.status}, before the money was taken.")


def is_overdue(payment: Payment) -> bool:
    """Whether the authorization should have lapsed by now, as far as we know."""
    return payment.authorized_until is not None and payment.authorized_until <= timezone.now()
