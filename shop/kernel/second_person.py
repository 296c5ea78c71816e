"""Large acts take two people: one asks, another approves, and only then is it done, once.

A service calls `demand` under its locks, after everything else was checked and before anything is written. Above
`SECOND_PERSON_ABOVE` that raises `SecondPersonNeeded`, so the act comes to nothing, and the page that called it
writes a request (`ask`). `approve` calls the same service again with the same form; `demand` then lets through
exactly what was asked for, of a subject that has not moved since.

Requests are locked last: whoever closes a subject holds its lock when calling `lapse`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from shop.kernel.models import ActRequest
from shop.kernel.money import Money

State = ActRequest.State
Person = AbstractBaseUser | AnonymousUser

_approving: ContextVar[ActRequest | None] = ContextVar("approving", default=None)


@dataclass(frozen=True, slots=True)
class Demand:
    """What is to be done: `act` to `subject`, and how that stands (`standing`) as far as it matters for the act."""

    act: str
    subject: str
    what: str
    money: Money
    reason: str
    standing: str
    order_number: str


class SecondPersonNeeded(Exception):
    """The act is above the limit: nothing was done, and another person has to approve it first."""

    def __init__(self, demand: Demand) -> None:
        limit = Money(settings.SECOND_PERSON_ABOVE, demand.money.currency)
        super().__init__(
            _(
                "%(money)s are above %(limit)s: a second person has to approve it. Do it from its own page, not "
                "together with others."
            )
            % {"money": demand.money, "limit": limit}
        )
        self.demand = demand


class NotApproved(Exception):
    """A request was not approved or declined; the message says why."""


class _Meanwhile(Exception):
    """It was decided by somebody else."""


class _Moved(Exception):
    """What the request is about is not as it was when it was asked for."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What came of it. `repeated`: it had been done before, and nothing was done again."""

    message: str
    repeated: bool = False


class Done(Protocol):
    @property
    def message(self) -> str: ...

    @property
    def repeated(self) -> bool: ...


def needed(money: Money) -> bool:
    """Whether an act of this amount takes two people."""
    return bool(settings.SECOND_PERSON_ABOVE) and abs(money.amount) > settings.SECOND_PERSON_ABOVE


def demand(
    money: Money,
    *,
    act: str,
    subject: str,
    what: str,
    reason: str,
    standing: object = "",
    order_number: str = "",
) -> None:
    """Let the act through if one person is enough or two have agreed, else raise `SecondPersonNeeded`."""
    wanted = Demand(act, subject, what, money, reason, str(standing), order_number)
    request = _approving.get()
    if request is None:
        if needed(money):
            raise SecondPersonNeeded(wanted)
        return
    asked = (request.act, request.subject, request.money, request.standing)
    if asked != (wanted.act, wanted.subject, wanted.money, wanted.standing):
        raise _Moved(
            _("It was processed in the meantime: now it would be “%s”. It has to be asked for anew.") % what
        )


def waiting() -> QuerySet[ActRequest]:
    return ActRequest.objects.filter(state=State.OPEN)


def for_user(requests: QuerySet[ActRequest], user: Any) -> QuerySet[ActRequest]:
    """Those that this person may decide on."""
    others = requests.exclude(asked_by=user.pk)
    return others if user.is_superuser else others.filter(permission__in=user.get_all_permissions())


def why_not_decide(request: ActRequest, user: Any) -> str:
    """Why this person can neither approve nor decline it; empty if they can."""
    if request.asked_by_id == user.pk:
        return _("You have asked for it yourself: it takes another person.")
    if not user.has_perm(request.permission):
        return _("You may not do this yourself, so you cannot approve it either.")
    return ""


# --- asking ----------------------------------------------------------------------------------------------


def ask(
    demand: Demand,
    user: Any,
    *,
    page: str,
    slug: str,
    object_id: int,
    data: dict[str, Any],
    shown: str,
    permission: str,
) -> Decided:
    """Write down what `user` asks for. Of one act on one subject one request is open; a second is told of it."""
    request, new = ActRequest.objects.select_related("asked_by").get_or_create(
        act=demand.act,
        subject=demand.subject,
        state=State.OPEN,
        defaults={
            "order_number": demand.order_number,
            "what": demand.what,
            "amount": demand.money.amount,
            "currency": demand.money.currency,
            "reason": demand.reason.strip(),
            "standing": demand.standing,
            "page": page,
            "slug": slug,
            "object_id": object_id,
            "data": data,
            "shown": shown,
            "permission": permission,
            "asked_by": user,
        },
    )
    if new:
        limit = Money(settings.SECOND_PERSON_ABOVE, demand.money.currency)
        return Decided(
            _(
                "Nothing is done yet: above %(limit)s a second person has to approve it. It is asked for: %(what)s"
            )
            % {"limit": limit, "what": demand.what}
        )
    if request.asked_by_id == user.pk:
        told = _("You have asked for it already: %(what)s It waits for a second person.")
    else:
        told = _("%(who)s has asked for it already: %(what)s It waits for a second person.")
    return Decided(told % {"who": request.asked_by.get_username(), "what": request.what}, repeated=True)


# --- deciding --------------------------------------------------------------------------------------------


def approve(
    pk: int,
    user: Any,
    carry_out: Callable[[ActRequest, str], Done],
    refusals: tuple[type[Exception], ...],
) -> Decided:
    """Do what was asked for, and write down who approved it, in one transaction.

    `carry_out` does it in the name of both. If it cannot be done as it was asked for (it raises one of `refusals`,
    it was done before, or its subject has moved), the request lapses and `NotApproved` says why.
    """
    request = _readable(pk, user)
    if not request.is_open:
        return _before(request, user)
    impossible: tuple[type[Exception], ...] = (_Moved, *refusals)
    try:
        with transaction.atomic(), _approval_of(request):
            done = carry_out(request, both(request.asked_by, user))
            if done.repeated:
                raise _Moved(done.message)
            _decide(request, State.APPROVED, done.message, user)
            return Decided(done.message)
    except _Meanwhile:
        return _before(_readable(pk, user), user)
    except impossible as refusal:
        try:
            _decide(request, State.LAPSED, str(refusal), user)
        except _Meanwhile:
            return _before(_readable(pk, user), user)
        raise NotApproved(_("%s The request has lapsed; nothing was done.") % refusal) from refusal


def decline(pk: int, user: Any, reason: str) -> Decided:
    """Say no, and why."""
    if not reason.strip():
        raise NotApproved(_("Say why it is declined."))
    return _turn_down(_readable(pk, user), user, reason.strip(), _("It is declined. Nothing was done."))


def withdraw(pk: int, user: Any, reason: str) -> Decided:
    """Whoever has asked takes it back."""
    request = ActRequest.objects.select_related("asked_by").get(pk=pk)
    if request.asked_by_id != user.pk:
        raise NotApproved(_("Only who has asked for it can withdraw it."))
    told = " ".join(filter(None, (_("Withdrawn."), reason.strip())))
    return _turn_down(request, user, told, _("It is withdrawn. Nothing was done."))


def lapse(subjects: Iterable[str], why: str) -> None:
    """These are closed: what was asked of them can be done no more. The caller has them locked."""
    current = _approving.get()
    gone = waiting().filter(subject__in=list(subjects))
    if current is not None:
        gone = gone.exclude(pk=current.pk)
    gone.update(state=State.LAPSED, decided_at=timezone.now(), outcome=why)


# --- pieces ----------------------------------------------------------------------------------------------


@contextmanager
def _approval_of(request: ActRequest) -> Iterator[None]:
    token = _approving.set(request)
    try:
        yield
    finally:
        _approving.reset(token)


def both(first: Any, second: Any) -> str:
    """The names of both, as the rows of what they did carry them; they have 150 characters."""
    return f"{first.get_username()[:72]} and {second.get_username()[:72]}"


def _readable(pk: int, user: Any) -> ActRequest:
    request = ActRequest.objects.select_related("asked_by", "decided_by").get(pk=pk)
    if why_not := why_not_decide(request, user):
        raise NotApproved(why_not)
    return request


def _decide(request: ActRequest, state: str, outcome: str, user: Any) -> None:
    """By compare and set, the last thing in its transaction: who comes second finds it decided."""
    decided = waiting().filter(pk=request.pk)
    if not decided.update(state=state, outcome=outcome, decided_by=user, decided_at=timezone.now()):
        raise _Meanwhile


def _turn_down(request: ActRequest, user: Any, outcome: str, message: str) -> Decided:
    if request.is_open:
        try:
            _decide(request, State.DECLINED, outcome, user)
        except _Meanwhile:
            request.refresh_from_db()
        else:
            return Decided(message)
    return _before(request, user)


def _before(request: ActRequest, user: Any) -> Decided:
    who = request.decided_by.get_username() if request.decided_by else _("the shop")
    who = _("you") if request.decided_by_id == user.pk else who
    told = {"who": who, "state": request.get_state_display(), "outcome": request.outcome}
    return Decided(
        _("It was processed in the meantime by %(who)s: %(state)s. %(outcome)s") % told, repeated=True
    )
