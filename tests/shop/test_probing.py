"""How the parts are, asked of the real ones: there, away, and silent."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from payments.models import BatchRun
from shop import probing
from shop.kernel import temporal
from tests.orders.conftest import PickyMailbox
from tests.payments.sandbox_process import SandboxProcess

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where somebody listens and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def own_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporal, "_client", None)


def parts() -> dict[str, probing.Health]:
    return {str(part.name): part for part in probing.everything()}


def test_each_part_that_is_there_is_green(
    temporal_server: str,
    own_client: None,
    provider: SandboxProcess,
    mailbox: PickyMailbox,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.TEMPORAL_ADDRESS = temporal_server
    monkeypatch.setattr(
        probing, "ORDERS", "unattended"
    )  # workers of other tests may have asked for orders just now
    found = parts()
    for name in ("Database", "Temporal", "Payment provider “Sandbox”", "Mail"):
        assert found[name].state == "working", found[name]
    assert found["Worker of the queue “unattended”"].is_down
    assert "manage.py runworker --queue unattended" in found["Worker of the queue “unattended”"].says
    settings.TEMPORAL_NAMESPACE = "nowhere"
    assert "no namespace “nowhere”" in parts()["Temporal"].says


def test_what_is_away_or_silent_is_red_with_a_sentence_and_soon(
    silent: int, own_client: None, provider: SandboxProcess, settings: Settings
) -> None:
    settings.TEMPORAL_ADDRESS = f"127.0.0.1:{silent}"
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", silent
    BatchRun.objects.create(workflow_id="w", run_id="r", started_at=timezone.now() - timedelta(days=2))
    began = time.monotonic()
    found = parts()
    assert time.monotonic() - began < probing.PATIENCE_S + 1
    assert found["Database"].state == "working"
    assert "does not answer at 127.0.0.1" in found["Temporal"].says
    assert found["Mail"].is_down
    assert found["Schedule “hourly-payment-batch”"].is_down
    assert found["Payment provider “Sandbox”"].state == "working"


def test_a_provider_that_refuses_our_key_is_red_and_none_at_all_as_well(
    provider: SandboxProcess, settings: Settings, own_client: None
) -> None:
    from payments.gateways import gateway

    settings.SANDBOX_API_KEY = "wrong"
    gateway.cache_clear()
    assert parts()["Payment provider “Sandbox”"].is_down
    settings.PAYMENT_GATEWAYS = {}
    assert "BANK_IBAN" in parts()["Payment provider"].says


def test_mails_that_are_only_printed_are_something_to_look_at(settings: Settings) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    assert probing.mail().state == "failing"
