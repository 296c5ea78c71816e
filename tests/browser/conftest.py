"""A real browser on the real shop: web server, worker, Temporal, practice provider and mail server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx2
import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, connections
from playwright.sync_api import Page, sync_playwright
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from shop.up import ports
from tests.payments.sandbox_process import SandboxProcess, sandbox
from tests.servers import Mailbox

ROOT = Path(__file__).parents[2]
PASSWORD = "correct horse battery staple"
PATIENCE_MS = 30_000


@pytest.fixture(scope="session")
def provider_process(
    live_server: LiveServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SandboxProcess]:
    """A practice provider that sends its webhooks to the shop in the test."""
    books = Path(tmp_path_factory.mktemp("provider")) / "books.sqlite3"
    with sandbox(books, f"{live_server.url}/webhooks/payments/sandbox/") as process:
        yield process


@pytest.fixture
def provider(provider_process: SandboxProcess, settings: Settings) -> Iterator[SandboxProcess]:
    from payments.gateways import gateway

    settings.SANDBOX_URL = provider_process.url
    settings.SANDBOX_API_KEY = provider_process.api_key
    settings.SANDBOX_WEBHOOK_SECRETS = [provider_process.webhook_secret]
    settings.PAYMENT_GATEWAYS = {"sandbox": "payments.gateways.sandbox.SandboxGateway"}
    gateway.cache_clear()
    yield provider_process
    gateway.cache_clear()


@pytest.fixture
def worker(
    chromium_path: str,
    transactional_db: None,
    idle_temporal: str,
    provider: SandboxProcess,
    smtp: Mailbox,
    tmp_path: Path,
) -> Iterator[None]:
    """`manage.py runworker` on the database of the test."""
    port = ports.any_free()
    database = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    env = {
        "DATABASE_URL": urlunsplit(database),
        "TEMPORAL_ADDRESS": idle_temporal,
        "SANDBOX_URL": provider.url,
        "SANDBOX_API_KEY": provider.api_key,
        "EMAIL_URL": smtp.url,
    }
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "runworker", "--health-port", str(port)],
            cwd=ROOT,
            env=os.environ | env,
            stdout=output,
            stderr=output,
        )
    try:
        _until_healthy(process, port, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    give_up_at = time.monotonic() + 60
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up_at, log.read_text()
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200:
                return
        except httpx2.HTTPError:
            time.sleep(0.05)


@pytest.fixture
def page(
    chromium_path: str, transactional_db: None, live_server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Page]:
    """A page in Chromium. The test fails if the console had an error or the content policy was violated."""
    complaints: list[str] = []
    # Playwright's loop runs in this thread, where Django then takes each query for one in a coroutine.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=["--no-sandbox"])
        context = browser.new_context(base_url=live_server.url)
        context.set_default_timeout(PATIENCE_MS)
        made = context.new_page()
        made.on(
            "console",
            lambda message: (
                complaints.append(f"{made.url}: {message.text}")
                if message.type in ("error", "warning")
                else None
            ),
        )
        made.on("pageerror", lambda error: complaints.append(f"{made.url}: {error}"))
        yield made
        browser.close()
        connections.close_all()  # the test's own: under a running loop Django keeps another set of them
    assert not complaints


@pytest.fixture
def login(page: Page) -> Callable[..., Page]:
    """Logs somebody with these roles in; without a role, a superuser."""

    def log_in(*roles: str) -> Page:
        user = User.objects.create_user("grace", password=PASSWORD, is_staff=True, is_superuser=not roles)
        user.groups.set(Group.objects.filter(name__in=roles))
        page.goto("/admin/")
        page.get_by_label("Username").fill("grace")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("heading", name="Work queue").wait_for()
        return page

    return log_in
