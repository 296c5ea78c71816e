"""The whole staff site for a browser: a shop that has something of everything, and the address of each page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin import site
from django.contrib.auth.models import Group, User
from django.db.models import Min, Model
from django.urls import reverse
from django.utils import timezone

from orders.models import DeadLetter, Difference, Mail, Order, Product
from payments.models import BankStatement, GatewayState, OutgoingTransfer, Payment, ReviewItem, StatementFile
from shop import demo_orders, schedule_pages
from shop.kernel.admin.acting import Act, ActingAdmin
from shop.kernel.models import ActRequest
from shop.schedules.declared import Schedule
from shop.schedules.standing import Run, Standing
from tests import factories
from tests.orders.test_admin import waiting
from tests.shop.test_who_may_what import ACTS, NEVER, doors, urls

SEVERAL = 25  # orders, beside the row that there is of everything
# What is no page of its own: parts of pages, files, scripts, addresses that lead on. All histories look alike.
NO_PAGE = re.compile(
    r"_(live|export|download|slip|personal_data|by_number|seen|comment|history)$"
    r"|^(jsi18n|view_on_site|health_notice|charts|first_steps|dead_letter_provider|)$"
)


def fill(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the one row of everything: orders in every state, money of every kind, schedules that ran."""
    factories.product("POT", name="Cast-iron teapot with a name that is rather long, 0.8 l", price=6900)
    waiting(("TEA", 1), paid=1000)
    factories.place(("TEA", 1), ("POT", 2))
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


def every_page() -> list[str]:
    """What a superuser can GET; of the acts on several rows at once only one."""
    plain = (
        url
        for door in doors()
        if door.get is not NEVER and not NO_PAGE.search(door.name) and door.single not in ACTS
        for url in urls(door)
    )
    return list(dict.fromkeys([*tour(), *plain, *_acts()]))


def tour() -> list[str]:
    """One page of each kind, and those that are like no other."""
    letter = DeadLetter.objects.all()[0]
    letters = reverse("admin:dead_letters")
    return [
        reverse("admin:index"),
        reverse("admin:app_list", args=["orders"]),
        *(_list(model) for model in (Order, Payment, ReviewItem, OutgoingTransfer, Difference, User)),
        f"{_list(Order)}?q=nobody&status__exact=placed",
        f"{_list(Order)}?reset=1&o=1",
        *_one_of_each(Order, "status"),
        *_one_of_each(OutgoingTransfer, "state"),
        *(
            _change(model)
            for model in (
                ActRequest, BankStatement, Difference, GatewayState, Mail, Payment, Product, ReviewItem,
                StatementFile, User,
            )
        ),
        reverse("admin:orders_mail_html", args=[Mail.objects.order_by("pk")[0].pk]),
        reverse("admin:orders_order_add"),
        reverse("admin:orders_apikey_add"),
        f"{_list(Order)}cancel/?ids={','.join(map(str, Order.objects.values_list('pk', flat=True)[:5]))}",
        *_acts({"confirm-payment", "refund", "extend-deadline", "split", "assign", "fix"}),
        reverse("admin:payments_bankstatement_import"),
        reverse("admin:payments_outgoingtransfer_batch"),
        letters,
        f"{letters}?state=resolved",
        reverse("admin:dead_letters_retry"),
        reverse("admin:dead_letter", args=[letter.pk]),
        reverse("admin:dead_letter_act", args=[letter.pk, "resolve"]),
        reverse("admin:schedules"),
        reverse("admin:schedule_act", args=["hourly-payment-batch", "pause"]),
        reverse("admin:health"),
        reverse("admin:second_factor"),
        reverse("admin:password_change"),
        reverse("admin:orders_product_history", args=[Product.objects.order_by("pk")[0].pk]),
        reverse("admin:auth_group_delete", args=[Group.objects.order_by("pk")[0].pk]),
    ]  # fmt: skip


def _acts(slugs: set[str] | None = None) -> Iterator[str]:
    """The form of each act, with a row to which it can be done if there is one."""
    for model, admin in site._registry.items():
        for act in admin.acts if isinstance(admin, ActingAdmin) else ():
            name = f"{model._meta.app_label}_{model._meta.model_name}_{act.slug}"
            if ACTS[name] is not NEVER and (slugs is None or act.slug in slugs):
                yield reverse(f"admin:{name}", args=[_subject(model, act).pk])


def _subject(model: type[Model], act: Act) -> Model:
    rows = list(model._default_manager.order_by("pk"))
    return next((row for row in rows if not act.why_not(row)), rows[0])


def _one_of_each(model: type[Model], kind: str) -> list[str]:
    firsts = model._default_manager.order_by(kind).values(kind).annotate(first=Min("pk"))
    return [_change(model, row["first"]) for row in firsts]


def _list(model: type[Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def _change(model: type[Model], pk: int | None = None) -> str:
    pk = pk or model._default_manager.order_by("pk")[0].pk
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[pk])
