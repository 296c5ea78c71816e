"""The screens of the review list and what they say of an order: amounts, titles, links, searches."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from payments.admin.searching import amounts_meant, iban_meant
from payments.models import Payment, ReviewItem
from payments.services import reviewing
from tests import factories
from tests.payments.paper_bank import BOB, Entry, PaperBank, item, load, payment, pays, waiting

pytestmark = pytest.mark.django_db

TOTAL = 3998


@pytest.fixture
def clerk() -> Client:
    user = User.objects.create_user("grace", is_staff=True)
    user.groups.set(Group.objects.filter(name="payments"))
    client = Client()
    client.force_login(user)
    return client


def shown(client: Client, row: object, name: str) -> str:
    """The text of a row's page."""
    page = client.get(reverse(f"admin:{name}_change", args=[row.pk])).content.decode()  # type: ignore[attr-defined]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("1299.99", [129999]),
        ("1.299,99", [129999]),
        ("1,299.99", [129999]),
        ("1 299,99 €", [129999]),
        ("€1,299.99", [129999]),
        ("EUR 1299,99", [129999]),
        ("1299,99 eur", [129999]),
        ("-20,00", [2000]),
        ("12", [12, 1200]),
        ("1.299", [1299, 129900]),
        ("KWD1.234", [1234, 123400]),
        ("4711 Ada", []),
        ("-€5.00", [500]),
        ("ORD-100001", []),
        ("ORD 100001", []),
    ],
)
def test_amounts_are_understood_as_people_type_them(typed: str, meant: list[int]) -> None:
    assert amounts_meant(typed) == meant


@pytest.mark.parametrize(
    ("typed", "sought"),
    [
        ("DE02 1203 0000 0000 2020 51", "DE02120300000000202051"),
        (" de02 1203 0000", "DE0212030000"),
        ("RF18 5390 0754 7034", "RF18539007547034"),
        ("DE02120300000000202051", "DE02120300000000202051"),
        ("RE12 345", ""),
        ("Ada Lovelace", ""),
    ],
)
def test_what_may_be_an_iban_is_put_together(typed: str, sought: str) -> None:
    assert iban_meant(typed) == sought


def test_the_list_says_what_each_amount_is_and_why_an_order_is_proposed(
    clerk: Client, bank: PaperBank
) -> None:
    short, excess = waiting(), waiting()
    load(
        bank.statement(
            pays(short, TOTAL - 50),
            pays(excess, TOTAL + 200),
            Entry(TOTAL, "Vielen Dank", name="LOVELACE, ADA"),
        )
    )
    page = clerk.get(reverse("admin:payments_reviewitem_changelist")).content.decode()
    for told in ("€0.50 missing", "€2.00 too much", "€39.98 came in"):
        assert told in page
    assert '<span class="vk-why">Its amount and the name of its customer are the same.</span>' in page
    assert reverse("admin:orders_order_by_number", args=[short.number]) in page


def test_money_is_found_by_the_order_that_is_only_proposed(clerk: Client, bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(Entry(TOTAL, "Vielen Dank", name="LOVELACE, ADA"), Entry(5, "?")))
    page = clerk.get(reverse("admin:payments_reviewitem_changelist"), {"q": f" {order.number.lower()}"})
    assert "1 result" in page.content.decode()


def test_what_is_left_of_a_transfer_is_not_told_as_what_came_in(clerk: Client, bank: PaperBank) -> None:
    load(bank.statement(Entry(1780, "?")))
    reviewing.pay_back(item().pk, "grace", "a part", amount=1000)
    assert "€7.80 of the €17.80 that came in" in shown(clerk, item(), "payments_reviewitem")


def test_a_page_leads_to_no_empty_history_and_tells_times_with_their_zone(
    clerk: Client, bank: PaperBank
) -> None:
    load(bank.statement(Entry(1780, "?")))
    page = shown(clerk, item(), "payments_reviewitem")
    assert "History" not in page
    assert f"{item().created_at:%Y-%m-%d %H:%M} UTC" in page


@pytest.mark.parametrize(
    ("number", "amount", "title"),
    [
        ("ORD-1", 150, "refund failed, ORD-1, €1.50"),
        ("", 150, "refund failed, €1.50"),
        ("ORD-1", None, "refund failed, ORD-1"),
        ("", None, "refund failed"),
    ],
)
def test_no_title_ends_in_nothing(number: str, amount: int | None, title: str) -> None:
    made = ReviewItem(reason="refund_failed", merchant_reference=number, amount=amount, currency="EUR")
    assert str(made) == title


def test_an_order_is_reached_by_its_number(clerk: Client, bank: PaperBank) -> None:
    order = waiting()
    by_number = clerk.get(reverse("admin:orders_order_by_number", args=[order.number]))
    assert by_number["Location"] == reverse("admin:orders_order_change", args=[order.pk])
    unknown = clerk.get(reverse("admin:orders_order_by_number", args=["a/b ü"]))
    assert unknown["Location"] == reverse("admin:orders_order_changelist") + "?q=a%2Fb+%C3%BC"
    assert order.number in shown(clerk, payment(order), "payments_payment")


def test_an_orders_page_tells_what_is_in_review_and_what_was_paid_back(
    clerk: Client, bank: PaperBank
) -> None:
    order = waiting()
    load(bank.statement(pays(order, TOTAL + 500)))
    load(PaperBank(currency="USD").statement(pays(order, 700)))
    assert "In review €5.00, $7.00" in shown(clerk, order, "orders_order")
    reviewing.pay_back(item_of("too_much").pk, "grace", "too much", amount=200)
    told = shown(clerk, order, "orders_order")
    assert "In review €3.00, $7.00" in told
    assert "Paid back, never captured €2.00" in told


def item_of(reason: str) -> ReviewItem:
    return ReviewItem.objects.get(reason=reason, state="open")


def test_what_was_accepted_short_is_said_on_every_page(clerk: Client, bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, TOTAL - 50)))
    assert "Missing €0.50" in shown(clerk, order, "orders_order")
    reviewing.accept(item().pk, "grace", "Her bank took a fee.")
    told = shown(clerk, order, "orders_order")
    assert "Accepted as full payment €0.50 short" in told
    assert "Missing" not in told
    assert "The money is there." in told
    assert "Accepted as full payment, €0.50 short succeeded grace Her bank took a fee." in told
    assert "€39.98, accepted €0.50 short" in shown(clerk, payment(order), "payments_payment")
    listed = clerk.get(reverse("admin:orders_order_changelist")).content.decode()
    assert "€39.48, accepted €0.50 short" in listed


def test_money_for_an_order_that_is_paid_otherwise_names_it_and_is_not_assigned_to_it(
    clerk: Client, bank: PaperBank
) -> None:
    order = factories.place()
    Payment.objects.create(
        gateway="sandbox", merchant_reference=order.number, idempotency_key="k", amount=TOTAL, currency="EUR"
    )
    load(bank.statement(Entry(TOTAL, order.number)))
    assert "ambiguous" in shown(clerk, item(), "payments_reviewitem")
    assert "In review €39.98" in shown(clerk, order, "orders_order")
    form = clerk.get(reverse("admin:payments_reviewitem_assign", args=[item().pk])).content.decode()
    assert f'value="{order.number}"' not in form


def test_the_form_shows_the_payers_account_and_takes_it_away_where_there_are_several(
    clerk: Client, bank: PaperBank
) -> None:
    order = waiting()
    load(bank.statement(pays(order, 1000)))
    address = reverse("admin:payments_payment_pay-back", args=[payment(order).pk])
    assert 'value="DE02 1203 0000 0000 2020 51"' in clerk.get(address).content.decode()
    load(bank.statement(pays(order, 500, iban=BOB, name="Bob")))
    assert 'name="iban"' not in clerk.get(address).content.decode()
    told = clerk.get(reverse("admin:payments_reviewitem_pay-back", args=[item().pk])).content.decode()
    assert "€15.00 from Ada Lovelace, Bob can go back." in told
