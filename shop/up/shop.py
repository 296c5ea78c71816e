"""The parts of the shop, what each is told, and what `up` says about them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from shop.up import datadir, ports, temporal
from shop.up.postgres import Postgres, PostgresError
from shop.up.processes import spawn
from shop.up.supervisor import Part, Process, Supervisor, say

CHECKOUT = Path(__file__).resolve().parents[2]
_PREFERRED = {
    "web": 8000,
    "temporal": 7233,
    "temporal_ui": 8233,
    "provider": 8080,
    "worker": 8090,
    "postgres": 5433,
}


def up(environ: Mapping[str, str], *, demo: bool = True, settings: Collection[str] = ()) -> int:
    """Run the shop until it is stopped; returns the exit code. `settings`: names of variables that it reads."""
    data_dir = Path(environ.get("DATA_DIR") or CHECKOUT / ".data").resolve()
    try:
        with datadir.locked(data_dir):
            for note in ("up.json", "settings.json"):
                (data_dir / note).unlink(missing_ok=True)  # Of a run that was killed.
            return Shop.settle(data_dir, environ).run(demo=demo, settings=settings)
    except (datadir.AlreadyRunning, ports.BadPort, PostgresError, temporal.TemporalMissing) as problem:
        say(str(problem))
        return 1


@dataclass(frozen=True)
class Shop:
    """Everything that is decided before the first process starts."""

    data_dir: Path
    ports: dict[str, int]
    secrets: dict[str, Any]
    postgres: Postgres | None  # None: DATABASE_URL names a server.
    own_temporal: bool
    env: dict[str, str]

    @classmethod
    def settle(cls, data_dir: Path, environ: Mapping[str, str]) -> Shop:
        """Choose ports and secrets, or take up those of the run before."""
        remembered = datadir.read(data_dir / "ports.json")
        if environ.get("PORT"):
            remembered["web"] = ports.parse(environ["PORT"])
        chosen = ports.choose(_PREFERRED, remembered)
        datadir.write(data_dir / "ports.json", chosen)
        secrets = datadir.load_secrets(data_dir)
        postgres = None if environ.get("DATABASE_URL") else Postgres(data_dir, port=chosen["postgres"])
        own_temporal = not environ.get("TEMPORAL_ADDRESS")

        env = dict(environ)
        defaults = {
            "DEBUG": "true",
            "SECRET_KEY": secrets["secret_key"],
            "SITE_URL": _url(chosen["web"]),
            # Four slashes: django-environ takes the path that follows the third one.
            "EMAIL_URL": f"filemail:///{quote(str(data_dir / 'mails'))}",
            # The account that everybody's examples have; with it, payment in advance can be tried.
            "BANK_IBAN": "DE89370400440532013000",
            "BANK_ACCOUNT_HOLDER": "Vorkasse Practice Shop",
        }
        env |= {name: environ.get(name) or default for name, default in defaults.items()}
        env |= {
            "DATA_DIR": str(data_dir),
            "PORT": str(chosen["web"]),
            "SANDBOX_URL": _url(chosen["provider"]),
            "SANDBOX_API_KEY": secrets["sandbox_api_key"],
            "SANDBOX_WEBHOOK_SECRETS": secrets["sandbox_webhook_secret"],
            "NO_PROXY": ",".join(filter(None, (environ.get("NO_PROXY"), "127.0.0.1,localhost"))),
            "PYTHONUNBUFFERED": "1",
        }
        if postgres is not None:
            env["DATABASE_URL"] = postgres.url
        if own_temporal:
            env["TEMPORAL_ADDRESS"] = f"{ports.HOST}:{chosen['temporal']}"
            env["TEMPORAL_UI_URL"] = _url(chosen["temporal_ui"])
        return cls(data_dir, chosen, secrets, postgres, own_temporal, env)

    @property
    def is_practice(self) -> bool:
        """Practice accounts and data exist with DEBUG only; the address is always the loopback one."""
        return self.env["DEBUG"].lower() in ("true", "on", "ok", "y", "yes", "1")

    def run(self, *, demo: bool, settings: Collection[str] = ()) -> int:
        parts = self.parts(demo=demo)
        logs = self.data_dir / "logs"
        say(f"Starting {', '.join(part.name for part in parts)}.\nThe logs are in {logs}.")
        note = self.data_dir / "up.json"

        def forget() -> None:
            for path in (note, self.settings_note):
                path.unlink(missing_ok=True)

        return Supervisor(parts, logs).run(
            when_ready=lambda: self._announce(note, settings),
            before_stop=forget,
        )

    def parts(self, *, demo: bool) -> list[Part]:
        """In the order in which they start where nothing else decides."""
        host, port = ports.HOST, self.ports
        parts = []
        if self.own_temporal:
            database = self.data_dir / "temporal.sqlite3"
            argv = temporal.command(port["temporal"], ui_port=port["temporal_ui"], database=database)
            parts.append(
                Part(
                    "temporal",
                    lambda log: spawn(argv, log, env=temporal.environment(), cwd=self.data_dir),
                    is_ready=lambda: temporal.is_ready(port["temporal"]),
                )
            )
        parts.append(
            Part(
                "provider",
                self._python(
                    *("-m", "payments.sandbox", "--host", host, "--port", str(port["provider"])),
                    *("--data", str(self.data_dir / "sandbox.sqlite3")),
                    SANDBOX_WEBHOOK_URL=f"{_url(port['web'])}/webhooks/payments/sandbox/",
                    SANDBOX_WEBHOOK_SECRET=self.secrets["sandbox_webhook_secret"],
                ),
                is_ready=_answers(port["provider"], "/health"),
            )
        )
        if self.postgres is not None:
            parts.append(
                Part(
                    "postgres",
                    self.postgres.launch,
                    is_ready=self.postgres.is_ready,
                    stop_signal=signal.SIGINT,
                    kill_signal=signal.SIGQUIT,
                    alone=True,
                )
            )
        parts.append(Part("migrations", self._manage("migrate", "--no-input"), needs=("postgres",)))
        if self.is_practice:
            access = {"accounts": self.secrets["accounts"], "api_key": self.secrets["api_key"]}
            parts.append(
                Part(
                    "accounts",
                    self._manage("ensure_demo_access", stdin=json.dumps(access)),
                    needs=("migrations",),
                )
            )
        parts.append(
            Part(
                "web",
                self._python(
                    *("-m", "uvicorn", "shop.asgi:application", "--host", host, "--port", str(port["web"])),
                    *("--no-access-log", "--no-proxy-headers", "--lifespan", "off"),
                    *("--timeout-graceful-shutdown", "5"),
                ),
                is_ready=_answers(port["web"], "/health/"),
                needs=("migrations",),
            )
        )
        parts.append(
            Part(
                "worker",
                self._manage("runworker", "--health-port", str(port["worker"])),
                is_ready=_answers(port["worker"], "/health"),
                needs=("migrations", "temporal", "provider"),
            )
        )
        seeded = self.data_dir / "demo-is-seeded"
        if demo and self.is_practice and not seeded.exists():
            parts.append(
                Part(
                    "demo data",
                    self._manage("seed_demo"),
                    needs=("accounts", "web", "worker"),
                    awaited=False,
                    when_done=seeded.touch,
                )
            )
        return parts

    def _manage(self, *args: str, stdin: str | None = None) -> Callable[[IO[bytes]], Process]:
        return self._python(str(CHECKOUT / "manage.py"), *args, stdin=stdin)

    def _python(self, *args: str, stdin: str | None = None, **env: str) -> Callable[[IO[bytes]], Process]:
        return lambda log: spawn([sys.executable, *args], log, env=self.env | env, cwd=CHECKOUT, stdin=stdin)

    @property
    def settings_note(self) -> Path:
        """Where `manage.py`, called beside the running shop, finds its settings."""
        return self.data_dir / "settings.json"

    def _announce(self, note: Path, settings: Collection[str]) -> None:
        # With what was set for this shop alone: a command beside it must not put its own defaults in their place.
        datadir.write(
            self.settings_note, {k: v for k, v in self.env.items() if os.environ.get(k) != v or k in settings}
        )
        accounts = self.secrets["accounts"] if self.is_practice else {}
        web, ui = _url(self.ports["web"]), self.env.get("TEMPORAL_UI_URL", "")
        content = {
            "web": web,
            "temporal": self.env["TEMPORAL_ADDRESS"],
            "temporal_ui": ui,
            "provider": self.env["SANDBOX_URL"],
            "database_url": self.env["DATABASE_URL"],
            "api_key": self.secrets["api_key"] if self.is_practice else "",
            "accounts": accounts,
        }
        datadir.write(note, content)
        lines = {
            "Shop admin": f"{web}/admin/",
            "Login": f"admin / {accounts['admin']}" if accounts else "",
            "Temporal UI": ui,
            "Payment provider": self.env["SANDBOX_URL"],
            "Mails": str(self.data_dir / "mails") if self.env["EMAIL_URL"].startswith("filemail:") else "",
            "More logins": str(self.data_dir / "up.json") if accounts else "",
        }
        say()
        for label, value in lines.items():
            if value:
                say(f"  {label:<18} {value}")
        say("\nCtrl-C stops everything; the state is kept.\n")


def _url(port: int) -> str:
    return f"http://{ports.HOST}:{port}"


def _answers(port: int, path: str) -> Callable[[], bool]:
    """Whether a GET there gives 200. Proxies of the environment are none of its business."""

    def ask() -> bool:
        connection = http.client.HTTPConnection(ports.HOST, port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ask
