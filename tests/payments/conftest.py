"""A shop whose gateway is a provider with an odd change feed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django.fixtures import Settings

from payments.gateways import gateway
from tests.payments.odd_feed import OddFeed, odd_feed


@pytest.fixture
def feed(settings: Settings) -> Iterator[OddFeed]:
    with odd_feed() as running:
        settings.SANDBOX_URL = running.url
        settings.SANDBOX_API_KEY = "any"
        settings.PAYMENT_GATEWAYS = {"sandbox": "payments.gateways.sandbox.SandboxGateway"}
        gateway.cache_clear()
        yield running
        gateway.cache_clear()
