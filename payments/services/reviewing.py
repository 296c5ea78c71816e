"""Closing what a person had to decide about money."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone

from payments.models import ReviewItem


class ReviewRefused(Exception):
    """A review item cannot be closed so; the message says why."""


@dataclass(frozen=True, slots=True)
class Closed:
    """What came of it. `repeated`: it was closed before, and nothing was written over."""

    message: str
    repeated: bool = False


@transaction.atomic
def close(pk: int, actor: str, resolution: str) -> Closed:
    """Write down what was decided, and by whom. What was written first stays."""
    if not resolution.strip():
        raise ReviewRefused("Say what was decided.")
    item = ReviewItem.objects.select_for_update().get(pk=pk)
    if item.state == ReviewItem.State.CLOSED:
        return Closed(f"It was closed before, by {item.resolved_by}.", repeated=True)
    item.state = ReviewItem.State.CLOSED
    item.resolution = resolution
    item.resolved_by = actor
    item.resolved_at = timezone.now()
    item.save(update_fields=["state", "resolution", "resolved_by", "resolved_at"])
    return Closed("The review item is closed.")
