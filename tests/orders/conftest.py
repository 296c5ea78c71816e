"""The world of the order tests: a practice provider for all of them, a mail server for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
    gateway.cache_clear()
    carrier.cache_clear()
    provider_process.faults()
    yield provider_process
    provider_process.faults()


@pytest.fixture
def mailbox(smtp: Mailbox, settings: Any) -> Mailbox:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = smtp.host, smtp.port
    return smtp
