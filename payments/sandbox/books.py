"""The practice provider's books: payments, the events that happened to them, and the verbs that make events.

A payment's totals and status are always computed from its events. Each verb checks, once, whether it is
allowed, and must run inside `Store.transaction`.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from payments.sandbox.refusal import Refused
from payments.sandbox.store import Store
from shop.kernel.money import Money

DEFAULT_AUTHORIZED_FOR = timedelta(days=30)
MOST_RENEWALS = 3
PREFIXES = {
    "authorization": "pay",
    "authorization_adjustment": "adj",
    "receipt": "rcv",
    "capture": "cap",
    "void": "vod",
    "refund": "rfd",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `psp_reference` is its own; `seq` is its place in the change feed.

    `authorized_until` is for those that say how long the authorization lasts.
    """

    seq: int
    id: str
    type: str
    outcome: str
    psp_reference: str
    payment_reference: str
    merchant_reference: str
    amount: int
    currency: str
    occurred_at: str
    detail: str
    authorized_until: str | None

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "seq"}


@dataclass(frozen=True, slots=True)
class Payment:
    """One authorization and what became of it. Totals are in minor units of `currency`."""

    seq: int
    psp_reference: str
    merchant_reference: str
    currency: str
    authorized_until: datetime
    created_at: str
    events: tuple[Event, ...]

    def _total(self, type_: str) -> int:
        return sum(e.amount for e in self.events if e.type == type_ and e.outcome == "succeeded")

    @property
    def authorized(self) -> int:
        return self._total("authorization")

    @property
    def received(self) -> int:
        return self._total("receipt")

    @property
    def captured(self) -> int:
        return self._total("capture")

    @property
    def refunded(self) -> int:
        return self._total("refund")

    @property
    def voided(self) -> int:
        return self._total("void")

    @property
    def renewals(self) -> int:
        return sum(e.type == "authorization_adjustment" for e in self.events)

    @property
    def still_open(self) -> int:
        """What the customer has not paid yet."""
        return max(self.authorized - self.received, 0)

    @property
    def status(self) -> str:
        if self.voided:
            return "voided"
        if self.captured:
            return "refunded" if self.refunded == self.captured else "captured"
        if any(e.type == "authorization" and e.outcome == "failed" for e in self.events):
            return "declined"
        # Money in hand does not run out: what expires is the customer's time to pay.
        if not self.still_open:
            return "paid"
        return "expired" if datetime.now(UTC) >= self.authorized_until else "authorized"

    def as_json(self) -> dict[str, Any]:
        return {
            "psp_reference": self.psp_reference,
            "merchant_reference": self.merchant_reference,
            "status": self.status,
            "currency": self.currency,
            "authorized": self.authorized,
            "received": self.received,
            "captured": self.captured,
            "refunded": self.refunded,
            "voided": self.voided,
            "authorized_until": iso(self.authorized_until),
            "created_at": self.created_at,
            "events": [event.as_json() for event in self.events],
        }


def iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def new_reference(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(10)}"


class Books:
    """The payments of one store. `announce` says whether events are to be sent as webhooks."""

    def __init__(self, store: Store, announce: bool) -> None:
        self.db = store.db
        self.announce = announce

    # Reading

    def payment(self, psp_reference: str) -> Payment:
        rows = self.db.execute("SELECT * FROM payments WHERE psp_reference = ?", [psp_reference]).fetchall()
        if not rows:
            raise Refused("not_found", f"There is no payment {psp_reference!r}.", status=404)
        return self._with_events(rows)[0]

    def payments(self, after: int, limit: int, merchant_reference: str | None = None) -> list[Payment]:
        """Payments in the order they were opened, those after the one with the number `after`."""
        if merchant_reference is None:
            rows = self.db.execute(
                "SELECT * FROM payments WHERE seq > ? ORDER BY seq LIMIT ?", [after, limit]
            )
        else:
            rows = self.db.execute(
                "SELECT * FROM payments WHERE merchant_reference = ? AND seq > ? ORDER BY seq LIMIT ?",
                [merchant_reference, after, limit],
            )
        return self._with_events(rows.fetchall())

    def opened(self, from_: datetime, until: datetime, after: int, limit: int) -> list[Payment]:
        """The same of those opened from a moment until before another, which count in whole seconds."""
        # The beginning of what is stored, so that it stands before every fraction of its second.
        window = [f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}" for moment in (from_, until)]
        rows = self.db.execute(
            "SELECT * FROM payments WHERE created_at >= ? AND created_at < ? AND seq > ? ORDER BY seq LIMIT ?",
            [*window, after, limit],
        )
        return self._with_events(rows.fetchall())

    def named(self, psp_references: list[str]) -> list[Payment]:
        """Those of them that there are."""
        marks = ", ".join("?" * len(psp_references))
        rows = self.db.execute(f"SELECT * FROM payments WHERE psp_reference IN ({marks})", psp_references)
        return self._with_events(rows.fetchall())

    def newest(self, limit: int) -> list[Payment]:
        rows = self.db.execute("SELECT * FROM payments ORDER BY seq DESC LIMIT ?", [limit])
        return self._with_events(rows.fetchall())

    def events_after(self, seq: int, limit: int) -> list[Event]:
        rows = self.db.execute("SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ?", [seq, limit])
        return [Event(*row) for row in rows]

    def event(self, seq: int) -> Event:
        return Event(*self.db.execute("SELECT * FROM events WHERE seq = ?", [seq]).fetchone())

    def last_event_seq(self) -> int:
        return int(self.db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])

    def _with_events(self, rows: Iterable[sqlite3.Row]) -> list[Payment]:
        rows = list(rows)
        references = [row["psp_reference"] for row in rows]
        events: dict[str, list[Event]] = {reference: [] for reference in references}
        marks = ", ".join("?" * len(references))
        for row in self.db.execute(
            f"SELECT * FROM events WHERE payment_reference IN ({marks}) ORDER BY seq", references
        ):
            events[row["payment_reference"]].append(Event(*row))
        return [
            Payment(
                seq=row["seq"],
                psp_reference=row["psp_reference"],
                merchant_reference=row["merchant_reference"],
                currency=row["currency"],
                authorized_until=datetime.fromisoformat(row["authorized_until"]),
                created_at=row["created_at"],
                events=tuple(events[row["psp_reference"]]),
            )
            for row in rows
        ]

    # What the merchant may do. Each returns the event's own reference.

    def authorize(self, merchant_reference: str, money: Money, authorized_for: timedelta) -> str:
        reference = new_reference(PREFIXES["authorization"])
        now = datetime.now(UTC)
        self.db.execute(
            "INSERT INTO payments (psp_reference, merchant_reference, currency, authorized_until, created_at)"
            " VALUES (?, ?, ?, ?, ?)",
            [reference, merchant_reference, money.currency, iso(now + authorized_for), iso(now)],
        )
        payment = self.payment(reference)
        until = iso(payment.authorized_until)
        return self._record(
            payment, "authorization", money.amount, psp_reference=reference, authorized_until=until
        )

    def capture(self, payment: Payment, money: Money) -> str:
        """Take authorized money, once, the whole or a part; paid by the customer or not."""
        _same_currency(payment, money)
        _still_uncaptured(payment, "captured")
        if money.amount > payment.authorized:
            raise Refused(
                "amount_too_high",
                f"{money} is more than the {Money(payment.authorized, payment.currency)} authorized.",
                field="amount",
            )
        return self._record(payment, "capture", money.amount)

    def void(self, payment: Payment) -> str:
        """Release an authorization that was not captured."""
        _still_uncaptured(payment, "voided")
        return self._record(payment, "void", payment.authorized)

    def renew(self, payment: Payment) -> str:
        """Let an authorization last once more as long as at first, beginning where it would have ended."""
        _still_uncaptured(payment, "renewed")
        if payment.renewals >= MOST_RENEWALS:
            raise Refused(
                "renewed_too_often",
                f"This payment was renewed {MOST_RENEWALS} times; it cannot be renewed any more.",
            )
        opened = datetime.fromisoformat(payment.created_at)
        until = payment.authorized_until + (payment.authorized_until - opened) / (payment.renewals + 1)
        self.db.execute(
            "UPDATE payments SET authorized_until = ? WHERE psp_reference = ?",
            [iso(until), payment.psp_reference],
        )
        return self._record(
            payment,
            "authorization_adjustment",
            0,
            detail=f"Authorized until {until:%Y-%m-%d %H:%M} UTC.",
            authorized_until=iso(until),
        )

    def refund(self, payment: Payment, money: Money) -> str:
        """Give captured money back, in parts or at once."""
        _same_currency(payment, money)
        if not payment.captured:
            raise Refused("not_captured", "Nothing was captured, so there is nothing to refund.")
        left = payment.captured - payment.refunded
        if money.amount > left:
            raise Refused(
                "refund_too_high",
                f"{money} is more than the {Money(left, payment.currency)} captured and not yet refunded.",
                field="amount",
            )
        return self._record(payment, "refund", money.amount)

    # What the customer may do.

    def receive(self, payment: Payment, amount: int | None) -> str:
        """The customer pays `amount`, or what is still open. Money that comes after the capture is taken."""
        if payment.status in ("voided", "declined", "expired"):
            raise Refused(payment.status, f"This payment is {payment.status}; it cannot be paid.", status=409)
        if amount is None and not payment.still_open:
            raise Refused("nothing_open", "This payment is already paid in full.", status=409)
        return self._record(payment, "receipt", amount or payment.still_open)

    def decline(self, payment: Payment) -> str:
        """The customer, or their bank, says no."""
        if payment.status != "authorized":
            raise Refused(
                f"already_{payment.status}",
                f"This payment is {payment.status}; it cannot be declined.",
                status=409,
            )
        return self._record(
            payment,
            "authorization",
            payment.authorized,
            outcome="failed",
            psp_reference=new_reference("dec"),
            detail="Declined by the customer.",
        )

    def _record(
        self,
        payment: Payment,
        type_: str,
        amount: int,
        outcome: str = "succeeded",
        psp_reference: str = "",
        detail: str = "",
        authorized_until: str | None = None,
    ) -> str:
        reference = psp_reference or new_reference(PREFIXES[type_])
        seq = self.db.execute(
            "INSERT INTO events (id, type, outcome, psp_reference, payment_reference, merchant_reference,"
            " amount, currency, occurred_at, detail, authorized_until)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                new_reference("evt"),
                type_,
                outcome,
                reference,
                payment.psp_reference,
                payment.merchant_reference,
                amount,
                payment.currency,
                iso(datetime.now(UTC)),
                detail,
                authorized_until,
            ],
        ).lastrowid
        if self.announce:
            now = time.time()
            self.db.execute(
                "INSERT INTO deliveries (event_seq, created_at, due_at) VALUES (?, ?, ?)", [seq, now, now]
            )
        return reference


def _same_currency(payment: Payment, money: Money) -> None:
    if money.currency != payment.currency:
        raise Refused(
            "currency_mismatch",
            f"This payment is in {payment.currency}, not in {money.currency}.",
            field="currency",
        )


def _still_uncaptured(payment: Payment, wanted: str) -> None:
    match payment.status:
        case "captured" | "refunded":
            raise Refused("already_captured", f"This payment was captured; it cannot be {wanted} now.")
        case "voided":
            raise Refused("already_voided", f"This payment was voided; it cannot be {wanted} now.")
        case "declined" | "expired" as status:
            raise Refused(status, f"This payment is {status}; it cannot be {wanted}.")
