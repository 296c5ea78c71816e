"""The thread in `runworker` that imports statement files: what was uploaded, and what lies in the watched folder."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import psycopg
from django.db import DatabaseError, InterfaceError, close_old_connections, connection

from payments.services.statement_files import CHANNEL, Stopped, import_next
from payments.statement_folder import StatementFolder
from shop.kernel.listening import Listener

log = logging.getLogger(__name__)

POLL = 1.0
"""Seconds; the longest that a file waits if its notification was missed."""
LOOK = 5.0
"""Seconds between two looks into the folder."""


class Watcher(threading.Thread):
    """Imports until stopped. NOTIFY wakes it; a poll each second catches what was missed."""

    def __init__(self, folder: StatementFolder | None = None) -> None:
        super().__init__(name="statement-files", daemon=True)
        self._folder = folder
        self._looked = float("-inf")
        self._said = ""
        self._stop_asked = threading.Event()
        self._listener = Listener(CHANNEL)

    def stop(self) -> None:
        """Ask it to stop after the batch in hand; `join` it afterwards. Another worker goes on with the file."""
        self._stop_asked.set()

    def run(self) -> None:
        while not self._stop_asked.is_set():
            close_old_connections()
            try:
                if not self.step():
                    connection.close()  # not held while idle
                    self._listener.wait(POLL)
            except Stopped:
                break
            except (DatabaseError, InterfaceError, psycopg.Error, OSError) as error:
                log.warning("Statement files wait: %s", type(error).__name__)
                connection.close()
                self._listener.close()
                self._stop_asked.wait(POLL)
            except Exception as error:
                log.error("Statement files wait: %s", type(error).__name__)
                self._stop_asked.wait(POLL)
        self._listener.close()
        connection.close()

    def step(self) -> bool:
        """Look into the folder when it is time, and import one file. Whether there was one."""
        if self._folder is not None and time.monotonic() - self._looked >= LOOK:
            self._looked = time.monotonic()
            self._visit(self._folder.look)
        found = import_next(self._stop_if_asked) is not None
        if self._folder is not None:
            self._visit(self._folder.put_away)
        return found

    def _visit(self, visit: Callable[[], None]) -> None:
        """A folder that is away must not keep uploads waiting."""
        try:
            visit()
        except OSError as error:
            if self._said != str(error):
                self._said = str(error)
                log.warning("The statement folder cannot be used: %s", error)

    def _stop_if_asked(self, _done: int, _total: int) -> None:
        if self._stop_asked.is_set():
            raise Stopped
