"""A provider whose change feed a test makes as odd as it likes. It speaks the practice provider's HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from payments.models import Payment
from tests.payments.waiting_orders import PRICE

Event = dict[str, Any]
Page = dict[str, Any]


def happened(payment: Payment, **changes: Any) -> Event:
    """An event of a payment as the provider tells it; by default the customer has paid in full."""
    event = {
        "type": "receipt",
        "outcome": "succeeded",
        "psp_reference": f"rcv_{payment.reference}",
        "payment_reference": payment.reference,
        "merchant_reference": payment.merchant_reference,
        "amount": PRICE,
        "currency": "EUR",
        "occurred_at": "2026-01-02T03:04:05Z",
        "detail": "",
    }
    return event | changes


@dataclass
class OddFeed:
    """`answer` makes a page for a cursor; by default `events` in pages of `size`. `asked` are the cursors."""

    url: str
    events: list[Event] = field(default_factory=list)
    size: int = 500
    asked: list[str] = field(default_factory=list)
    answer: Callable[[str], Page] = field(init=False)

    def __post_init__(self) -> None:
        self.answer = self.page

    def page(self, cursor: str) -> Page:
        start = int(cursor or 0)
        end = min(start + self.size, len(self.events))
        return page(self.events[start:end], str(end), more=end < len(self.events))


def page(events: Sequence[Event], cursor: str, *, more: bool) -> Page:
    return {"events": list(events), "cursor": cursor, "more": more}


@contextmanager
def odd_feed() -> Iterator[OddFeed]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            cursor = parse_qs(urlsplit(self.path).query).get("cursor", [""])[0]
            feed.asked.append(cursor)
            body = json.dumps(feed.answer(cursor)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    feed = OddFeed(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield feed
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
