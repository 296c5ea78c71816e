"""What people type is not lost: leaving asks, a session that has ended gives it back, nothing renews itself over it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from playwright.sync_api import Dialog, Page, expect
from pytest_django.fixtures import Settings

from orders.models import Order, OrderEvent
from tests import factories
from tests.browser.conftest import PASSWORD
from tests.orders.test_admin import shop
from tests.orders.test_admin import waiting as an_order_that_waits

__all__ = ["shop"]  # a fixture

pytestmark = pytest.mark.django_db(transaction=True)
Login = Callable[..., Page]
KEPT = "vk-kept-forms"


@pytest.fixture
def waiting(transactional_db: None, shop: None) -> Order:
    factories.product(on_hand=5)
    return an_order_that_waits()


def log_in_again(page: Page, name: str = "grace") -> None:
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def kept(page: Page) -> object:
    return page.evaluate(f"sessionStorage.getItem('{KEPT}')")


def asked(page: Page, answer: str) -> list[str]:
    """From now on questions are answered so; they are noted in the list."""
    seen: list[str] = []

    def note(dialog: Dialog) -> None:
        seen.append(dialog.type)
        dialog.accept() if answer == "leave" else dialog.dismiss()

    page.on("dialog", note)
    return seen


def test_leaving_a_form_that_was_changed_asks_first(login: Login, waiting: Order) -> None:
    page = login("orders")
    address = f"/admin/orders/order/{waiting.pk}/cancel/"
    page.goto(address)
    questions = asked(page, "stay")
    page.get_by_role("link", name="Back").click()  # nothing was typed
    page.wait_for_url("**/change/")
    page.goto(address)
    page.get_by_label("Reason").fill("They changed their mind.")
    page.get_by_role("link", name="Back").click()
    expect(page.get_by_label("Reason")).to_have_value("They changed their mind.")
    assert page.url.endswith(address)
    assert questions == ["beforeunload"]
    page.get_by_role("button", name="Cancel order").click()  # sending it asks nothing
    page.wait_for_url("**/change/")
    assert questions == ["beforeunload"]
    assert OrderEvent.objects.filter(kind="cancel", reason="They changed their mind.").exists()


def test_a_form_that_came_back_with_errors_is_still_unsaved_and_shows_the_first(
    login: Login, waiting: Order
) -> None:
    page = login("payments")
    page.goto(f"/admin/orders/order/{waiting.pk}/confirm-payment/")
    amount = page.get_by_label("Amount")
    amount.fill("1.299")
    page.get_by_label("Reason").fill("Seen.")
    page.get_by_role("button", name="Confirm payment").click()
    expect(amount).to_be_focused()
    expect(amount).to_have_attribute("aria-describedby", "id_amount_helptext id_amount_error")
    expect(page.locator("#id_amount_error")).to_have_text(
        "“1.299” can be read in two ways. Write 1,299.00 or 1.30."
    )
    expect(page.locator(".errornote")).to_have_text("Not done yet: 1 thing has to be corrected.")
    questions = asked(page, "stay")
    page.get_by_role("link", name="Back").click()
    expect(amount).to_have_value("1.299")
    assert questions == ["beforeunload"]


def test_an_ended_session_loses_nothing_and_does_nothing_by_itself(login: Login, waiting: Order) -> None:
    page = login("orders", "payments")
    address = f"/admin/orders/order/{waiting.pk}/confirm-payment/"
    page.goto(address)
    page.get_by_label("Amount").fill("12,34")
    page.get_by_label("Bank reference").fill("2026-0815")
    page.get_by_label("Reason").fill("Seen on the statement.")
    Session.objects.all().delete()
    page.get_by_role("button", name="Confirm payment").click()
    expect(page.get_by_text("What you have typed is kept.")).to_be_visible()
    log_in_again(page)
    page.wait_for_url(f"**{address}")
    expect(page.get_by_text("What you had typed is back in the form.")).to_be_visible()
    expect(page.get_by_label("Amount")).to_have_value("12,34")
    expect(page.get_by_label("Bank reference")).to_have_value("2026-0815")
    expect(page.get_by_label("Reason")).to_have_value("Seen on the statement.")
    assert not OrderEvent.objects.filter(kind="confirm").exists()
    page.get_by_role("button", name="Confirm payment").click()
    page.wait_for_url("**/change/")
    assert OrderEvent.objects.filter(kind="confirm", reason="Seen on the statement.").count() == 1
    page.goto(address)
    expect(page.get_by_label("Reason")).to_have_value("")  # it is given back once


def test_a_comment_comes_back_to_the_page_that_it_was_written_on(login: Login, waiting: Order) -> None:
    page = login("orders")
    page.goto(f"/admin/orders/order/{waiting.pk}/change/")
    page.get_by_label("Comment").fill("Half a thought")
    Session.objects.all().delete()
    page.get_by_role("button", name="Add comment").click()
    log_in_again(page)
    page.wait_for_url(f"**/{waiting.pk}/change/")
    expect(page.get_by_label("Comment")).to_have_value("Half a thought")
    assert not OrderEvent.objects.filter(kind="comment").exists()


def test_an_order_that_was_being_taken_comes_back_with_all_its_lines(login: Login, waiting: Order) -> None:
    page = login("orders")
    page.goto("/admin/orders/order/add/")
    page.get_by_role("button", name="More lines").click()
    for number in range(1, 6):
        page.get_by_label(f"Product (SKU) {number}").fill(f"SKU-{number}")
        page.get_by_label(f"Quantity {number}").fill(str(number))
    page.locator("#id_customer_name").fill("Ada Lovelace")
    Session.objects.all().delete()
    page.get_by_role("button", name="Place order").click()
    log_in_again(page)
    page.wait_for_url("**/add/")
    expect(page.locator("#id_customer_name")).to_have_value("Ada Lovelace")
    for number in range(5):
        expect(page.locator(f"#id_form-{number}-sku")).to_have_value(f"SKU-{number + 1}")
        expect(page.locator(f"#id_form-{number}-quantity")).to_have_value(str(number + 1))


def test_what_one_person_typed_is_not_shown_to_the_next(login: Login, waiting: Order) -> None:
    other = User.objects.create_user("linus", password=PASSWORD, is_staff=True)
    other.groups.set(Group.objects.filter(name="orders"))
    page = login("orders")
    address = f"/admin/orders/order/{waiting.pk}/cancel/"
    page.goto(address)
    page.get_by_label("Reason").fill("Only grace knows.")
    Session.objects.all().delete()
    page.get_by_role("button", name="Cancel order").click()
    log_in_again(page, "linus")
    page.wait_for_url(f"**{address}")
    expect(page.get_by_label("Reason")).to_have_value("")
    assert kept(page) is None


def test_passwords_are_never_kept(login: Login) -> None:
    page = login()
    page.goto("/admin/auth/user/add/")
    page.get_by_label("Username").fill("new-colleague")
    for field in page.locator("input[type=password]").all():
        field.fill("not to be written down")
    Session.objects.all().delete()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("What you have typed is kept.")).to_be_visible()
    stored = page.evaluate("JSON.stringify(sessionStorage)")
    assert "new-colleague" in stored
    assert "not to be written down" not in stored


def test_logging_out_takes_it_along(login: Login, waiting: Order) -> None:
    page = login("orders")
    page.goto(f"/admin/orders/order/{waiting.pk}/cancel/")
    page.get_by_label("Reason").fill("")
    page.get_by_role("button", name="Cancel order").click()
    expect(page.get_by_text("This field is required.")).to_be_visible()
    page.evaluate(f"sessionStorage.setItem('{KEPT}', JSON.stringify({{at: Date.now(), forms: []}}))")
    asked(page, "leave")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/logout/")
    assert kept(page) is None


def second_tab(page: Page, address: str) -> Page:
    """In the same browser; an answer 403 is no fault of this one."""
    tab = page.context.new_page()
    tab.goto(address)
    return tab


def test_a_form_from_before_a_log_in_elsewhere_is_refused_kindly_and_comes_back(
    login: Login, waiting: Order
) -> None:
    first = login("orders")
    tab = second_tab(first, f"/admin/orders/order/{waiting.pk}/cancel/")
    tab.get_by_label("Reason").fill("They changed their mind.")
    Session.objects.all().delete()
    first.goto("/admin/")
    log_in_again(first)
    first.get_by_role("heading", name="Work queue").wait_for()
    tab.get_by_role("button", name="Cancel order").click()
    expect(tab.get_by_role("heading", name="This form was out of date")).to_be_visible()
    tab.get_by_role("link", name="Back to the form").click()
    expect(tab.get_by_label("Reason")).to_have_value("They changed their mind.")
    tab.get_by_role("button", name="Cancel order").click()
    tab.wait_for_url("**/change/")
    assert OrderEvent.objects.filter(kind="cancel").count() == 1


def test_before_a_session_ends_its_person_can_stay(login: Login, settings: Settings, waiting: Order) -> None:
    settings.SESSION_COOKIE_AGE = 90
    page = login("orders")
    notice = page.get_by_role("status").filter(has_text="You will be logged out in two minutes.")
    expect(notice).to_be_visible()
    settings.SESSION_COOKIE_AGE = 3600
    ended = Session.objects.get().expire_date
    page.get_by_role("button", name="Stay logged in").click()
    expect(notice).to_have_count(0)
    assert Session.objects.get().expire_date > ended


def test_a_page_that_renews_itself_waits_for_who_is_typing_when_the_session_ends(
    login: Login, waiting: Order
) -> None:
    page = login("orders")
    page.goto(f"/admin/orders/order/{waiting.pk}/change/")
    page.get_by_label("Comment").fill("Half a thought")
    questions = asked(page, "stay")
    Session.objects.all().delete()  # the page asks every second
    expect(page.get_by_text("You have been logged out.")).to_be_visible()
    expect(page.get_by_label("Comment")).to_have_value("Half a thought")
    page.get_by_role("link", name="Log in again").click()
    log_in_again(page)
    page.wait_for_url(f"**/{waiting.pk}/change/")
    expect(page.get_by_label("Comment")).to_have_value("Half a thought")
    assert questions == []
