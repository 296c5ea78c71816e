"""The practice provider's store: one SQLite file, one connection, one thread.

Effect, events, remembered answer and webhook to send are committed in one transaction, so a provider that is
killed at any moment wakes up with all of them or none. The file is locked for one process: which calls
are in flight is known only in memory, and a second process would not know it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS payments (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    psp_reference TEXT NOT NULL UNIQUE,
    merchant_reference TEXT NOT NULL,
    currency TEXT NOT NULL,
    authorized_until TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS payments_by_merchant_reference ON payments (merchant_reference, seq);
CREATE INDEX IF NOT EXISTS payments_by_opening ON payments (created_at, seq);
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    outcome TEXT NOT NULL,
    psp_reference TEXT NOT NULL UNIQUE,
    payment_reference TEXT NOT NULL REFERENCES payments (psp_reference),
    merchant_reference TEXT NOT NULL,
    amount INTEGER NOT NULL,
    currency TEXT NOT NULL,
    occurred_at TEXT NOT NULL,
    detail TEXT NOT NULL,
    authorized_until TEXT
);
CREATE INDEX IF NOT EXISTS events_by_payment ON events (payment_reference, seq);
CREATE TABLE IF NOT EXISTS shipments (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    reference TEXT NOT NULL UNIQUE,
    merchant_reference TEXT NOT NULL,
    tracking_number TEXT NOT NULL,
    parcels INTEGER NOT NULL,
    status TEXT NOT NULL,
    created_at TEXT NOT NULL,
    cancelled_at TEXT
);
CREATE INDEX IF NOT EXISTS shipments_by_merchant_reference ON shipments (merchant_reference, seq);
CREATE TABLE IF NOT EXISTS answers (
    idempotency_key TEXT PRIMARY KEY,
    request TEXT NOT NULL,
    subject TEXT NOT NULL,
    status INTEGER NOT NULL,
    body BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deliveries (
    event_seq INTEGER PRIMARY KEY REFERENCES events (seq),
    created_at REAL NOT NULL,
    due_at REAL NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    finished_at REAL,
    delivered INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS deliveries_to_do ON deliveries (due_at, event_seq) WHERE finished_at IS NULL;
"""


class StoreInUse(Exception):
    """Another process has the store open."""


class Store:
    """The SQLite file at `path`. Raises `StoreInUse` when another provider still has it after 5 seconds."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None, timeout=5)
        self.db.row_factory = sqlite3.Row
        self.committed: Callable[[], None] = lambda: None
        try:
            self.db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self.db.execute("PRAGMA journal_mode = WAL")
            # In WAL mode NORMAL loses nothing when the process dies, only when the power does.
            self.db.execute("PRAGMA synchronous = NORMAL")
            self.db.execute("PRAGMA foreign_keys = ON")
            self.db.executescript(SCHEMA)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            raise StoreInUse(f"Another practice provider is using {path}; stop it first.") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. Nothing in it may await: that keeps each transaction alone on its thread."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")
        self.committed()

    def close(self) -> None:
        self.db.close()
