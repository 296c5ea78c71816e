"""What every payment gateway can do, and the words in which it says so.

One protocol for all of them. A call either returns the provider's view of the payment, or raises one of
three errors, which differ in what may be done next:

- `GatewayUnavailable`: the outcome is **unknown** (timeout, lost answer, 5xx, 429). Call again with the
  same idempotency key.
- `GatewayRefused`: the provider said no, and would say no again.
- `GatewayMisconfigured`: our credentials or settings are wrong; a person has to act.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Protocol

from shop.kernel.money import Money


class EventType(StrEnum):
    """What happened to a payment. The terms are those of payment providers."""

    AUTHORIZATION = "authorization"
    AUTHORIZATION_ADJUSTMENT = "authorization_adjustment"
    RECEIPT = "receipt"
    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"
    REFUND_REVERSAL = "refund_reversal"
    CHARGEBACK = "chargeback"


class EventOutcome(StrEnum):
    REQUESTED = "requested"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class RemoteStatus(StrEnum):
    """Where a payment stands at the provider."""

    AUTHORIZED = "authorized"  # open: may be paid, captured, voided
    PAID = "paid"  # the customer has paid in full; not captured yet
    CAPTURED = "captured"
    REFUNDED = "refunded"  # everything captured was refunded
    VOIDED = "voided"
    DECLINED = "declined"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class GatewayEvent:
    """One thing that happened at the provider.

    `psp_reference` is the provider's reference of this very event (its capture, refund, receipt …), unique
    for the gateway and the type; `payment_reference` is that of the authorization that it belongs to.
    `raw_id` is the provider's id of the message that told us, empty when it came as an answer to a call.
    `authorized_until`: how long the authorization lasts since then, where the event tells. A renewal is an
    authorization adjustment by nothing.
    """

    type: EventType
    outcome: EventOutcome
    psp_reference: str
    payment_reference: str
    merchant_reference: str
    money: Money
    occurred_at: datetime
    raw_id: str = ""
    detail: str = ""
    authorized_until: datetime | None = None

    @property
    def flaw(self) -> str:
        """Why it can be no news of a payment, for “It …”; empty if it can."""
        if not (self.payment_reference and self.psp_reference):
            return "names no payment."
        return "names an amount below zero." if self.money.amount < 0 else ""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types, for storing."""
        until = self.authorized_until
        return {
            **asdict(self),
            "occurred_at": self.occurred_at.isoformat(),
            "authorized_until": until.isoformat() if until else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GatewayEvent:
        """The event that `to_json` wrote."""
        until = data.get("authorized_until")
        return cls(
            **{
                **data,
                "type": EventType(data["type"]),
                "outcome": EventOutcome(data["outcome"]),
                "money": Money(**data["money"]),
                "occurred_at": datetime.fromisoformat(data["occurred_at"]),
                "authorized_until": datetime.fromisoformat(until) if until else None,
            }
        )


@dataclass(frozen=True, slots=True)
class RemotePayment:
    """The provider's view of one payment now: totals in minor units of `currency`, and its events so far.

    `instructions` are what this payment's customer, and nobody else, needs to pay it: empty once it cannot be
    paid (any more), and kept out of logs.
    """

    payment_reference: str
    merchant_reference: str
    currency: str
    status: RemoteStatus
    authorized: int
    received: int
    captured: int
    refunded: int
    voided: int
    authorized_until: datetime | None
    events: tuple[GatewayEvent, ...]
    instructions: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)


@dataclass(frozen=True, slots=True)
class GatewayResult:
    """The answer to a write: the provider's reference of what was done, and the payment after it."""

    reference: str
    payment: RemotePayment


@dataclass(frozen=True, slots=True)
class ChangesPage:
    """Events after a cursor, oldest first; `cursor` continues after the last of them."""

    events: tuple[GatewayEvent, ...]
    cursor: str
    more: bool


@dataclass(frozen=True, slots=True)
class ListedPayment:
    """One line of the provider's own list: what has become of a payment, in minor units of `currency`.

    `unsure`: the list does not tell it all; `status` does.
    """

    payment_reference: str
    merchant_reference: str
    currency: str
    received: int
    captured: int
    refunded: int
    voided: int
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class ListPage:
    """Lines of the list; `cursor` continues after the last of them, and is empty after the last page."""

    payments: tuple[ListedPayment, ...]
    cursor: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a gateway can do.

    `remote`: its calls leave this process (so they run as normal activities, never inside a transaction).
    `change_feed`: `changes` works. `partial_capture`, `partial_refund`: amounts below the whole are taken.
    `renewal`: an authorization can be made to last longer, up to the provider's own limits.
    `webhooks`: the provider sends them, and `parse_webhook` takes them.
    `batch_status`: `statuses` is one call, however many it asks for.
    `lists_payments`: `payments` works.
    `received_on_our_account`: the customer's money comes to the shop's own account, so a void does not send
    back what has come in.
    `webhook_headers`: what the names of the headers begin with that sign its webhooks; others are not kept.
    """

    remote: bool
    change_feed: bool
    partial_capture: bool
    partial_refund: bool
    renewal: bool = False
    webhooks: bool = True
    received_on_our_account: bool = False
    batch_status: bool = False
    lists_payments: bool = False
    webhook_headers: str = "webhook-"  # https://www.standardwebhooks.com/


class Gateway(Protocol):
    """A payment provider. Every write takes an idempotency key: the same key and body give the first answer."""

    name: str
    capabilities: Capabilities

    def authorize(self, merchant_reference: str, money: Money, idempotency_key: str) -> GatewayResult:
        """Open a payment of `money` for a merchant reference (the order number)."""

    def capture(self, payment_reference: str, money: Money, idempotency_key: str) -> GatewayResult:
        """Take authorized money. Refused when captured, voided, declined or expired before."""

    def void(self, payment_reference: str, idempotency_key: str) -> GatewayResult:
        """Release an authorization that was not captured."""

    def renew(self, payment_reference: str, idempotency_key: str) -> GatewayResult:
        """Have an authorization last longer. Refused where the provider cannot, or not any more."""

    def refund(self, payment_reference: str, money: Money, idempotency_key: str) -> GatewayResult:
        """Give captured money back. Refused above what was captured and not yet refunded."""

    def status(self, payment_reference: str) -> RemotePayment:
        """The payment as the provider sees it now. `GatewayRefused` (code `not_found`) if it knows none."""

    def statuses(self, payment_references: Sequence[str]) -> Mapping[str, RemotePayment | None]:
        """The same for up to 100 payments, by reference; None for one that the provider does not know.

        Without `batch_status` they are asked for in turn (`one_by_one`), and the last ones may be left out.
        """

    def find(self, idempotency_key: str) -> RemotePayment | None:
        """The payment opened by `authorize` with this key, or None if that call never took effect.

        Raises `GatewayUnavailable` while that call is still in flight at the provider, so None is final.
        """

    def changes(self, cursor: str, limit: int = 500, *, overlap: bool = False) -> ChangesPage:
        """What happened after `cursor`; the empty cursor starts at the beginning.

        With `overlap`, for the first page of a run, it begins as far before the cursor as this provider may
        still show events late.
        """

    def payments(self, opened_from: datetime, opened_until: datetime, cursor: str = "") -> ListPage:
        """The provider's own list: all payments opened in that time (its first moment included, its last not).

        At most 100 a page, each payment once, in whatever order. The empty cursor starts at the beginning.
        """

    def parse_webhook(
        self, headers: Mapping[str, str], body: bytes, received_at: datetime | None = None
    ) -> tuple[GatewayEvent, ...]:
        """Verify a webhook's signature over the raw body and its timestamp; its events.

        The timestamp is judged by when the webhook came in (now, unless told), the signature by the secrets
        in force now: so one that a missing secret kept out can be taken later, and a stale one cannot.
        Raises `WebhookRejected` with a sentence when forged, stale or not understood.
        """


class GatewayError(Exception):
    """A provider did not do what was asked. `code` is the provider's or ours, the message is for people."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class Trouble(StrEnum):
    """What an unavailability says about the next calls."""

    OUTAGE = "outage"  # no answer, or none that can be used: timeouts, refused connections, 5xx
    TOO_MANY = "too_many"  # the provider is well and wants fewer calls: 429
    THIS_ONE = "this_one"  # it is well, but busy with this very payment or key


class GatewayUnavailable(GatewayError):
    """No answer, or not now: the outcome is unknown. `retry_after` in seconds, where the provider named it."""

    def __init__(
        self,
        message: str,
        code: str = "",
        retry_after: float | None = None,
        trouble: Trouble = Trouble.OUTAGE,
    ) -> None:
        super().__init__(message, code)
        self.retry_after = retry_after
        self.trouble = trouble


def retry_after(header: str) -> float | None:
    """The seconds in a Retry-After header: a number, or a date (RFC 9110, 10.2.3). None if there are none."""
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


class GatewayRefused(GatewayError):
    """The provider refused for good; asking again changes nothing."""


class GatewayMisconfigured(GatewayError):
    """The provider does not accept our credentials or settings."""


class WebhookRejected(GatewayError):
    """A webhook that is forged, stale, malformed, or for nobody."""


FAILURES_IN_A_ROW = 3


def one_by_one(gateway: Gateway, payment_references: Sequence[str]) -> dict[str, RemotePayment | None]:
    """`Gateway.statuses` for a provider that can only be asked for one payment at a time.

    One payment that it refuses, or gives no answer for, does not keep us from the others. Where it seems to
    be down, or wants us to wait, the rest is left out; `GatewayUnavailable` if that leaves nothing.
    """
    found: dict[str, RemotePayment | None] = {}
    missed: dict[str, GatewayUnavailable] = {}
    for reference in payment_references:
        try:
            answer = gateway.status(reference)
        except GatewayRefused:
            answer = None
        except GatewayUnavailable as error:
            missed[reference] = error
            if error.retry_after is not None or len(missed) == FAILURES_IN_A_ROW:
                break
            continue
        found |= dict.fromkeys(missed) | {reference: answer}
        missed.clear()
    if missed and not found:
        raise list(missed.values())[-1]
    return found
