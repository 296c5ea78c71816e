"""Stripe as a gateway: PaymentIntents with manual capture, through Stripe's own library.

`authorize` opens an intent; the customer confirms it in the shop's frontend with the `client_secret` from the
payment's instructions, and from then on Stripe holds the money: that is the receipt which the saga waits for.
A card that is declined is a receipt that failed, not the end: the customer may try another until the deadline.

Rules kept here:
- All news, whichever way it came, goes through the same functions, so the same news has the same reference:
  an intent's id for its authorization and void, a charge's for its receipt and capture, a refund's for the
  refund and its reversal, a dispute's for the chargeback and its reversal.
- A write's parameters are only what it means, because Stripe compares them when its key comes again; the
  answer to a key may be a day old, so what the payment is now is always looked up after it.
- Nothing is tried again here: whoever calls decides that, with the same idempotency key.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import requests
import stripe
from django.conf import settings

from payments.gateways.base import (
    Capabilities,
    ChangesPage,
    EventOutcome,
    EventType,
    GatewayError,
    GatewayEvent,
    GatewayMisconfigured,
    GatewayRefused,
    GatewayResult,
    GatewayUnavailable,
    RemotePayment,
    RemoteStatus,
    WebhookRejected,
)
from shop.kernel.money import Money, decimals

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 10
WEBHOOK_TOLERANCE_S = 5 * 60
# Without `capture_before` on the charge: https://docs.stripe.com/payments/place-a-hold-on-a-payment-method
CARD_HOLD = timedelta(days=7)
PAGE = 100  # Stripe's largest
# Search sees an object "under a minute" after it was written, later during outages: https://docs.stripe.com/search
SEARCH_LAG_S = 2 * 3600
EVENTS_KEPT_S = 31 * 24 * 3600
# Two events may become visible in another order than they were created in; after this time no more are expected.
EVENTS_SETTLE_S = 5 * 60

NEWS = [  # the event types that are asked for and understood; a webhook endpoint needs the same
    "payment_intent.created",
    "payment_intent.amount_capturable_updated",
    "payment_intent.payment_failed",
    "payment_intent.succeeded",
    "payment_intent.canceled",
    "charge.succeeded",
    "charge.failed",
    "charge.captured",
    "charge.refunded",
    "charge.refund.updated",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
]

# https://docs.stripe.com/currencies#minor-units-in-api-amounts. ISK and UGX have no decimals but are written
# with two there, so they are not in the first list.
NO_DECIMALS = frozenset(
    ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF")
)
THREE_DECIMALS = frozenset(("BHD", "JOD", "KWD", "OMR", "TND"))

Json = Mapping[str, Any]

stripe.enable_telemetry = False


class StripeGateway:
    """Stripe, with the account of `settings.STRIPE_API_KEY`."""

    name = "stripe"
    capabilities = Capabilities(remote=True, change_feed=True, partial_capture=True, partial_refund=True)

    def authorize(self, merchant_reference: str, money: Money, idempotency_key: str) -> GatewayResult:
        """Open an intent. Nothing is held, and `authorized_until` is None, until the customer confirms it.

        Stripe keeps a key for at least a day. One that is used again later opens a second intent, which is
        harmless: the `client_secret` of the first never came out of the failed call, so nobody can pay it.
        """
        amount = _to_stripe(money)
        with _in_our_words():
            intent = _api().payment_intents.create(
                {
                    "amount": amount,
                    "currency": money.currency.lower(),
                    "capture_method": "manual",
                    "description": merchant_reference,
                    "metadata": {
                        "merchant_reference": merchant_reference,
                        "idempotency_key": idempotency_key,
                    },
                },
                {"idempotency_key": idempotency_key},
            )
        return GatewayResult(intent.id, self.status(intent.id))

    def capture(self, payment_reference: str, money: Money, idempotency_key: str) -> GatewayResult:
        """Take what the customer confirmed, once, the whole or a part; Stripe releases the rest."""
        amount = _to_stripe(money)
        intent = _look(payment_reference).intent
        # Stripe takes no currency here: it would read yen as cents.
        _same_currency(intent, money)
        done = (
            intent["metadata"].get("capture_key") == idempotency_key and intent["amount_received"] == amount
        )
        if not done:  # seen even when Stripe has forgotten the key
            with _in_our_words():
                _api().payment_intents.capture(
                    payment_reference,
                    {"amount_to_capture": amount, "metadata": {"capture_key": idempotency_key}},
                    {"idempotency_key": idempotency_key},
                )
        seen = _look(payment_reference)
        with _in_our_words():
            return GatewayResult(seen.intent["latest_charge"]["id"], _payment(seen))

    def void(self, payment_reference: str, idempotency_key: str) -> GatewayResult:
        with _in_our_words():
            _api().payment_intents.cancel(payment_reference, {}, {"idempotency_key": idempotency_key})
        return GatewayResult(payment_reference, self.status(payment_reference))

    def refund(self, payment_reference: str, money: Money, idempotency_key: str) -> GatewayResult:
        """Give money back. It may stay pending at Stripe; it counts when Stripe says that it succeeded.

        Stripe forgets keys after a day, and the retry of a dead letter may come later. So the refunds that
        are there are looked at first: each carries its key.
        """
        amount = _to_stripe(money)
        seen = _look(payment_reference)
        _same_currency(seen.intent, money)
        with _in_our_words():
            earlier = next(
                (r for r in seen.refunds if _metadata(r).get("idempotency_key") == idempotency_key), None
            )
            if earlier is None:
                reference = _metadata(seen.intent).get("merchant_reference", "")
                made = _api().refunds.create(
                    {
                        "payment_intent": payment_reference,
                        "amount": amount,
                        "metadata": {"merchant_reference": reference, "idempotency_key": idempotency_key},
                    },
                    {"idempotency_key": idempotency_key},
                )
                refund: Json = made.to_dict()
            elif earlier["amount"] != amount:
                raise GatewayRefused(
                    f"The idempotency key {idempotency_key} was used for a refund of another amount.",
                    "idempotency_key_reuse",
                )
            else:
                refund = earlier
            if refund["status"] in ("failed", "canceled"):
                raise GatewayRefused(
                    _why_refund_failed(refund), refund.get("failure_reason") or "refund_failed"
                )
            return GatewayResult(refund["id"], self.status(payment_reference))

    def status(self, payment_reference: str) -> RemotePayment:
        seen = _look(payment_reference)
        with _in_our_words():
            return _payment(seen)

    def find(self, idempotency_key: str) -> RemotePayment | None:
        """The payment opened by `authorize` with this key, or None.

        Lists show an intent at once but know no metadata, search knows metadata but lags: so the newest
        intents are listed, and the others searched. None is final although the call may still be in flight:
        an intent that turns up later was never shown to a customer, so nobody can pay it and no money is
        held. Asking by the key itself, with a second `create`, would open an intent where there is none.
        """
        with _in_our_words():
            intents = _api().payment_intents
            fresh = intents.list({"created": {"gte": int(time.time()) - SEARCH_LAG_S}, "limit": PAGE})
            for intent in fresh.auto_paging_iter():
                if intent.metadata.to_dict().get("idempotency_key") == idempotency_key:
                    return self.status(intent.id)
            quoted = idempotency_key.replace("\\", "\\\\").replace('"', '\\"')
            for intent in intents.search({"query": f'metadata["idempotency_key"]:"{quoted}"'}).data:
                return self.status(intent.id)
            return None

    def changes(self, cursor: str, limit: int = 500) -> ChangesPage:
        """Events of the last 30 days (Stripe keeps no more), at most 100 a page.

        A cursor is the last event that has settled and, between the pages of one run, the last one read: the
        next run begins at the former, so events of the last minutes come again.
        """
        settled, _, read = cursor.partition(" ")
        with _in_our_words():
            events, more = _events_after(read or settled, min(limit, PAGE))
            long_ago = time.time() - EVENTS_SETTLE_S
            for event in events:
                if event["created"] <= long_ago:
                    settled = event["id"]
            following = f"{settled} {events[-1]['id']}" if more else settled
            return ChangesPage(tuple(news for event in events for news in _news(event)), following, more)

    def parse_webhook(
        self, headers: Mapping[str, str], body: bytes, received_at: datetime | None = None
    ) -> tuple[GatewayEvent, ...]:
        given = {name.lower(): value for name, value in headers.items()}.get("stripe-signature", "")
        if not given:
            raise WebhookRejected("The webhook is not signed.", "not_signed")
        if not settings.STRIPE_WEBHOOK_SECRETS:
            raise GatewayMisconfigured(
                "Set STRIPE_WEBHOOK_SECRETS to receive Stripe's webhooks.", "not_set_up"
            )
        # Without a tolerance first, so that late and forged are told apart.
        secret = next((s for s in settings.STRIPE_WEBHOOK_SECRETS if _is_signed(body, given, s, None)), None)
        if secret is None:
            raise WebhookRejected("The webhook's signature is wrong.", "bad_signature")
        # The library counts from now; what came in before has grown that much older here.
        kept_s = int(time.time() - received_at.timestamp()) if received_at else 0
        if not _is_signed(body, given, secret, WEBHOOK_TOLERANCE_S + kept_s):
            raise WebhookRejected("The webhook is older than five minutes.", "stale")
        try:
            event = json.loads(body)
            if event["object"] != "event":
                raise ValueError(f"{event['object']!r} came; set the endpoint to snapshot payloads")
            return tuple(_news(event))
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise WebhookRejected(f"The webhook was not understood: {error}", "not_understood") from error


def _is_signed(body: bytes, header: str, secret: str, tolerance_s: int | None) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body, header, secret, tolerance_s)
    except (stripe.SignatureVerificationError, TypeError, ValueError):  # the latter: not ASCII, not UTF-8
        return False
    return True


# --- talking to Stripe -----------------------------------------------------------------------------------


def _api() -> stripe.V1Services:
    key, base = settings.STRIPE_API_KEY, settings.STRIPE_API_BASE
    if not key:
        raise GatewayMisconfigured("Set STRIPE_API_KEY to use Stripe.", "not_set_up")
    if not base.startswith(("https://", "http://")):
        raise GatewayMisconfigured(f"STRIPE_API_BASE is not an http address: {base}", "bad_address")
    return _client(key, base).v1


@cache
def _client(api_key: str, api_base: str) -> stripe.StripeClient:
    return stripe.StripeClient(
        api_key,
        base_addresses={"api": api_base},
        http_client=stripe.RequestsClient(timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)),
        max_network_retries=0,
    )


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Stripe's errors as ours; an answer that cannot be read is an unknown outcome."""
    try:
        yield
    except stripe.StripeError as error:
        raise _our_error(error) from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise GatewayUnavailable(
            f"Stripe's answer was not understood: {error!r}", "not_understood"
        ) from error


def _our_error(error: stripe.StripeError) -> GatewayError:
    status = error.http_status
    code = str((error.error and error.error.to_dict().get("code")) or error.code or "")
    message = error.user_message or f"Stripe answered with HTTP {status}."
    match error:
        case stripe.APIConnectionError():
            if isinstance(error.__cause__, requests.Timeout):
                return GatewayUnavailable("Stripe did not answer in time.", "timeout")
            why = error.__cause__ or message
            return GatewayUnavailable(f"The connection to Stripe failed: {why}", "connection_failed")
        case stripe.RateLimitError():
            return GatewayUnavailable(message, code or "rate_limited", _retry_after(error))
        case stripe.AuthenticationError() | stripe.PermissionError():
            return GatewayMisconfigured(message, code or "unauthorized")
        case stripe.IdempotencyError():
            return GatewayRefused(message, "idempotency_key_reuse")
        case stripe.InvalidRequestError() if code == "resource_missing":
            return GatewayRefused(message, "not_found")
        case stripe.InvalidRequestError() if status == 404:
            return GatewayMisconfigured(f"STRIPE_API_BASE is not Stripe's API: {message}", "bad_address")
        case stripe.InvalidRequestError() if _is_processing(error):
            return GatewayUnavailable(message, code)
        case stripe.CardError() | stripe.InvalidRequestError():
            return GatewayRefused(message, code or "invalid_request")
    if status is not None and 400 <= status < 500 and status not in (408, 409, 424, 425):
        # An address that answers, but not as Stripe does: a "no" from there would be a lie.
        return GatewayMisconfigured(f"STRIPE_API_BASE is not Stripe's API: {message}", f"http_{status}")
    return GatewayUnavailable(message, code or f"http_{status}", _retry_after(error))


def _is_processing(error: stripe.StripeError) -> bool:
    """Whether a write met an intent that the customer's bank is just deciding about: ask again."""
    intent = (error.error.to_dict() if error.error else {}).get("payment_intent") or {}
    return bool(intent.get("status") == "processing")


def _retry_after(error: stripe.StripeError) -> float | None:
    given = (error.headers or {}).get("retry-after", "")
    return float(given) if given.isascii() and given.isdigit() else None


@dataclass(frozen=True, slots=True)
class _Seen:
    """An intent (its charge expanded) with what may have followed it."""

    intent: Json
    refunds: list[Json]
    disputes: list[Json]


def _look(payment_reference: str) -> _Seen:
    with _in_our_words():
        api = _api()
        intent = api.payment_intents.retrieve(
            payment_reference, {"expand": ["latest_charge.balance_transaction"]}
        ).to_dict()
        refunds: list[Json] = []
        disputes: list[Json] = []
        if intent["amount_received"]:
            of_it = api.refunds.list({"payment_intent": payment_reference, "limit": PAGE})
            refunds = [refund.to_dict() for refund in of_it.auto_paging_iter()]
            if intent["latest_charge"]["disputed"]:
                against = api.disputes.list({"payment_intent": payment_reference, "limit": PAGE})
                disputes = [dispute.to_dict() for dispute in against.auto_paging_iter()]
        return _Seen(intent, refunds, disputes)


def _events_after(event_id: str, limit: int) -> tuple[list[Json], bool]:
    """Events after one, or from the oldest that Stripe still has; oldest first, and whether there are more."""
    if not event_id:
        return _oldest_events()
    try:
        with _in_our_words():
            page = _api().events.list({"types": NEWS, "limit": limit, "ending_before": event_id})
    except GatewayRefused as refusal:
        if refusal.code == "not_found":  # older than Stripe keeps them
            return _oldest_events()
        raise
    return [event.to_dict() for event in reversed(page.data)], page.has_more


def _oldest_events() -> tuple[list[Json], bool]:
    """The events of the first second that has any. Stripe lists only from the newest, so it is halved down."""
    events = _api().events

    def any_until(moment: int) -> bool:
        return bool(events.list({"types": NEWS, "limit": 1, "created": {"lte": moment}}).data)

    after, until = int(time.time()) - EVENTS_KEPT_S, int(time.time()) + 3600
    if not any_until(until):
        return [], False
    while until - after > 1:
        middle = (after + until) // 2
        after, until = (after, middle) if any_until(middle) else (middle, until)
    first = events.list({"types": NEWS, "limit": PAGE, "created": {"lte": until}})
    found: list[Json] = [event.to_dict() for event in first.auto_paging_iter()]
    return found[::-1], True


# --- what Stripe's objects say ---------------------------------------------------------------------------


def _payment(seen: _Seen) -> RemotePayment:
    intent = seen.intent
    charge = intent["latest_charge"] or {}
    held = charge.get("status") == "succeeded"
    given = [r for r in seen.refunds if r["status"] == "succeeded" and not _is_release(r)]
    taken = [dispute for dispute in seen.disputes if len(dispute["balance_transactions"]) == 1]
    refunded = sum(_minor(one["amount"], one["currency"]) for one in given + taken)
    amount, captured = (_minor(intent[name], intent["currency"]) for name in ("amount", "amount_received"))
    events = [*_of_intent(intent), *_of_each(_of_refund, seen.refunds, intent)]
    events += _of_each(_of_dispute, seen.disputes, intent)
    return RemotePayment(
        payment_reference=intent["id"],
        merchant_reference=_metadata(intent).get("merchant_reference", ""),
        currency=intent["currency"].upper(),
        status=_status(intent, captured, refunded),
        authorized=amount,
        received=_minor(charge["amount"], intent["currency"]) if held else 0,
        captured=captured,
        refunded=refunded,
        voided=amount if intent["status"] == "canceled" else 0,
        authorized_until=_held_until(charge) if held else None,
        events=tuple({(event.type, event.psp_reference): event for event in events}.values()),
        instructions=_instructions(intent),
    )


def _status(intent: Json, captured: int, refunded: int) -> RemoteStatus:
    match intent["status"]:
        case "requires_capture":
            return RemoteStatus.PAID
        case "succeeded":
            return RemoteStatus.REFUNDED if refunded >= captured else RemoteStatus.CAPTURED
        case "canceled":
            return RemoteStatus.EXPIRED if _ran_out(intent) else RemoteStatus.VOIDED
        case _:  # requires_payment_method, requires_confirmation, requires_action, processing
            return RemoteStatus.AUTHORIZED


def _ran_out(intent: Json) -> bool:
    return intent.get("cancellation_reason") in ("automatic", "expired")


def _instructions(intent: Json) -> dict[str, str]:
    if intent["status"] in ("requires_payment_method", "requires_confirmation", "requires_action"):
        return {"client_secret": intent["client_secret"]}
    return {}


def _held_until(charge: Json) -> datetime:
    details = charge.get("payment_method_details") or {}
    named = (details.get(details.get("type")) or {}).get("capture_before")
    return _moment(named) if named else _moment(charge["created"]) + CARD_HOLD


def _news(event: Json) -> Iterator[GatewayEvent]:
    """What an event (from a webhook or the list) says; nothing for events of other uses of the account."""
    if event["type"] not in NEWS:
        return
    thing, at = event["data"]["object"], int(event["created"])
    match thing["object"]:
        case "payment_intent":
            found = _of_intent(thing, at)
        case "charge":
            found = _of_charge(thing, at)
        case "refund":
            found = _of_refund(thing, at)
        case "dispute":
            found = _of_dispute(thing, at)
        case _:
            return
    for news in found:
        yield replace(news, raw_id=str(event["id"]))


def _of_intent(intent: Json, at: int | None = None) -> Iterator[GatewayEvent]:
    """`at`: when it became as it is, for what carries no time itself (here and below: Unix seconds)."""
    if not _metadata(intent).get("merchant_reference"):
        return
    told = _teller(intent, intent["id"])
    reference, amount = intent["id"], intent["amount"]
    yield told(EventType.AUTHORIZATION, reference, amount, intent["created"])
    failure = intent.get("last_payment_error")
    if failure:
        # Without a charge (no money was asked for: the authentication failed) the try is known by its card.
        attempt = (
            failure.get("charge") or f"{reference}/{(failure.get('payment_method') or {}).get('id', '')}"
        )
        why = failure.get("message") or ""
        yield told(EventType.RECEIPT, attempt, amount, at or intent["created"], why, EventOutcome.FAILED)
    charge = intent["latest_charge"]
    if isinstance(charge, Mapping):
        yield from _of_charge(charge, at)
    elif charge and intent["status"] in ("requires_capture", "succeeded"):
        yield told(EventType.RECEIPT, charge, amount, at or intent["created"])
        if intent["status"] == "succeeded":
            yield told(EventType.CAPTURE, charge, intent["amount_received"], at or intent["created"])
    if intent["status"] == "canceled":
        why = "The authorization expired." if _ran_out(intent) else ""
        yield told(EventType.VOID, reference, amount, intent["canceled_at"], why)


def _of_charge(charge: Json, at: int | None = None) -> Iterator[GatewayEvent]:
    if not (_metadata(charge).get("merchant_reference") and charge.get("payment_intent")):
        return
    told = _teller(charge, charge["payment_intent"])
    if charge["status"] == "failed":
        why = charge.get("failure_message") or ""
        yield told(
            EventType.RECEIPT, charge["id"], charge["amount"], charge["created"], why, EventOutcome.FAILED
        )
    if charge["status"] != "succeeded":
        return
    yield told(EventType.RECEIPT, charge["id"], charge["amount"], charge["created"])
    if charge["captured"]:
        booked = charge["balance_transaction"]
        when = booked["created"] if isinstance(booked, Mapping) else at or charge["created"]
        yield told(EventType.CAPTURE, charge["id"], charge["amount_captured"], when)
    for refund in (charge.get("refunds") or {}).get("data", []):  # in API versions before 2022-11-15
        yield from _of_refund(refund, at)


def _of_refund(refund: Json, at: int | None = None) -> Iterator[GatewayEvent]:
    """A refund that fails after it moved money is a refund and its reversal, also when only the end is seen.

    That it was asked for has the idempotency key as its reference, which the books have written before the
    call; so has that it failed. A refund made in Stripe's dashboard gets references of the same shape.
    """
    if not refund.get("payment_intent") or _is_release(refund):
        return
    told = _teller(refund, refund["payment_intent"])
    reference, amount, created = refund["id"], refund["amount"], refund["created"]
    asked = _metadata(refund).get("idempotency_key") or f"{reference}/requested"
    yield told(EventType.REFUND, asked, amount, created, outcome=EventOutcome.REQUESTED)
    failed = refund["status"] in ("failed", "canceled")
    why = _why_refund_failed(refund)
    if refund["status"] == "succeeded" or (failed and _moved(refund)):
        yield told(EventType.REFUND, reference, amount, created)
    if failed and _moved(refund):
        yield told(EventType.REFUND_REVERSAL, reference, amount, at or created, why)
    elif failed:
        yield told(EventType.REFUND, f"{asked}/failed", amount, at or created, why, EventOutcome.FAILED)


def _moved(refund: Json) -> bool:
    return bool(refund.get("balance_transaction") or refund.get("failure_balance_transaction"))


def _is_release(refund: Json) -> bool:
    """Stripe also writes a refund for what it releases uncaptured: after a void, the rest of a partial capture.

    Nothing moves then, so it has no balance transaction.
    """
    released = refund.get("reason") in ("expired_uncaptured_charge", "partial_capture")
    return released or (refund["status"] == "succeeded" and not _moved(refund))


def _why_refund_failed(refund: Json) -> str:
    reason = str(refund.get("failure_reason") or "no reason given").replace("_", " ")
    what = "was canceled" if refund["status"] == "canceled" else "failed"
    return f"The refund {what} at Stripe: {reason}."


def _of_dispute(dispute: Json, at: int | None = None) -> Iterator[GatewayEvent]:
    """Stripe's balance transactions tell: the first takes the money, the second gives it back."""
    if not dispute.get("payment_intent"):
        return
    told = _teller(dispute, dispute["payment_intent"])
    reference, amount = dispute["id"], dispute["amount"]
    why = f"Disputed: {str(dispute['reason']).replace('_', ' ')}."
    opened = f"{reference}/opened"
    yield told(EventType.CHARGEBACK, opened, amount, dispute["created"], why, EventOutcome.REQUESTED)
    moves = len(dispute["balance_transactions"])
    if moves >= 1:
        yield told(EventType.CHARGEBACK, reference, amount, dispute["created"], why)
    if moves >= 2:
        won = "The dispute was decided for the shop."
        yield told(EventType.REFUND_REVERSAL, reference, amount, at or dispute["created"], won)


def _of_each(
    tell: Callable[[Json], Iterable[GatewayEvent]], things: Iterable[Json], intent: Json
) -> Iterator[GatewayEvent]:
    """Of refunds and disputes of a known intent: those made in Stripe's dashboard do not name the order."""
    reference = _metadata(intent).get("merchant_reference", "")
    for thing in things:
        for event in tell(thing):
            yield replace(event, merchant_reference=reference)


def _teller(thing: Json, payment_reference: str) -> Callable[..., GatewayEvent]:
    """A function that makes events of one object of Stripe's."""

    def told(
        type_: EventType,
        reference: str,
        amount: int,
        at: int,
        detail: str = "",
        outcome: EventOutcome = EventOutcome.SUCCEEDED,
    ) -> GatewayEvent:
        currency = thing["currency"].upper()
        return GatewayEvent(
            type=type_,
            outcome=outcome,
            psp_reference=reference,
            payment_reference=payment_reference,
            merchant_reference=_metadata(thing).get("merchant_reference", ""),
            money=Money(_minor(amount, currency), currency),
            occurred_at=_moment(at),
            detail=detail,
        )

    return told


def _metadata(thing: Json) -> Json:
    return thing.get("metadata") or {}


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


# --- money -----------------------------------------------------------------------------------------------


def _to_stripe(money: Money) -> int:
    """The amount as Stripe writes it. Raises `GatewayRefused` for one that it cannot write."""
    amount = _rescaled(money.amount, decimals(money.currency), _stripe_decimals(money.currency))
    # Cards know no third decimal. Stripe would refuse it too, but less clearly.
    if amount is None or (money.currency in THREE_DECIMALS and amount % 10):
        raise GatewayRefused(
            f"Stripe takes {money.currency} with two decimals only, not {money}.", "amount_too_fine"
        )
    return amount


def _minor(amount: int, currency: str) -> int:
    """Stripe's amount in our minor units. Raises `ValueError` if they cannot express it."""
    currency = currency.upper()
    minor = _rescaled(amount, _stripe_decimals(currency), decimals(currency))
    if minor is None:
        raise ValueError(f"{amount} of Stripe's units is not a whole number of minor units of {currency}")
    return minor


def _stripe_decimals(currency: str) -> int:
    return 0 if currency in NO_DECIMALS else 3 if currency in THREE_DECIMALS else 2


def _rescaled(amount: int, decimals_now: int, decimals_then: int) -> int | None:
    """An amount with another number of decimals; None if it is too fine for that."""
    scaled, rest = divmod(amount * 10**decimals_then, 10**decimals_now)
    return None if rest else int(scaled)


def _same_currency(intent: Json, money: Money) -> None:
    if intent["currency"].upper() != money.currency:
        raise GatewayRefused(
            f"This payment is in {intent['currency'].upper()}, not in {money.currency}.", "currency_mismatch"
        )
