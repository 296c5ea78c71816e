"""Waiting for PostgreSQL's NOTIFY, on a connection of its own beside Django's pool."""

from __future__ import annotations

import psycopg
from django.db import connection


class Listener:
    """Hears one channel. What was notified while nobody waited is heard at the next wait."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._connection: psycopg.Connection | None = None

    def wait(self, seconds: float) -> None:
        """Until there is a notification, or so long. The first time it returns at once: one may have been missed."""
        if self._connection is None:
            self._connection = own_connection(autocommit=True)
            self._connection.execute(f"LISTEN {self._channel}")
            return
        for _ in self._connection.notifies(timeout=seconds, stop_after=1):
            pass

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def own_connection(*, autocommit: bool = False, connect_timeout: int | None = None) -> psycopg.Connection:
    """A connection to Django's database beside Django: outside the pool, and without its adapters.

    `connect_timeout` is in seconds.
    """
    parameters = connection.get_connection_params()
    for django_only in ("pool", "context", "cursor_factory", "prepare_threshold"):
        parameters.pop(django_only, None)
    if connect_timeout is not None:
        parameters["connect_timeout"] = connect_timeout
    return psycopg.connect(**parameters, autocommit=autocommit)
