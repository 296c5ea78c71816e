"""How a piece of sync ORM code becomes a Temporal activity."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from django.db import close_old_connections
from temporalio import activity

F = TypeVar("F", bound=Callable[..., Any])


def orm_activity(function: F) -> F:
    """An activity for the worker's thread pool, with connections checked before and given back after.

    `no_thread_cancel_exception`: a cancellation must never be raised in the middle of a transaction; the
    activity runs to its end and the workflow waits for it.
    """

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        close_old_connections()
        try:
            return function(*args)
        finally:
            close_old_connections()

    return activity.defn(no_thread_cancel_exception=True)(run)  # type: ignore[return-value]
