"""What waits for a person: counts that lead to the lists behind them, and only what the person may see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.db.models import QuerySet
from django.urls import reverse

from orders.admin.listing import due_soon, lapsing
from orders.models import DeadLetter, Order
from orders.services.dead_letters import awake
from payments.models import BatchRun, OutgoingTransfer, ReviewItem
from shop.kernel import second_person
from shop.kernel.admin.messages import overdue
from shop.kernel.durations import in_words, roughly
from shop.kernel.models import OutboxMessage
from shop.schedules.declared import is_late, ours

MOST = 1000  # nobody needs the exact number beyond


@dataclass(frozen=True, slots=True)
class Task:
    """One line of the queue. `count` is capped at `MOST`."""

    label: str
    count: int
    url: str
    urgent: bool
    note: str = ""

    @property
    def many(self) -> bool:
        return self.count >= MOST


@dataclass(frozen=True, slots=True)
class _Kind:
    label: str
    permission: str
    rows: Callable[[], QuerySet[Any]]
    list_name: str
    query: str
    urgent: bool = False


_KINDS = (
    _Kind(
        "Review items: money that does not fit",
        "payments.view_reviewitem",
        lambda: ReviewItem.objects.filter(state=ReviewItem.State.OPEN),
        "payments_reviewitem",
        "state__exact=open",
    ),
    _Kind(
        "Money to be sent back: ready for a file",
        "payments.view_outgoingtransfer",
        lambda: OutgoingTransfer.objects.filter(state=OutgoingTransfer.State.READY),
        "payments_outgoingtransfer",
        "state__exact=ready",
    ),
    _Kind(
        "Money to be sent back: account missing",
        "payments.view_outgoingtransfer",
        lambda: OutgoingTransfer.objects.filter(state=OutgoingTransfer.State.NEEDS_ACCOUNT),
        "payments_outgoingtransfer",
        "state__exact=needs_account",
    ),
    _Kind(
        "Unpaid orders with a deadline within 48 hours",
        "orders.view_order",
        lambda: due_soon(Order.objects.all()),
        "orders_order",
        "deadline=soon",
    ),
    _Kind(
        "Authorizations about to expire",
        "orders.view_order",
        lambda: lapsing(Order.objects.all()),
        "orders_order",
        "authorization=lapsing",
        urgent=True,
    ),
    _Kind(
        "Payment checks that died or left a provider out",
        "payments.view_batchrun",
        BatchRun.not_made_up_for,
        "payments_batchrun",
        "state=left",
    ),
    _Kind(
        "Messages to Temporal that wait for more than a minute",
        "kernel.view_outboxmessage",
        lambda: overdue(OutboxMessage.objects.all()),
        "kernel_outboxmessage",
        "waiting=long",
        urgent=True,
    ),
)


def tasks(user: User | AnonymousUser) -> list[Task]:
    """The queue of this person."""
    queue = [_dead_letters(user)] if user.has_perm("orders.view_deadletter") else []
    if user.has_perm("kernel.view_actrequest") and (
        settings.SECOND_PERSON_ABOVE or second_person.waiting().exists()
    ):
        queue.append(_second_person(user))
    queue += [
        Task(
            label=kind.label,
            count=kind.rows().order_by()[:MOST].count(),
            url=f"{reverse(f'admin:{kind.list_name}_changelist')}?{kind.query}",
            urgent=kind.urgent,
        )
        for kind in _KINDS
        if user.has_perm(kind.permission)
    ]
    if user.has_perm("ops.view_scheduleact"):
        late = sum(map(is_late, ours()))
        queue.append(
            Task("Schedules that have not run for two intervals", late, reverse("admin:schedules"), True)
        )
    return queue


def _second_person(user: User | AnonymousUser) -> Task:
    """What this person may decide on; a note tells of what others have to."""
    waiting = second_person.waiting()
    theirs = second_person.for_user(waiting, user).order_by()[:MOST].count()
    others = waiting.order_by()[:MOST].count() - theirs
    return Task(
        "Requests that wait for you as a second person",
        theirs,
        f"{reverse('admin:kernel_actrequest_changelist')}?state__exact=open{'&decision=mine' if theirs else ''}",
        urgent=False,
        note=f"{others} for others to decide." if others else "",
    )


def _dead_letters(user: User | AnonymousUser) -> Task:
    """Those that wait for a person now, with the age of the oldest and how many are this person's."""
    waiting = awake(DeadLetter.objects.all())
    oldest = waiting.order_by("created_at").first()
    notes = []
    if oldest is not None:
        notes.append(f"The oldest is {in_words(roughly(oldest.age))} old.")
        mine = waiting.filter(assignee=user.get_username()).order_by()[:MOST].count()
        notes += [f"{mine} in your hands."] if mine else []
    return Task(
        "Dead letters: rollbacks that failed",
        waiting.order_by()[:MOST].count(),
        reverse("admin:dead_letters"),
        urgent=True,
        note=" ".join(notes),
    )
