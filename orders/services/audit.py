"""Running one step or undo exactly once in effect, with its audit row in the transaction of the effect."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from django.db import DatabaseError, transaction
from django.utils import timezone

from orders.models import Order, Saga, SagaStep

log = logging.getLogger(__name__)
A = TypeVar("A")

SUCCEEDED = SagaStep.Outcome.SUCCEEDED
SKIPPED = SagaStep.Outcome.SKIPPED


class StepRefused(Exception):
    """A step cannot be done, now or later: the saga has to roll back."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a step came to. `outcome` is skipped where there was nothing to undo; `note` says why."""

    reference: str = ""
    outcome: str = SUCCEEDED
    note: str = ""


@dataclass(frozen=True, slots=True)
class StepRef:
    """One step (or, with a rollback run, one undo) of one attempt at an order."""

    order_number: str
    attempt: int
    step: str
    rollback_run: str = ""

    @property
    def kind(self) -> str:
        return SagaStep.Kind.COMPENSATION if self.rollback_run else SagaStep.Kind.ACTION

    @property
    def key(self) -> str:
        """The idempotency key: the same across retries, replays, resets and crashes of this attempt."""
        undo = "/undo" if self.rollback_run else ""
        return f"{self.order_number}/{self.attempt}/{self.step}{undo}"


def lock_saga(order_number: str, attempt: int) -> Saga:
    """The saga, read under the lock of its order's row, which guards everything about the order.

    The lock order everywhere: order, then payment, then products by SKU.
    """
    order = Order.objects.select_for_update().get(number=order_number)
    saga = Saga.objects.select_related("payment").get(order=order, attempt=attempt)
    saga.order = order
    return saga


def once(ref: StepRef, effect: Callable[[Saga], Done]) -> SagaStep:
    """Do a step that only touches our database: effect and audit row in one transaction, at most once."""
    started_at = timezone.now()
    with transaction.atomic():
        saga = lock_saga(ref.order_number, ref.attempt)
        _refuse_if_over(saga, ref)
        earlier = list(_rows(saga, ref))
        if earlier and earlier[-1].outcome != SagaStep.Outcome.FAILED:
            return earlier[-1]
        done = effect(saga)
        return _write(saga, ref, done, len(earlier) + 1, started_at)


def once_with_call(ref: StepRef, call: Callable[[Saga], A], effect: Callable[[Saga, A], Done]) -> SagaStep:
    """Do a step that calls a provider: look, call without a lock, then effect and audit row in one transaction.

    The call carries the step's idempotency key, so doing it twice does it once.
    """
    started_at = timezone.now()
    with transaction.atomic():
        saga = lock_saga(ref.order_number, ref.attempt)
        _refuse_if_over(saga, ref)
        earlier = list(_rows(saga, ref))
        if earlier and earlier[-1].outcome != SagaStep.Outcome.FAILED:
            return earlier[-1]
    answer = call(saga)
    with transaction.atomic():
        saga = lock_saga(ref.order_number, ref.attempt)
        earlier = list(_rows(saga, ref))
        if earlier and earlier[-1].outcome != SagaStep.Outcome.FAILED:
            return earlier[-1]
        done = effect(saga, answer)
        return _write(saga, ref, done, len(earlier) + 1, started_at)


def write_failure(ref: StepRef, error: str, started_at: datetime) -> None:
    """The audit row of an attempt that failed. The failure matters more than its row: no error from here."""
    try:
        with transaction.atomic():
            saga = lock_saga(ref.order_number, ref.attempt)
            earlier = list(_rows(saga, ref))
            if earlier and earlier[-1].outcome != SagaStep.Outcome.FAILED:
                return  # another attempt has succeeded meanwhile
            _write(saga, ref, Done(outcome=SagaStep.Outcome.FAILED, note=error), len(earlier) + 1, started_at)
    except (DatabaseError, Order.DoesNotExist):
        log.exception("The failed attempt at %s could not be written down", ref.key)


def _rows(saga: Saga, ref: StepRef) -> list[SagaStep]:
    return list(saga.steps.filter(step=ref.step, kind=ref.kind).order_by("id"))


def _refuse_if_over(saga: Saga, ref: StepRef) -> None:
    """A step that comes after its saga was given up or has ended must not start: its undo has been and gone.

    Not even one that is done already: its workflow was started again by a start that came twice, and would go
    on to wait for money.
    """
    over = saga.status == Saga.Status.COMPENSATING or saga.is_final
    if over and ref.kind == SagaStep.Kind.ACTION:
        raise StepRefused(f"The saga is {saga.get_status_display()}; {ref.step} is not started any more.")


def _write(saga: Saga, ref: StepRef, done: Done, attempt: int, started_at: datetime) -> SagaStep:
    return SagaStep.objects.create(
        saga=saga,
        step=ref.step,
        kind=ref.kind,
        outcome=done.outcome,
        attempt=attempt,
        reference=done.reference,
        idempotency_key=ref.key,
        error=done.note,
        actor="saga",
        rollback_run=ref.rollback_run,
        started_at=started_at,
    )
