"""The payment staff's screens: statements, the review list, and the transfers to be sent."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from payments.admin import lines
from payments.admin.review import order_link
from payments.models import (
    BankStatement,
    BankTransaction,
    OutgoingTransfer,
    ReviewItem,
    StatementFile,
    TransferBatch,
)
from payments.services import reviewing, statement_files, transfers
from payments.services.statement_files import import_next
from shop.kernel.turns import turn
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

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("our_account")]

TOTAL = 3998
UPLOAD = "admin:payments_bankstatement_import"


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
    """The file's page, after the worker has had it."""
    sent = client.post(reverse(UPLOAD), {"file": SimpleUploadedFile(name, content)})
    while import_next() is not None:
        pass
    return client.get(sent["Location"]).content.decode()


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
    assert facts(page) | {"Lines": "3", "New": "3", "Matched to a payment": "1", "In review": "2"} == facts(
        page
    )
    assert f"matched to a payment: {order_link(order.number)} (€39.98)" in page
    for words in ("in review (€0.05)", "too much", "no reference", "not the shop&#x27;s business"):
        assert words in page
    assert BankStatement.objects.get().imported_by == "payments"
    again = upload(staff, file)
    assert facts(again) | {"Lines": "3", "New": "0", "Known before": "3"} == facts(again)
    first = BankStatement.objects.earliest("id")
    assert again.count(reverse("admin:payments_bankstatement_change", args=[first.pk])) == 3
    assert "The same file came before, from payments" in again
    assert (
        reverse("admin:payments_statementfile_change", args=[StatementFile.objects.earliest("id").pk])
        in again
    )
    assert received(order) == TOTAL


def facts(page: str) -> dict[str, str]:
    """What the panel of a file says, without the links."""
    found = re.findall(r"<div><dt>([^<]*)</dt><dd>(.*?)</dd></div>", page)
    return {name: re.sub("<[^>]*>", "", value) for name, value in found}


def test_every_line_says_what_came_of_it_and_can_be_filtered_for(staff: Client, bank: PaperBank) -> None:
    order = waiting()
    load(
        bank.statement(Entry(500, "?", reference="OLD"), Entry(300, "interest", reference="INT")),
        "february.xml",
    )
    reviewing.pay_back(ReviewItem.objects.get(amount=500).pk, "grace", "not ours")
    reviewing.discard(ReviewItem.objects.get(amount=300).pk, "grace", "interest")
    sent = OutgoingTransfer.objects.get()
    transfers.make_batch(OutgoingTransfer.objects.all(), "grace")
    bank.balance = 0
    page = upload(
        staff,
        bank.statement(
            Entry(500, "?", reference="OLD"),
            Entry(300, "interest", reference="INT"),
            Entry(900, "later", status="PDNG"),
            pays(order),
            Entry(-500, "back", end_to_end_id=sent.end_to_end_id),
            Entry(77, "?"),
        ),
    )
    texts = re.findall(r'<th scope="row">(?:<a[^>]*>)?(entry \d)', page)
    assert texts == [f"entry {n}" for n in range(1, 7)]
    assert "february.xml" in page or "camt.053.001.08 S1" in page
    assert "It is pending: the bank has not booked it yet." in page
    assert f">{sent.end_to_end_id}</a>" in page
    counted = {"In review": "1", "Paid back": "1", "Discarded with a reason": "1", "Our own transfer": "1"}
    assert facts(page) | counted == facts(page)
    (file,) = StatementFile.objects.all()
    url = reverse("admin:payments_statementfile_change", args=[file.pk])
    for fate, positions in {
        "all": "123456", "new": "456", "known": "12", "left_out": "3", "matched": "4", "review": "6",
        "refunded": "1", "discarded": "2", "outgoing": "5", "foreign": "", "nonsense": "123456",
    }.items():  # fmt: skip
        shown = staff.get(url, {"fate": fate}).content.decode()
        assert "".join(re.findall(r'<th scope="row">(?:<a[^>]*>)?entry (\d)', shown)) == positions, fate


def test_a_long_report_is_paged_and_takes_the_same_number_of_queries(
    staff: Client, bank: PaperBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "PER_PAGE", 20)
    url = ""

    def queries(count: int) -> int:
        nonlocal url
        mixed = [pays(waiting(), TOTAL + 1) for _ in range(count)]
        upload(
            staff, bank.statement(*mixed, *(Entry(50, "?") for _ in range(count)), Entry(1, status="INFO"))
        )
        url = reverse("admin:payments_statementfile_change", args=[StatementFile.objects.latest("id").pk])
        with CaptureQueriesContext(connection) as made:
            assert staff.get(url).status_code == 200
        return len(made)

    assert queries(3) == queries(15)
    positions = [
        re.findall(
            r'<th scope="row">(?:<a[^>]*>)?entry (\d+)', staff.get(url, {"page": page}).content.decode()
        )
        for page in ("1", "2")
    ]
    assert positions == [[str(n) for n in range(1, 21)], [str(n) for n in range(21, 32)]]


def test_a_bad_file_is_kept_with_what_is_wrong_and_what_to_do(staff: Client, bank: PaperBank) -> None:
    page = upload(staff, b"Dear customer", "letter.txt")
    assert "letter.txt: this is not a bank statement. In the bank&#x27;s portal, export" in page
    (file,) = StatementFile.objects.all()
    kept = staff.get(reverse("admin:payments_statementfile_download", args=[file.pk]))
    assert kept.content == b"Dear customer"
    assert "no-store" in kept["Cache-Control"]
    assert kept["Content-Disposition"] == 'attachment; filename="letter.txt"'
    assert BOB in upload(staff, PaperBank(iban=BOB).statement(Entry(1, "?")))
    assert not BankStatement.objects.exists()


def test_what_failed_can_be_imported_again(staff: Client, bank: PaperBank, settings: Settings) -> None:
    settings.BANK_IBAN = ""
    assert "Set BANK_IBAN" in upload(staff, bank.statement(Entry(1, "?")))
    settings.BANK_IBAN = SETTINGS["BANK_IBAN"]
    (file,) = StatementFile.objects.all()
    again = reverse("admin:payments_statementfile_again", args=[file.pk])
    page = reverse("admin:payments_statementfile_change", args=[file.pk])
    assert again in staff.get(page).content.decode()
    staff.post(again, {})
    assert import_next() is not None
    shown = staff.get(page).content.decode()
    assert facts(shown)["New"] == "1"
    assert again not in shown
    assert "It is imported." in staff.post(again, {}).content.decode()


def test_a_waiting_file_says_what_it_waits_for_and_asks_until_it_is_done(
    staff: Client, bank: PaperBank
) -> None:
    url = staff.post(reverse(UPLOAD), {"file": SimpleUploadedFile("s.xml", bank.statement(Entry(1, "?")))})[
        "Location"
    ]
    page = staff.get(url).content.decode()
    assert "It waits for the worker." in page
    live = re.search(r'hx-get="([^"]*)"', page)
    assert live
    assert staff.get(live[1]).status_code == 204
    StatementFile.objects.update(received_at=timezone.now() - timedelta(minutes=1))
    assert "No worker has taken it up so far." in staff.get(live[1]).content.decode()
    StatementFile.objects.update(state="importing", done=5, total=20)
    assert "The worker that had it is gone." in staff.get(live[1]).content.decode()
    with turn(f"statement file: {StatementFile.objects.get().pk}"):
        shown = staff.get(live[1]).content.decode()
    assert "5 of 20 transactions are imported." in shown
    assert 'max="20" value="5"' in shown
    assert import_next() is not None
    shown = staff.get(live[1]).content.decode()
    assert "hx-get" not in shown
    assert 'id="statement-lines" class="module" hx-swap-oob="true"' in shown


def test_a_statement_that_is_missing_in_between_is_noticed(staff: Client, bank: PaperBank) -> None:
    upload(staff, bank.statement(Entry(1, "?")), "opening.xml")
    first, missing, third = (bank.statement(Entry(100 + i, "?")) for i in range(3))
    assert "may be missing" not in upload(staff, first)
    assert "opens with €2.02, and no other statement closes with that" in upload(staff, third, "third.xml")
    assert "may be missing" not in upload(staff, missing, "second.xml")


def test_a_file_too_large_to_be_kept_is_refused_at_once(
    staff: Client, bank: PaperBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statement_files, "LARGEST", 10)
    sent = staff.post(reverse(UPLOAD), {"file": SimpleUploadedFile("s.xml", bank.statement(Entry(1, "?")))})
    assert "Export a shorter period" in sent.content.decode()
    assert not StatementFile.objects.exists()


def test_a_file_is_seen_by_those_who_import_and_nobody_else(
    login: Callable[..., Client], bank: PaperBank
) -> None:
    upload(login("payments"), bank.statement(Entry(1, "?")))
    file, viewer = StatementFile.objects.get(), login("viewer")
    for name, args in (
        ("change", [file.pk]), ("download", [file.pk]), ("live", [file.pk]), ("again", [file.pk]), ("changelist", []),
    ):  # fmt: skip
        assert viewer.get(reverse(f"admin:payments_statementfile_{name}", args=args)).status_code == 403, name
    statement = viewer.get(
        reverse("admin:payments_bankstatement_change", args=[BankStatement.objects.get().pk])
    )
    assert statement.status_code == 200
    assert "statementfile" not in statement.content.decode()
    assert "statementfile" not in viewer.get(reverse("admin:index")).content.decode()


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


@pytest.mark.parametrize(
    "model", ["banktransaction", "reviewitem", "outgoingtransfer", "bankstatement", "transferbatch"]
)
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
    assert "Close the item" not in page


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
    assert "€12.00" in made
    assert reverse("admin:payments_outgoingtransfer_change", args=[known.pk]) in made
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
    refused = reverse("admin:payments_transferbatch_refused", args=[batch.pk])
    shown = reverse("admin:payments_transferbatch_change", args=[batch.pk])
    assert refused in staff.get(shown).content.decode()
    transfers.booked(known.end_to_end_id, "B1", known.money, timezone.now().date())
    page = staff.get(shown).content.decode()
    assert refused not in page
    assert "The bank has booked from this file" in page


def test_what_no_file_can_hold_is_told_and_cannot_be_chosen(staff: Client, bank: PaperBank) -> None:
    load(bank.statement(Entry(500, "?")))
    load(PaperBank(currency="USD").statement(Entry(700, "?")))
    for found in ReviewItem.objects.order_by("id"):
        reviewing.pay_back(found.pk, "grace", "not ours")
    euros, dollars = OutgoingTransfer.objects.order_by("id")
    page = staff.get(reverse("admin:payments_outgoingtransfer_batch")).content.decode()
    assert f'id="transfer-{euros.pk}"' in page
    assert f'id="transfer-{dollars.pk}"' not in page
    assert f"send it by hand, with {dollars} as its reference" in page
    assert "1 transfer<" in page


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
        reverse("admin:payments_statementfile_changelist"),
        reverse("admin:payments_bankstatement_change", args=[BankStatement.objects.get().pk]),
        reverse("admin:payments_reviewitem_changelist"),
        reverse("admin:payments_outgoingtransfer_batch"),
    ):
        page = staff.get(url).content.decode()
        assert not re.search(r"<style|style=|<script(?![^>]*(src=|application/json))|\son\w+=", page)
