"""A stand-in for Stripe's HTTP API: a real socket, state, idempotency as Stripe has it, signed webhooks, faults.

Only what the gateway uses, and strict where Stripe is: unknown parameters, wrong states and reused keys are
refused. It shares no code with the gateway or with Stripe's library, whose requests it answers.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import operator
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Json = dict[str, Any]
Call = Callable[..., Json]

SEARCH_LAG_S = 60
COMPARISONS = {"gte": operator.ge, "lte": operator.le, "gt": operator.gt, "lt": operator.lt}
PAGING = {"limit", "starting_after", "ending_before", "expand"}


class Refused(Exception):
    """An error answer. `kept`: its endpoint had begun, so the idempotency key replays it."""

    def __init__(
        self, status: int, message: str, code: str | None = None, *, kept: bool = False, **more: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kept = kept
        type_ = more.pop("type", "invalid_request_error")
        self.body = {"error": {"type": type_, "message": message, "code": code} | more}


class Dropped(Exception):
    """The connection is closed without an answer."""


@dataclass(frozen=True)
class Answer:
    identity: str
    status: int
    body: bytes


@dataclass(frozen=True)
class SignedWebhook:
    headers: dict[str, str]
    body: bytes


class StripeServer:
    """An account at Stripe. Methods without an underscore are for tests: the customer, the bank, the dashboard.

    `faults` maps an operation (`authorize`, `capture`, `void`, `refund`, `status`, `find`, `changes`) to
    `lost_answer`, `error`, `rate_limited`, `slow`, `forbidden` or `garbage`. `requests` lists the operations
    asked for, `writes` the writes with their keys, `last_headers` are those of the last request. An account
    may have `extended_authorizations` or not.
    """

    api_key = "sk_test_stand_in"

    def __init__(self) -> None:
        self.webhook_secret = new_secret()
        self.faults: dict[str, str] = {}
        self.requests: list[str] = []
        self.writes: list[tuple[str, str]] = []
        self.last_headers: Mapping[str, str] = {}
        self.extended_authorizations = False
        self.url = ""
        self._go_on = threading.Event()
        self._lock = threading.RLock()
        self._clock_offset = 0.0
        self._answers: dict[str, Answer] = {}
        self._in_flight: set[str] = set()
        self._intents: dict[str, Json] = {}
        self._charges: dict[str, Json] = {}
        self._refunds: dict[str, Json] = {}
        self._disputes: dict[str, Json] = {}
        self._events: list[Json] = []

    # Faults and time

    def fault(self, name: str, operation: str) -> None:
        self._go_on.clear()
        self.faults[operation] = name

    def clear_faults(self) -> None:
        self.faults.clear()
        self._go_on.set()

    @contextmanager
    def ago(self, seconds: float) -> Iterator[None]:
        """What is done in the block happened so long ago."""
        self._clock_offset -= seconds
        try:
            yield
        finally:
            self._clock_offset += seconds

    def forget_keys(self) -> None:
        """As Stripe does when they are a day old."""
        self._answers.clear()

    def forget_events(self) -> None:
        """As Stripe does when they are thirty days old."""
        self._events.clear()

    # The customer and their bank

    def pay(self, intent_id: str, capture_before: int | None = None) -> str:
        """The customer confirms with a good card; the charge's id."""
        with self._lock:
            intent = self._intents[intent_id]
            assert intent["status"].startswith("requires_")
            assert intent["status"] != "requires_capture"
            charge = self._charge(intent, "succeeded")
            if capture_before is None and intent.get("_extended"):
                capture_before = self._now() + 30 * 24 * 3600
            if capture_before is not None:
                charge["payment_method_details"]["card"]["capture_before"] = capture_before
            intent |= {
                "status": "requires_capture",
                "amount_capturable": intent["amount"],
                "last_payment_error": None,
            }
            self._emit("charge.succeeded", charge)
            self._emit("payment_intent.amount_capturable_updated", intent)
            return str(charge["id"])

    def decline(self, intent_id: str, with_charge: bool = True) -> None:
        """The customer's card is declined, or (`with_charge` off) its holder was not authenticated."""
        with self._lock:
            intent = self._intents[intent_id]
            error: Json = {
                "type": "card_error",
                "code": "card_declined" if with_charge else "payment_intent_authentication_failure",
                "message": "Your card was declined." if with_charge else "The card was not authenticated.",
                "payment_method": {"id": _new("pm"), "object": "payment_method", "type": "card"},
            }
            if with_charge:
                charge = self._charge(intent, "failed")
                charge |= {"failure_code": "card_declined", "failure_message": "Your card was declined."}
                error["charge"] = charge["id"]
                self._emit("charge.failed", charge)
            intent |= {"status": "requires_payment_method", "last_payment_error": error}
            self._emit("payment_intent.payment_failed", intent)

    def processing(self, intent_id: str) -> None:
        self._intents[intent_id]["status"] = "processing"

    def expire(self, intent_id: str) -> None:
        """Nobody captured in time."""
        with self._lock:
            self._cancel(self._intents[intent_id], "automatic")

    def dispute(self, intent_id: str, amount: int, inquiry: bool = False) -> str:
        """The cardholder's bank takes `amount` back, or only asks (`inquiry`)."""
        with self._lock:
            charge = self._charges[self._intents[intent_id]["latest_charge"]]
            charge["disputed"] = True
            dispute: Json = {
                "id": _new("dp"),
                "object": "dispute",
                "amount": amount,
                "currency": charge["currency"],
                "charge": charge["id"],
                "payment_intent": intent_id,
                "created": self._now(),
                "reason": "product_not_received",
                "status": "warning_needs_response" if inquiry else "needs_response",
                "balance_transactions": [],
                "metadata": {},
            }
            self._disputes[dispute["id"]] = dispute
            self._emit("charge.dispute.created", dispute)
            if not inquiry:
                dispute["balance_transactions"].append(self._balance_transaction())
                self._emit("charge.dispute.funds_withdrawn", dispute)
            return str(dispute["id"])

    def win(self, dispute_id: str) -> None:
        with self._lock:
            dispute = self._disputes[dispute_id]
            dispute["status"] = "won"
            dispute["balance_transactions"].append(self._balance_transaction())
            self._emit("charge.dispute.funds_reinstated", dispute)
            self._emit("charge.dispute.closed", dispute)

    def refund_comes_back(self, refund_id: str) -> None:
        """The customer's bank does not take the refund."""
        with self._lock:
            refund = self._refunds[refund_id]
            failed: Json = {"status": "failed", "failure_reason": "lost_or_stolen_card"}
            if refund["balance_transaction"]:
                failed["failure_balance_transaction"] = _new("txn")
            refund |= failed
            self._emit("refund.updated", refund)
            self._emit("refund.failed", refund)

    def refund_goes_through(self, refund_id: str) -> None:
        with self._lock:
            refund = self._refunds[refund_id]
            refund |= {"status": "succeeded", "balance_transaction": _new("txn")}
            self._emit("refund.updated", refund)

    # The dashboard

    def refund_in_dashboard(self, intent_id: str, amount: int, status: str = "succeeded") -> str:
        with self._lock:
            charge = self._charges[self._intents[intent_id]["latest_charge"]]
            return str(self._refund(charge, amount, {}, status)["id"])

    def foreign_payment(self) -> str:
        """A payment of another use of the same account."""
        with self._lock:
            intent = self._intent(2500, "eur", {}, "A subscription")
            self.pay(intent["id"])
            return str(intent["id"])

    def totals(self, intent_id: str) -> dict[str, int]:
        """What the account's own books say: minor units as Stripe writes them."""
        intent = self._intents[intent_id]
        charge = self._charges.get(intent["latest_charge"] or "", {})
        refunds = [r for r in self._refunds.values() if r["payment_intent"] == intent_id]
        disputes = [d for d in self._disputes.values() if d["payment_intent"] == intent_id]
        back = sum(r["amount"] for r in refunds if r["balance_transaction"] and r["status"] == "succeeded")
        back += sum(d["amount"] for d in disputes if len(d["balance_transactions"]) == 1)
        return {
            "authorized": intent["amount"],
            "received": charge["amount"] if charge.get("status") == "succeeded" else 0,
            "captured": intent["amount_received"],
            "refunded": back,
            "voided": intent["amount"] if intent["status"] == "canceled" else 0,
        }

    # Webhooks

    def webhooks(self, intent_id: str) -> list[SignedWebhook]:
        """Everything that Stripe would have posted about a payment so far."""
        about = [event for event in self._events if _intent_of(event["data"]["object"]) == intent_id]
        return [self.signed(json.dumps(event).encode()) for event in about]

    def signed(self, body: bytes, secret: str = "", age_s: float = 0) -> SignedWebhook:
        at = int(time.time() - age_s)
        signed = hmac.new((secret or self.webhook_secret).encode(), f"{at}.".encode() + body, hashlib.sha256)
        return SignedWebhook({"Stripe-Signature": f"t={at},v1={signed.hexdigest()}"}, body)

    # Answering

    def answer(self, method: str, url: str, headers: Mapping[str, str], body: str) -> tuple[int, bytes, Json]:
        """Status, body and headers for one request. Raises `Dropped`."""
        path, query = urlsplit(url).path, urlsplit(url).query
        pairs = parse_qsl(body if method == "POST" else query, keep_blank_values=True)
        try:
            operation, call = self._route(method, path)
            self.requests.append(operation)
            self.last_headers = headers
            fault = self.faults.get(operation, "")
            if headers.get("Authorization") != f"Bearer {self.api_key}":
                raise Refused(401, "Invalid API Key provided: sk_****", type="invalid_request_error")
            if fault == "rate_limited":
                return 429, _json(Refused(429, "Too many requests.", "rate_limit").body), {"Retry-After": "7"}
            if fault == "forbidden":
                raise Refused(403, "The provided key does not have the required permissions.")
            if fault == "error":
                raise Refused(503, "Stripe is having a bad moment.", type="api_error")
            if fault == "garbage":
                return 200, b"<html>maintenance</html>", {}
            params = _nested(pairs)
            if method == "GET":
                return 200, _json(self._run(call, params)), {}
            return self._write(operation, call, params, path, pairs, headers)
        except Refused as refused:
            return refused.status, _json(refused.body), {}

    def _write(
        self,
        operation: str,
        call: Call,
        params: Json,
        path: str,
        pairs: list[tuple[str, str]],
        headers: Mapping[str, str],
    ) -> tuple[int, bytes, Json]:
        key = headers.get("Idempotency-Key", "")
        assert key, "the library sends a key with every POST"
        self.writes.append((operation, key))
        identity = path + repr(sorted(pairs))
        with self._flight(key):
            replayed = key in self._answers
            if not replayed:
                if self.faults.get(operation) == "slow":
                    self._go_on.wait(30)
                self._answers[key] = self._first_answer(call, params, identity)
            answer = self._answers[key]
            if answer.identity != identity:
                raise Refused(
                    400,
                    "Keys for idempotent requests can only be used with the same parameters.",
                    type="idempotency_error",
                )
        # Outside the flight: whoever asks again must not meet a key that is still held.
        if self.faults.get(operation) == "lost_answer":
            raise Dropped
        return answer.status, answer.body, {"Idempotent-Replayed": "true"} if replayed else {}

    @contextmanager
    def _flight(self, key: str) -> Iterator[None]:
        with self._lock:
            if key in self._in_flight:
                raise Refused(
                    409,
                    "There is currently another in-progress request using this Idempotent Key.",
                    "idempotency_key_in_use",
                    type="idempotency_error",
                )
            self._in_flight.add(key)
        try:
            yield
        finally:
            self._in_flight.discard(key)

    def _first_answer(self, call: Call, params: Json, identity: str) -> Answer:
        try:
            return Answer(identity, 200, _json(self._run(call, params)))
        except Refused as refused:
            if not refused.kept:
                raise
            return Answer(identity, refused.status, _json(refused.body))

    def _run(self, call: Call, params: Json) -> Json:
        with self._lock:
            return call(params)

    def _route(self, method: str, path: str) -> tuple[str, Call]:
        routes: list[tuple[str, str, str, Call]] = [
            ("POST", "/v1/payment_intents", "authorize", self._create_intent),
            ("GET", "/v1/payment_intents", "find", self._list_intents),
            ("GET", "/v1/payment_intents/search", "find", self._search_intents),
            ("GET", "/v1/payment_intents/([^/]+)", "status", self._retrieve_intent),
            ("POST", "/v1/payment_intents/([^/]+)/capture", "capture", self._capture_intent),
            ("POST", "/v1/payment_intents/([^/]+)/cancel", "void", self._cancel_intent),
            ("POST", "/v1/refunds", "refund", self._create_refund),
            ("GET", "/v1/refunds", "status", self._list_refunds),
            ("GET", "/v1/disputes", "status", self._list_disputes),
            ("GET", "/v1/events", "changes", self._list_events),
        ]
        for verb, pattern, operation, call in routes:
            found = re.fullmatch(pattern, path)
            if verb == method and found:
                named = found.groups()
                return operation, lambda params, call=call, named=named: call(*named, params)
        raise Refused(404, f"Unrecognized request URL ({method}: {path}).")

    # Endpoints

    def _create_intent(self, params: Json) -> Json:
        known = {"amount", "currency", "capture_method", "description", "metadata", "payment_method_options"}
        _known(params, known)
        options = params.get("payment_method_options", {}).get("card", {})
        _known(options, {"request_extended_authorization"})
        extended = options.get("request_extended_authorization") == "if_available"
        if extended and not self.extended_authorizations:
            raise Refused(400, "This account is not eligible for the requested card features.")
        amount, currency = _amount(params, "amount"), params.get("currency", "")
        if not re.fullmatch("[a-z]{3}", currency):
            raise Refused(400, f"Invalid currency: {currency}.", param="currency")
        if currency in ("bhd", "jod", "kwd", "omr", "tnd") and amount % 10:
            raise Refused(400, "Amount must be divisible by 10 in this currency.", param="amount")
        if params.get("capture_method") != "manual":
            raise Refused(400, "This stand-in knows manual capture only.", param="capture_method")
        made = self._intent(amount, currency, params.get("metadata", {}), params.get("description", ""))
        made["_extended"] = extended
        return made

    def _retrieve_intent(self, intent_id: str, params: Json) -> Json:
        _known(params, {"expand"})
        seen = copy.deepcopy(self._found_intent(intent_id))
        for wish in params.get("expand", []):
            if wish not in ("latest_charge", "latest_charge.balance_transaction"):
                raise Refused(400, f"This property cannot be expanded ({wish}).")
            if seen["latest_charge"] and isinstance(seen["latest_charge"], str):
                seen["latest_charge"] = copy.deepcopy(self._charges[seen["latest_charge"]])
            charge = seen["latest_charge"]
            if wish.endswith("balance_transaction") and charge and charge["balance_transaction"]:
                charge["balance_transaction"] = {
                    "id": charge["balance_transaction"],
                    "object": "balance_transaction",
                    "created": charge["_captured_at"],
                }
        return seen

    def _list_intents(self, params: Json) -> Json:
        _known(params, PAGING | {"created", "expand"})
        found = _page("/v1/payment_intents", list(self._intents.values()), params)
        wishes = [wish.removeprefix("data.") for wish in params.get("expand", [])]
        data = [self._retrieve_intent(intent["id"], {"expand": wishes}) for intent in found["data"]]
        return found | {"data": data}

    def _search_intents(self, params: Json) -> Json:
        _known(params, {"query", "limit", "page"})
        found = re.fullmatch(r'metadata\["(\w+)"\]:"((?:[^"\\]|\\.)*)"', params.get("query", ""))
        if not found:
            raise Refused(400, "We were unable to parse your search query.", "parse_error")
        name, value = found[1], re.sub(r"\\(.)", r"\1", found[2])
        # The index is behind the books.
        known = [i for i in self._intents.values() if i["created"] <= self._now() - SEARCH_LAG_S]
        data = [intent for intent in known if intent["metadata"].get(name) == value]
        url = "/v1/payment_intents/search"
        return {"object": "search_result", "url": url, "has_more": False, "data": data, "next_page": None}

    def _capture_intent(self, intent_id: str, params: Json) -> Json:
        _known(params, {"amount_to_capture", "metadata"})
        intent = self._found_intent(intent_id)
        _in_state(intent, ["requires_capture"], "captured")
        amount = _amount(params, "amount_to_capture")
        if amount > intent["amount_capturable"]:
            message = f"The requested capture amount is greater than the authorized amount ({amount})."
            raise Refused(400, message, "amount_too_large", kept=True, param="amount_to_capture")
        charge = self._charges[intent["latest_charge"]]
        charge |= {
            "captured": True,
            "amount_captured": amount,
            "balance_transaction": _new("txn"),
            "_captured_at": self._now(),
        }
        if amount < charge["amount"]:
            self._release(charge, charge["amount"] - amount, None)
        intent["metadata"] |= params.get("metadata", {})
        intent |= {"status": "succeeded", "amount_received": amount, "amount_capturable": 0}
        self._emit("charge.captured", charge)
        self._emit("payment_intent.succeeded", intent)
        return intent

    def _cancel_intent(self, intent_id: str, params: Json) -> Json:
        _known(params, {"cancellation_reason"})
        intent = self._found_intent(intent_id)
        _in_state(
            intent,
            ["requires_payment_method", "requires_capture", "requires_confirmation", "requires_action"],
            "canceled",
        )
        self._cancel(intent, params.get("cancellation_reason"))
        return intent

    def _create_refund(self, params: Json) -> Json:
        _known(params, {"payment_intent", "amount", "metadata"})
        intent = self._found_intent(params.get("payment_intent", ""))
        if intent["status"] != "succeeded":
            message = f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund."
            raise Refused(400, message, kept=True, param="payment_intent")
        charge = self._charges[intent["latest_charge"]]
        amount, left = _amount(params, "amount"), charge["amount"] - charge["amount_refunded"]
        if left == 0:
            message = f"Charge {charge['id']} has already been refunded."
            raise Refused(400, message, "charge_already_refunded", kept=True)
        if amount > left:
            message = f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
            raise Refused(400, message, kept=True, param="amount")
        return self._refund(charge, amount, params.get("metadata", {}), "succeeded")

    def _list_refunds(self, params: Json) -> Json:
        _known(params, PAGING | {"payment_intent", "charge", "created"})
        return _page("/v1/refunds", self._of_intent(self._refunds, params), params)

    def _list_disputes(self, params: Json) -> Json:
        _known(params, PAGING | {"payment_intent", "charge", "created"})
        return _page("/v1/disputes", self._of_intent(self._disputes, params), params)

    def _list_events(self, params: Json) -> Json:
        _known(params, PAGING | {"types", "type", "created", "delivery_success"})
        types = params.get("types", [])
        if len(types) > 20:
            raise Refused(400, "At most 20 types.", param="types")
        named = params.get("ending_before")
        if named and named not in {event["id"] for event in self._events}:
            raise Refused(400, f"No such event: '{named}'", "resource_missing", param="ending_before")
        wanted = [event for event in self._events if event["type"] in types or event["id"] == named]
        return _page("/v1/events", wanted, params)

    # Pieces

    def _now(self) -> int:
        return int(time.time() + self._clock_offset)

    def _found_intent(self, intent_id: str) -> Json:
        if intent_id not in self._intents:
            message = f"No such payment_intent: '{intent_id}'"
            raise Refused(404, message, "resource_missing", param="intent")
        return self._intents[intent_id]

    def _of_intent(self, things: dict[str, Json], params: Json) -> list[Json]:
        return [one for one in things.values() if one["payment_intent"] == params["payment_intent"]]

    def _intent(self, amount: int, currency: str, metadata: Json, description: str) -> Json:
        reference = _new("pi")
        intent = {
            "id": reference,
            "object": "payment_intent",
            "amount": amount,
            "amount_capturable": 0,
            "amount_received": 0,
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": "manual",
            "client_secret": f"{reference}_secret_{secrets.token_hex(8)}",
            "created": self._now(),
            "currency": currency,
            "description": description,
            "last_payment_error": None,
            "latest_charge": None,
            "livemode": False,
            "metadata": dict(metadata),
            "status": "requires_payment_method",
        }
        self._intents[reference] = intent
        self._emit("payment_intent.created", intent)
        return intent

    def _charge(self, intent: Json, status: str) -> Json:
        charge: Json = {
            "id": _new("ch"),
            "object": "charge",
            "amount": intent["amount"],
            "amount_captured": 0,
            "amount_refunded": 0,
            "balance_transaction": None,
            "captured": False,
            "created": self._now(),
            "currency": intent["currency"],
            "disputed": False,
            "failure_message": None,
            "metadata": dict(intent["metadata"]),
            "payment_intent": intent["id"],
            "payment_method_details": {"type": "card", "card": {"brand": "visa"}},
            "refunded": False,
            "status": status,
        }
        self._charges[charge["id"]] = charge
        intent["latest_charge"] = charge["id"]
        return charge

    def _cancel(self, intent: Json, reason: str | None) -> None:
        if intent["status"] == "requires_capture":
            charge = self._charges[intent["latest_charge"]]
            self._release(charge, charge["amount"], "expired_uncaptured_charge")
        intent |= {
            "status": "canceled",
            "cancellation_reason": reason,
            "canceled_at": self._now(),
            "amount_capturable": 0,
        }
        self._emit("payment_intent.canceled", intent)

    def _release(self, charge: Json, amount: int, reason: str | None) -> None:
        """Stripe writes a refund for what it releases uncaptured, too; no money moves."""
        self._refund(charge, amount, {}, "succeeded", {"reason": reason, "_released": True})

    def _refund(
        self, charge: Json, amount: int, metadata: Json, status: str, released: Json | None = None
    ) -> Json:
        refund = {
            "id": _new("re"),
            "object": "refund",
            "amount": amount,
            "balance_transaction": None if released or status == "pending" else _new("txn"),
            "charge": charge["id"],
            "created": self._now(),
            "currency": charge["currency"],
            "metadata": dict(metadata),
            "payment_intent": charge["payment_intent"],
            "reason": None,
            "status": status,
            **(released or {}),
        }
        self._refunds[refund["id"]] = refund
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        self._emit("charge.refunded", charge)
        self._emit("refund.created", refund)
        return refund

    def _balance_transaction(self) -> Json:
        return {"id": _new("txn"), "object": "balance_transaction", "created": self._now()}

    def _emit(self, type_: str, thing: Json) -> None:
        self._events.append(
            {
                "id": _new("evt"),
                "object": "event",
                "api_version": "2026-10-28.endive",
                "created": self._now(),
                "data": {"object": copy.deepcopy(thing)},
                "livemode": False,
                "type": type_,
            }
        )


def new_secret() -> str:
    return f"whsec_{secrets.token_hex(16)}"


def _new(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


def _json(data: Json) -> bytes:
    return json.dumps(data).encode()


def _intent_of(thing: Json) -> str:
    return str(thing["id"] if thing["object"] == "payment_intent" else thing["payment_intent"])


def _nested(pairs: list[tuple[str, str]]) -> Json:
    """Form pairs such as `metadata[a]=1` and `types[0]=b` as dicts and lists."""
    nested: Json = {}
    for name, value in pairs:
        *outer, last = re.findall(r"[^\[\]]+", name)
        if last.isdigit():
            nested.setdefault(outer[0], []).append(value)
            continue
        inside = nested
        for part in outer:
            inside = inside.setdefault(part, {})
        inside[last] = value
    return nested


def _known(params: Json, known: set[str]) -> None:
    for name in params:
        if name not in known:
            raise Refused(400, f"Received unknown parameter: {name}", "parameter_unknown", param=name)


def _amount(params: Json, name: str) -> int:
    given = params.get(name, "")
    if not given.isdigit() or int(given) == 0:
        message = "This value must be greater than or equal to 1."
        raise Refused(400, message, "parameter_invalid_integer", param=name)
    return int(given)


def _in_state(intent: Json, allowed: list[str], done: str) -> None:
    if intent["status"] not in allowed:
        raise Refused(
            400,
            f"This PaymentIntent could not be {done} because it has a status of {intent['status']}. "
            f"Only a PaymentIntent with one of the following statuses may be {done}: {', '.join(allowed)}.",
            "payment_intent_unexpected_state",
            kept=True,
            payment_intent=intent,
        )


def _page(url: str, oldest_first: list[Json], params: Json) -> Json:
    """A page of a list, newest first, as Stripe cuts it: beside the object that is named."""
    limit = int(params.get("limit", 10))
    if not 1 <= limit <= 100:
        raise Refused(400, "Limit must be between 1 and 100.", param="limit")
    listed = oldest_first[::-1]
    created = params.get("created", {})
    for relation, holds in COMPARISONS.items():
        if relation in created:
            listed = [one for one in listed if holds(one["created"], int(created[relation]))]
    ids = [one["id"] for one in listed]
    if "ending_before" in params:
        listed = listed[: ids.index(params["ending_before"])]
        data, more = listed[-limit:], len(listed) > limit
    else:
        if "starting_after" in params:
            listed = listed[ids.index(params["starting_after"]) + 1 :]
        data, more = listed[:limit], len(listed) > limit
    return {"object": "list", "url": url, "has_more": more, "data": data}


@contextmanager
def stripe_server() -> Iterator[StripeServer]:
    """A stand-in on a free port, for as long as the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._handle()

        def do_POST(self) -> None:
            self._handle()

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            try:
                status, answer, headers = account.answer(self.command, self.path, dict(self.headers), body)
            except Dropped:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(status)
            for name, value in {
                "Request-Id": _new("req"),
                "Content-Length": str(len(answer)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            # A client that gave up waiting is part of the tests.
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)

    account = StripeServer()
    server = Server(("127.0.0.1", 0), Handler)
    account.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield account
    finally:
        account.clear_faults()
        server.shutdown()
        thread.join()
        server.server_close()
