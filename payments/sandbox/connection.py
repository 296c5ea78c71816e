"""Connections that can be dropped without an answer, which plain ASGI cannot do."""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

DROP = "drop_connection"


class DroppableHttp(H11Protocol):
    """HTTP as uvicorn speaks it; the scope of each request carries a way to drop its connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app = self.app

        async def with_drop(scope: Scope, receive: Receive, send: Send) -> None:
            scope[DROP] = transport.abort
            await app(scope, receive, send)

        self.app = with_drop


class Dropped(Response):
    """No answer: the connection is closed at once."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[DROP]()
        # Return only when the server has seen it, or it would try to answer with a 500.
        while (await receive())["type"] != "http.disconnect":
            pass
