"""The whole staff site for a browser: a shop that has something of everything, and the address of each page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import Min, Model
from django.urls import reverse
from django.utils import timezone

from orders.models import DeadLetter, Order
from payments.models import OutgoingTransfer, Payment, ReviewItem
from shop import demo_orders, schedule_pages
from shop.schedules.declared import Schedule
from shop.schedules.standing import Run, Standing
from tests import factories
from tests.orders.test_admin import waiting
from tests.shop.test_who_may_what import NEVER, doors, urls

SEVERAL = 60  # orders, beside the row that there is of everything
# What is no page of its own: parts of pages, files, scripts, addresses that lead on. All histories look alike.
NO_PAGE = re.compile(
    r"_(live|export|download|slip|personal_data|by_number|seen|comment|history)$"
    r"|^(jsi18n|view_on_site|health_notice|charts|first_steps|dead_letter_provider|)$"
)
# Of these a page each for rows of every kind.
KINDS: tuple[tuple[type[Model], str], ...] = (
    (Order, "status"),
    (Payment, "gateway"),
    (ReviewItem, "reason"),
    (OutgoingTransfer, "state"),
)


def fill(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the one row of everything: orders in every state, money of every kind, schedules that ran."""
    factories.product("POT", name="Cast-iron teapot with a name that is rather long, 0.8 l", price=6900)
    waiting(("TEA", 1), paid=1000)
    demo_orders.make(SEVERAL)
    monkeypatch.setattr(schedule_pages, "standings", _standings)


async def _standings(_client: Any, schedules: Sequence[Schedule]) -> list[Standing]:
    now = timezone.now()
    runs = [
        Run("payment-batch-1", now, now, "running"),
        Run("payment-batch-2", now, now, "completed", now + timedelta(seconds=2), "total checked 5, paid 1"),
        Run("payment-batch-3", now, now, "timed_out", now + timedelta(hours=1)),
    ]
    return [
        Standing(schedule, made=True, differs=["times"], paused=bool(place), next=[now, now], runs=runs)
        for place, schedule in enumerate(schedules)
    ]


def addresses() -> list[str]:
    """Every page that a superuser can GET, some of them in each of their states."""
    orders = reverse("admin:orders_order_changelist")
    letters = reverse("admin:dead_letters")
    found = [
        url
        for door in doors()
        if door.get is not NEVER and not NO_PAGE.search(door.name)
        for url in urls(door)
    ]
    for model, kind in KINDS:
        firsts = model._default_manager.order_by().values(kind).annotate(first=Min("pk")).values_list("first")
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}_change"
        found += [reverse(name, args=row) for row in firsts]
    found += [
        f"{orders}?q=nobody&status__exact=placed",
        f"{orders}?reset=1&o=1",
        *(f"{letters}?state={tab}" for tab in ("retrying", "snoozed", "resolved")),
        *(reverse("admin:dead_letter", args=[letter.pk]) for letter in DeadLetter.objects.all()[:3]),
        reverse("admin:orders_product_history", args=[1]),
    ]
    return list(dict.fromkeys(found))
