"""A shop with its account at a bank on paper, and one whose gateway is a provider with an odd change feed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django.fixtures import Settings

from payments.gateways import gateway
from payments.services import proving
from tests import factories
from tests.payments.odd_feed import OddFeed, odd_feed
from tests.payments.paper_bank import SETTINGS, PaperBank


@pytest.fixture
def our_account(settings: Settings) -> Iterator[None]:
    """The shop takes bank transfers."""
    for name, value in SETTINGS.items():
        setattr(settings, name, value)
    gateway.cache_clear()
    yield
    gateway.cache_clear()


@pytest.fixture
def bank(our_account: None, db: None) -> Iterator[PaperBank]:
    """Whatever a test lets happen, the books agree with themselves afterwards."""
    factories.product(on_hand=1000)
    yield PaperBank()
    assert [str(d) for d in proving.differences()] == []


@pytest.fixture
def feed(settings: Settings) -> Iterator[OddFeed]:
    with odd_feed() as running:
        settings.SANDBOX_URL = running.url
        settings.SANDBOX_API_KEY = "any"
        settings.PAYMENT_GATEWAYS = {"sandbox": "payments.gateways.sandbox.SandboxGateway"}
        gateway.cache_clear()
        yield running
        gateway.cache_clear()
