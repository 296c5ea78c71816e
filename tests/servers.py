"""Real servers for the tests. A pytest plugin, loaded by `-p`, because PostgreSQL must be there before Django
reads its settings. With DATABASE_URL set, that server is used instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from email.parser import BytesParser
from email.policy import default as modern_policy
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment

from shop.up import ports, postgres, temporal
from shop.up.processes import last_lines, spawn

# Each worker makes the hourly schedule on a server that all tests share: at the full hour it must not run into them.
NEVER = "0 0 0 29 2 * 2096"

_NO_BROWSER = "no Chromium found"
_servers = contextlib.ExitStack()

# --- PostgreSQL, and the environment in which Django reads its settings ----------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, object, object]:
    # A wrapper runs before pytest-django's own hook of this name, which reads the settings.
    os.environ.setdefault("DEBUG", "true")
    os.environ.setdefault("EMAIL_URL", "memorymail://")
    # Nobody's: a test that names no server must not act on a shop that runs beside it.
    os.environ["TEMPORAL_ADDRESS"] = f"{ports.HOST}:1"
    os.environ.setdefault("PAYMENT_CHECK_CRON", NEVER)
    os.environ.setdefault("RECONCILE_CRON", NEVER)
    if not os.environ.get("DATABASE_URL"):
        os.environ["DATABASE_URL"] = _servers.enter_context(temporary_postgres())
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    _servers.close()


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Not pytest's `tmp_path`: as root, PostgreSQL's account must be able to get there."""
    with tempfile.TemporaryDirectory(prefix="vorkasse-test-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextlib.contextmanager
def temporary_postgres() -> Iterator[str]:
    """A server of its own, fast and forgetful; yields its URL."""
    with temporary_folder() as folder:
        server = postgres.start(folder, durable=False)
        try:
            yield server.url
        finally:
            server.stop()
            postgres.remove(folder)


# --- Temporal --------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def temporal_server() -> Iterator[str]:
    """A Temporal development server in memory; gives its address, `host:port`."""
    port = ports.any_free()
    with temporary_folder() as folder:
        path = folder / "temporal.log"
        with path.open("wb") as log:
            process = spawn(temporal.command(port), log, env=temporal.environment(), cwd=folder)
        try:
            while not temporal.is_ready(port):
                assert process.poll() is None, "\n".join(last_lines(path))
                time.sleep(0.05)
            yield f"{ports.HOST}:{port}"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def idle_temporal(temporal_server: str) -> str:
    """The same, after what other tests left running has ended: a worker would work on it, for orders that are gone."""
    with ThreadPoolExecutor(1) as thread:  # in this one Playwright's loop may run
        thread.submit(lambda: asyncio.run(_end_all(temporal_server))).result()
    return temporal_server


async def _end_all(address: str) -> None:
    client = await Client.connect(address)
    async for running in client.list_workflows("ExecutionStatus = 'Running'"):
        with contextlib.suppress(RPCError):  # visibility lags: it may have ended
            await client.get_workflow_handle(running.id, run_id=running.run_id).terminate("its test is over")


@contextlib.asynccontextmanager
async def time_skipping(**options: Any) -> AsyncIterator[WorkflowEnvironment]:
    """A time-skipping server that knows our search attributes; `options` go to `start_time_skipping`.

    One for each test. Await `env.sleep(…)` and results one after the other: concurrent waits break it.
    """
    env = await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=temporal.executable("temporal-test-server"), **options
    )
    async with env:
        keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        await env.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                namespace=env.client.namespace,
                search_attributes=dict.fromkeys(temporal.SEARCH_ATTRIBUTES, keyword),
            )
        )
        yield env


# --- mail ------------------------------------------------------------------------------------------------


class Mailbox:
    """An SMTP server on the loopback address that keeps what it gets.

    `messages` holds what was accepted. Set `refusal` to an SMTP answer, such as `"451 Try again later"` or
    `"550 No such user"`, and every recipient is refused with it.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.refusal: str | None = None
        self.host = ports.HOST
        self.port = ports.any_free()

    @property
    def url(self) -> str:
        """For EMAIL_URL."""
        return f"smtp://{self.host}:{self.port}"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.refusal is not None:
            return self.refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        self.messages.append(BytesParser(policy=modern_policy).parsebytes(envelope.content))
        return "250 OK"


@pytest.fixture
def smtp() -> Iterator[Mailbox]:
    """A running `Mailbox`."""
    mailbox = Mailbox()
    controller = Controller(mailbox, hostname=mailbox.host, port=mailbox.port)
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()


# --- the browser -----------------------------------------------------------------------------------------

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture
def chromium_path() -> str:
    """Where Chromium is: CHROMIUM names it, or it is on the PATH. Skips the test when there is none."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(_NO_BROWSER)
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [
        report for report in terminalreporter.stats.get("skipped", []) if _NO_BROWSER in str(report.longrepr)
    ]
    if skipped:
        terminalreporter.write_line(
            f"Browser tests were skipped ({len(skipped)}): {_NO_BROWSER}. "
            "Install the package chromium, or set CHROMIUM to its path.",
            yellow=True,
        )
