"""What staff see of authorizations that are about to expire."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from orders.admin import listing
from orders.models import Order, Saga
from orders.services import authorizations
from orders.services.status import move_saga
from payments.models import Payment
from tests import factories
from tests.orders.test_admin import admin, login, page, shop, waiting

__all__ = ["admin", "login", "shop"]

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def shelf() -> None:
    factories.product(on_hand=100)


def held(hours: float) -> tuple[Order, datetime]:
    """An order that waits for its money, authorized for so many hours more."""
    order = waiting()
    until = timezone.now() + timedelta(hours=hours)
    Payment.objects.filter(merchant_reference=order.number).update(authorized_until=until)
    return order, until


def minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def listed(client: Client) -> set[str]:
    """The orders on the list that the first page leads to."""
    index = client.get(reverse("admin:index")).content.decode()
    found = re.search(r'href="([^"]*authorization=lapsing[^"]*)"', index)
    assert found
    assert "Authorizations about to expire" in index
    return set(re.findall(r"ORD-[0-9-]+", client.get(found[1]).content.decode()))


def test_first_page_leads_to_the_orders_whose_authorization_ends_within_a_day(admin: Client) -> None:
    soon, _ = held(hours=5)
    over, _ = held(hours=-1)
    held(hours=30)
    no_end = waiting()
    later_than_its_deadline, _ = held(hours=5)
    Saga.objects.filter(order=later_than_its_deadline).update(deadline=timezone.now() + timedelta(hours=2))
    confirmed, _ = held(hours=5)
    move_saga(Saga.objects.get(order=confirmed), "running")
    assert listed(admin) == {soon.number, over.number, confirmed.number}
    assert no_end.number not in listed(admin)


def test_page_says_until_when_and_that_it_is_renewed(admin: Client) -> None:
    order, until = held(hours=50)
    text = page(admin, order)
    assert "Authorized until" in text
    assert f"lasts until {minute(until)} UTC; it is renewed before, if the provider agrees" in text


def test_page_says_what_can_be_done_when_it_cannot_be_renewed(admin: Client) -> None:
    order, until = held(hours=5)
    authorizations.note_lapse(order.number, 1, until, "The provider said no.")
    text = page(admin, order)
    assert f"ends on {minute(until)} UTC and cannot be renewed" in text
    assert "Authorization about to expire" in text
    assert "could not be renewed: The provider said no." in text
    extend = admin.get(reverse("admin:orders_order_extend-deadline", args=[order.pk])).content.decode()
    assert f"The authorization ends on {minute(until)} UTC and cannot be renewed." in extend
    for act in ("confirm-payment", "cancel"):
        assert (
            "cannot be renewed"
            not in admin.get(reverse(f"admin:orders_order_{act}", args=[order.pk])).content.decode()
        )


def test_list_shows_the_moment_that_comes_first() -> None:
    early, until = held(hours=50)
    late, _ = held(hours=5000)
    deadline = Saga.objects.get(order=late).deadline
    shown: Any = listing.with_money_and_deadline(Order.objects.all())
    assert {row.number: row.pay_until for row in shown} == {early.number: until, late.number: deadline}
