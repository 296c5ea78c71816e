"""The merchant API: what a shop may ask of the provider and its carrier, with its API key.

Every write runs through `write` and every read through `read`; faults and idempotency live only there.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from payments.sandbox import reading
from payments.sandbox.books import DEFAULT_AUTHORIZED_FOR, Books
from payments.sandbox.connection import Dropped
from payments.sandbox.faults import LONGEST_HOLD_S, FaultBoard, happens, practice_error, practice_refusal
from payments.sandbox.idempotency import Answer, Answers, request_identity
from payments.sandbox.refusal import Refused, invalid
from payments.sandbox.shipments import Shipments
from payments.sandbox.store import Store

MOST_PARCELS = 100

Body = dict[str, Any]


class MerchantApi:
    """The endpoints for shops. From looking up a key to remembering its answer nothing awaits."""

    def __init__(self, store: Store, books: Books, faults: FaultBoard, api_key: str) -> None:
        self.store = store
        self.books = books
        self.shipments = Shipments(store)
        self.answers = Answers(store)
        self.faults = faults
        self.api_key = api_key.encode()

    def routes(self) -> list[Route]:
        return [
            Route("/payments", self.authorize, methods=["POST"]),
            Route("/payments", self.list_payments, methods=["GET"]),
            Route("/payments/{psp}", self.get_payment, methods=["GET"]),
            Route("/payments/{psp}/capture", self.capture, methods=["POST"]),
            Route("/payments/{psp}/void", self.void, methods=["POST"]),
            Route("/payments/{psp}/renew", self.renew, methods=["POST"]),
            Route("/payments/{psp}/refund", self.refund, methods=["POST"]),
            Route("/changes", self.changes, methods=["GET"]),
            Route("/shipments", self.create_shipment, methods=["POST"]),
            Route("/shipments", self.list_shipments, methods=["GET"]),
            Route("/shipments/{reference}", self.get_shipment, methods=["GET"]),
            Route("/shipments/{reference}/cancel", self.cancel_shipment, methods=["POST"]),
        ]

    # How a call runs

    async def write(
        self, request: Request, operation: str, check: Callable[[Body], Callable[[], Answer]]
    ) -> Response:
        """Run a call that changes something.

        1. Its key is in flight before anything can take time.
        2. `check` reads the body and returns the effect; a body that is wrong is refused and not remembered.
        3. A key that was answered before gets that answer again.
        4. Faults before the effect leave no trace; a lost answer comes after it.
        """
        if self.faults.of(operation).down:
            return Dropped()
        self.require_api_key(request)
        self.faults.limit(operation)
        key = _idempotency_key(request)
        with self.answers.flight(key):
            faults = self.faults.of(operation)
            body = await reading.json_object(request)
            await self.faults.delay(faults)
            if happens(faults.error_rate):
                raise practice_error()
            identity = request_identity(request.url.path, body)
            answer = self.answers.first_answer(key, identity)
            replayed = answer is not None
            if answer is None:
                effect = check(body)
                if happens(faults.refuse_rate):
                    raise practice_refusal()
                answer = self._act(key, identity, effect)
        # Outside the flight: whoever asks again must not meet a key that is still held.
        if happens(faults.lost_answer_rate):
            return Dropped()
        headers = {"Idempotent-Replayed": "true"} if replayed else {}
        return Response(answer.body, answer.status, headers, media_type="application/json")

    def _act(self, key: str, identity: str, effect: Callable[[], Answer]) -> Answer:
        with self.store.transaction():
            try:
                answer = effect()
            except Refused as refusal:
                answer = Answer.of(refusal.status, refusal.as_json())
            self.answers.remember(key, identity, answer)
        return answer

    async def read(self, request: Request, operation: str, look: Callable[[], Body]) -> Response:
        """Run a call that changes nothing."""
        faults = self.faults.of(operation)
        if faults.down:
            return Dropped()
        self.require_api_key(request)
        self.faults.limit(operation)
        await self.faults.delay(faults)
        if happens(faults.error_rate):
            raise practice_error()
        seen = look()
        return Dropped() if happens(faults.lost_answer_rate) else JSONResponse(seen)

    def require_api_key(self, request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.api_key):
            raise Refused("unauthorized", "The API key is missing or wrong.", status=401)

    # Payments

    async def authorize(self, request: Request) -> Response:
        def check(body: Body) -> Callable[[], Answer]:
            merchant_reference = reading.text(body, "merchant_reference")
            money = reading.money(body)
            authorized_for = timedelta(
                seconds=reading.seconds(
                    body,
                    "authorized_for_s",
                    self.faults.of("authorize").hold_s or DEFAULT_AUTHORIZED_FOR.total_seconds(),
                    LONGEST_HOLD_S,
                )
            )

            def effect() -> Answer:
                reference = self.books.authorize(merchant_reference, money, authorized_for)
                return self._payment_answer(201, reference, reference)

            return effect

        return await self.write(request, "authorize", check)

    async def capture(self, request: Request) -> Response:
        psp = request.path_params["psp"]

        def check(body: Body) -> Callable[[], Answer]:
            money = reading.money(body)
            return lambda: self._payment_answer(200, psp, self.books.capture(self.books.payment(psp), money))

        return await self.write(request, "capture", check)

    async def void(self, request: Request) -> Response:
        psp = request.path_params["psp"]

        def check(body: Body) -> Callable[[], Answer]:
            return lambda: self._payment_answer(200, psp, self.books.void(self.books.payment(psp)))

        return await self.write(request, "void", check)

    async def renew(self, request: Request) -> Response:
        psp = request.path_params["psp"]

        def check(body: Body) -> Callable[[], Answer]:
            return lambda: self._payment_answer(200, psp, self.books.renew(self.books.payment(psp)))

        return await self.write(request, "renew", check)

    async def refund(self, request: Request) -> Response:
        psp = request.path_params["psp"]

        def check(body: Body) -> Callable[[], Answer]:
            money = reading.money(body)
            return lambda: self._payment_answer(200, psp, self.books.refund(self.books.payment(psp), money))

        return await self.write(request, "refund", check)

    async def get_payment(self, request: Request) -> Response:
        psp = request.path_params["psp"]
        return await self.read(request, "status", lambda: self.books.payment(psp).as_json())

    async def list_payments(self, request: Request) -> Response:
        """One payment by `idempotency_key`, some by `psp_reference`, or a page of those after a cursor.

        Unknown references are left out. A page is of one order, of those opened in a window of time, or of all.
        """

        def look() -> Body:
            key = request.query_params.get("idempotency_key")
            if key is not None:
                return self.books.payment(self.answers.subject(key, "pay_")).as_json()
            named = reading.references(request)
            if named:
                return {"payments": [payment.as_json() for payment in self.books.named(named)]}
            after, limit = reading.cursor(request, "after"), reading.page_limit(request)
            window = reading.window(request)
            if window is not None:
                found = self.books.opened(*window, after, limit + 1)
            else:
                found = self.books.payments(after, limit + 1, request.query_params.get("merchant_reference"))
            page = found[:limit]
            return {
                "payments": [payment.as_json() for payment in page],
                "cursor": str(page[-1].seq if page else after),
                "more": len(found) > limit,
            }

        return await self.read(request, "status", look)

    async def changes(self, request: Request) -> Response:
        """Events after a cursor. Writes are one after the other, so none appears later behind a cursor."""

        def look() -> Body:
            after = reading.cursor(request, "cursor", last=self.books.last_event_seq())
            limit = reading.page_limit(request)
            found = self.books.events_after(after, limit + 1)
            page = found[:limit]
            return {
                "events": [event.as_json() for event in page],
                "cursor": str(page[-1].seq if page else after),
                "more": len(found) > limit,
            }

        return await self.read(request, "changes", look)

    def _payment_answer(self, status: int, psp: str, reference: str) -> Answer:
        payment = self.books.payment(psp)
        return Answer.of(status, {"reference": reference} | payment.as_json(), subject=psp)

    # Shipments

    async def create_shipment(self, request: Request) -> Response:
        def check(body: Body) -> Callable[[], Answer]:
            merchant_reference = reading.text(body, "merchant_reference")
            parcels = body.get("parcels", 1)
            if type(parcels) is not int or not 1 <= parcels <= MOST_PARCELS:
                raise invalid("parcels", f"“parcels” must be a whole number from 1 to {MOST_PARCELS}.")
            return lambda: self._shipment_answer(201, self.shipments.create(merchant_reference, parcels))

        return await self.write(request, "create_shipment", check)

    async def cancel_shipment(self, request: Request) -> Response:
        reference = request.path_params["reference"]

        def effect() -> Answer:
            self.shipments.cancel(reference)
            return self._shipment_answer(200, reference)

        return await self.write(request, "cancel_shipment", lambda body: effect)

    async def get_shipment(self, request: Request) -> Response:
        reference = request.path_params["reference"]
        return await self.read(request, "status", lambda: self.shipments.shipment(reference))

    async def list_shipments(self, request: Request) -> Response:
        def look() -> Body:
            key = request.query_params.get("idempotency_key")
            if key is not None:
                return self.shipments.shipment(self.answers.subject(key, "shp_"))
            after, limit = reading.cursor(request, "after"), reading.page_limit(request)
            found = self.shipments.shipments(after, limit + 1, request.query_params.get("merchant_reference"))
            page = found[:limit]
            return {
                "shipments": [shipment for _, shipment in page],
                "cursor": str(page[-1][0] if page else after),
                "more": len(found) > limit,
            }

        return await self.read(request, "status", look)

    def _shipment_answer(self, status: int, reference: str) -> Answer:
        return Answer.of(status, self.shipments.shipment(reference), subject=reference)


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "").strip()
    if not key or len(key) > reading.LONGEST_TEXT:
        raise Refused(
            "idempotency_key_missing",
            f"Every write needs an Idempotency-Key header of 1 to {reading.LONGEST_TEXT} characters.",
            status=400,
        )
    return key
