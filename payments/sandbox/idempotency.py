"""Idempotency keys: the first answer to a key is the answer, whatever the network did to it.

A key is in flight from the moment its request arrives until its answer is stored, so "not found" is final:
no effect can still come from a call that was sent before the question. An answer is stored
in the transaction of its effect. Refusals are answers too; faults that came before the effect are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from payments.sandbox.refusal import Refused
from payments.sandbox.store import Store


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call was answered. `subject` is the payment or shipment it changed, empty when refused."""

    status: int
    body: bytes
    subject: str = ""

    @classmethod
    def of(cls, status: int, body: dict[str, Any], subject: str = "") -> Answer:
        return cls(status, json.dumps(body).encode(), subject)


class Answers:
    """The remembered answers of one store, and the keys in flight in this process."""

    def __init__(self, store: Store) -> None:
        self.db = store.db
        self.in_flight: set[str] = set()

    @contextmanager
    def flight(self, key: str) -> Iterator[None]:
        """Hold `key` for one call. Refused (`in_progress`) while another call holds it."""
        self.refuse_in_flight(key)
        self.in_flight.add(key)
        try:
            yield
        finally:
            self.in_flight.discard(key)

    def refuse_in_flight(self, key: str) -> None:
        if key in self.in_flight:
            raise Refused("in_progress", "A call with this idempotency key is still in progress.", status=409)

    def first_answer(self, key: str, request: str) -> Answer | None:
        """The answer this key was given before. Refused when that was to another `request`."""
        row = self.db.execute("SELECT * FROM answers WHERE idempotency_key = ?", [key]).fetchone()
        if row is None:
            return None
        if row["request"] != request:
            raise Refused(
                "idempotency_key_reuse", "This idempotency key was used before, for another request."
            )
        return Answer(row["status"], row["body"], row["subject"])

    def remember(self, key: str, request: str, answer: Answer) -> None:
        self.db.execute(
            "INSERT INTO answers (idempotency_key, request, subject, status, body) VALUES (?, ?, ?, ?, ?)",
            [key, request, answer.subject, answer.status, answer.body],
        )

    def subject(self, key: str, kind: str) -> str:
        """The payment or shipment that the call with this key changed. Refused (`not_found`) if none did."""
        self.refuse_in_flight(key)
        row = self.db.execute("SELECT subject FROM answers WHERE idempotency_key = ?", [key]).fetchone()
        subject = str(row["subject"]) if row else ""
        if not subject.startswith(kind):
            raise Refused("not_found", "No call with this idempotency key took effect.", status=404)
        return subject


def request_identity(path: str, body: dict[str, Any]) -> str:
    """What must be equal for two requests to be the same: path and body, whatever the order of its keys."""
    return f"{path} {json.dumps(body, sort_keys=True)}"
