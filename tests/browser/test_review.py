"""A payment clerk's work in a browser: money that does not fit, each action, and two people at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from playwright.sync_api import Page, expect

from orders.models import Order
from payments.models import OutgoingTransfer, ReviewItem
from tests.browser.conftest import PATIENCE_MS
from tests.payments.conftest import bank, our_account
from tests.payments.paper_bank import (
    ADA,
    BOB,
    Entry,
    PaperBank,
    item,
    load,
    nothing_in_review,
    pays,
    received,
    waiting,
    where,
)

__all__ = ["bank", "our_account"]  # fixtures
pytestmark = pytest.mark.django_db(transaction=True)
expect.set_options(timeout=PATIENCE_MS)
Login = Callable[..., Page]

TOTAL = 3998


@pytest.fixture
def clerk(bank: PaperBank, login: Login) -> Page:
    return login("payments")


@contextmanager
def colleague(page: Page) -> Iterator[Page]:
    """Alan, at a computer of his own."""
    user = User.objects.create_user("alan", is_staff=True)
    user.groups.set(Group.objects.filter(name="payments"))
    client = Client()
    client.force_login(user)
    assert page.context.browser
    base = page.url.partition("/admin")[0]
    context = page.context.browser.new_context(base_url=base)
    context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": base}])
    yield context.new_page()
    context.close()


QUEUE = {"no reference": "Unmatched money", "ambiguous": "Unmatched money", "too little": "Underpaid"}
"""Its line in the work queue, by the reason of an item."""


def open_item(page: Page, reason: str) -> None:
    """By way of the work queue."""
    page.goto("/admin/")
    page.get_by_role("link", name=QUEUE[reason]).click()
    page.get_by_role("link", name=reason, exact=True).first.click()


def act(page: Page, label: str, **typed: str) -> None:
    """Press the button of the page, fill in the form by its labels, and send it."""
    page.get_by_role("link", name=label, exact=True).click()
    fill_in(page, label, **typed)


def fill_in(page: Page, label: str, **typed: str) -> None:
    for name, text in typed.items():
        page.get_by_label(name.replace("_", " "), exact=False).fill(text)
    page.get_by_role("button", name=label).click()


def expect_message(page: Page, text: str) -> None:
    expect(page.locator(".messagelist")).to_contain_text(text)


def open_order(page: Page, order: Order) -> None:
    page.goto(f"/admin/orders/order/{order.pk}/change/")


# --- each action -----------------------------------------------------------------------------------------


def test_money_is_assigned_to_the_order_that_is_proposed_with_its_reason(
    clerk: Page, bank: PaperBank
) -> None:
    order = waiting()
    load(bank.statement(Entry(TOTAL, "Vielen Dank", name="LOVELACE, ADA")))
    open_item(clerk, "no reference")
    expect(clerk.locator(".field-proposals_shown")).to_contain_text(
        f"{order.number}: Its amount and the name of its customer are the same."
    )
    clerk.get_by_role("link", name="Assign to an order").click()
    expect(clerk.get_by_label("Order")).to_have_value(order.number)
    fill_in(clerk, "Assign to an order")
    expect_message(clerk, f"€39.98 are assigned to {order.number}.")
    expect(clerk.locator(".field-resolved_by")).to_contain_text("grace")
    assert (received(order), nothing_in_review()) == (TOTAL, True)
    clerk.goto(f"/admin/payments/payment/?q={order.number}")
    clerk.get_by_role("link", name=order.number).click()
    clerk.get_by_role("link", name=order.number, exact=True).click()
    expect(clerk.locator("#order-panel")).to_contain_text("€39.98")


def test_one_transfer_is_split_over_two_orders(clerk: Page, bank: PaperBank) -> None:
    first, second = waiting(), waiting()
    load(bank.statement(Entry(5000, f"{first.number} {second.number}")))
    open_item(clerk, "ambiguous")
    clerk.get_by_role("link", name="Split over several orders").click()
    shares = clerk.get_by_label("Orders and amounts")
    expect(shares).to_have_value(f"{first.number}\n{second.number}")
    fill_in(clerk, "Split", Orders_and_amounts=f"{first.number} 39,98\n{second.number} 12,00")
    expect(clerk.locator(".errornote")).to_have_text("Not done yet: 1 thing has to be corrected.")
    expect(clerk.locator(".errorlist")).to_contain_text("more than what is left to assign")
    fill_in(clerk, "Split", Orders_and_amounts=f"{first.number} 39,98\n{second.number} 10,02")
    expect_message(clerk, f"€10.02 are assigned to {second.number}.")
    assert (received(first), received(second)) == (TOTAL, 1002)


def test_a_small_difference_is_accepted_and_told_on_the_orders_page(clerk: Page, bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, TOTAL - 50)))
    open_item(clerk, "too little")
    expect(clerk.locator(".field-amount_shown")).to_contain_text("€0.50 missing")
    act(clerk, "Accept as full payment", Reason="Her bank took a fee.")
    expect_message(clerk, "Accepted as full payment, €0.50 short.")
    open_order(clerk, order)
    panel = clerk.locator("#order-panel")
    expect(panel).to_contain_text("Accepted as full payment")
    expect(panel).to_contain_text("€0.50 short")
    expect(panel).not_to_contain_text("Missing")
    told = clerk.locator(".vk-entry", has_text="Accepted as full payment, €0.50 short").locator(
        "visible=true"
    )
    expect(told.last).to_contain_text("Her bank took a fee.")
    expect(told.last).to_contain_text("grace")
    clerk.goto("/admin/orders/order/")
    expect(clerk.locator(".field-received_shown")).to_have_text("€39.48, accepted €0.50 short")


def test_what_came_goes_back_in_part_to_an_account_that_is_not_known_yet(
    clerk: Page, bank: PaperBank
) -> None:
    order = waiting()
    load(bank.statement(pays(order, 3000)))
    open_item(clerk, "too little")
    clerk.get_by_role("link", name="Pay back", exact=True).click()
    expect(clerk.get_by_label("Amount")).to_have_value("30.00")
    expect(clerk.get_by_label("IBAN")).to_have_value("DE02 1203 0000 0000 2020 51")
    fill_in(clerk, "Pay back", Amount="10,00", IBAN="DE00", Reason="She asked for it.")
    expect(clerk.locator(".field-iban .errorlist")).to_contain_text("is not an IBAN")
    fill_in(clerk, "Pay back", IBAN="")
    expect_message(clerk, "€10.00 are paid back")
    expect_message(clerk, "An account is missing")
    expect(clerk.locator(".field-amount_shown")).to_contain_text("€19.98 missing")
    transfer = OutgoingTransfer.objects.get()
    assert (transfer.amount, transfer.payee_iban, transfer.state) == (1000, "", "needs_account")
    open_order(clerk, order)
    panel = clerk.locator("#order-panel")
    expect(panel).to_contain_text("Waiting for €19.98.")
    expect(panel.locator("div", has_text="Paid back, never captured").last).to_contain_text("€10.00")
    expect(clerk.locator("#order-timeline")).to_contain_text("€10.00 no longer counted as received")


def test_all_that_came_is_paid_back_from_the_payments_page(clerk: Page, bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, 1000), pays(order, 500, iban=BOB, name="Bob")))
    open_item(clerk, "too little")
    act(clerk, "Wait for the rest", Note="He has promised.")
    expect_message(clerk, "goes on waiting")
    clerk.locator(".field-payment_link a").click()
    clerk.get_by_role("link", name="Pay back what came in").click()
    expect(clerk.get_by_label("Amount")).to_have_value("15.00")
    expect(clerk.get_by_label("IBAN")).to_have_count(0)  # each part to its payer
    fill_in(clerk, "Pay back what came in", Reason="He never did.")
    expect_message(clerk, "€15.00 are paid back")
    assert sorted(OutgoingTransfer.objects.values_list("payee_iban", "amount")) == [(ADA, 1000), (BOB, 500)]
    expect(clerk.locator(".field-received")).to_contain_text("€0.00")
    expect(clerk.locator(".field-paid_back")).to_contain_text("€15.00")


def test_money_that_is_none_of_the_shops_is_discarded_with_a_reason(clerk: Page, bank: PaperBank) -> None:
    load(bank.statement(Entry(1200, "Zinsen", name="Bank", iban="")))
    open_item(clerk, "no reference")
    act(clerk, "Discard")
    expect(clerk.locator(".field-reason .errorlist")).to_contain_text("This field is required.")
    fill_in(clerk, "Discard", Reason="Interest.")
    expect_message(clerk, "€12.00 are discarded.")
    assert where() == {"discarded": 1200}


def test_several_items_are_paid_back_from_the_list(clerk: Page, bank: PaperBank) -> None:
    short = waiting()
    load(bank.statement(Entry(500, "?"), Entry(700, "?", iban=BOB), pays(short, 1000)))
    clerk.goto("/admin/payments/reviewitem/")
    clerk.locator("#action-toggle").check()
    clerk.get_by_label("Action:").select_option(label="Pay back")
    clerk.get_by_role("button", name="Go").click()
    expect(clerk.get_by_label("IBAN")).to_have_count(0)
    fill_in(clerk, "Pay back", Reason="Not ours.")
    expect(clerk.locator(".vk-good")).to_have_count(3)
    assert where() == {"refunded": 2200}
    assert received(short) == 0


def test_the_list_is_searched_as_people_type(clerk: Page, bank: PaperBank) -> None:
    load(
        bank.statement(
            Entry(129999, "Lieferung 4711 Grüße", iban=BOB, name="Müller & Söhne"), Entry(500, "Zinsen")
        )
    )
    clerk.goto("/admin/payments/reviewitem/?state__exact=open")
    for typed in (
        "1299.99",
        "1.299,99",
        "1 299,99 €",
        "€1,299.99",
        "müller",
        "grüße 4711",
        "DE02 5001 0517 0137 0750 30",
        "de02 5001 0517",
    ):
        clerk.locator("#searchbar").fill(typed)
        clerk.get_by_role("button", name="Search").click()
        expect(clerk.locator("#result_list tbody tr")).to_have_count(1)
        expect(clerk.locator("#result_list")).to_contain_text("Müller & Söhne")


# --- two people ------------------------------------------------------------------------------------------


def test_the_second_of_two_people_is_told_who_was_faster(clerk: Page, bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(Entry(TOTAL, "?", iban=BOB)))
    page = f"/admin/payments/reviewitem/{item().pk}"
    with colleague(clerk) as alan:
        alan.goto(f"{page}/pay-back/")
        clerk.goto(f"{page}/assign/")
        fill_in(clerk, "Assign to an order", Order=order.number)
        expect_message(clerk, "are assigned")
        fill_in(alan, "Pay back", Reason="Not ours.")
        expect_message(alan, "It was processed in the meantime by grace.")
    assert not OutgoingTransfer.objects.exists()
    assert where() == {"matched": TOTAL}


def test_a_page_that_shows_more_than_is_left_moves_nothing(clerk: Page, bank: PaperBank) -> None:
    load(bank.statement(Entry(1000, "?")))
    page = f"/admin/payments/reviewitem/{item().pk}"
    with colleague(clerk) as alan:
        for person in (clerk, alan):
            person.goto(f"{page}/pay-back/")
        fill_in(clerk, "Pay back", Amount="4.00", Reason="A part.")
        fill_in(alan, "Pay back", Reason="All of it.")
        expect(alan.locator(".errorlist")).to_contain_text("by grace: €6.00 are left of it")
        fill_in(alan, "Pay back", Amount="6.00")
        expect_message(alan, "€6.00 are among the transfers")
    assert where() == {"refunded": 1000}
    assert ReviewItem.objects.get().resolved_by == "alan"
