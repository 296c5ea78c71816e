"""Ops in a browser: a letter from its arrival to its end, many at once, and two people at one letter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from orders.models import DeadLetter, Order, Saga
from orders.services import dead_letters, lifecycle
from tests import factories
from tests.browser.conftest import PATIENCE_MS
from tests.payments.sandbox_process import SandboxProcess
from tests.servers import Mailbox
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
expect.set_options(timeout=PATIENCE_MS)

LIST = "/admin/ops/dead-letters/"


def failed_rollbacks(provider: SandboxProcess, number: int) -> list[Order]:
    """Orders whose authorization could not be released, while the provider refused that."""
    factories.product(on_hand=20)
    orders = [factories.place(("TEA", 1)) for _ in range(number)]
    wait_until(lambda: Saga.objects.filter(status="waiting").count() == number)
    provider.faults(void={"refuse_rate": 1})
    for order in orders:
        lifecycle.cancel(order.number, "grace", "Ordered twice")
    wait_until(lambda: Saga.objects.filter(status="compensation_failed").count() == number)
    return orders


@pytest.mark.usefixtures("worker")
def test_letter_is_looked_at_retried_and_seen_to_its_end(
    login: Callable[..., Page], provider: SandboxProcess, smtp: Mailbox
) -> None:
    (order,) = failed_rollbacks(provider, 1)
    page = login("ops")
    page.get_by_role("link", name="Dead letters: rollbacks that failed").click()
    card = page.locator("section.vk-panel")
    expect(card).to_contain_text("Release the authorization of €19.99")
    expect(card).to_contain_text("It is still authorized: its release is still to be done.")
    expect(card).to_contain_text("The provider said no, and would say no again.")

    card.get_by_role("link", name="Retry").click()
    card.get_by_role("link", name="Back").click()
    card.get_by_role("link", name="Retry").click()
    card.get_by_label("Reason").fill("Let us see")
    card.get_by_role("button", name="Retry").click()
    expect(card).to_contain_text("failed again")  # by itself: the provider still refuses
    card.get_by_text("History").click()
    expect(card).to_contain_text("Let us see")

    provider.faults()
    card.get_by_role("link", name="Retry").click()
    card.get_by_label("Reason").fill("They have repaired it")
    card.get_by_role("button", name="Retry").click()
    expect(card.locator(".vk-label", has_text="resolved")).to_be_visible()
    assert page.url.endswith(LIST)
    wait_until(lambda: Order.objects.get(pk=order.pk).status == "cancelled")
    wait_until(lambda: any("cancelled" in str(m["Message-ID"]) for m in smtp.messages))
    page.goto(LIST)
    expect(page.locator("#letters")).to_contain_text("No rollback waits for a person.")
    # The failed retry came so soon that both are told together.
    alerts = wait_until(lambda: [str(m["Subject"]) for m in smtp.messages if "rollback" in str(m["Subject"])])
    assert alerts == ["[Vorkasse] 2 × rollback failed"]


@pytest.mark.usefixtures("worker")
def test_all_that_match_are_retried_and_watched_together(
    login: Callable[..., Page], provider: SandboxProcess
) -> None:
    failed_rollbacks(provider, 3)
    page = login("ops")
    page.goto(LIST)
    page.get_by_label("Kind").select_option("configuration")
    expect(page.locator("#letters")).to_contain_text("No dead letter matches.")
    page.get_by_label("Kind").select_option("refused")
    page.get_by_role("link", name="Retry all that match (3)").click()
    page.get_by_role("checkbox").first.uncheck()
    provider.faults()
    page.get_by_label("Reason").fill("The provider was down for an hour")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator("#retried")).to_contain_text("2 resolved, 0 being retried, 0 open.")
    assert DeadLetter.objects.filter(state="open").count() == 1


def test_of_two_people_the_second_is_told_and_loses_nothing_typed(
    login: Callable[..., Page], provider: SandboxProcess
) -> None:
    from tests.shop.test_dead_letter_pages import a_letter

    factories.product(on_hand=5)
    letter = a_letter("inventory", "KeyError")
    page = login("ops")
    page.goto(LIST)
    card = page.locator(f"#letter-{letter.pk}")
    card.get_by_role("link", name="Resolve by hand").click()
    card.get_by_label("What was done").fill("Counted the shelf")
    card.get_by_label("Evidence").fill("T-7")
    dead_letters.comment(letter.pk, "ada", "I am at the shelf right now", key="c")
    card.get_by_role("button", name="Resolve by hand").click()
    expect(card).to_contain_text("It was processed in the meantime. ada: commented")
    expect(card.get_by_label("What was done")).to_have_value("Counted the shelf")
    card.get_by_role("button", name="Resolve by hand").click()
    expect(card).to_contain_text("It is resolved. The order is cancelled, and its customer is told.")
    letter.refresh_from_db()
    assert (letter.resolved_by, letter.evidence) == ("grace", "T-7")
