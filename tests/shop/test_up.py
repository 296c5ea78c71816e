"""The supervisor on tiny children, its data folder, and PostgreSQL as it runs it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from shop.up import datadir, ports, postgres
from shop.up.processes import spawn
from shop.up.shop import Shop
from shop.up.supervisor import Part, Supervisor
from tests.servers import temporary_folder

CHECKOUT = Path(__file__).resolve().parents[2]
LASTS = "import time; print('here'); time.sleep(60)"


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and that nobody has asked about yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


# --- the supervisor --------------------------------------------------------------------------------------


class Children:
    """Small Python programs as parts of a shop, and the order in which they started and ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: list[Part] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def add(self, name: str, code: str = LASTS, *, needs: tuple[str, ...] = (), task: bool = False) -> None:
        def launch(log: object) -> subprocess.Popen[bytes]:
            self.processes[name] = spawn([sys.executable, "-uc", code], log)  # type: ignore[arg-type]
            return self.processes[name]

        def is_ready() -> bool:
            return b"here" in (self.folder / f"{name}.log").read_bytes()

        self.parts.append(Part(name, launch, None if task else is_ready, needs))

    def run(self, when_ready: Callable[[], None] = lambda: None, grace: float = 10) -> int:
        return Supervisor(self.parts, self.folder, grace=grace).run(
            when_ready=when_ready, before_stop=lambda: None
        )


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    made = Children(tmp_path)
    yield made
    for process in made.processes.values():
        with contextlib.suppress(ProcessLookupError):
            process.kill()


def test_a_part_starts_when_what_it_needs_is_ready(
    children: Children, capfd: pytest.CaptureFixture[str]
) -> None:
    children.add("web", needs=("migrations",))
    children.add("migrations", "pass", needs=("database",), task=True)
    children.add("database")

    assert children.run(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 0

    assert list(children.processes) == ["database", "migrations", "web"]
    said = capfd.readouterr().out
    assert said.index("database") < said.index("migrations") < said.index("web")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_newest_first(children: Children, number: signal.Signals) -> None:
    notes = children.folder / "notes"
    for name, needs in (("first", ()), ("second", ("first",))):
        children.add(
            name,
            f"""
import signal, sys, time
def end(*_):
    open({str(notes)!r}, "a").write({name!r} + " ")
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("here")
time.sleep(60)
""",
            needs=needs,
        )

    assert children.run(lambda: os.kill(os.getpid(), number)) == 0

    assert notes.read_text().split() == ["second", "first"]
    assert not any(alive(process.pid) for process in children.processes.values())


def test_a_dying_part_is_named_with_its_last_lines_and_the_others_are_stopped(
    children: Children, capfd: pytest.CaptureFixture[str]
) -> None:
    children.add("database")
    children.add(
        "worker", "print('here'); [print('line', n) for n in range(40)]; exit(3)", needs=("database",)
    )

    assert children.run() == 1

    said = capfd.readouterr().out
    assert "worker ended (exit code 3)" in said
    assert "| line 39" in said
    assert "| line 25" in said
    assert "line 24" not in said
    assert not alive(children.processes["database"].pid)


def test_a_failing_task_stops_the_start(children: Children, capfd: pytest.CaptureFixture[str]) -> None:
    children.add("migrations", "exit('no such table')", task=True)
    children.add("web", needs=("migrations",))

    assert children.run() == 1

    assert "no such table" in capfd.readouterr().out
    assert "web" not in children.processes


def test_a_part_that_ignores_the_signal_is_killed(children: Children) -> None:
    children.add("deaf", f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {LASTS}")

    assert children.run(lambda: os.kill(os.getpid(), signal.SIGTERM), grace=0.2) == 0

    assert children.processes["deaf"].returncode == -signal.SIGKILL


def test_what_a_part_started_does_not_outlive_it(children: Children) -> None:
    children.add(
        "parent",
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {LASTS!r}]).pid); {LASTS}",
    )

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    assert children.run(stop) == 0

    grandchild = int((children.folder / "parent.log").read_text().split()[0])
    wait_for(lambda: not alive(grandchild))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux only")
def test_children_do_not_outlive_a_killed_supervisor(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from shop.up.processes import spawn
from shop.up.supervisor import Part, Supervisor
part = Part("child", lambda log: spawn([sys.executable, "-uc", {LASTS!r}], log), lambda: True)
supervisor = Supervisor([part], Path({str(tmp_path)!r}))
ready = lambda: print("pid", supervisor._running["child"].process.pid, flush=True)
supervisor.run(when_ready=ready, before_stop=lambda: None)
"""
    owner = subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid = next(int(line.split()[1]) for line in owner.stdout if line.startswith("pid"))
    assert alive(pid)

    owner.kill()
    owner.communicate()

    wait_for(lambda: not alive(pid))


# --- ports and the data folder ---------------------------------------------------------------------------


def test_a_taken_port_is_no_error_the_next_free_one_is_used() -> None:
    with socket.socket() as taken:
        taken.bind((ports.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]

        chosen = ports.choose({"web": port, "provider": port}, {})

    assert port < chosen["web"] < chosen["provider"]


def test_the_port_of_the_run_before_is_kept() -> None:
    before = ports.any_free()
    assert ports.choose({"web": 8000}, {"web": before}) == {"web": before}


def test_a_second_instance_is_refused_with_the_address_of_the_first(data_dir: Path) -> None:
    with datadir.locked(data_dir):
        datadir.write(data_dir / "up.json", {"web": "http://127.0.0.1:8000"})

        second = subprocess.run(
            [sys.executable, "manage.py", "up"],
            cwd=CHECKOUT,
            env=os.environ | {"DATA_DIR": str(data_dir)},
            capture_output=True,
            text=True,
        )

    assert second.returncode == 1
    assert "already runs" in second.stdout
    assert "http://127.0.0.1:8000" in second.stdout


def test_secrets_are_made_once_and_private(data_dir: Path) -> None:
    made = datadir.load_secrets(data_dir)

    assert datadir.load_secrets(data_dir) == made
    assert stat.S_IMODE((data_dir / "secrets.json").stat().st_mode) == 0o600
    assert set(made["accounts"]) == {"admin", "orders", "payments", "ops", "viewer"}


def fake_shop(data_dir: Path, monkeypatch: pytest.MonkeyPatch, **environ: str) -> Shop:
    """A shop of which only one child, a tiny one, is really started."""
    environ = {"DATABASE_URL": "postgresql://db/shop", "TEMPORAL_ADDRESS": "temporal:7233", **environ}
    shop = Shop.settle(data_dir, environ)
    part = Part("web", lambda log: spawn([sys.executable, "-c", LASTS], log), lambda: True)
    monkeypatch.setattr(Shop, "parts", lambda self, *, demo: [part])
    return shop


def test_up_json_is_there_while_the_shop_is_ready_and_not_after(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"PAYMENT_CHECK_INTERVAL": "60s", "UNRELATED": "private"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    shop = fake_shop(data_dir, monkeypatch, **given)
    note = data_dir / "up.json"
    seen: dict[str, Any] = {}
    beside: dict[str, str] = {}
    announce = Shop._announce

    def look(self: Shop, path: Path, settings: Collection[str]) -> None:
        announce(self, path, settings)
        beside.update(json.loads((data_dir / "settings.json").read_text()))
        seen.update(json.loads(note.read_text()), mode=stat.S_IMODE(note.stat().st_mode))
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Shop, "_announce", look)

    assert shop.run(demo=False, settings=["PAYMENT_CHECK_INTERVAL"]) == 0

    assert beside["PAYMENT_CHECK_INTERVAL"] == "60s"  # and not the default of a command that is run beside it
    assert "UNRELATED" not in beside
    assert seen["mode"] == 0o600
    assert seen["web"] == f"http://127.0.0.1:{shop.ports['web']}"
    assert seen["temporal"] == "temporal:7233"
    assert seen["database_url"] == "postgresql://db/shop"
    assert seen["accounts"]["admin"] == shop.secrets["accounts"]["admin"]
    assert not note.exists()


def test_with_debug_off_there_are_no_practice_accounts(data_dir: Path) -> None:
    given = {"DATABASE_URL": "postgresql://db/shop", "TEMPORAL_ADDRESS": "temporal:7233", "DEBUG": "false"}
    names = [part.name for part in Shop.settle(data_dir, given).parts(demo=True)]
    assert "accounts" not in names
    assert "demo data" not in names


def test_children_get_the_callers_environment_and_our_addresses(data_dir: Path) -> None:
    given = {"TEMPORAL_ADDRESS": "temporal:7233", "PAYMENT_WINDOW": "20s", "SECRET_KEY": "the caller's"}
    shop = Shop.settle(data_dir, given)
    assert shop.env["PAYMENT_WINDOW"] == "20s"
    assert shop.env["SECRET_KEY"] == "the caller's"
    assert shop.postgres is not None
    assert shop.env["DATABASE_URL"] == shop.postgres.url
    assert shop.env["EMAIL_URL"] == f"filemail:///{data_dir}/mails"


# --- PostgreSQL ------------------------------------------------------------------------------------------


def remember(url: str, word: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS words (word text)")
        connection.execute("INSERT INTO words VALUES (%s)", [word])


def remembered(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT word FROM words ORDER BY word")]


def test_postgres_keeps_its_data_over_a_restart(data_dir: Path) -> None:
    server = postgres.start(data_dir, durable=False)
    remember(server.url, "kept")
    server.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url)

    again = postgres.start(data_dir, durable=False)
    try:
        assert remembered(again.url) == ["kept"]
    finally:
        again.stop()


def test_postgres_is_durable_unless_told_otherwise(data_dir: Path) -> None:
    server = postgres.start(data_dir)
    try:
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
            assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
            assert connection.execute("SHOW max_connections").fetchone() == ("200",)
    finally:
        server.stop()


def test_a_server_whose_owner_was_killed_is_taken_over_with_its_data(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the kernel's help, as on a system that has none, the server outlives its owner.
    code = f"""
from pathlib import Path
from shop.up import postgres, processes
processes._prctl = None
server = postgres.start(Path({str(data_dir)!r}), durable=False)
print(server.process.pid, server.url, flush=True)
input()
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", code], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pid, url = owner.stdout.readline().split()
    remember(url, "kept")
    owner.kill()
    owner.communicate()
    assert alive(int(pid))

    server = postgres.start(data_dir, durable=False)
    try:
        assert not alive(int(pid))
        assert remembered(server.url) == ["kept"]
    finally:
        server.stop()


def test_a_stale_note_of_a_process_id_harms_nobody(data_dir: Path) -> None:
    postgres.start(data_dir, durable=False).stop()
    pid_file = data_dir / "postgres" / "data" / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n")

    postgres._end_leftover(pid_file.parent)  # We are alive to read the next line.

    assert alive(os.getpid())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_as_root_the_server_lives_elsewhere_when_its_account_cannot_get_to_the_data_folder() -> None:
    private = Path(tempfile.mkdtemp())  # 0700
    try:
        server = postgres.start(private / "data", durable=False)
        try:
            remember(server.url, "kept")
            away = Path((private / "data" / "postgres" / "elsewhere").read_text().strip())
            assert away.is_relative_to(postgres.AWAY)
            assert server.process is not None
            assert Path(f"/proc/{server.process.pid}").stat().st_uid != 0
        finally:
            server.stop()

        again = postgres.start(private / "data", durable=False)
        assert remembered(again.url) == ["kept"]

        postgres.remove(private / "data")
        assert again.process is not None
        again.process.wait(10)
        assert not away.exists()
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    finally:
        shutil.rmtree(private)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_as_root_the_binaries_are_copied_when_the_servers_account_cannot_reach_the_wheel(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_can", lambda account, program, *args: program == "/bin/sh")
    server = postgres.start(data_dir, durable=False)
    try:
        remember(server.url, "kept")
        assert server.process is not None
        program = Path(f"/proc/{server.process.pid}/exe").resolve()
        assert program.is_relative_to(data_dir)
    finally:
        server.stop()
