"""What one check of `reconcile` finds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from temporalio.client import Client

from orders.services.reconciling.finding import Finding, Look


def found(
    check: Callable[[Look], Iterator[Finding]], client: Client | None = None, only: str = ""
) -> list[Finding]:
    """All that it finds, or what it finds of one subject."""
    with asyncio.Runner() as runner:
        look = Look(runner, only=only) if client is None else Look(runner, only=only, client=client)
        return list(check(look))
