"""Webhooks: every event is posted, signed, until the shop answers 2xx, for three days.

What is to be sent is a row written with its event, so a restart forgets none. Order is not promised.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from dataclasses import dataclass

import httpx2

from payments.sandbox.books import Books
from payments.sandbox.faults import WEBHOOK, FaultBoard, happens
from payments.sandbox.signing import signature
from payments.sandbox.store import Store

AT_ONCE = 16
FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
GIVE_UP_AFTER_S = 3 * 24 * 3600.0
ANSWER_WITHIN_S = 15.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    event_seq: int
    created_at: float
    due_at: float
    tries: int


def retry_in(tries: int) -> float:
    """Seconds until the next try after `tries` failed ones: 1, 2, 4 … 60."""
    return min(FIRST_RETRY_S * 2.0 ** min(tries - 1, 10), LONGEST_RETRY_S)


class Webhooks:
    """Sends what is due to `url`. `wake` is called when there may be something new."""

    def __init__(self, store: Store, books: Books, faults: FaultBoard, url: str, secret: str) -> None:
        self.store = store
        self.books = books
        self.faults = faults
        self.url = url
        self.secret = secret
        self._woken = asyncio.Event()
        self._under_way: set[int] = set()

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        # `trust_env`: a proxy for the internet must not come between two processes of one machine.
        async with (
            httpx2.AsyncClient(timeout=ANSWER_WITHIN_S, trust_env=False) as client,
            asyncio.TaskGroup() as tasks,
        ):
            while True:
                self._woken.clear()
                wait: float | None = None
                for delivery in self._next():
                    if len(self._under_way) == AT_ONCE:
                        wait = None
                        break
                    wait = delivery.due_at - time.time()
                    if wait > 0:
                        break
                    wait = None
                    self._under_way.add(delivery.event_seq)
                    tasks.create_task(self._deliver(client, delivery))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), wait)

    def _next(self) -> list[Delivery]:
        rows = self.store.db.execute(
            "SELECT event_seq, created_at, due_at, tries FROM deliveries WHERE finished_at IS NULL"
            " ORDER BY due_at, event_seq LIMIT ?",
            [2 * AT_ONCE + 1],
        )
        return [Delivery(*row) for row in rows if row["event_seq"] not in self._under_way]

    async def _deliver(self, client: httpx2.AsyncClient, delivery: Delivery) -> None:
        try:
            delivered = await self._try(client, delivery)
        except Exception:
            # One webhook that cannot be sent must not stop the others.
            log.exception("Webhook of event %s failed", delivery.event_seq)
            delivered = False
        try:
            self._note(delivery, delivered)
        finally:
            self._under_way.discard(delivery.event_seq)
            self.wake()

    async def _try(self, client: httpx2.AsyncClient, delivery: Delivery) -> bool:
        faults = self.faults.of(WEBHOOK)
        await self.faults.delay(faults)
        if faults.down or happens(faults.error_rate):
            return False
        delivered = await self._post(client, delivery)
        if happens(faults.duplicate_rate):
            await self._post(client, delivery)
        return delivered and not happens(faults.lost_answer_rate)

    async def _post(self, client: httpx2.AsyncClient, delivery: Delivery) -> bool:
        event = self.books.event(delivery.event_seq)
        body = json.dumps(
            {
                "id": event.id,
                "type": "payment.event",
                "created_at": event.occurred_at,
                "data": event.as_json(),
            }
        ).encode()
        timestamp = int(time.time())
        headers = {
            "content-type": "application/json",
            "webhook-id": event.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self.secret, event.id, timestamp, body),
        }
        try:
            answer = await client.post(self.url, content=body, headers=headers)
        except httpx2.HTTPError as error:
            log.info("Webhook %s was not delivered: %r", event.id, error)
            return False
        return answer.is_success

    def _note(self, delivery: Delivery, delivered: bool) -> None:
        now = time.time()
        tries = delivery.tries + 1
        finished = delivered or now - delivery.created_at > GIVE_UP_AFTER_S
        self.store.db.execute(
            "UPDATE deliveries SET tries = ?, due_at = ?, finished_at = ?, delivered = ? WHERE event_seq = ?",
            [tries, now + retry_in(tries), now if finished else None, delivered, delivery.event_seq],
        )
