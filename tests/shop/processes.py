"""`manage.py runworker` and the web server as processes of a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from django.db import connection

from shop.up import ports
from tests.payments.sandbox_process import SandboxProcess
from tests.servers import Mailbox
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


class WorkerUnderTest:
    def __init__(self, log: Path, **env: str) -> None:
        self.log = log
        self.port = ports.any_free()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "runworker", "--health-port", str(self.port)],
                cwd=ROOT,
                env=os.environ | env,
                stdout=output,
                stderr=output,
            )

    def health(self) -> tuple[int, str]:
        try:
            answer = httpx2.get(f"http://127.0.0.1:{self.port}/health", trust_env=False)
        except httpx2.HTTPError:
            return 0, ""
        return answer.status_code, answer.text.strip()

    def metrics(self) -> str:
        return httpx2.get(f"http://127.0.0.1:{self.port}/metrics", trust_env=False, timeout=30).text

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start_worker(
    idle_temporal: str, provider: SandboxProcess, mailbox: Mailbox, tmp_path: Path
) -> Iterator[Callable[..., WorkerUnderTest]]:
    """Starts workers on the test's database, engine, provider and mail server; stops what is left of them."""
    started: list[WorkerUnderTest] = []

    def start(**changes: str) -> WorkerUnderTest:
        env = {
            "DATABASE_URL": database_url(),
            "TEMPORAL_ADDRESS": idle_temporal,
            "SANDBOX_URL": provider.url,
            "SANDBOX_API_KEY": provider.api_key,
            "EMAIL_URL": mailbox.url,
        }
        started.append(WorkerUnderTest(tmp_path / "worker.log", **env | changes))
        return started[-1]

    with _stopping(started):
        yield start


@contextmanager
def web_server(log: Path, *arguments: str, **env: str) -> Iterator[httpx2.Client]:
    """The web server on the test's database, for as long as the block runs; a client for it."""
    port = ports.any_free()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "shop.asgi:application",
        "--port",
        str(port),
        "--lifespan",
        "off",
    ]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            env=os.environ | {"DATABASE_URL": database_url()} | env,
            stdout=output,
            stderr=output,
        )
    client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False, verify=False)

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return client.get("/health/").status_code < 500
        except httpx2.HTTPError:
            return False

    try:
        wait_until(is_ready)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(20)


@contextmanager
def _stopping(started: list[WorkerUnderTest]) -> Iterator[None]:
    try:
        yield
    finally:
        for worker in started:
            if worker.process.poll() is None:
                worker.kill()


def database_url() -> str:
    """The test's database, for another process."""
    db = connection.settings_dict
    return f"postgresql://{db['USER']}:{db['PASSWORD']}@{db['HOST']}:{db['PORT']}/{db['NAME']}"
