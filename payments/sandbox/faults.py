"""Faults that can be switched on: for all operations of the merchant API, or for one by its name.

They live in memory: a restarted provider is a repaired one. What an operation sets itself goes before what is
set for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from dataclasses import dataclass
from typing import Any

from payments.sandbox.refusal import RateLimited, Refused, invalid

WRITES = ("authorize", "capture", "void", "renew", "refund", "create_shipment", "cancel_shipment")
READS = ("status", "changes")
WEBHOOK = "webhook"

RATES = ("error_rate", "lost_answer_rate", "refuse_rate", "duplicate_rate")
GLOBAL_FIELDS = (
    "error_rate",
    "lost_answer_rate",
    "latency_ms",
    "rate_limit_per_s",
    "down",
    "refuse_rate",
)
READ_FIELDS = tuple(field for field in GLOBAL_FIELDS if field != "refuse_rate")
WEBHOOK_FIELDS = ("error_rate", "lost_answer_rate", "duplicate_rate", "latency_ms", "down")
FIELDS_OF = (
    dict.fromkeys(WRITES, GLOBAL_FIELDS)
    | {"authorize": (*GLOBAL_FIELDS, "hold_s")}
    | dict.fromkeys(READS, READ_FIELDS)
    | {WEBHOOK: WEBHOOK_FIELDS}
)
LONGEST_LATENCY_MS = 3_600_000
LONGEST_HOLD_S = 10 * 365 * 24 * 3600
HIGHEST = {"latency_ms": LONGEST_LATENCY_MS, "hold_s": LONGEST_HOLD_S, "rate_limit_per_s": math.inf}


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of one operation. Rates are between 0 (never) and 1 (always).

    `hold_s`: how long an authorization lasts where the call names nothing; 0 is as long as usual.
    """

    error_rate: float = 0
    lost_answer_rate: float = 0
    latency_ms: float = 0
    rate_limit_per_s: float | None = None
    down: bool = False
    refuse_rate: float = 0
    duplicate_rate: float = 0
    hold_s: float = 0


def happens(rate: float) -> bool:
    return random.random() < rate


class FaultBoard:
    """The faults that are on now. `settings` is what was put, as it is shown."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self._replaced = asyncio.Event()
        self._buckets: dict[str, Bucket] = {}

    def replace(self, settings: object) -> None:
        """Switch on exactly these faults. Raises `Refused` naming the field that is wrong.

        Calls held up by a latency go on at once, so a test can hold a call and let it go.
        """
        self.settings = checked(settings)
        self._buckets.clear()
        self._replaced.set()
        self._replaced = asyncio.Event()

    def of(self, operation: str) -> Faults:
        everywhere = {name: value for name, value in self.settings.items() if name in GLOBAL_FIELDS}
        own: dict[str, Any] = self.settings.get(operation, {})
        return Faults(**(own if operation == WEBHOOK else everywhere | own))

    def limit(self, operation: str) -> None:
        """Count a call against its rate limit. Raises `RateLimited` when there is none left."""
        rate = self.of(operation).rate_limit_per_s
        if rate is None:
            return
        shared = "rate_limit_per_s" not in self.settings.get(operation, {})
        self._buckets.setdefault("" if shared else operation, Bucket(rate)).take()

    async def delay(self, faults: Faults) -> None:
        if faults.latency_ms:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._replaced.wait(), faults.latency_ms / 1000)


class Bucket:
    """A token bucket: `rate` calls a second, at most one second's worth (or one call) at once."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.size = max(rate, 1)
        self.tokens = self.size
        self.filled_at = time.monotonic()

    def take(self) -> None:
        if not self.rate:
            raise RateLimited(1)
        now = time.monotonic()
        self.tokens = min(self.size, self.tokens + (now - self.filled_at) * self.rate)
        self.filled_at = now
        if self.tokens < 1:
            raise RateLimited(max(1, math.ceil((1 - self.tokens) / self.rate)))
        self.tokens -= 1


def checked(settings: object) -> dict[str, Any]:
    """The faults in `settings`, if each is known and of the right kind. Raises `Refused` naming the field."""
    if not isinstance(settings, dict):
        raise invalid("", "Faults are a JSON object.")
    for name, value in settings.items():
        if name not in FIELDS_OF:
            _check_field("", name, value, GLOBAL_FIELDS)
        elif not isinstance(value, dict):
            raise invalid(name, f"“{name}” is an operation; its faults are a JSON object.")
        else:
            for field, inner in value.items():
                _check_field(name, field, inner, FIELDS_OF[name])
    return settings


def _check_field(operation: str, field: str, value: object, allowed: tuple[str, ...]) -> None:
    name = f"{operation}.{field}" if operation else field
    if field not in allowed:
        here = f"“{operation}”" if operation else "all operations"
        raise invalid(name, f"There is no fault “{field}” for {here}; there are {', '.join(allowed)}.")
    problem = _problem(field, value)
    if problem:
        raise invalid(name, f"“{name}” {problem}")


def _problem(field: str, value: object) -> str:
    if field == "down":
        return "" if isinstance(value, bool) else "must be true or false."
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    highest = HIGHEST.get(field, 1)
    if is_number and 0 <= value <= highest:  # type: ignore[operator]
        return ""
    if field in RATES:
        return "must be a number from 0 to 1."
    if field == "rate_limit_per_s":
        return "must be a number, 0 or more."
    return f"must be a number from 0 to {highest}."


def practice_error() -> Refused:
    """A provider that is out of order, before it did anything."""
    return Refused("practice_error", "The practice provider was told to fail.", status=503)


def practice_refusal() -> Refused:
    """A refusal before any effect; not remembered, so a repaired provider takes the same key later."""
    return Refused("refused_for_practice", "The practice provider was told to refuse this.")
