"""The practice provider on a thread of the test, counting the calls of its payment interface as they arrive."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from payments.sandbox.app import provider
from payments.sandbox.connection import DroppableHttp
from payments.sandbox.store import Store
from shop.up import ports
from tests.payments.sandbox_process import SandboxProcess
from tests.waiting import wait_until


class CountedProvider(SandboxProcess):
    """Used like a provider in a process of its own; `arrivals` are the times (s) of calls about payments."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "", ports.any_free())
        self.arrivals: list[float] = []
        self._server: uvicorn.Server | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._serve, name="counted-provider")
        self._thread.start()
        wait_until(lambda: self._server is not None and self._server.started)

    def _serve(self) -> None:
        store = Store(self.data_path)  # SQLite's objects stay on one thread
        config = uvicorn.Config(
            self._counting(provider(store, self.api_key)),
            host="127.0.0.1",
            port=self.port,
            http=DroppableHttp,
            access_log=False,
            log_level="warning",
        )
        self._server = uvicorn.Server(config)
        self._server.run()
        store.close()

    def stop(self) -> int:
        assert self._server is not None
        self._server.should_exit = True
        self._thread.join()
        return 0

    def _counting(self, app: ASGIApp) -> ASGIApp:
        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and scope["path"].startswith(("/payments", "/changes")):
                self.arrivals.append(time.monotonic())
            await app(scope, receive, send)

        return counted

    def most_in_a_second(self) -> int:
        """The most calls that any second has seen, wherever it begins."""
        times = sorted(self.arrivals)
        first, most = 0, 0
        for last, moment in enumerate(times):
            while moment - times[first] >= 1:
                first += 1
            most = max(most, last - first + 1)
        return most


@contextlib.contextmanager
def counted_provider(path: Path) -> Iterator[CountedProvider]:
    running = CountedProvider(path)
    running.start()
    try:
        yield running
    finally:
        running.stop()
