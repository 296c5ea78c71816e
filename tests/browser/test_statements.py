"""Bank statements in a browser: uploaded, watched on their way into the books, and read line by line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import transaction
from playwright.sync_api import Page, expect
from pytest_django.fixtures import Settings

from payments.gateways import gateway
from payments.models import BankTransaction, Payment, StatementFile
from tests import factories
from tests.browser.conftest import PATIENCE_MS
from tests.payments.paper_bank import SETTINGS, Entry, PaperBank, payment, pays, waiting

pytestmark = pytest.mark.django_db(transaction=True)
expect.set_options(timeout=PATIENCE_MS)
Login = Callable[..., Page]
MANY = 1000
"""Two of the batches that an import writes."""


@pytest.fixture(autouse=True)
def bank_account(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the shop in the test, and of the worker."""
    for name in ("BANK_IBAN", "BANK_BIC", "BANK_ACCOUNT_HOLDER"):
        setattr(settings, name, SETTINGS[name])
        monkeypatch.setenv(name, str(SETTINGS[name]))


@pytest.fixture
def bank(bank_account: None, worker: None, settings: Settings) -> PaperBank:
    settings.PAYMENT_GATEWAYS = SETTINGS["PAYMENT_GATEWAYS"]
    gateway.cache_clear()
    factories.product(on_hand=1000)
    return PaperBank()


def upload(page: Page, name: str, content: bytes) -> None:
    page.goto("/admin/payments/bankstatement/")
    page.get_by_role("link", name="Import a bank statement").click()
    page.get_by_label("Statement file").set_input_files(
        {"name": name, "mimeType": "application/xml", "buffer": content}
    )
    page.get_by_role("button", name="Import").click()


def expect_state(page: Page, words: str) -> None:
    expect(page.locator("#statement-file .vk-state .vk-label")).to_have_text(words)


def fact(page: Page, name: str) -> str:
    found = page.locator("#statement-file .vk-facts > div").filter(has_text=name)
    return found.first.locator("dd").inner_text()


def test_an_uploaded_statement_is_watched_to_its_report(login: Login, bank: PaperBank) -> None:
    page = login("payments")
    order = waiting()
    file = bank.statement(*(Entry(1 + i, "?") for i in range(MANY)), pays(order), Entry(5, status="PDNG"))
    with transaction.atomic():
        # The last batch waits for it.
        Payment.objects.select_for_update().get(merchant_reference=order.number)
        upload(page, "march.xml", file)
        page.evaluate("window.stayed = true")
        expect(page.locator(f'progress[max="{MANY + 1}"][value="{MANY}"]')).to_be_visible()
        expect(page.locator("#statement-outlook")).to_contain_text(
            f"{MANY:,} of {MANY + 1:,} transactions are imported"
        )
    expect_state(page, "imported")
    expect(page.locator("#statement-file[hx-trigger]")).to_have_count(0)
    assert page.evaluate("window.stayed") is True
    facts = {
        name: fact(page, name)
        for name in ("Lines", "New", "Known before", "Left out", "Matched", "In review")
    }
    assert facts == {
        "Lines": f"{MANY + 2:,}", "New": f"{MANY + 1:,}", "Known before": "0", "Left out": "1", "Matched": "1",
        "In review": f"{MANY:,}",
    }  # fmt: skip
    assert payment(order).totals().received == order.total

    page.get_by_role("link", name="Matched to a payment (1)").click()
    rows = page.locator("#statement-lines tbody tr")
    expect(rows).to_have_count(1)
    expect(rows.get_by_role("link", name=order.number)).to_be_visible()
    page.get_by_role("link", name="Left out (1)").click()
    expect(rows).to_contain_text("the bank has not booked it yet")
    page.get_by_role("link", name=f"In review ({MANY:,})").click()
    page.get_by_role("link", name="2", exact=True).click()
    expect(rows.first).to_contain_text("entry 101")
    rows.first.get_by_role("link", name="no reference").click()
    expect(page.get_by_role("link", name="Discard")).to_be_visible()


def test_the_same_file_again_links_the_first_and_brings_nothing(login: Login, bank: PaperBank) -> None:
    page = login("payments")
    file = bank.statement(Entry(100, "?"))
    for _ in range(2):
        upload(page, "march.xml", file)
        expect_state(page, "imported")
    expect(page.locator("#statement-lines tbody tr")).to_contain_text("known before")
    page.locator("#statement-file .vk-follows").get_by_role("link", name="march.xml").click()
    expect(page.locator("#statement-lines tbody tr td .vk-label").first).to_have_text("new")
    assert BankTransaction.objects.count() == 1


def test_a_file_that_is_none_says_so_and_can_be_downloaded(login: Login, bank: PaperBank) -> None:
    page = login("payments")
    upload(page, "letter.txt", b"Dear customer")
    expect_state(page, "failed")
    expect(page.locator(".errornote")).to_contain_text(
        "letter.txt: this is not a bank statement. In the bank's portal"
    )
    with page.expect_download() as started:
        page.get_by_role("link", name="Download the file").click()
    assert started.value.path().read_bytes() == b"Dear customer"
    assert started.value.suggested_filename == "letter.txt"


def test_without_a_worker_the_page_says_that_the_file_waits(login: Login) -> None:
    page = login("payments")
    upload(page, "march.xml", PaperBank().statement(Entry(100, "?")))
    expect_state(page, "waits for the worker")
    expect(page.locator("#statement-outlook")).to_have_text("It waits for the worker.")
    expect(page.locator("#statement-outlook")).to_contain_text("No worker has taken it up so far.")
    assert StatementFile.objects.get().state == "queued"
