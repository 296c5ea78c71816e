"""Fixtures for all tests. The servers among them are in `tests.servers`, a plugin that is loaded earlier."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.utils import translation


@pytest.fixture(autouse=True)
def _what_is_known_of_providers_ends_with_the_test(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written beside the caller's transaction, and so beside that in which pytest-django runs a test."""
    from django.db import connection

    from payments.services import availability

    marker = request.node.get_closest_marker("django_db")
    rolled_back = marker is not None and not marker.kwargs.get("transaction")
    if rolled_back and "transactional_db" not in request.fixturenames:
        monkeypatch.setattr(availability, "_cursor", connection.cursor)


@pytest.fixture(autouse=True)
def _a_language_ends_with_the_test() -> Iterator[None]:
    """A request's language stays active in its thread, which in tests is that of the next test."""
    yield
    translation.deactivate()
