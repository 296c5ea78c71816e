"""The books against each other and against the engine. A difference is a sentence, and what would mend it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from django.db.models import F, Q, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from orders.models import Order, Product, Reservation, Saga
from orders.services.lifecycle import is_being_taken, roll_back_orphan
from payments.models import WebhookDelivery
from payments.services import proving, refunding, reprocessing, strays
from shop.kernel.models import OutboxMessage
from shop.kernel.money import Money

AT_A_TIME = 50
# News that is still early and refunds that are still being tried are no difference for this long.
LONG = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Difference:
    """`mend` does what is safe without a person, and `remedy` says what that is."""

    about: str
    sentence: str
    remedy: str = ""
    mend: Callable[[], bool] | None = None

    def fix(self) -> bool:
        """Mend it, if that is safe without a person; whether something was done."""
        return self.mend is not None and self.mend()


def differences(client: Client) -> Iterator[Difference]:
    """Everything that disagrees. Raises `RPCError` or `RuntimeError` if Temporal cannot be asked."""
    yield from _stock()
    yield from _money()
    yield from _bank()
    yield from _webhooks()
    yield from _half_taken()
    with asyncio.Runner() as runner:
        yield from _sagas(client, runner)
        yield from _refunds(client, runner)


def _stock() -> Iterator[Difference]:
    held = Coalesce(Sum("reservation__quantity", filter=Q(reservation__state=Reservation.State.RESERVED)), 0)
    for product in Product.objects.annotate(held=held).exclude(reserved=F("held")):
        yield Difference(
            product.sku, f"{product.reserved} pieces are reserved, but open orders hold {product.held}."
        )
    ended = (Saga.Status.COMPLETED, Saga.Status.CANCELLED)
    for r in Reservation.objects.filter(state="reserved", saga__status__in=ended).select_related(
        "saga__order"
    ):
        yield Difference(r.saga.order.number, f"The order has ended and still holds {r.quantity} pieces.")


def _money() -> Iterator[Difference]:
    """A completed saga has captured the total, and a cancelled one has given everything back.

    A refund counts from when it was asked for: a bank needs days. What staff refunded of a completed order
    is no difference.
    """
    sagas = Saga.objects.filter(
        status__in=(Saga.Status.COMPLETED, Saga.Status.CANCELLED), payment__isnull=False
    )
    for saga in sagas.select_related("order", "payment").prefetch_related("payment__events").iterator(500):
        assert saga.payment is not None
        totals = saga.payment.totals()
        completed = saga.status == Saga.Status.COMPLETED
        # The total, or the little less that staff have accepted.
        due = saga.payment.expected(totals)
        kept, expected = (totals.captured, due) if completed else (totals.kept, 0)
        if kept != expected:
            yield Difference(
                saga.order.number,
                f"The order is {saga.get_status_display()}: {Money(expected, saga.order.currency)} should have been "
                f"{'captured' if completed else 'kept'}, and {Money(kept, saga.order.currency)} were.",
            )
        elif totals.kept < 0:
            yield Difference(
                saga.order.number,
                f"{Money(-totals.kept, saga.order.currency)} more were given back than were captured.",
            )
        elif (
            saga.status == Saga.Status.CANCELLED
            and totals.authorized
            and not (totals.voided or totals.captured or totals.declined)
        ):
            yield Difference(
                saga.order.number, "The order is cancelled, but its authorization is still open."
            )


def _bank() -> Iterator[Difference]:
    for difference in proving.differences():
        yield Difference(difference.about, difference.sentence)


def _webhooks() -> Iterator[Difference]:
    """News of a payment that nobody here has opened, which for a while is only news that was too fast; and
    webhooks that were stored, and that something here kept from being processed."""
    old = timezone.now() - LONG
    for webhook in strays.unseen().filter(received_at__lt=old).order_by("id").iterator(500):
        yield Difference(
            webhook.news[0].merchant_reference or f"webhook {webhook.pk}",
            f"A webhook of {webhook.gateway} tells of payment {webhook.payment_reference}, which is not in our books.",
            "it is processed again, or in review",
            partial(reprocessing.settle, webhook.pk, "reconcile"),
        )
    stuck = WebhookDelivery.objects.filter(state=WebhookDelivery.State.RECEIVED, received_at__lt=old)
    for webhook in stuck.defer("body", "headers").order_by("id").iterator(500):
        yield Difference(
            f"webhook {webhook.pk}",
            f"A webhook of {webhook.gateway} was stored and never processed.",
            "it is processed again",
            partial(reprocessing.settle, webhook.pk, "reconcile"),
        )


def _half_taken() -> Iterator[Difference]:
    """Bulk orders without a payment; for a while that is only an import that is under way."""
    for saga in Saga.objects.filter(
        order__way=Order.Way.BULK,
        status__in=(Saga.Status.PENDING, Saga.Status.RUNNING),
        order__status=Order.Status.PLACED,
        created_at__lt=timezone.now() - timedelta(hours=1),
    ).select_related("order"):
        sentence = "Its import stopped before its payment was open: import its file again"
        yield Difference(
            saga.order.number,
            sentence,
            "what was taken is rolled back",
            partial(roll_back_orphan, saga.pk, sentence, "half-taken"),
        )


def _sagas(client: Client, runner: asyncio.Runner) -> Iterator[Difference]:
    """Sagas that run here and are gone there. One whose start is still in the outbox is not missed yet.

    A bulk order has a workflow only while it is fulfilled or rolled back.
    """
    queued = OutboxMessage.objects.filter(state=OutboxMessage.State.QUEUED, kind=OutboxMessage.Kind.START)
    waiting = set(queued.values_list("workflow_id", flat=True))
    open_sagas = [
        saga
        for saga in Saga.objects.exclude(status__in=Saga.FINAL).select_related("order")
        if saga.order.workflow_id not in waiting and not _needs_no_workflow(saga)
    ]
    for start in range(0, len(open_sagas), AT_A_TIME):
        batch = open_sagas[start : start + AT_A_TIME]
        found = runner.run(_describe(client, [saga.order.workflow_id for saga in batch]))
        for saga, fate in zip(batch, found, strict=True):
            # It may have ended, in both places, since we looked here.
            if fate.gone and Saga.objects.filter(pk=saga.pk).exclude(status__in=Saga.FINAL).exists():
                sentence = f"Its workflow in Temporal {fate.words} in the middle"
                yield Difference(
                    saga.order.number,
                    sentence,
                    "its rollback starts",
                    partial(roll_back_orphan, saga.pk, sentence, fate.run),
                )


def _refunds(client: Client, runner: asyncio.Runner) -> Iterator[Difference]:
    """Refunds that people asked for, that nobody has answered, and that nobody is carrying out."""
    asked = refunding.unanswered()
    for start in range(0, len(asked), AT_A_TIME):
        batch = asked[start : start + AT_A_TIME]
        found = runner.run(
            _describe(client, [refunding.workflow_id(request.psp_reference) for request in batch])
        )
        for request, fate in zip(batch, found, strict=True):
            number = request.payment.merchant_reference
            if fate.lost:
                yield Difference(
                    number,
                    f"The workflow of its refund of {request.money} {fate.words} before the provider has answered.",
                    "it is asked for again under the same key",
                    partial(refunding.start_again, request.psp_reference),
                )
            elif not fate.gone and request.recorded_at < timezone.now() - LONG:
                yield Difference(
                    number,
                    f"Its refund of {request.money} was asked for on {request.recorded_at:%Y-%m-%d %H:%M} UTC, and is "
                    "still being tried. Look whether a worker runs, and what its workflow says in Temporal.",
                )


def _needs_no_workflow(saga: Saga) -> bool:
    return saga.order.in_bulk and (saga.status == Saga.Status.WAITING or is_being_taken(saga))


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a workflow. `words` are empty while it runs; `completed`: it came to its own end."""

    words: str = ""
    run: str = ""
    completed: bool = False

    @property
    def gone(self) -> bool:
        return bool(self.words)

    @property
    def lost(self) -> bool:
        return self.gone and not self.completed


async def _describe(client: Client, workflow_ids: list[str]) -> list[Fate]:
    return await asyncio.gather(*(_fate(client, workflow_id) for workflow_id in workflow_ids))


async def _fate(client: Client, workflow_id: str) -> Fate:
    try:
        found = await client.get_workflow_handle(workflow_id).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return Fate("was deleted", "deleted")
        raise
    if found.status in (WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.CONTINUED_AS_NEW):
        return Fate()
    words = {
        WorkflowExecutionStatus.TERMINATED: "was terminated",
        WorkflowExecutionStatus.TIMED_OUT: "timed out",
        WorkflowExecutionStatus.FAILED: "failed",
        WorkflowExecutionStatus.CANCELED: "was cancelled",
    }
    told = words.get(found.status, "ended") if found.status else "ended"
    return Fate(told, found.run_id, completed=found.status is WorkflowExecutionStatus.COMPLETED)
