"""What passes between the workflows that check payments and their activities: ids, counts and codes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaymentsToCheck:
    """At most 100 order numbers."""

    order_numbers: list[str]
