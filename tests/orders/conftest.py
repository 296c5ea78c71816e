"""The world of the order tests: a practice provider for all of them, an engine and a mail server for each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests import factories
from tests.orders.engine import Engine
from tests.orders.engine import engine as running_engine
from tests.orders.practice_shop import PracticeShop
from tests.payments.sandbox_process import SandboxProcess, sandbox
from tests.servers import Mailbox


@pytest.fixture(scope="session")
def provider_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with sandbox(Path(tmp_path_factory.mktemp("provider")) / "books.sqlite3") as process:
        yield process


@pytest.fixture
def provider(provider_process: SandboxProcess, settings: Any) -> Iterator[SandboxProcess]:
    """The practice provider, without faults, set up as this shop's gateway and carrier."""
    from orders.carriers import carrier
    from payments.gateways import gateway

    settings.SANDBOX_URL = provider_process.url
    settings.SANDBOX_API_KEY = provider_process.api_key
    settings.SANDBOX_WEBHOOK_SECRETS = [provider_process.webhook_secret]
    settings.PAYMENT_GATEWAYS = {"sandbox": "payments.gateways.sandbox.SandboxGateway"}
    # The engine skips the time that it is told to wait; the clock by which a provider counts as down does not.
    settings.GATEWAY_DOWN_AFTER = 1_000_000
    gateway.cache_clear()
    carrier.cache_clear()
    provider_process.faults()
    yield provider_process
    provider_process.faults()


class PickyMailbox(Mailbox):
    """A mail server that can refuse one recipient, or take its time with every one.

    `refuses` holds an SMTP answer by address. While `holding`, the answer to DATA is not given. If `hanging_up`,
    the connection is dropped instead.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refuses: dict[str, str] = {}
        self.holding = False
        self.held = 0
        self.hanging_up = False

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refuses:
            return self.refuses[address]
        return await super().handle_RCPT(server, session, envelope, address, options)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.hanging_up:
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
            return ""
        self.held += self.holding
        while self.holding:
            await asyncio.sleep(0.01)
        return await super().handle_DATA(server, session, envelope)


@pytest.fixture
def mailbox(settings: Any) -> Iterator[PickyMailbox]:
    """The shop's mail server."""
    box = PickyMailbox()
    controller = Controller(box, hostname=box.host, port=box.port)
    controller.start()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = box.host, box.port
    settings.OPS_ALERT_EMAILS = ["ops@example.com"]
    try:
        yield box
    finally:
        box.holding = False
        controller.stop()


@pytest.fixture
def engine(transactional_db: None, provider: SandboxProcess, mailbox: PickyMailbox) -> Iterator[Engine]:
    with running_engine() as made:
        yield made


@pytest.fixture
def shop(engine: Engine, provider: SandboxProcess, mailbox: PickyMailbox) -> PracticeShop:
    """A shop with five pieces of TEA on the shelf."""
    factories.product("TEA", on_hand=5)
    return PracticeShop(engine, provider, mailbox)
