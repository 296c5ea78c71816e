"""The thread in `runworker` that empties the outbox."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import psycopg
from django.db import DatabaseError, InterfaceError, close_old_connections, connection
from temporalio.client import Client

from shop.kernel import outbox
from shop.kernel.listening import Listener

log = logging.getLogger(__name__)

POLL = 1.0  # seconds; the longest that a message waits if its notification was missed


class Dispatcher(threading.Thread):
    """Delivers queued messages until stopped. NOTIFY wakes it; a poll each second catches what was missed."""

    def __init__(self, client: Client) -> None:
        super().__init__(name="outbox-dispatcher", daemon=True)
        self._client = client
        self._stop_asked = threading.Event()
        self._listener = Listener(outbox.CHANNEL)
        self.last_seen = time.monotonic()  # for the health check

    def stop(self) -> None:
        """Ask it to stop after the batch in hand; `join` it afterwards."""
        self._stop_asked.set()

    def run(self) -> None:
        with asyncio.Runner() as runner:
            while not self._stop_asked.is_set():
                self.last_seen = time.monotonic()
                close_old_connections()
                try:
                    if outbox.deliver_batch(self._client, runner) == 0:
                        connection.close()  # not held while idle
                        self._listener.wait(POLL)
                except (DatabaseError, InterfaceError, psycopg.Error) as error:
                    log.warning("The outbox waits for the database: %s", str(error).strip())
                    self._listener.close()
                    self._stop_asked.wait(POLL)
                except Exception:
                    log.exception("The outbox dispatcher failed and tries again")
                    self._stop_asked.wait(POLL)
        self._listener.close()
        connection.close()
