"""The practice provider as one ASGI application. All of it runs on the thread of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from payments.sandbox import reading
from payments.sandbox.books import Books
from payments.sandbox.customer import CustomerSide
from payments.sandbox.faults import FaultBoard
from payments.sandbox.merchant import MerchantApi
from payments.sandbox.refusal import Refused
from payments.sandbox.store import Store
from payments.sandbox.webhooks import Webhooks


def provider(store: Store, api_key: str, webhook_url: str = "", webhook_secret: str = "") -> Starlette:
    """The provider over `store`. Without a `webhook_url` it sends no webhooks."""
    faults = FaultBoard()
    books = Books(store, announce=bool(webhook_url))

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def show_faults(request: Request) -> Response:
        return JSONResponse(faults.settings)

    async def put_faults(request: Request) -> Response:
        faults.replace(await reading.json_body(request))
        return JSONResponse(faults.settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if not webhook_url:
            yield
            return
        webhooks = Webhooks(store, books, faults, webhook_url, webhook_secret)
        store.committed = webhooks.wake
        sending = asyncio.create_task(webhooks.run())
        yield
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending

    return Starlette(
        routes=[
            Route("/health", health, methods=["GET"]),
            Route("/faults", show_faults, methods=["GET"]),
            Route("/faults", put_faults, methods=["PUT"]),
            *MerchantApi(store, books, faults, api_key).routes(),
            *CustomerSide(store, books, faults).routes(),
        ],
        exception_handlers={Refused: answer_refused, HTTPException: answer_http_error},
        lifespan=lifespan,
    )


async def answer_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(error.as_json(), status_code=error.status, headers=error.headers)


async def answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = Refused("no_such_endpoint", f"{request.method} {request.url.path}: {error.detail}.")
    return JSONResponse(refusal.as_json(), status_code=error.status_code, headers=error.headers)
