"""Importing statements: each booking counts once, whatever overlaps, crashes or comes twice at once."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django.fixtures import Settings

from orders.services.reconciling import money
from payments import watching
from payments.models import (
    BankStatement,
    BankTransaction,
    OutgoingTransfer,
    Payment,
    ReviewItem,
    StatementFile,
)
from payments.services import importing, matching, proving, reviewing
from payments.services.closing import close_payment
from payments.services.reviewing import Share
from payments.services.statement_files import import_next
from payments.statement_folder import StatementFolder
from payments.statements import StatementError
from payments.watching import Watcher
from shop.kernel.models import OutboxMessage
from tests import factories
from tests.orders.reconciling import found
from tests.payments.paper_bank import (
    ADA,
    BOB,
    IBAN,
    TODAY,
    Entry,
    PaperBank,
    load,
    payment,
    pays,
    waiting,
)

pytestmark = pytest.mark.usefixtures("our_account")
TOTAL = 3998


# --- once, and once only ---------------------------------------------------------------------------------


@pytest.mark.parametrize("numbered", [True, False], ids=["with references", "without references"])
def test_the_same_statement_again_adds_nothing(bank: PaperBank, numbered: bool) -> None:
    order = waiting()
    file = bank.statement(pays(order), Entry(700, "?"), numbered=numbered)
    first, second = load(file), load(file)
    assert (first.new, first.known, second.new, second.known) == (2, 0, 0, 2)
    assert BankTransaction.objects.count() == 2
    assert ReviewItem.objects.count() == 1
    assert payment(order).totals().received == TOTAL
    assert list(BankStatement.objects.order_by("id").values_list("transactions_new", flat=True)) == [2, 0]
    assert set(BankStatement.objects.values_list("opening", "closing")) == {(0, TOTAL + 700)}


@pytest.mark.parametrize("numbered", [True, False], ids=["with references", "without references"])
def test_overlapping_statements_count_each_booking_once(bank: PaperBank, numbered: bool) -> None:
    entries = [Entry(100 + i, f"no {i}", reference=f"R{i}" if numbered else "") for i in range(6)]
    load(bank.statement(*entries[:4], numbered=False))
    report = load(bank.statement(*entries[2:], numbered=False))
    assert (report.new, report.known) == (2, 2)
    assert sorted(BankTransaction.objects.values_list("amount", flat=True)) == [100, 101, 102, 103, 104, 105]


@pytest.mark.parametrize("numbered", [True, False], ids=["with references", "without references"])
def test_two_genuine_equal_transfers_both_count(bank: PaperBank, numbered: bool) -> None:
    order = waiting()
    file = bank.statement(pays(order, 1999), pays(order, 1999), numbered=numbered)
    load(file)
    load(file)
    assert payment(order).totals().received == TOTAL
    assert OutboxMessage.objects.filter(name="confirm_payment").count() == 1


def test_a_reference_that_the_bank_uses_again_is_another_booking(bank: PaperBank) -> None:
    entry = Entry(100, "?", reference="0001")
    next_year = replace(entry, on=TODAY + timedelta(days=365))
    for _ in range(2):
        load(bank.statement(entry))
        load(bank.statement(replace(entry, amount=200)))
        load(bank.statement(next_year))
    assert sorted(BankTransaction.objects.values_list("amount", flat=True)) == [100, 100, 200]


def test_a_crash_between_batches_loses_nothing(bank: PaperBank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH", 3)
    file = bank.statement(*(Entry(100 + i, "?") for i in range(10)))
    seen: list[int] = []

    def crash(done: int, total: int) -> None:
        seen.append(done)
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        importing.import_file("s.xml", io.BytesIO(file), "test", crash)
    assert BankTransaction.objects.count() == 6
    report = load(file)
    assert (report.new, report.known) == (4, 6)
    assert [str(d) for d in proving.differences()] == []


def test_a_batch_is_written_whole_or_not_at_all(bank: PaperBank, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(matching, "_write", fail)
    with pytest.raises(RuntimeError):
        load(bank.statement(Entry(100, "?")))
    assert not BankTransaction.objects.exists()


def at_once(*calls: Callable[[], object]) -> None:
    """Run in threads of their own that start together; a failure in one fails the test."""
    ready = threading.Barrier(len(calls))
    failures: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            ready.wait(10)
            call()
        except BaseException as failure:
            failures.append(failure)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


@pytest.mark.django_db(transaction=True)
def test_two_imports_at_once_count_each_booking_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH", 5)
    factories.product(on_hand=1000)
    bank = PaperBank()
    orders = [waiting() for _ in range(30)]
    entries = [pays(order, reference=f"R{order.number}") for order in orders]
    forward, backward = bank.statement(*entries), bank.statement(*reversed(entries))
    at_once(*(lambda f=file: load(f) for file in (forward, backward, forward)))
    assert BankTransaction.objects.count() == 30
    assert sum(BankStatement.objects.values_list("transactions_new", flat=True)) == 30
    assert all(payment(order).totals().received == TOTAL for order in orders)
    assert OutboxMessage.objects.filter(name="confirm_payment").count() == 30
    assert [str(d) for d in proving.differences()] == []


def test_the_number_of_queries_does_not_depend_on_the_number_of_bookings(bank: PaperBank) -> None:
    def queries(count: int) -> int:
        orders = [waiting() for _ in range(count)]
        mixed = [pays(order, TOTAL + (i % 3) * 10 - 10) for i, order in enumerate(orders)]
        file = bank.statement(
            *mixed, *(Entry(77, "?", iban=BOB) for _ in orders), *(Entry(-1, "fee") for _ in orders)
        )
        with CaptureQueriesContext(connection) as made:
            load(file)
        return len(made)

    assert queries(5) == queries(40)


# --- files that are refused ------------------------------------------------------------------------------


def test_a_statement_of_another_account_is_refused_by_name(bank: PaperBank) -> None:
    ours, theirs = bank.statement(Entry(100, "?")), PaperBank(iban=BOB).statement(Entry(1, "?"))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("1.xml", ours)
        packed.writestr("2.xml", theirs)
    with pytest.raises(StatementError) as refused:
        load(archive.getvalue(), "both.zip")
    assert BOB in str(refused.value)
    assert IBAN in str(refused.value)
    assert "2.xml" in str(refused.value)
    assert not BankStatement.objects.exists()


def test_a_second_account_of_the_shop_is_taken(bank: PaperBank, settings: Settings) -> None:
    settings.BANK_OTHER_IBANS = ["DE02 5001 0517 0137 0750 30"]
    assert load(PaperBank(iban=BOB).statement(Entry(1, "?", reference="R1"))).new == 1
    assert load(bank.statement(Entry(1, "?", reference="R1"))).new == 1


# --- the command -----------------------------------------------------------------------------------------


def test_the_command_imports_what_it_can_and_names_what_it_cannot(
    bank: PaperBank, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = waiting()
    good, bad = tmp_path / "good.xml", tmp_path / "bad.xml"
    good.write_bytes(bank.statement(pays(order), Entry(250, "?"), Entry(-100, "fee")))
    bad.write_bytes(b"Dear customer")
    with pytest.raises(SystemExit) as left:
        call_command("import_statement", str(bad), str(tmp_path / "gone.xml"), str(good))
    assert left.value.code == 1
    told = capsys.readouterr()
    assert "bad.xml" in told.err
    assert "gone.xml" in told.err
    assert payment(order).totals().received == TOTAL
    rows = [line.split() for line in told.out.splitlines()]
    assert ["good.xml", "3", "0", "0"] in rows
    assert ["matched", "to", "a", "payment", "1", "€39.98"] in rows
    assert ["in", "review:", "no", "reference", "1", "€2.50"] in rows
    call_command("import_statement", str(good))
    with pytest.raises(CommandError):
        call_command("import_statement")


# --- the folder ------------------------------------------------------------------------------------------


def imported(folder: StatementFolder) -> int:
    """One look; how many files it queued and were imported."""
    folder.look()
    count = 0
    while import_next() is not None:
        count += 1
    folder.put_away()
    return count


def test_a_finished_file_in_the_folder_is_imported_and_moved(bank: PaperBank, tmp_path: Path) -> None:
    order = waiting()
    folder = StatementFolder(tmp_path, stable_for=0)
    (tmp_path / "good.xml").write_bytes(bank.statement(pays(order)))
    (tmp_path / "bad.xml").write_bytes(b"Dear customer")
    (tmp_path / "coming.xml.part").write_bytes(b"")
    (tmp_path / ".hidden").write_bytes(b"")
    assert imported(folder) == 0  # the first look only notes their sizes
    assert imported(folder) == 2
    assert payment(order).totals().received == TOTAL
    assert sorted(p.name for p in (tmp_path / "done").iterdir()) == ["good.xml", "good.xml.txt"]
    assert sorted(p.name for p in (tmp_path / "failed").iterdir()) == ["bad.xml", "bad.xml.txt"]
    assert "bad.xml" in (tmp_path / "failed" / "bad.xml.txt").read_text()
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [".hidden", "coming.xml.part"]


def test_a_file_that_still_grows_is_left_and_a_name_that_comes_again_is_kept(
    bank: PaperBank, tmp_path: Path
) -> None:
    folder = StatementFolder(tmp_path, stable_for=0)
    whole = bank.statement(Entry(100, "?"))
    path = tmp_path / "s.xml"
    path.write_bytes(whole[:100])
    imported(folder)
    path.write_bytes(whole)
    assert imported(folder) == 0
    assert imported(folder) == 1
    path.write_bytes(whole)
    imported(folder)
    assert imported(folder) == 1
    assert len(list((tmp_path / "done").glob("*.xml"))) == 2
    assert BankTransaction.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_watchers_import_a_file_once(tmp_path: Path) -> None:
    bank = PaperBank()
    for i in range(5):
        (tmp_path / f"{i}.xml").write_bytes(bank.statement(Entry(100, "?")))
    folders = [StatementFolder(tmp_path, stable_for=0) for _ in range(3)]
    for folder in folders:
        imported(folder)
    at_once(*(partial(imported, folder) for folder in folders))
    for folder in folders:
        imported(folder)
    assert StatementFile.objects.count() == 5
    assert BankTransaction.objects.count() == BankStatement.objects.count() == 5
    assert not list(tmp_path.glob("*.xml"))


def test_a_file_that_was_written_just_now_is_left(bank: PaperBank, tmp_path: Path) -> None:
    folder = StatementFolder(tmp_path, stable_for=3600)
    (tmp_path / "s.xml").write_bytes(bank.statement(Entry(100, "?")))
    assert [imported(folder), imported(folder)] == [0, 0]


@pytest.mark.django_db(transaction=True)
def test_the_worker_watches_until_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK", 0.05)
    watcher = Watcher(StatementFolder(tmp_path, stable_for=0))
    watcher.start()
    try:
        (tmp_path / "s.xml").write_bytes(PaperBank().statement(Entry(100, "?")))
        give_up_at = time.monotonic() + 20
        while not (tmp_path / "done" / "s.xml").exists():
            assert time.monotonic() < give_up_at
            time.sleep(0.02)
    finally:
        watcher.stop()
        watcher.join(10)
    assert not watcher.is_alive()
    assert BankTransaction.objects.count() == 1


# --- the books -------------------------------------------------------------------------------------------

_AMOUNTS = st.sampled_from([1, 500, 1998, 3998, 4000, 9000])
_TEXTS = st.sampled_from(["own", "order", "none", "unknown", "both"])
_BOOKINGS = st.lists(st.tuples(_AMOUNTS, _TEXTS, st.integers(0, 3), st.booleans()), min_size=1, max_size=12)
_NAMES = st.sampled_from(["assign", "back", "part back", "discard", "accept", "wait", "cancel"])
_ACTS = st.lists(st.tuples(_NAMES, st.integers(0, 3)), max_size=8)


@given(first=_BOOKINGS, acts=_ACTS, second=_BOOKINGS)
@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_happens_the_books_add_up(
    transactional_db: None, first: list[tuple[int, str, int, bool]], acts: list[tuple[str, int]],
    second: list[tuple[int, str, int, bool]],
) -> None:  # fmt: skip
    call_command("flush", interactive=False, verbosity=0)
    factories.product(on_hand=1000)
    bank = PaperBank()
    orders = [waiting() for _ in range(4)]

    def entry(amount: int, text: str, which: int, out: bool) -> Entry:
        order = orders[which]
        if out:
            return Entry(-amount, "fee", is_reversal=amount in (3998, 1998), iban=ADA)
        return {
            "own": pays(order, amount),
            "order": Entry(amount, order.number),
            "none": Entry(amount, "thanks"),
            "unknown": Entry(amount, "ORD-999999"),
            "both": Entry(amount, f"{orders[0].number} {orders[1].number}"),
        }[text]

    load(bank.statement(*(entry(*b) for b in first)))
    for act, which in acts:
        _do(act, orders[which].number, which)
    load(bank.statement(*(entry(*b) for b in second)))
    load(bank.statement())
    assert [str(d) for d in proving.differences()] == []
    assert found(money.statements) == []
    books = proving.whereabouts()
    for direction, sign in (("credit", 1), ("debit", -1)):
        booked = books.pop((direction, "EUR", "booked"), 0)
        assert booked == sum(abs(e.amount) for e in bank.entries if e.amount * sign > 0)
        assert booked == sum(amount for (way, _, _), amount in books.items() if way == direction)
    for order in orders:
        assert payment(order).totals().received <= TOTAL
    sent = sum(OutgoingTransfer.objects.values_list("amount", flat=True))
    assert sent <= books.get(("credit", "EUR", "refunded"), 0)


def _do(act: str, number: str, which: int) -> None:
    items = list(ReviewItem.objects.filter(state="open").order_by("id"))
    if act == "cancel":
        close_payment(Payment.objects.get(merchant_reference=number), "The order is cancelled.")
        return
    if not items:
        return
    pk = items[which % len(items)].pk
    try:
        match act:
            case "assign":
                reviewing.assign(pk, "grace", [Share(number)])
            case "back":
                reviewing.pay_back(pk, "grace", "because")
            case "part back":
                reviewing.pay_back(pk, "grace", "because", amount=1)
            case "discard":
                reviewing.discard(pk, "grace", "because")
            case "accept":
                reviewing.accept(pk, "grace", "because", beyond_limit=True)
            case "wait":
                reviewing.wait(pk, "grace", "")
    except reviewing.ReviewRefused:
        pass
