"""How a piece of sync ORM code becomes a Temporal activity, and when a failed one is tried again."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from django.db import close_old_connections
from temporalio import activity
from temporalio.common import RetryPolicy

from shop.kernel import logs

F = TypeVar("F", bound=Callable[..., Any])

LONGEST_PAUSE = timedelta(minutes=5)


def orm_activity(function: F) -> F:
    """An activity for the worker's thread pool, with connections checked before and given back after.

    `no_thread_cancel_exception`: a cancellation must never be raised in the middle of a transaction; the
    activity runs to its end and the workflow waits for it.
    """

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        close_old_connections()
        try:
            with logs.about(order_number=getattr(args[0], "order_number", "") if args else ""):
                return function(*args)
        finally:
            close_old_connections()

    return activity.defn(no_thread_cancel_exception=True)(run)  # type: ignore[return-value]


def pause_after(error: Exception) -> timedelta | None:
    """The pause before an activity that failed with `error` is tried again; None leaves it to its retry policy.

    For what a provider said, or did not say: an error with `retry_after` (seconds or None). The policy's pause
    is the least, so that short waits cannot use up its attempts sooner, and its longest pause is the most. The
    jitter keeps many that failed together from coming back together.
    """
    if not hasattr(error, "retry_after"):
        return None
    told = timedelta(seconds=error.retry_after or 0)
    policy, attempt = activity.info().retry_policy, activity.info().attempt
    if policy is None:  # not every server tells it
        policy = RetryPolicy(maximum_interval=LONGEST_PAUSE)
    most = policy.maximum_interval or policy.initial_interval * 100
    least = policy.initial_interval * min(policy.backoff_coefficient ** min(attempt - 1, 30), 1e6)
    return min(max(told, least) * random.uniform(1, 1.1), most)
