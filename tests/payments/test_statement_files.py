"""Statement files in the queue: stored first, imported once, taken up again when a worker dies."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection

from payments.models import BankStatement, BankTransaction, StatementFile, StatementFilePart, StatementLine
from payments.services import importing, proving, statement_files
from payments.services.lines import counts
from payments.services.statement_files import content_of, import_next, import_now, receive
from payments.statements import StatementError
from payments.watching import Watcher
from shop.kernel.turns import taken, turn
from tests import factories
from tests.payments.paper_bank import SETTINGS, Entry, PaperBank, payment, pays, waiting
from tests.payments.test_importing import TOTAL, at_once
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("our_account")
State = StatementFile.State
ROOT = Path(__file__).parents[2]


def handed_in(content: bytes, name: str = "s.xml") -> StatementFile:
    return receive(name, io.BytesIO(content), "ada")


def fates(file: StatementFile) -> dict[str, int]:
    """How many lines of the file there are of each fate, without those of which there is none."""
    found = counts(list(file.statements.values_list("pk", flat=True)))
    return {fate: count for fate, count in found.items() if count}


# --- in --------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_file_is_kept_as_it_came_and_its_copy_needs_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statement_files, "PART", 10)
    first, second = (
        handed_in(b"not a statement \0\xff" * 3),
        handed_in(b"not a statement \0\xff" * 3, "again.xml"),
    )
    other = handed_in(b"something else")
    for file in (first, second):
        with content_of(file) as content:
            assert content.read() == b"not a statement \0\xff" * 3
    assert (first.same_as, second.same_as, other.same_as) == (None, first, None)
    assert StatementFilePart.objects.filter(file=second).count() == 0


@pytest.mark.django_db
def test_a_pipe_can_be_imported_and_a_name_may_have_any_bytes() -> None:
    read_end, write_end = os.pipe()
    with open(write_end, "wb") as writing:
        writing.write(PaperBank().statement(Entry(1, "?")))
    with open(read_end, "rb") as pipe:
        assert import_now("m\udce4rz.xml", pipe, "ada").new == 1
    assert StatementFile.objects.get().name == "m�rz.xml"


# --- the queue -------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_files_are_imported_in_their_order_and_the_report_names_each_line() -> None:
    factories.product(on_hand=10)
    bank, order = PaperBank(), waiting()
    shared = [Entry(100 + i, f"no {i}", reference=f"R{i}") for i in range(4)]
    first = handed_in(bank.statement(*shared[:3]))
    bank.balance = 0
    second = handed_in(bank.statement(shared[2], Entry(5, status="PDNG"), pays(order), shared[3]))
    assert [import_next(), import_next(), import_next()] == [first, second, None]
    assert fates(first) == {"all": 3, "new": 3, "review": 3}
    assert fates(second) == {"all": 4, "new": 2, "known": 1, "left_out": 1, "matched": 1, "review": 2}
    lines = list(second.statements.get().lines.all())
    assert [line.position for line in lines] == ["entry 1", "entry 2", "entry 3", "entry 4"]
    brought = [line.transaction.statement.source if line.transaction else None for line in lines]
    assert brought == [first, None, second, second]
    second.refresh_from_db()
    assert (second.state, second.done, second.total) == (State.IMPORTED, 3, 3)


@pytest.mark.django_db
def test_a_file_that_cannot_be_imported_says_why_and_holds_nothing_up() -> None:
    bad, good = handed_in(b"Dear customer", "letter.txt"), handed_in(PaperBank().statement(Entry(1, "?")))
    assert [import_next(), import_next()] == [bad, good]
    bad.refresh_from_db()
    assert (bad.state, bad.error[:41]) == (State.FAILED, "letter.txt: this is not a bank statement.")
    assert BankTransaction.objects.count() == 1


@pytest.mark.django_db
def test_a_fault_of_the_shop_is_told_without_what_the_file_says(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = "Ada Lovelace, DE02120300000000202051"

    def fail(*_: object) -> None:
        raise RuntimeError(told)

    monkeypatch.setattr(importing, "_write_new", fail)
    handed_in(PaperBank().statement(Entry(1, "?")))
    file = import_next()
    assert file is not None
    assert file.state == State.FAILED
    assert "RuntimeError" in file.error
    assert "in fail" in caplog.text
    assert told not in file.error + caplog.text


@pytest.mark.django_db
def test_an_outage_leaves_the_file_and_a_file_that_never_gets_further_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("the server closed the connection")

    file = handed_in(PaperBank().statement(Entry(1, "?")))
    with monkeypatch.context() as patched:
        patched.setattr(importing, "_write_new", fail)
        for _ in range(statement_files.ATTEMPTS):
            with pytest.raises(OperationalError):
                import_next()
        file.refresh_from_db()
        assert not file.is_finished
        import_next()
    file.refresh_from_db()
    assert file.state == State.FAILED
    assert "broken off 5 times" in file.error
    statement_files.import_again(file)
    import_next()
    assert fates(file) == {"all": 1, "new": 1, "review": 1}
    with pytest.raises(statement_files.NotFailed):
        statement_files.import_again(file)


# --- workers ---------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_several_workers_share_the_queue_and_import_each_file_once() -> None:
    factories.product(on_hand=1000)
    bank = PaperBank()
    orders = [waiting() for _ in range(8)]
    files = [
        handed_in(bank.statement(pays(order), Entry(70, "?")), f"{i}.xml") for i, order in enumerate(orders)
    ]

    def work() -> None:
        while import_next() is not None:
            pass

    at_once(work, work, work)
    work()  # what a worker had in hand while the others looked
    assert BankStatement.objects.count() == len(files)
    assert [fates(file)["new"] for file in files] == [2] * len(files)
    assert all(payment(order).totals().received == TOTAL for order in orders)
    assert set(StatementFile.objects.values_list("state", flat=True)) == {State.IMPORTED}


@pytest.mark.django_db(transaction=True)
def test_two_workers_never_have_the_same_file() -> None:
    file = handed_in(PaperBank().statement(Entry(1, "?")))
    found: list[StatementFile | None] = []
    with turn(f"statement file: {file.pk}"):
        at_once(lambda: found.append(import_next()))
        assert found == [None]
        assert taken([f"statement file: {file.pk}", "another"]) == {f"statement file: {file.pk}"}
    assert taken([f"statement file: {file.pk}"]) == set()
    assert import_next() == file


KILLED = """
import time, django
django.setup()
from payments.services import importing, statement_files

def halfway(done, total):
    if done == 6:
        print("halfway", flush=True)
        time.sleep(600)

importing.BATCH = 3
statement_files.import_next(halfway)
"""


@pytest.mark.django_db(transaction=True)
def test_a_worker_killed_in_mid_import_is_followed_by_another_that_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importing, "BATCH", 3)
    factories.product(on_hand=1000)
    bank = PaperBank()
    orders = [waiting() for _ in range(10)]
    file = handed_in(bank.statement(Entry(9, status="INFO"), *(pays(order) for order in orders)))
    database = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    bank_account = {name: str(SETTINGS[name]) for name in ("BANK_IBAN", "BANK_BIC", "BANK_ACCOUNT_HOLDER")}
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED],
        cwd=ROOT,
        env=os.environ
        | {"DATABASE_URL": urlunsplit(database), "DJANGO_SETTINGS_MODULE": "shop.settings"}
        | bank_account,
        stdout=subprocess.PIPE,
    )
    try:
        assert killed.stdout
        assert killed.stdout.readline() == b"halfway\n"
        file.refresh_from_db()
        assert (file.state, file.done, file.total) == (State.IMPORTING, 6, 10)
        assert import_next() is None  # the other has it
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    assert wait_until(import_next) == file
    assert fates(file) == {"all": 11, "new": 10, "left_out": 1, "matched": 10}
    assert file.statements.get().transactions_new == 10
    assert StatementLine.objects.count() == 11
    assert all(payment(order).totals().received == TOTAL for order in orders)
    assert [str(d) for d in proving.differences()] == []


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_stopped_leaves_the_rest_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH", 1)
    first_done, go_on = threading.Event(), threading.Event()
    write = importing._write_new

    def slow(*args: object) -> object:
        first_done.set()
        go_on.wait(20)
        return write(*args)  # type: ignore[arg-type]

    file = handed_in(PaperBank().statement(*(Entry(10 + i, "?") for i in range(5))))
    with monkeypatch.context() as patched:
        patched.setattr(importing, "_write_new", slow)
        watcher = Watcher()
        watcher.start()
        assert first_done.wait(20)
        watcher.stop()
        go_on.set()
        watcher.join(20)
    assert not watcher.is_alive()
    file.refresh_from_db()
    assert (file.state, file.done) == (State.IMPORTING, 1)
    assert import_next() == file
    assert fates(file) == {"all": 5, "new": 5, "review": 5}


@pytest.mark.django_db(transaction=True)
def test_an_upload_wakes_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("payments.watching.POLL", 600.0)
    watcher = Watcher()
    watcher.start()
    try:
        wait_until(lambda: _listening())
        file = handed_in(PaperBank().statement(Entry(1, "?")))
        wait_until(lambda: StatementFile.objects.filter(pk=file.pk, state=State.IMPORTED).exists(), 20)
    finally:
        watcher.stop()
        handed_in(b"to wake it")
        watcher.join(20)
    assert not watcher.is_alive()


def _listening() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN statement_files' AND state = 'idle'"
        )
        return bool(cursor.fetchone()[0])


# --- the command -----------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_the_command_imports_by_itself_and_its_files_are_kept_too(tmp_path: Path) -> None:
    path = tmp_path / "s.xml"
    path.write_bytes(PaperBank().statement(Entry(1, "?")))
    call_command("import_statement", str(path))
    file = StatementFile.objects.get()
    assert (file.name, file.state) == ("s.xml", State.IMPORTED)
    assert "import_statement" in file.received_from
    with pytest.raises(StatementError):
        import_now("letter.txt", io.BytesIO(b"Dear customer"), "ada")
    assert StatementFile.objects.get(name="letter.txt").state == State.FAILED
    assert import_next() is None


@pytest.mark.django_db(transaction=True)
def test_a_command_that_is_broken_off_is_finished_by_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH", 2)
    seen: list[object] = []

    def break_off(done: int, total: int) -> None:
        at_once(lambda: seen.append(import_next()))
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_now(
            "s.xml", io.BytesIO(PaperBank().statement(*(Entry(i, "?") for i in range(1, 6)))), "a", break_off
        )
    assert seen == [None, None]  # meanwhile no worker has it
    file = StatementFile.objects.get()
    assert import_next() == file
    assert fates(file) == {"all": 5, "new": 5, "review": 5}
