"""What waits for a person: counts that lead to the lists behind them, and only what the person may act on.

Each line costs one query that reads at most `MOST` rows by an index, whatever the size of the shop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from orders.admin.listing import sagas_due_soon, sagas_lapsing
from orders.models import DeadLetter, Difference
from orders.services.dead_letters import awake
from payments.models import BatchRun, OutgoingTransfer, ReviewItem
from payments.services import availability
from shop.kernel import second_person
from shop.kernel.admin.messages import overdue
from shop.kernel.durations import in_words, roughly
from shop.kernel.models import OutboxMessage
from shop.kernel.money import Money
from shop.schedules.declared import is_late, ours

MOST = 1000  # nobody needs the exact number beyond

Reason = ReviewItem.Reason


@dataclass(frozen=True, slots=True)
class Task:
    """One line of the queue. `count` is capped at `MOST`, and `at_stake` is what so many are about."""

    label: str | Promise
    count: int
    url: str
    urgent: bool
    notes: tuple[str, ...] = ()
    at_stake: tuple[Money, ...] = ()

    @property
    def many(self) -> bool:
        return self.count >= MOST


@dataclass(frozen=True, slots=True)
class _Kind:
    """`permissions`: any of them lets a person do something about it. `when`: since when it waits, or until when.

    `amount` and `currency` are the fields of what is at stake.
    """

    label: str | Promise
    permissions: tuple[str, ...]
    rows: Callable[[], QuerySet[Any]]
    url: str
    query: str = ""
    when: str = "created_at"
    ahead: bool = False
    amount: str = ""
    currency: str = "currency"
    urgent: bool = False
    also: Callable[[User | AnonymousUser], str] | None = None


def _in_your_hands(user: User | AnonymousUser) -> str:
    mine = awake(DeadLetter.objects.filter(assignee=user.get_username())).order_by()[:MOST].count()
    return gettext("%d in your hands.") % mine if mine else ""


def _in_review(label: Promise, *reasons: str) -> _Kind:
    return _Kind(
        label,
        ("payments.change_reviewitem",),
        lambda: ReviewItem.objects.filter(state=ReviewItem.State.OPEN, reason__in=reasons),
        "payments_reviewitem_changelist",
        f"state__exact=open&reason__in={','.join(reasons)}",
        amount="amount",
    )


def _to_send(label: Promise, state: str) -> _Kind:
    return _Kind(
        label,
        ("payments.refund",),
        lambda: OutgoingTransfer.objects.filter(state=state),
        "payments_outgoingtransfer_changelist",
        f"state__exact={state}",
        amount="amount",
    )


_ON_AN_ORDER = ("orders.cancel_saga", "orders.extend_deadline", "orders.confirm_payment")
_KINDS = (
    _Kind(
        _("Dead letters: rollbacks that failed"),
        ("orders.retry_deadletter", "orders.resolve_deadletter"),
        lambda: awake(DeadLetter.objects.all()),
        "dead_letters",
        amount="amount",
        urgent=True,
        also=_in_your_hands,
    ),
    _in_review(
        _("Unmatched money"),
        Reason.NO_REFERENCE,
        Reason.UNKNOWN_REFERENCE,
        Reason.AMBIGUOUS,
        Reason.WRONG_CURRENCY,
        Reason.DUPLICATE,
    ),
    _in_review(_("Paid, but cancelled or finished"), Reason.LATE),
    _in_review(_("Overpaid"), Reason.TOO_MUCH),
    _in_review(_("Underpaid"), Reason.TOO_LITTLE),
    _in_review(
        _("Other news about money to review"),
        Reason.CHARGEBACK,
        Reason.REFUND_FAILED,
        Reason.UNDELIVERABLE,
        Reason.UNFIT,
    ),
    _to_send(_("Refunds to send: ready for a file"), OutgoingTransfer.State.READY),
    _to_send(_("Refunds to send: account missing"), OutgoingTransfer.State.NEEDS_ACCOUNT),
    _Kind(
        _("Unpaid orders with a deadline within 48 hours"),
        _ON_AN_ORDER,
        sagas_due_soon,
        "orders_order_changelist",
        "deadline=soon",
        when="deadline",
        ahead=True,
        amount="order__total",
        currency="order__currency",
    ),
    _Kind(
        _("Authorizations about to expire"),
        _ON_AN_ORDER,
        sagas_lapsing,
        "orders_order_changelist",
        "authorization=lapsing",
        when="payment__authorized_until",
        ahead=True,
        amount="order__total",
        currency="order__currency",
        urgent=True,
    ),
    _Kind(
        _("Payment checks that died or left a provider out"),
        ("ops.operate_schedules",),
        BatchRun.not_made_up_for,
        "payments_batchrun_changelist",
        "state=left",
        when="started_at",
    ),
    _Kind(
        _("Differences in the books"),
        ("orders.fix_difference",),
        lambda: Difference.objects.filter(closed_at=None),
        "orders_difference_changelist",
        "state=open",
        when="first_seen_at",
        urgent=True,
    ),
    _Kind(
        _("Messages to Temporal that wait for more than a minute"),
        ("kernel.view_outboxmessage",),
        lambda: overdue(OutboxMessage.objects.all()),
        "kernel_outboxmessage_changelist",
        "waiting=long",
        urgent=True,
    ),
)


def tasks(user: User | AnonymousUser) -> list[Task]:
    """The queue of this person."""
    queue = [_task(kind, user) for kind in _KINDS if any(map(user.has_perm, kind.permissions))]
    if user.has_perm("payments.ask_gateway"):
        queue.append(_providers())
    if user.has_perm("ops.operate_schedules"):
        queue.append(_schedules())
    if user.has_perm("kernel.view_actrequest") and (
        settings.SECOND_PERSON_ABOVE or second_person.waiting().exists()
    ):
        queue.append(_second_person(user))
    return queue


def _second_person(user: User | AnonymousUser) -> Task:
    """What this person may decide on; a note tells of what others have to."""
    waiting = second_person.waiting()
    theirs = second_person.for_user(waiting, user).order_by()[:MOST].count()
    others = waiting.order_by()[:MOST].count() - theirs
    url = reverse("admin:kernel_actrequest_changelist")
    return Task(
        _("Requests that wait for you as a second person"),
        theirs,
        f"{url}?state__exact=open{'&decision=mine' if theirs else ''}",
        urgent=False,
        notes=(gettext("%d for others to decide.") % others,) if others else (),
    )


def _task(kind: _Kind, user: User | AnonymousUser) -> Task:
    fields = (kind.when, *((kind.amount, kind.currency) if kind.amount else ()))
    rows = list(kind.rows().order_by(kind.when).values_list(*fields)[:MOST])
    url = reverse(f"admin:{kind.url}")
    notes = [_told(kind, rows[0][0]), kind.also(user) if kind.also else ""] if rows else []
    sums: Counter[str] = Counter()
    for _when, *money in rows:
        if money and money[0] and money[1]:
            sums[money[1]] += money[0]
    return Task(
        kind.label,
        len(rows),
        f"{url}?{kind.query}" if kind.query else url,
        kind.urgent,
        tuple(filter(None, notes)),
        tuple(Money(amount, currency) for currency, amount in sorted(sums.items())),
    )


def _told(kind: _Kind, first: datetime) -> str:
    """How old the oldest is, or how long the next one lasts."""
    now = timezone.now()
    if not kind.ahead:
        return _oldest(first)
    if first > now:
        return gettext("The next one ends in %s.") % in_words(roughly(first - now))
    return gettext("The first one ended %s ago.") % in_words(roughly(now - first))


def _oldest(since: datetime) -> str:
    return gettext("The oldest is %s old.") % in_words(roughly(timezone.now() - since))


def _providers() -> Task:
    troubles = availability.troubles()
    since = [trouble.failing_since for trouble in troubles if trouble.failing_since]
    return Task(
        _("Payment providers that cannot be asked"),
        len(troubles),
        reverse("admin:payments_gatewaystate_changelist"),
        urgent=True,
        notes=(_oldest(min(since)),) if since else (),
    )


def _schedules() -> Task:
    late = [schedule.id for schedule in ours() if is_late(schedule)]
    return Task(
        _("Schedules that have not run for two intervals"),
        len(late),
        reverse("admin:schedules"),
        urgent=True,
        notes=(", ".join(late),) if late else (),
    )
