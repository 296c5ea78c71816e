"""One at a time among all processes, for work that is longer than a transaction: a session lock of PostgreSQL.

It ends with the connection, so whoever is killed gives its turn back at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from django.db import connection


@contextlib.contextmanager
def turn(what: str) -> Iterator[bool]:
    """Whether nobody else is at it; until the end of the block nobody else will be.

    The lock belongs to this thread's connection: if that breaks, nothing more can be written through it.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [what])
        ours = bool(cursor.fetchone()[0])
    try:
        yield ours
    finally:
        if ours and connection.connection is not None and not connection.connection.closed:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [what])


def taken(whats: Sequence[str]) -> set[str]:
    """Those that somebody is at now."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT what FROM unnest(%s::text[]) what, pg_locks"
            " WHERE locktype = 'advisory' AND objsubid = 1 AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND ((classid::bigint << 32) | objid::bigint) = hashtextextended(what, 0)",
            [list(whats)],
        )
        return {what for (what,) in cursor.fetchall()}
