"""Orders against sagas, and sagas (and refunds) against Temporal: what runs here and is gone there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db.models import Exists, F, OuterRef, Subquery
from django.utils import timezone
from django.utils.translation import gettext_noop
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from orders.models import Order, Saga
from orders.services.lifecycle import is_being_taken, roll_back_orphan
from orders.services.reconciling.finding import LONG, Finding, Look, Weight
from payments.services import refunding
from shop.kernel.models import OutboxMessage

AT_A_TIME = 50
RPC_TIMEOUT = timedelta(seconds=10)


def orders(look: Look) -> Iterator[Finding]:
    """An order has a saga soon after it was placed, and has come to what its latest one has come to."""
    latest = Saga.objects.filter(order=OuterRef("pk")).order_by("-attempt")
    known = Order.objects.filter(number=look.only) if look.only else Order.objects.all()
    without = known.filter(
        ~Exists(latest), status=Order.Status.PLACED, created_at__lt=timezone.now() - LONG
    ).order_by("pk")
    for order in without:
        if settings.AUTO_START_SAGAS or order.in_bulk:
            yield Finding(
                order.number,
                gettext_noop("It was placed and has no saga: nobody carries it out."),
                gettext_noop("Start it or cancel it on its page."),
                Weight.WORK,
                order.number,
            )
    ends: Any = known.annotate(come_to=Subquery(latest.values("status")[:1])).order_by("pk")
    over = ends.filter(come_to__in=Saga.FINAL).exclude(status=F("come_to"))
    early = ends.filter(status__in=Saga.FINAL, come_to__isnull=False).exclude(come_to__in=Saga.FINAL)
    for order in [*over, *early]:
        yield Finding(
            order.number,
            f"The order is {order.get_status_display()}, but its saga is {Saga.Status(order.come_to).label}.",
            gettext_noop("Look at its timeline; a developer has to find out which is right."),
            Weight.MONEY,
            order.number,
        )
    yield from _half_taken(look)


def _half_taken(look: Look) -> Iterator[Finding]:
    """Bulk orders without a payment; for a while that is only an import that is under way."""
    half = Saga.objects.filter(
        order__way=Order.Way.BULK,
        status__in=(Saga.Status.PENDING, Saga.Status.RUNNING),
        order__status=Order.Status.PLACED,
        created_at__lt=timezone.now() - LONG,
    )
    if look.only:
        half = half.filter(order__number=look.only)
    for saga in half.select_related("order").order_by("pk"):
        sentence = "Its import stopped before its payment was open: import its file again"
        yield Finding(
            saga.order.number,
            sentence,
            gettext_noop("Import its file again, or have it rolled back."),
            Weight.STOCK,
            saga.order.number,
            remedy=gettext_noop("what was taken is rolled back"),
            mend=partial(roll_back_orphan, saga.pk, sentence, "half-taken"),
        )


def in_temporal(look: Look) -> Iterator[Finding]:
    """Sagas that run here and are gone there. One whose start is still in the outbox is not missed yet.

    A bulk order has a workflow only while it is fulfilled or rolled back. Raises `RPCError` or `RuntimeError` if
    Temporal cannot be asked.
    """
    open_sagas = Saga.objects.exclude(status__in=Saga.FINAL).select_related("order", "payment").order_by("pk")
    if look.only:
        open_sagas = open_sagas.filter(order__number=look.only)
    after = 0
    while page := list(open_sagas.filter(pk__gt=after)[:AT_A_TIME]):
        look.beat()
        after = page[-1].pk
        # After the sagas: one that was begun meanwhile is not among them.
        waiting = _yet_to_start(saga.order.workflow_id for saga in page)
        asked = [
            saga for saga in page if saga.order.workflow_id not in waiting and not _needs_no_workflow(saga)
        ]
        fates = look.runner.run(_fates(look.client, [saga.order.workflow_id for saga in asked]))
        for saga, fate in zip(asked, fates, strict=True):
            # It may have ended, in both places, since we looked here.
            if fate.gone and Saga.objects.filter(pk=saga.pk).exclude(status__in=Saga.FINAL).exists():
                yield _orphan(saga, fate)


def _orphan(saga: Saga, fate: Fate) -> Finding:
    sentence = f"Its workflow in Temporal {fate.words} in the middle"
    return Finding(
        saga.order.number,
        sentence,
        gettext_noop(
            "Have it rolled back: what it has reserved, authorized, captured and shipped is undone."
        ),
        order_number=saga.order.number,
        payment=saga.payment_id,
        remedy=gettext_noop("its rollback starts"),
        mend=partial(roll_back_orphan, saga.pk, sentence, fate.run or _deleted(saga.order.workflow_id)),
    )


def _deleted(workflow_id: str) -> str:
    """A name for a run that left none: that of the start which it was."""
    starts = OutboxMessage.objects.filter(workflow_id=workflow_id, kind=OutboxMessage.Kind.START)
    last = starts.exclude(state=OutboxMessage.State.QUEUED).order_by("-id").values_list("pk", flat=True)
    return f"deleted-{last.first() or 0}"


def refunds(look: Look) -> Iterator[Finding]:
    """Refunds that people asked for, that nobody has answered, and that nobody is carrying out. Raises as above."""
    requests = [r for r in refunding.unanswered() if look.only in ("", r.psp_reference)]
    for start in range(0, len(requests), AT_A_TIME):
        look.beat()
        page = requests[start : start + AT_A_TIME]
        ids = [refunding.workflow_id(request.psp_reference) for request in page]
        fates = look.runner.run(_fates(look.client, ids))
        for request, fate in zip(page, fates, strict=True):
            number = request.payment.merchant_reference
            if fate.lost:
                yield Finding(
                    request.psp_reference,
                    f"The workflow of its refund of {request.money} {fate.words} before the provider has answered.",
                    gettext_noop("Have it asked for again."),
                    order_number=number,
                    payment=request.payment_id,
                    remedy=gettext_noop("it is asked for again under the same key"),
                    mend=partial(refunding.start_again, request.psp_reference),
                )
            elif not fate.gone and request.recorded_at < timezone.now() - LONG:
                yield Finding(
                    request.psp_reference,
                    f"Its refund of {request.money} was asked for on {request.recorded_at:%Y-%m-%d %H:%M} UTC, and is "
                    "still being tried.",
                    gettext_noop("Look whether a worker runs, and what its workflow says in Temporal."),
                    order_number=number,
                    payment=request.payment_id,
                )


def _needs_no_workflow(saga: Saga) -> bool:
    return saga.order.in_bulk and (saga.status == Saga.Status.WAITING or is_being_taken(saga))


def _yet_to_start(workflow_ids: Iterable[str]) -> set[str]:
    queued = OutboxMessage.objects.filter(state=OutboxMessage.State.QUEUED, kind=OutboxMessage.Kind.START)
    return set(queued.filter(workflow_id__in=list(workflow_ids)).values_list("workflow_id", flat=True))


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


def _is_about_namespace(error: RPCError) -> bool:
    """Whether it is not this workflow that is gone, but all of them: the settings are wrong, or the engine is new."""
    details = error.grpc_status.details
    return any("NamespaceNotFound" in detail.type_url for detail in details) or error.message.startswith(
        "Namespace"
    )


async def _fates(client: Client, workflow_ids: list[str]) -> list[Fate]:
    return await asyncio.gather(*(_fate(client, workflow_id) for workflow_id in workflow_ids))


async def _fate(client: Client, workflow_id: str) -> Fate:
    try:
        found = await client.get_workflow_handle(workflow_id).describe(rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND or _is_about_namespace(error):
            raise
        return Fate("was deleted")
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
