"""The payment staff's screens: statements, the review list, and the transfers to be sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django.fixtures import Settings

from payments.gateways import gateway
from payments.models import (
    BankStatement,
    BankTransaction,
    OutgoingTransfer,
    ReviewItem,
    TransferBatch,
)
from payments.services import reviewing, transfers
from tests import factories
from tests.payments.paper_bank import (
    ADA,
    BOB,
    SETTINGS,
    Entry,
    PaperBank,
    item,
    load,
    payment,
    pays,
    received,
    waiting,
    where,
)

pytestmark = pytest.mark.django_db

TOTAL = 3998
UPLOAD = "admin:payments_bankstatement_import"


@pytest.fixture(autouse=True)
def shop(settings: Settings) -> Iterator[None]:
    for name, value in SETTINGS.items():
        setattr(settings, name, value)
    gateway.cache_clear()
    yield
    gateway.cache_clear()


@pytest.fixture
def bank() -> PaperBank:
    factories.product(on_hand=1000)
    return PaperBank()


@pytest.fixture
def login() -> Callable[..., Client]:
    def logged_in(role: str, *more: str) -> Client:
        user = User.objects.create_user(role, is_staff=True)
        user.groups.set(Group.objects.filter(name=role))
        user.user_permissions.set(Permission.objects.filter(codename__in=more))
        client = Client()
        client.force_login(user)
        return client

    return logged_in


@pytest.fixture
def staff(login: Callable[..., Client]) -> Client:
    return login("payments")


def upload(client: Client, content: bytes, name: str = "march.xml") -> str:
    sent = {"file": SimpleUploadedFile(name, content)}
    return client.post(reverse(UPLOAD), sent, follow=True).content.decode()


def act(client: Client, found: ReviewItem, slug: str, data: dict[str, str] | None = None) -> str:
    """The page after the form was filled in and sent, as a browser does it."""
    url = reverse(f"admin:payments_reviewitem_{slug}", args=[found.pk])
    page = client.get(url).content.decode()
    seen = re.search(rf'name="(seen-{found.pk})" value="([^"]*)"', page)
    fields = {seen[1]: seen[2]} if seen else {}
    return client.post(url, fields | (data or {}), follow=True).content.decode()


# --- statements ------------------------------------------------------------------------------------------


def test_an_uploaded_statement_is_shown_line_by_line(staff: Client, bank: PaperBank) -> None:
    order = waiting()
    file = bank.statement(pays(order, TOTAL + 5), Entry(700, "Danke"), Entry(-90, "fee", name="Bank"))
    page = upload(staff, file)
    assert "3 new bookings were imported; 0 were known before." in page
    for words in (f"matched to a payment: {order.number} (€39.98)", "in review (€0.05)", "too much"):
        assert words in page
    assert "no reference" in page
    assert "not the shop&#x27;s business" in page
    assert BankStatement.objects.get().imported_by == "payments"
    again = upload(staff, file)
    assert "0 new bookings were imported; 3 were known before." in again
    assert "Nothing in it was new." in again
    assert received(order) == TOTAL


def test_a_file_that_is_none_is_refused_beside_its_field(staff: Client, bank: PaperBank) -> None:
    page = upload(staff, b"Dear customer", "letter.txt")
    assert "letter.txt" in page
    assert "Nothing was imported" in page
    assert BOB in upload(staff, PaperBank(iban=BOB).statement(Entry(1, "?")))
    assert not BankStatement.objects.exists()


def test_only_those_who_may_import(login: Callable[..., Client], bank: PaperBank) -> None:
    orders = login("orders")
    assert orders.get(reverse(UPLOAD)).status_code == 403
    file = SimpleUploadedFile("s.xml", bank.statement(Entry(1, "?")))
    assert orders.post(reverse(UPLOAD), {"file": file}).status_code == 403
    listed = orders.get(reverse("admin:payments_bankstatement_changelist")).content.decode()
    assert reverse(UPLOAD) not in listed
    assert not BankTransaction.objects.exists()


def test_bookings_are_found_by_amount_name_account_and_text(staff: Client, bank: PaperBank) -> None:
    load(bank.statement(Entry(12345, "Miete", name="Emmy Noether", iban=BOB), Entry(1, "other")))
    url = reverse("admin:payments_banktransaction_changelist")
    for term in ("123.45", "123,45", "noether", BOB, "miete"):
        page = staff.get(url, {"q": term}).content.decode()
        assert "Emmy Noether" in page
        assert "1 bank transaction" in page
    shown = staff.get(
        reverse("admin:payments_banktransaction_change", args=[BankTransaction.objects.latest("id").pk])
    )
    assert shown.status_code == 200


@pytest.mark.parametrize("model", ["banktransaction", "reviewitem", "outgoingtransfer", "bankstatement"])
def test_lists_take_the_same_number_of_queries_however_long(
    staff: Client, bank: PaperBank, model: str
) -> None:
    def queries(count: int) -> int:
        for _ in range(count):
            load(bank.statement(pays(waiting(), TOTAL + 1), Entry(500, "?")))
        for found in ReviewItem.objects.filter(reason="no_reference", state="open")[:count]:
            reviewing.pay_back(found.pk, "grace", "x", amount=1)
        with CaptureQueriesContext(connection) as made:
            assert staff.get(reverse(f"admin:payments_{model}_changelist")).status_code == 200
        return len(made)

    queries(1)
    assert queries(1) == queries(6)


# --- the review list -------------------------------------------------------------------------------------


def test_the_list_proposes_and_is_searched(staff: Client, bank: PaperBank) -> None:
    order = waiting()
    load(
        bank.statement(Entry(TOTAL, "Gruß", name="Ada Lovelace"), Entry(77, "Zinsen", name="Bank", iban=BOB))
    )
    url = reverse("admin:payments_reviewitem_changelist")
    page = staff.get(url).content.decode()
    assert order.number in page
    assert "name of its customer are the same" in page
    for term in ("39.98", "€39.98", "39.98 EUR", "lovelace", "DE02 1203 0000 0000 2020 51", "gruß"):
        found = staff.get(url, {"q": term, "state__exact": "open"}).content.decode()
        assert ("1 review item" in found, "Zinsen" in found) == (True, False), term


def test_a_creditor_reference_is_found_and_what_is_not_there_is_a_dash(
    staff: Client, bank: PaperBank
) -> None:
    load(bank.statement(Entry(700, creditor_reference="RF18539007547034"), Entry(77, "Zinsen")))
    for name in ("payments_reviewitem", "payments_banktransaction"):
        found = staff.get(reverse(f"admin:{name}_changelist"), {"q": "RF18539007547034"}).content.decode()
        assert ("RF18539007547034" in found, "Zinsen" in found) == (True, False), name
    page = staff.get(
        reverse("admin:payments_reviewitem_change", args=[ReviewItem.objects.get(amount=77).pk])
    ).content.decode()
    assert "None" not in page


def test_money_is_assigned_on_a_page_that_says_what_follows(staff: Client, bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(Entry(TOTAL, "Gruß")))
    url = reverse("admin:payments_reviewitem_assign", args=[item().pk])
    assert url in staff.get(reverse("admin:payments_reviewitem_change", args=[item().pk])).content.decode()
    page = staff.get(url).content.decode()
    assert f'value="{order.number}"' in page
    assert "counts as received" in page
    assert received(order) == 0
    assert "assigned to" in act(staff, item(), "assign", {"order": order.number, "amount": ""})
    assert received(order) == TOTAL


def test_money_is_split_on_one_form(staff: Client, bank: PaperBank) -> None:
    first, second = waiting(), waiting()
    load(bank.statement(Entry(5000, f"{first.number} {second.number}")))
    bad = act(staff, item(), "split", {"shares": f"{first.number} 10.0.0"})
    assert "is not an amount" in bad
    act(staff, item(), "split", {"shares": f"{first.number}\n{second.number} 10,02\n"})
    assert (received(first), received(second)) == (TOTAL, 1002)


def test_a_page_that_another_has_overtaken_says_so(staff: Client, bank: PaperBank) -> None:
    load(bank.statement(Entry(500, "?")))
    found = item()
    url = reverse("admin:payments_reviewitem_pay-back", args=[found.pk])
    reviewing.discard(found.pk, "grace", "interest")
    data = {"amount": "5.00", "reason": "x", f"seen-{found.pk}": "500"}
    assert "in the meantime by grace" in staff.post(url, data, follow=True).content.decode()
    assert where() == {"discarded": 500}


def test_the_acts_need_their_permissions(login: Callable[..., Client], bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(Entry(500, "?"), pays(order, TOTAL - 200)))
    found, short = ReviewItem.objects.get(reason="no_reference"), ReviewItem.objects.get(reason="too_little")
    viewer, staff = login("viewer"), login("payments")
    boss = login("boss", "accept_difference", "view_reviewitem", "change_reviewitem")
    for slug in ("assign", "split", "pay-back", "discard", "close"):
        url = reverse(f"admin:payments_reviewitem_{slug}", args=[found.pk])
        assert viewer.get(url).status_code == viewer.post(url, {}).status_code == 403
    assert boss.get(reverse("admin:payments_reviewitem_pay-back", args=[found.pk])).status_code == 403
    assert boss.get(reverse("admin:payments_reviewitem_discard", args=[found.pk])).status_code == 403
    assert "further permission" in act(staff, short, "accept", {"reason": "x"})
    url = reverse("admin:payments_reviewitem_accept-any", args=[short.pk])
    assert staff.post(url, {"reason": "x"}).status_code == 403
    assert payment(order).missing(payment(order).totals()) == 200
    act(boss, short, "accept-any", {"reason": "an old customer"})
    assert payment(order).missing(payment(order).totals()) == 0


def test_an_item_offers_only_what_can_be_done_with_it(staff: Client, bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, TOTAL - 50)))
    page = staff.get(reverse("admin:payments_reviewitem_change", args=[item().pk])).content.decode()
    assert "Accept as full payment" in page
    assert "Wait for the rest" in page
    assert "Pay back" in page
    assert "Assign" not in page
    assert "Discard" not in page


# --- transfers -------------------------------------------------------------------------------------------


def test_from_the_review_list_to_the_bank(staff: Client, bank: PaperBank) -> None:
    load(bank.statement(Entry(500, "?"), Entry(700, "?", iban="", name="")))
    for found, iban in zip(ReviewItem.objects.order_by("id"), (ADA, ""), strict=True):
        amount = str(reviewing.money_of(found).decimal)
        act(staff, found, "pay-back", {"amount": amount, "name": "Ada", "iban": iban, "reason": "x"})
    known, unknown = OutgoingTransfer.objects.order_by("id")
    account = reverse("admin:payments_outgoingtransfer_account", args=[unknown.pk])
    assert "is not an IBAN" in staff.post(account, {"name": "Bob", "iban": "DE00"}).content.decode()
    staff.post(account, {"name": "Bob", "iban": BOB})
    assert known.payee_iban == ADA

    make = reverse("admin:payments_outgoingtransfer_batch")
    page = staff.get(make).content.decode()
    assert known.end_to_end_id in page
    assert unknown.end_to_end_id in page
    assert not TransferBatch.objects.exists()
    made = staff.post(make, {"transfer": [known.pk, unknown.pk]}, follow=True).content.decode()
    batch = TransferBatch.objects.get()
    download = reverse("admin:payments_transferbatch_download", args=[batch.pk])
    assert download in made
    assert "in a batch already" in staff.post(make, {"transfer": [known.pk]}).content.decode()
    file = staff.get(download)
    assert file["Content-Disposition"] == f'attachment; filename="{batch.message_id}.xml"'
    assert known.end_to_end_id in file.content.decode()
    assert BOB in file.content.decode()
    sent = reverse("admin:payments_transferbatch_sent", args=[batch.pk])
    staff.get(sent)
    batch.refresh_from_db()
    assert batch.sent_at is None
    staff.post(sent, {})
    batch.refresh_from_db()
    assert batch.sent_by == "payments"


def test_others_see_no_file_and_make_none(login: Callable[..., Client], bank: PaperBank) -> None:
    load(bank.statement(Entry(500, "?")))
    reviewing.pay_back(item().pk, "grace", "not ours")
    batch = transfers.make_batch(OutgoingTransfer.objects.all(), "grace")
    viewer = login("viewer")
    for url in (
        reverse("admin:payments_transferbatch_download", args=[batch.pk]),
        reverse("admin:payments_outgoingtransfer_batch"),
        reverse("admin:payments_transferbatch_sent", args=[batch.pk]),
    ):
        assert viewer.get(url).status_code == 403
    assert viewer.get(reverse("admin:payments_transferbatch_changelist")).status_code == 200


def test_no_page_has_inline_script_or_style(staff: Client, bank: PaperBank) -> None:
    load(bank.statement(pays(waiting(), TOTAL + 5), Entry(500, "?")))
    reviewing.pay_back(ReviewItem.objects.get(reason="no_reference").pk, "grace", "x", amount=1)
    for url in (
        reverse(UPLOAD),
        reverse("admin:payments_bankstatement_change", args=[BankStatement.objects.get().pk]),
        reverse("admin:payments_reviewitem_changelist"),
        reverse("admin:payments_outgoingtransfer_batch"),
    ):
        page = staff.get(url).content.decode()
        assert not re.search(r"<style|style=|<script(?![^>]*(src=|application/json))|\son\w+=", page)
