"""What a check finds, and what it is given to look with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from temporalio.client import Client

from orders.models import Difference
from shop.kernel import temporal

Kind = Difference.Kind
Weight = Difference.Weight

# News that is still early, and work that is still being tried, is no difference for this long.
LONG = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference. `mend` does what is safe without a person, `remedy` says what that is; else see `to_do`.

    `mend` may be called twice; it returns whether it did anything.
    """

    subject: str
    sentence: str
    to_do: str = ""
    weight: Difference.Weight = Weight.MONEY
    order_number: str = ""
    payment: int | None = None
    remedy: str = ""
    mend: Callable[[], bool] | None = None

    @property
    def about(self) -> str:
        """What people know it by: the order, where there is one."""
        return self.order_number or self.subject

    def fix(self) -> bool:
        """Mend it, if that is safe without a person; whether something was done."""
        return self.mend is not None and self.mend()


@dataclass(slots=True)
class Look:
    """What checks look with. `only` restricts them to one subject; `beat` tells that they are alive.

    The engine's client is connected with its first call, so a look past the engine needs none.
    """

    runner: asyncio.Runner
    only: str = ""
    beat: Callable[[], None] = lambda: None
    client: Client = field(default_factory=temporal.client)


@dataclass(frozen=True, slots=True)
class Check:
    """`scope`: what the subjects of this check begin with, where several share a kind."""

    name: str
    kind: Difference.Kind
    find: Callable[[Look], Iterator[Finding]]
    scope: str = ""
