"""How we behave towards a provider: not too often, not while it asks us to wait, and not while it is down.

`gateway()` gives every remote gateway out in this wrapper, so no caller goes round it, and a method that the
protocol gets later has manners too. A call that has to wait for a moment waits in its thread; one that has to wait
longer raises `GatewayUnavailable` without being sent, with the time to come again, so the engine waits and not a
thread. It says nothing about an earlier attempt at the same step, so callers treat it like any unknown outcome.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from django.db import DatabaseError, connection
from prometheus_client import Counter, Histogram
from temporalio import activity

from payments.gateways.base import Gateway, GatewayMisconfigured, GatewayRefused, GatewayUnavailable, Trouble
from payments.services import availability

log = logging.getLogger(__name__)

LONGEST_WAIT_S = 2.0
CALL_S = 13.0  # what a provider's client may take; an activity must have as much left after a wait

# No network and no effect at the provider.
OURS = frozenset({"parse_webhook"})
# Not about one payment, which alone may be what the provider chokes on.
ABOUT_MANY = frozenset({"changes", "statuses", "payments"})

CALLS = Counter(
    "vorkasse_gateway_calls_total",
    "Calls of a provider, and calls not sent.",
    ["gateway", "method", "outcome"],
)
CALL_TIME = Histogram("vorkasse_gateway_call_seconds", "How long a provider takes.", ["gateway", "method"])
WAITED = Counter("vorkasse_gateway_waited_seconds_total", "Time waited for the rate.", ["gateway"])

_may_wait_s: ContextVar[float] = ContextVar("may_wait_s", default=0.0)
_activity_began: ContextVar[float] = ContextVar("activity_began")


@contextmanager
def may_wait(seconds: float = LONGEST_WAIT_S) -> Iterator[None]:
    """Calls in this block may wait so long each for their turn: for commands. A page never waits, activities do."""
    token = _may_wait_s.set(seconds)
    try:
        yield
    finally:
        _may_wait_s.reset(token)


def mannered(gateway: Gateway) -> Gateway:
    """The gateway, each of whose calls asks for leave first and says how it went."""
    return cast(Gateway, _Mannered(gateway))


class _Mannered:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._requests: dict[str, int] = getattr(gateway, "requests_per_call", {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self._gateway, name)
        if name in OURS or not callable(found):
            return found
        return functools.wraps(found)(functools.partial(self._call, name, found))

    def _call(self, method: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        name = self._gateway.name
        leave = availability.ask_leave(name, _patience_s(), self._requests.get(method, 1))
        if not leave.goes:
            CALLS.labels(name, method, "not_sent").inc()
            raise GatewayUnavailable(leave.why, leave.code, leave.wait_s)
        if leave.wait_s:
            WAITED.labels(name).inc(leave.wait_s)
            _pause(leave.wait_s)
        with CALL_TIME.labels(name, method).time():
            outcome, answer, error = _outcome(call, args, kwargs)
        CALLS.labels(name, method, outcome).inc()
        try:
            self._note(leave, error, about="" if method in ABOUT_MANY or not args else str(args[0]))
        except DatabaseError:  # the answer is worth more than the note
            log.exception("What a call of %s came to could not be noted", name)
        if error is not None:
            raise error
        return answer

    def _note(self, leave: availability.Leave, error: Exception | None, about: str) -> None:
        name = self._gateway.name
        match error:
            case GatewayUnavailable(trouble=Trouble.OUTAGE):
                availability.gave_no_answer(name, about, str(error), error.retry_after, leave.probe)
            case GatewayUnavailable(trouble=Trouble.TOO_MANY):
                if leave.probe is not None:
                    availability.answered(name, leave.probe)
                wait_s = availability.refused_as_too_many(name, str(error), error.retry_after)
                error.retry_after = error.retry_after or wait_s
            case None | GatewayUnavailable() | GatewayRefused() | GatewayMisconfigured():
                availability.answered(name, leave.probe)


def _outcome(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, Any, Exception | None]:
    try:
        return "answered", call(*args, **kwargs), None
    except GatewayUnavailable as error:
        return error.trouble.value, None, error
    except GatewayRefused as error:
        return "refused", None, error
    except GatewayMisconfigured as error:
        return "misconfigured", None, error


def _patience_s() -> float:
    """How long this caller can wait, so that the call itself still has its time."""
    if not activity.in_activity():
        return _may_wait_s.get()
    began = _activity_began.get(None)
    if began is None:
        began = time.monotonic()
        _activity_began.set(began)
    whole = activity.info().start_to_close_timeout
    if whole is None:
        return LONGEST_WAIT_S
    left = whole.total_seconds() - (time.monotonic() - began) - CALL_S
    return min(LONGEST_WAIT_S, max(0.0, left))


def _pause(seconds: float) -> None:
    if not connection.in_atomic_block:
        connection.close()  # not held while waiting
    time.sleep(seconds)
