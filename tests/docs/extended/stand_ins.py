"""The other sides of the pages' examples over real HTTP: Acme Pay, Parcel Post and the accounting software.

Each write happens once per idempotency key. One answer can be lost (`POST /lose`): the write happens, and HTTP 500 is
what comes back.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Refused(Exception):
    def __init__(self, code: str, message: str, status: int = 409) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


class StandIn:
    """`things` by id; `made` are the ids by the key of the call that made them."""

    def __init__(self) -> None:
        self.things: dict[str, dict[str, Any]] = {}
        self.made: dict[str, str] = {}
        self.answers: dict[str, Any] = {}
        self.loses: list[str] = []
        self.refuses: list[str] = []

    def get(self, path: list[str], key: str) -> Any:
        found = self.things.get(path[1] if len(path) > 1 else self.made.get(key, ""))
        if found is None:
            raise Refused("not_found", "There is no such thing.", 404)
        return found

    def post(self, path: list[str], body: Any, key: str) -> Any:
        if path[0] in ("lose", "refuse"):
            getattr(self, f"{path[0]}s").append(body["what"])
            return {}
        if path[-1] in self.refuses:
            self.refuses.remove(path[-1])
            raise Refused("refused", "No.")
        if key not in self.answers or not key:
            self.answers[key] = json.loads(json.dumps(self.act(path, body, key)))
        if path[-1] in self.loses:
            self.loses.remove(path[-1])
            raise Refused("lost", "The answer was lost.", 500)
        return self.answers[key]

    def make(self, prefix: str, key: str, **fields: Any) -> dict[str, Any]:
        thing = {"id": f"{prefix}_{len(self.things) + 1}", **fields}
        self.things[thing["id"]] = thing
        self.made[key] = thing["id"]
        return thing

    def act(self, path: list[str], body: Any, key: str) -> Any:
        raise NotImplementedError


class AcmePay(StandIn):
    STATES = {
        "capture": "captured",
        "void": "voided",
        "refund": "refunded",
        "pay": "paid",
        "decline": "declined",
    }
    KINDS = {"pay": "receipt", "decline": "authorization"}
    FROM = {"capture": ("paid",), "refund": ("captured",), "void": ("authorized", "paid")}

    def act(self, path: list[str], body: Any, key: str) -> Any:
        if len(path) == 1:
            expires = (datetime.now(UTC) + timedelta(days=60)).isoformat()
            charge = self.make("ch", key, **body, state="authorized", expires_at=expires, entries=[])
            return self._enter(charge, "authorization", body["amount"])
        charge, verb = self.things[path[1]], path[2]
        if charge["state"] not in self.FROM.get(verb, ("authorized",)):
            raise Refused("wrong_state", f"The charge is {charge['state']}.")
        charge["state"] = self.STATES[verb]
        amount = body.get("amount", charge["amount"])
        return self._enter(charge, self.KINDS.get(verb, verb), amount, verb != "decline")

    def _enter(self, charge: dict[str, Any], kind: str, amount: int, ok: bool = True) -> dict[str, Any]:
        entry = {"kind": kind, "ok": ok, "amount": amount, "at": datetime.now(UTC).isoformat()}
        charge["entries"].append({"id": f"{charge['id']}/{len(charge['entries'])}", **entry})
        return charge


class ParcelPost(StandIn):
    def act(self, path: list[str], body: Any, key: str) -> Any:
        if len(path) == 1:
            return self.make("pp", key, **body, state="created", tracking_number=f"00340{len(self.things)}")
        self.things[path[1]]["state"] = "cancelled"
        return self.things[path[1]]


class Accounting(StandIn):
    def act(self, path: list[str], body: Any, key: str) -> Any:
        if path[0] == "credit-notes" and body["invoice_key"] not in self.made:
            return {"number": None}
        return self.make("doc", key, **body, number=f"{path[0][:2].upper()}-{len(self.things) + 1}")


@contextmanager
def running(stand_in: StandIn) -> Iterator[str]:
    """It is served until the block ends; gives its address."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(lambda path, key: stand_in.get(path, key))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"] or 0)) or b"{}")
            self._answer(lambda path, key: stand_in.post(path, body, self.headers.get("idempotency-key", "")))

        def _answer(self, act: Any) -> None:
            url = urlsplit(self.path)
            try:
                with lock:
                    status, told = (
                        200,
                        act(url.path.strip("/").split("/"), parse_qs(url.query).get("key", [""])[0]),
                    )
            except Refused as refused:
                status, told = refused.status, {"code": refused.code, "message": refused.message}
            text = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
