"""The practice carrier: shipments, created and cancelled. Its verbs run inside `Store.transaction`."""

from __future__ import annotations

import secrets
import sqlite3
from datetime import UTC, datetime
from typing import Any

from payments.sandbox.books import iso, new_reference
from payments.sandbox.refusal import Refused
from payments.sandbox.store import Store


class Shipments:
    """The shipments of one store."""

    def __init__(self, store: Store) -> None:
        self.db = store.db

    def shipment(self, reference: str) -> dict[str, Any]:
        row = self.db.execute("SELECT * FROM shipments WHERE reference = ?", [reference]).fetchone()
        if row is None:
            raise Refused("not_found", f"There is no shipment {reference!r}.", status=404)
        return _as_json(row)

    def shipments(
        self, after: int, limit: int, merchant_reference: str | None = None
    ) -> list[tuple[int, dict[str, Any]]]:
        """Shipments in the order they were created, each with its number, those after the number `after`."""
        if merchant_reference is None:
            rows = self.db.execute(
                "SELECT * FROM shipments WHERE seq > ? ORDER BY seq LIMIT ?", [after, limit]
            )
        else:
            rows = self.db.execute(
                "SELECT * FROM shipments WHERE merchant_reference = ? AND seq > ? ORDER BY seq LIMIT ?",
                [merchant_reference, after, limit],
            )
        return [(row["seq"], _as_json(row)) for row in rows]

    def create(self, merchant_reference: str, parcels: int) -> str:
        reference = new_reference("shp")
        self.db.execute(
            "INSERT INTO shipments"
            " (reference, merchant_reference, tracking_number, parcels, status, created_at)"
            " VALUES (?, ?, ?, ?, 'created', ?)",
            [reference, merchant_reference, _tracking_number(), parcels, iso(datetime.now(UTC))],
        )
        return reference

    def cancel(self, reference: str) -> None:
        changed = self.db.execute(
            "UPDATE shipments SET status = 'cancelled', cancelled_at = ?"
            " WHERE reference = ? AND status = 'created'",
            [iso(datetime.now(UTC)), reference],
        ).rowcount
        if not changed:
            self.shipment(reference)
            raise Refused("already_cancelled", "This shipment was cancelled before.")


def _tracking_number() -> str:
    return "PC" + str(secrets.randbelow(10**12)).zfill(12)


def _as_json(row: sqlite3.Row) -> dict[str, Any]:
    return {name: row[name] for name in row.keys() if name != "seq"}  # noqa: SIM118 - a Row iterates its values
