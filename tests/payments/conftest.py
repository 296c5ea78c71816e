"""The shop with its account at a bank on paper."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django.fixtures import Settings

from payments.gateways import gateway
from payments.services import proving
from tests import factories
from tests.payments.paper_bank import SETTINGS, PaperBank


@pytest.fixture
def bank(settings: Settings, db: None) -> Iterator[PaperBank]:
    """Whatever a test lets happen, the books agree with themselves afterwards."""
    for name, value in SETTINGS.items():
        setattr(settings, name, value)
    gateway.cache_clear()
    factories.product(on_hand=1000)
    yield PaperBank()
    gateway.cache_clear()
    assert [str(d) for d in proving.differences()] == []
