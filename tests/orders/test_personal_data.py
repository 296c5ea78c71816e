"""A customer's data: exported whole, erased without a trace, and the books add up as before."""

from __future__ import annotations

import base64
import json
import re
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import Error, connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from orders.models import Mail, Order, OrderEvent, Saga, SagaStep
from orders.services import mails, personal_data, steps
from orders.services.audit import StepRef
from orders.services.notes import change_notes
from orders.services.personal_data import ErasureRefused
from orders.services.placing import Address
from orders.services.timeline import timeline
from payments.models import (
    Allocation,
    BankTransaction,
    OutgoingTransfer,
    PaymentEvent,
    ReviewItem,
    StatementFile,
    TransferBatch,
    WebhookDelivery,
)
from payments.services import proving, refunding, reviewing, statement_files, transfers
from shop.kernel.models import Erasure, OutboxMessage
from shop.kernel.redaction import Redactor
from tests.orders.conftest import PickyMailbox
from tests.orders.practice_shop import PracticeShop
from tests.payments.conftest import bank, our_account
from tests.payments.paper_bank import BOB, TODAY, Entry, PaperBank, end, item, load, payment, pays, waiting

__all__ = ["bank", "our_account"]  # fixtures

pytestmark = pytest.mark.django_db

MAIL = "zenobia.quill@example.net"
NAME = "Zenobia Quill"
STREET = "Marzipanstieg 77"
IBAN = "DE02500105170137075030"
SECRETS = ("zenobia", "quill", "marzipanstieg", "DE02 5001", IBAN, "55512345")
HOME = Address(NAME, STREET, "23552", "Lübeck", "DE")


@pytest.fixture(autouse=True)
def no_retention(settings: Settings) -> None:
    settings.RETENTION_YEARS = 0


def order_of_hers(**changes: Any) -> Order:
    return waiting(
        customer_name=NAME, customer_email=MAIL, shipping=HOME, billing=HOME,
        notes=f"Call {NAME} on +49 451 55512345.", **changes,
    )  # fmt: skip


def pays_herself(order: Order, amount: int | None = None, **changes: Any) -> Entry:
    return pays(order, amount, name=NAME, iban=IBAN, text=f"{order.number} from {NAME}", **changes)


def a_story(bank: PaperBank) -> Order:
    """An order with all that may name its customer: paid in parts, reviewed, shipped, refunded, told of by webhook."""
    order = order_of_hers()
    file = statement_files.receive("s.xml", _stream(bank.statement(
        pays_herself(order, 1000),
        Entry(700, f"Too vague, {NAME}", name=NAME, iban=IBAN),
        Entry(300, "pending", name=NAME, iban=IBAN, status="PDNG"),
    )), "test")  # fmt: skip
    assert statement_files.import_next() is not None
    vague = ReviewItem.objects.get(reason="no_reference")
    reviewing.pay_back(vague.pk, "anna", f"{NAME} wants it back to DE02 5001 0517 0137 0750 30.")
    too_little = item()
    reviewing.wait(too_little.pk, "anna", f"{NAME} will pay the rest.")
    load(bank.statement(pays_herself(order, order.total - 1000)))
    steps.capture_payment(StepRef(order.number, 1, "payment_captured"))
    change_notes(order.number, "anna", f"Spoke to {NAME}, {MAIL}.")
    saga = Saga.objects.get(order=order)
    mail = mails.write(saga, Mail.Kind.CONFIRMED)
    Mail.objects.filter(pk=mail.pk).update(state="sent", error=f"550 {MAIL}")
    SagaStep.objects.create(
        saga=saga, step="shipping", kind="action", outcome="failed", attempt=1, idempotency_key="k",
        error=f"No house at {STREET}", actor="saga", started_at=timezone.now(),
    )  # fmt: skip
    end(order, "completed")
    refunding.refund(payment(order).pk, 500, "anna", f"{NAME} got a broken one.", "f")
    refunding.perform(f"{payment(order).pk}-f")
    batch = transfers.make_batch(OutgoingTransfer.objects.all(), "anna")
    assert IBAN in batch.xml
    load(bank.statement(*(
        Entry(-t.amount, f"Refund {NAME}", end_to_end_id=t.end_to_end_id, name=NAME, iban=IBAN)
        for t in OutgoingTransfer.objects.all()
    )))  # fmt: skip
    WebhookDelivery.objects.create(
        gateway="bank_transfer", event_id="e", payment_reference=payment(order).reference, state="processed",
        body=json.dumps({"name": NAME, "email": MAIL}).encode(), headers={"user-agent": "x"},
        events=[{"type": "receipt", "outcome": "succeeded", "detail": NAME}],
    )  # fmt: skip
    WebhookDelivery.objects.create(
        gateway="sandbox", state="rejected", body=f"{order.number} {MAIL}".encode(), error="No signature."
    )
    OutboxMessage.objects.update(state="delivered")
    Mail.objects.update(state="sent")
    assert file.pk
    order.refresh_from_db()
    return order


def _stream(data: bytes) -> Any:
    from io import BytesIO

    return BytesIO(data)


def found_anywhere(*words: str) -> list[str]:
    """The columns of the whole database in which one of the words is, in any case: also inside JSON and bytes."""
    places = []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = 'public' AND data_type IN ('text', 'character varying', 'jsonb', 'bytea', 'ARRAY')"
        )
        for table, column, kind in cursor.fetchall():
            shown = f"encode(\"{column}\", 'escape')" if kind == "bytea" else f'"{column}"::text'
            for word in words:
                cursor.execute(f'SELECT 1 FROM "{table}" WHERE {shown} ILIKE %s LIMIT 1', [f"%{word}%"])
                if cursor.fetchone():
                    places.append(f"{table}.{column}: {word}")
    return places


def books(order: Order) -> Any:
    """What must not change."""
    totals = payment(order).totals()
    return (
        totals,
        *(list(model.objects.order_by("pk").values_list("pk", *fields)) for model, fields in (
            (PaymentEvent, ("type", "amount", "psp_reference", "actor", "recorded_at")),
            (Allocation, ("amount", "key", "actor", "purpose")),
            (BankTransaction, ("key", "amount", "booking_date", "bank_reference")),
            (OutgoingTransfer, ("amount", "end_to_end_id", "state")),
            (Order, ("number", "total", "shipping_country", "created_at")),
            (SagaStep, ("step", "outcome", "at")),
        )),
    )  # fmt: skip


@pytest.fixture
def story(bank: PaperBank) -> Order:
    return a_story(bank)


@pytest.fixture
def officer() -> Client:
    user = User.objects.create_user("olga", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(
            codename__in=["view_order", "export_customer", "erase_customer", "view_erasure"]
        )
    )
    browser = Client()
    browser.force_login(user)
    return browser


# --- erased --------------------------------------------------------------------------------------------------


def test_after_erasure_the_whole_database_does_not_know_the_person(story: Order) -> None:
    before = found_anywhere(*SECRETS)
    assert len({place.partition(".")[0] for place in before}) > 12, before
    done = personal_data.erase(MAIL, "olga", f"{NAME} asked on 2026-11-20.")
    assert not done.repeated
    assert not found_anywhere(*SECRETS)


def test_the_books_stay_as_they_were_to_the_cent(story: Order, officer: Client) -> None:
    before = books(story)
    personal_data.erase(MAIL, "olga", "Asked.")
    assert books(story) == before
    assert [str(difference) for difference in proving.differences()] == []
    page = officer.get(reverse("admin:orders_order_change", args=[story.pk])).content.decode()
    assert "erased" in page
    assert "€39.98" in page
    assert timeline(story)[-1].title == "Customer's personal data erased"
    assert story.number in BankTransaction.objects.filter(amount=1000).get().remittance_information


def test_the_record_knows_the_person_only_by_a_keyed_hash(story: Order) -> None:
    personal_data.erase(MAIL, "olga", "Asked.")
    record = Erasure.objects.get()
    assert (record.actor, record.orders) == ("olga", [story.number])
    assert record.person == personal_data.person(MAIL.upper())
    assert not found_anywhere(*SECRETS)


def test_done_again_it_says_when_it_was_done(story: Order) -> None:
    personal_data.erase(MAIL, "olga", "Asked.")
    again = personal_data.erase(MAIL, "otto", "Asked again.")
    assert again.repeated
    assert "by olga" in again.message
    assert Erasure.objects.count() == 1
    assert OrderEvent.objects.filter(kind="erased").count() == 1


def test_other_customers_keep_everything_also_in_shared_rows(bank: PaperBank) -> None:
    other = waiting(customer_name="Bob Quillan", customer_email="bob@example.com")
    hers = order_of_hers()
    load(bank.statement(pays(other, name="Bob Quillan", iban=BOB), pays_herself(hers)))
    for order in (other, hers):
        steps.capture_payment(StepRef(order.number, 1, "payment_captured"))
        end(order, "completed")
    OutboxMessage.objects.update(state="delivered")
    Mail.objects.update(state="sent")
    personal_data.erase(MAIL, "olga", "Asked.")
    other.refresh_from_db()
    assert (other.customer_name, other.erased_at) == ("Bob Quillan", None)
    assert BankTransaction.objects.filter(counterparty_name="Bob Quillan").exists()
    assert PaymentEvent.objects.filter(detail="Bob Quillan").exists()


def test_what_came_from_the_account_of_a_payment_service_is_not_taken_for_theirs(bank: PaperBank) -> None:
    other = waiting(customer_name="Bob Hale", customer_email="bob@example.com")
    hers = order_of_hers()
    load(bank.statement(
        pays(other, name="Pay Service", iban=BOB), pays(hers, name="Pay Service", iban=BOB),
        Entry(700, "who knows", name="Pay Service for C. Doe", iban=BOB),
    ))  # fmt: skip
    reviewing.discard(item().pk, "anna", "Not ours.")
    for order in (other, hers):
        steps.capture_payment(StepRef(order.number, 1, "payment_captured"))
        end(order, "completed")
    OutboxMessage.objects.update(state="delivered")
    Mail.objects.update(state="sent")
    personal_data.erase(MAIL, "olga", "Asked.")
    names = BankTransaction.objects.order_by("pk").values_list("counterparty_name", flat=True)
    assert list(names) == ["Pay Service", "(erased)", "Pay Service for C. Doe"]


def test_a_statement_that_is_imported_again_counts_nothing_twice(bank: PaperBank) -> None:
    order = order_of_hers()
    content = bank.statement(pays_herself(order), numbered=False)
    load(content)
    steps.capture_payment(StepRef(order.number, 1, "payment_captured"))
    end(order, "completed")
    OutboxMessage.objects.update(state="delivered")
    Mail.objects.update(state="sent")
    personal_data.erase(MAIL, "olga", "Asked.")
    load(content, "again.xml")
    assert BankTransaction.objects.count() == 1


def test_an_erased_order_is_not_started_again_and_gets_no_mail(bank: PaperBank) -> None:
    order = order_of_hers()
    end(order, "cancelled")
    OutboxMessage.objects.update(state="delivered")
    Mail.objects.update(state="sent")
    personal_data.erase(MAIL, "olga", "Asked.")
    from orders.services.lifecycle import ActionRefused, start

    with pytest.raises(ActionRefused, match="was erased"):
        start(order.number, "anna")
    count = Mail.objects.count()
    mails.queue(Saga.objects.select_related("order").get(order=order), Mail.Kind.REFUNDED, "refund-1")
    assert Mail.objects.count() == count


# --- the one way into append-only rows -----------------------------------------------------------------------


def test_without_a_record_of_erasure_in_the_same_transaction_no_row_is_redacted(story: Order) -> None:
    for rows, change in (
        (PaymentEvent.objects, {"detail": "x"}),
        (BankTransaction.objects, {"counterparty_name": "x"}),
        (OrderEvent.objects, {"reason": "x"}),
        (Allocation.objects, {"reason": "x"}),
        (SagaStep.objects, {"error": "x"}),
    ):
        with pytest.raises(Error, match="Cannot update"), transaction.atomic():
            rows.update(**change)


@pytest.mark.django_db(transaction=True)
def test_a_record_opens_only_its_own_transaction(bank: PaperBank) -> None:
    order = order_of_hers()
    Erasure.objects.create(person="x", actor="olga", reason="r")
    with pytest.raises(Error, match="Cannot update"):
        OrderEvent.objects.filter(order=order).update(reason="x")


def test_within_an_erasure_no_amount_reference_or_actor_changes_and_no_row_goes(story: Order) -> None:
    Erasure.objects.create(person="x", actor="olga", reason="r")
    changes: list[tuple[Any, dict[str, Any]]] = [
        (PaymentEvent.objects, {"amount": 1}),
        (PaymentEvent.objects, {"detail": "x", "actor": "y"}),
        (BankTransaction.objects, {"bank_reference": "x"}),
        (OrderEvent.objects, {"actor": "x"}),
        (SagaStep.objects, {"outcome": "failed"}),
        (Allocation.objects, {"amount": 0}),
        (Erasure.objects, {"reason": "x"}),
    ]
    for rows, change in changes:
        with pytest.raises(Error, match="Cannot update"), transaction.atomic():
            rows.update(**change)
    with pytest.raises(Error, match="delete"), transaction.atomic():
        PaymentEvent.objects.all().delete()
    assert OrderEvent.objects.update(reason="") > 0


# --- what has to stay ----------------------------------------------------------------------------------------


def test_while_an_order_is_under_way_nothing_is_erased_and_it_says_why(bank: PaperBank) -> None:
    done, running = order_of_hers(), order_of_hers()
    end(done, "cancelled")
    OutboxMessage.objects.update(state="delivered")
    Mail.objects.update(state="sent")
    with pytest.raises(ErasureRefused, match=f"{running.number}: It is awaiting payment."):
        personal_data.erase(MAIL, "olga", "Asked.")
    assert Order.objects.get(pk=done.pk).customer_name == NAME
    assert not Erasure.objects.exists()


def test_money_in_review_keeps_it_open(bank: PaperBank) -> None:
    order = order_of_hers()
    load(bank.statement(pays_herself(order, 100)))
    end(order, "cancelled")
    OutboxMessage.objects.update(state="delivered")
    Mail.objects.update(state="sent")
    with pytest.raises(ErasureRefused, match="in review"):
        personal_data.erase(MAIL, "olga", "Asked.")


def test_booked_orders_stay_for_the_years_and_others_go(
    story: Order, bank: PaperBank, settings: Settings
) -> None:
    settings.RETENTION_YEARS = 10
    unpaid = order_of_hers()
    end(unpaid, "cancelled")
    OutboxMessage.objects.update(state="delivered")
    Mail.objects.update(state="sent")
    year = timezone.now().year + 10
    done = personal_data.erase(MAIL, "olga", "Asked.")
    assert f"{story.number} until {year}-12-31" in done.message
    story.refresh_from_db()
    unpaid.refresh_from_db()
    assert story.customer_name == NAME
    assert unpaid.customer_name == "(erased)"
    with pytest.raises(
        ErasureRefused, match=f"Kept, because bookings have to be: {story.number} until {year}"
    ):
        personal_data.erase(MAIL, "olga", "Asked.")


def test_after_the_years_it_is_erased_with_the_bank_s_files(
    story: Order, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.RETENTION_YEARS = 2
    later = timezone.now() + timedelta(days=365 * 3 + 40)
    monkeypatch.setattr("orders.services.personal_data.timezone.now", lambda: later)
    personal_data.erase(MAIL, "olga", "Asked.")
    assert not found_anywhere(*SECRETS)
    file = StatementFile.objects.first()
    assert file is not None
    with statement_files.content_of(file) as content:
        assert content.read() == b""
    assert TransferBatch.objects.get().xml == ""


def test_an_unknown_address_is_told() -> None:
    with pytest.raises(ErasureRefused, match="No order"):
        personal_data.erase("nobody@example.com", "olga", "Asked.")


# --- exported ------------------------------------------------------------------------------------------------


def test_the_export_has_all_of_it(story: Order, officer: Client) -> None:
    url = reverse("admin:orders_order_personal_data", args=[story.pk])
    answer = officer.get(url)
    told = json.loads(answer.content)
    assert "no-store" in answer["Cache-Control"]
    assert told["orders"][0]["shipping_street"] == STREET
    assert NAME in told["mails"][0]["text"]
    assert {row["counterparty_iban"] for row in told["payment_records"]["bookings"]} == {IBAN}
    assert MAIL in told["payment_records"]["webhooks"][0]["body"]
    for name in ("lines", "order_events", "sagas", "saga_steps", "messages"):
        assert told[name], name
    for name in ("payments", "events", "bookings", "allocations", "reviews", "transfers", "batches", "lines"):
        assert told["payment_records"][name], name
    assert TODAY.isoformat() in answer.content.decode()


def test_what_is_erased_is_what_was_exported(story: Order) -> None:
    personal_data.erase(MAIL, "olga", "Asked.")
    left = personal_data.export(MAIL)
    assert left["orders"] == []
    assert left["erasures"][0]["orders"] == [story.number]


# --- the screens and the command -----------------------------------------------------------------------------


def test_the_page_shows_first_what_goes_and_what_stays(
    story: Order, officer: Client, settings: Settings
) -> None:
    settings.RETENTION_YEARS = 10
    url = reverse("admin:orders_order_erase-customer", args=[story.pk])
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", officer.get(url).content.decode()))
    assert f"kept {story.number} until" in page
    officer.post(url, {"ids": story.pk, "reason": "Asked.", f"seen-{story.pk}": ""})
    assert Order.objects.get(pk=story.pk).erased_at is None
    settings.RETENTION_YEARS = 0
    page = officer.get(url).content.decode()
    seen = re.search(r'name="seen-\d+" value="([^"]*)"', page)
    assert seen is not None
    form = {"ids": story.pk, f"seen-{story.pk}": seen[1], "reason": "Asked."}
    stale = form | {f"seen-{story.pk}": "Erased is: ORD-1."}
    assert "changed in the meantime" in officer.post(url, stale).content.decode()
    told = officer.post(url, form, follow=True).content.decode()
    assert "Erased:" in told
    assert not found_anywhere(*SECRETS)


def test_without_the_permission_there_is_neither_export_nor_erasure(story: Order) -> None:
    user = User.objects.create_user("vera", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_order", "change_order"]))
    browser = Client()
    browser.force_login(user)
    assert browser.get(reverse("admin:orders_order_personal_data", args=[story.pk])).status_code == 403
    assert browser.post(reverse("admin:orders_order_erase-customer", args=[story.pk])).status_code == 403
    page = browser.get(reverse("admin:orders_order_change", args=[story.pk])).content.decode()
    assert "personal-data" not in page
    assert "erase-customer" not in page


def test_the_command_previews_erases_and_exports(story: Order) -> None:
    out = StringIO()
    call_command("personal_data", "export", MAIL, stdout=out)
    assert json.loads(out.getvalue())["orders"][0]["number"] == story.number
    out = StringIO()
    call_command("personal_data", "erase", MAIL, stdout=out)
    assert f"Erased is: {story.number}." in out.getvalue()
    assert not Erasure.objects.exists()
    with pytest.raises(CommandError, match="Say why"):
        call_command("personal_data", "erase", MAIL, "--yes")
    call_command("personal_data", "erase", MAIL, "--yes", "--reason", "Asked.", stdout=out)
    assert not found_anywhere(*SECRETS)


# --- texts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("QUILL, Zenobia paid", "(erased), (erased) paid"),
        ("to DE02 5001 0517 0137 0750 30 please", "to (erased) please"),
        ("mail ZENOBIA.QUILL@example.net or z@other.org", "mail (erased) or (erased)"),
        ("call +49 451 55512345 or 0451 / 555 12345", "call (erased) or 0451 / 555 12345"),
        ("RF34ORD100021 and RF34 ORD1 0002 1 stay", "RF34ORD100021 and RF34 ORD1 0002 1 stay"),
        ("ORD-100021 on 2026-11-23 12:00, €39.98", "ORD-100021 on 2026-11-23 12:00, €39.98"),
        ("Quillan is somebody else", "Quillan is somebody else"),
    ],
)
def test_texts_lose_the_person_and_keep_references(text: str, left: str) -> None:
    assert Redactor([NAME], [MAIL, IBAN, STREET]).text(text) == left


# --- Temporal ------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("refused", [False, True])
def test_temporal_is_told_of_no_person(shop: PracticeShop, mailbox: PickyMailbox, refused: bool) -> None:
    """Not in what goes in and out of workflows and activities, nor in what fails."""
    order = shop.waiting(customer_name=NAME, customer_email=MAIL, shipping=HOME, notes=f"Call {NAME}.")
    if refused:
        mailbox.refuses = {MAIL: f"550 {MAIL} is unknown"}
    shop.pay(order)
    shop.hear(order)
    shop.end(order)
    told = json.dumps(shop.engine.history(order.workflow_id).to_json_dict())
    payloads = " ".join(
        base64.b64decode(data).decode(errors="replace") for data in re.findall(r'"data": "([^"]+)"', told)
    )
    assert order.number in payloads
    assert not [word for word in (*SECRETS, MAIL) if word.lower() in f"{told} {payloads}".lower()]
