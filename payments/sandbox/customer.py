"""The customer's side: pay or decline, by a program or on a small page. Needs no API key, meets no faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from payments.sandbox import pages, reading
from payments.sandbox.books import Books, Payment
from payments.sandbox.faults import FaultBoard
from payments.sandbox.refusal import Refused
from payments.sandbox.store import Store

NEWEST = 50
# The pages hold no script at all, and their one style sheet is ours.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'"
    )
}


class CustomerSide:
    """What the customer does, and the pages to do it on."""

    def __init__(self, store: Store, books: Books, faults: FaultBoard) -> None:
        self.store = store
        self.books = books
        self.faults = faults

    def routes(self) -> list[Route]:
        return [
            Route("/", self.index, methods=["GET"]),
            Route("/style.css", self.style, methods=["GET"]),
            Route("/customer/{psp}", self.page, methods=["GET"]),
            Route("/customer/{psp}/pay", self.pay, methods=["POST"]),
            Route("/customer/{psp}/decline", self.decline, methods=["POST"]),
        ]

    async def index(self, request: Request) -> Response:
        return HTMLResponse(pages.index(self.books.newest(NEWEST), self.faults.settings), headers=HEADERS)

    async def style(self, request: Request) -> Response:
        return Response(pages.STYLE, media_type="text/css")

    async def page(self, request: Request) -> Response:
        try:
            payment = self.books.payment(request.path_params["psp"])
        except Refused as refusal:
            return HTMLResponse(pages.unknown(refusal.message), status_code=404, headers=HEADERS)
        return HTMLResponse(pages.payment(payment), headers=HEADERS)

    async def pay(self, request: Request) -> Response:
        body = await reading.form_or_json(request)

        def effect(payment: Payment) -> None:
            amount = None if body.get("amount") is None else reading.amount(body)
            self.books.receive(payment, amount)

        return self._act(request, effect)

    async def decline(self, request: Request) -> Response:
        await reading.raw_body(request)
        return self._act(request, self.books.decline)

    def _act(self, request: Request, effect: Callable[[Payment], Any]) -> Response:
        """One step of the customer. A form goes back to the page; a program gets the payment."""
        psp = request.path_params["psp"]
        try:
            with self.store.transaction():
                effect(self.books.payment(psp))
        except Refused as refusal:
            if not reading.is_form(request) or refusal.status == 404:
                raise
            page = pages.payment(self.books.payment(psp), refusal.message)
            return HTMLResponse(page, status_code=refusal.status, headers=HEADERS)
        if reading.is_form(request):
            return RedirectResponse(f"/customer/{psp}", status_code=303)
        return JSONResponse(self.books.payment(psp).as_json())
