"""Closing review items that the shop itself has no more need of, and what was asked of a second person about them."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from payments.models import ReviewItem
from shop.kernel import second_person


def subject_of(item_pk: int) -> str:
    """What requests to a second person call a review item."""
    return f"review-item/{item_pk}"


def closed_by(who: str, why: str) -> str:
    """What became of a request about an item that was closed."""
    return _("Processed by %(actor)s: %(resolution)s") % {"actor": who, "resolution": why}


def close_all(items: QuerySet[ReviewItem], why: str, by: str = "shop", **changes: Any) -> None:
    """Close those of them that are open."""
    open_ones = items.filter(state=ReviewItem.State.OPEN).order_by("pk").select_for_update(of=("self",))
    found = list(open_ones.values_list("pk", flat=True))
    if not found:
        return
    ReviewItem.objects.filter(pk__in=found).update(
        state=ReviewItem.State.CLOSED, resolution=why, resolved_by=by, resolved_at=timezone.now(), **changes
    )
    second_person.lapse(map(subject_of, found), closed_by(by, why))
