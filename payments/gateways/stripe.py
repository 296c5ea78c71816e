"""Stripe as a gateway: PaymentIntents with manual capture, through Stripe's own library.

`authorize` opens an intent; the customer confirms it in the shop's frontend with the `client_secret` from the
payment's instructions, and from then on Stripe holds the money: that is the receipt which the saga waits for.
A card that is declined is a receipt that failed, not the end: the customer may try another until the deadline.

Rules kept here:
- What Stripe's objects say is read in `stripe_objects`, whichever way they came.
- A write's parameters are only what it means, because Stripe compares them when its key comes again; the
  answer to a key may be a day old, so what the payment is now is always looked up after it.
- Nothing is tried again here: whoever calls decides that, with the same idempotency key.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache

import requests
import stripe
from django.conf import settings
from django.utils.translation import gettext as _
from stripe.params import PaymentIntentCreateParams, PaymentIntentListParams

from payments.gateways.base import (
    Capabilities,
    ChangesPage,
    GatewayError,
    GatewayEvent,
    GatewayMisconfigured,
    GatewayRefused,
    GatewayResult,
    GatewayUnavailable,
    ListPage,
    RemotePayment,
    Trouble,
    WebhookRejected,
    one_by_one,
    retry_after,
)
from payments.gateways.stripe_objects import (
    NEWS,
    Json,
    Seen,
    is_ours,
    listed,
    metadata,
    news_of,
    payment_of,
    same_currency,
    to_stripe,
    why_refund_failed,
)
from shop.kernel.money import Money

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 10
WEBHOOK_TOLERANCE_S = 5 * 60
PAGE = 100  # Stripe's largest
# Search sees an object "under a minute" after it was written, later during outages: https://docs.stripe.com/search
SEARCH_LAG_S = 2 * 3600
EVENTS_KEPT_S = 31 * 24 * 3600
# Two events may become visible in another order than they were created in; after this time no more are expected.
EVENTS_SETTLE_S = 5 * 60

stripe.enable_telemetry = False


class StripeGateway:
    """Stripe, with the account of `settings.STRIPE_API_KEY`."""

    name = "stripe"
    capabilities = Capabilities(
        remote=True,
        change_feed=True,
        partial_capture=True,
        partial_refund=True,
        lists_payments=True,
        webhook_headers="stripe-",
    )
    # As a rule; Stripe counts requests, so these count against the rate.
    requests_per_call = {"authorize": 2, "capture": 4, "void": 3, "refund": 5, "status": 2, "find": 3}

    def authorize(self, merchant_reference: str, money: Money, idempotency_key: str) -> GatewayResult:
        """Open an intent. Nothing is held, and `authorized_until` is None, until the customer confirms it.

        Stripe keeps a key for at least a day. One that is used again later opens a second intent, which is
        harmless: the `client_secret` of the first never came out of the failed call, so nobody can pay it.
        """
        asked: PaymentIntentCreateParams = {
            "amount": to_stripe(money),
            "currency": money.currency.lower(),
            "capture_method": "manual",
            "description": merchant_reference,
            "metadata": {"merchant_reference": merchant_reference, "idempotency_key": idempotency_key},
        }
        if settings.STRIPE_EXTENDED_AUTHORIZATION:
            asked["payment_method_options"] = {"card": {"request_extended_authorization": "if_available"}}
        with _in_our_words():
            intent = _api().payment_intents.create(asked, {"idempotency_key": idempotency_key})
        return GatewayResult(intent.id, self.status(intent.id))

    def capture(self, payment_reference: str, money: Money, idempotency_key: str) -> GatewayResult:
        """Take what the customer confirmed, once, the whole or a part; Stripe releases the rest."""
        amount = to_stripe(money)
        intent = _look(payment_reference).intent
        # Stripe takes no currency here: it would read yen as cents.
        same_currency(intent, money)
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
            return GatewayResult(seen.intent["latest_charge"]["id"], payment_of(seen))

    def void(self, payment_reference: str, idempotency_key: str) -> GatewayResult:
        with _in_our_words():
            _api().payment_intents.cancel(payment_reference, {}, {"idempotency_key": idempotency_key})
        return GatewayResult(payment_reference, self.status(payment_reference))

    def renew(self, payment_reference: str, idempotency_key: str) -> GatewayResult:
        """How long a hold lasts is settled when the customer confirms: `STRIPE_EXTENDED_AUTHORIZATION`."""
        raise GatewayRefused(_("Stripe cannot renew a hold on a card."), "no_renewal")

    def refund(self, payment_reference: str, money: Money, idempotency_key: str) -> GatewayResult:
        """Give money back. It may stay pending at Stripe; it counts when Stripe says that it succeeded.

        Stripe forgets keys after a day, and the retry of a dead letter may come later. So the refunds that
        are there are looked at first: each carries its key.
        """
        amount = to_stripe(money)
        seen = _look(payment_reference)
        same_currency(seen.intent, money)
        with _in_our_words():
            earlier = next(
                (r for r in seen.refunds if metadata(r).get("idempotency_key") == idempotency_key), None
            )
            if earlier is None:
                reference = metadata(seen.intent).get("merchant_reference", "")
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
                    _("The idempotency key %(key)s was used for a refund of another amount.")
                    % {"key": idempotency_key},
                    "idempotency_key_reuse",
                )
            else:
                refund = earlier
            if refund["status"] in ("failed", "canceled"):
                raise GatewayRefused(
                    why_refund_failed(refund), refund.get("failure_reason") or "refund_failed"
                )
            return GatewayResult(refund["id"], self.status(payment_reference))

    def status(self, payment_reference: str) -> RemotePayment:
        seen = _look(payment_reference)
        with _in_our_words():
            return payment_of(seen)

    def statuses(self, payment_references: Sequence[str]) -> Mapping[str, RemotePayment | None]:
        return one_by_one(self, payment_references)

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

    def changes(self, cursor: str, limit: int = 500, *, overlap: bool = False) -> ChangesPage:
        """Events of the last 30 days (Stripe keeps no more), at most 100 a page.

        A cursor is the last event that has settled and, between the pages of one run, the last one read: a
        run begins at the former, so events of the last minutes come again.
        """
        settled, _, read = cursor.partition(" ")
        if overlap:
            read = ""
        with _in_our_words():
            events, more = _events_after(read or settled, min(limit, PAGE))
            long_ago = time.time() - EVENTS_SETTLE_S
            for event in events:
                if event["created"] <= long_ago:
                    settled = event["id"]
            following = f"{settled} {events[-1]['id']}" if more else settled
            return ChangesPage(tuple(news for event in events for news in news_of(event)), following, more)

    def payments(self, opened_from: datetime, opened_until: datetime, cursor: str = "") -> ListPage:
        """Intents, newest first, of this and other uses of the account; those without an order are left out."""
        asked: PaymentIntentListParams = {
            "created": {"gte": int(opened_from.timestamp()), "lt": int(opened_until.timestamp())},
            "limit": PAGE,
            "expand": ["data.latest_charge"],
        }
        if cursor:
            asked["starting_after"] = cursor
        with _in_our_words():
            page = _api().payment_intents.list(asked)
            intents = [intent.to_dict() for intent in page.data]
            return ListPage(
                tuple(listed(intent) for intent in intents if is_ours(intent)),
                intents[-1]["id"] if page.has_more else "",
            )

    def parse_webhook(
        self, headers: Mapping[str, str], body: bytes, received_at: datetime | None = None
    ) -> tuple[GatewayEvent, ...]:
        given = {name.lower(): value for name, value in headers.items()}.get("stripe-signature", "")
        if not given:
            raise WebhookRejected(_("The webhook is not signed."), "not_signed")
        if not settings.STRIPE_WEBHOOK_SECRETS:
            raise GatewayMisconfigured(
                _("Set STRIPE_WEBHOOK_SECRETS to receive Stripe's webhooks."), "not_set_up"
            )
        # Without a tolerance first, so that late and forged are told apart.
        secret = next((s for s in settings.STRIPE_WEBHOOK_SECRETS if _is_signed(body, given, s, None)), None)
        if secret is None:
            raise WebhookRejected(_("The webhook's signature is wrong."), "bad_signature")
        # The library counts from now; what came in before has grown that much older here.
        kept_s = int(time.time() - received_at.timestamp()) if received_at else 0
        if not _is_signed(body, given, secret, WEBHOOK_TOLERANCE_S + kept_s):
            raise WebhookRejected(_("The webhook is older than five minutes."), "stale")
        try:
            event = json.loads(body)
            if event["object"] != "event":
                raise ValueError(f"{event['object']!r} came; set the endpoint to snapshot payloads")
            return tuple(news_of(event))
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise WebhookRejected(
                _("The webhook was not understood: %(error)s") % {"error": error}, "not_understood"
            ) from error


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
        raise GatewayMisconfigured(_("Set STRIPE_API_KEY to use Stripe."), "not_set_up")
    if not base.startswith(("https://", "http://")):
        raise GatewayMisconfigured(
            _("STRIPE_API_BASE is not an http address: %(base)s") % {"base": base}, "bad_address"
        )
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
            _("Stripe's answer was not understood: %(error)s") % {"error": repr(error)}, "not_understood"
        ) from error


def _our_error(error: stripe.StripeError) -> GatewayError:
    status = error.http_status
    code = str((error.error and error.error.to_dict().get("code")) or error.code or "")
    message = error.user_message or _("Stripe answered with HTTP %(status)s.") % {"status": status}
    match error:
        case stripe.APIConnectionError():
            if isinstance(error.__cause__, requests.Timeout):
                return GatewayUnavailable(_("Stripe did not answer in time."), "timeout")
            why = error.__cause__ or message
            return GatewayUnavailable(
                _("The connection to Stripe failed: %(why)s") % {"why": why}, "connection_failed"
            )
        case stripe.RateLimitError() if code == "lock_timeout":  # another call holds this very object
            return GatewayUnavailable(message, code, _retry_after(error), Trouble.THIS_ONE)
        case stripe.RateLimitError():
            return GatewayUnavailable(message, code or "rate_limited", _retry_after(error), Trouble.TOO_MANY)
        case stripe.AuthenticationError() | stripe.PermissionError():
            return GatewayMisconfigured(message, code or "unauthorized")
        case stripe.IdempotencyError():
            return GatewayRefused(message, "idempotency_key_reuse")
        case stripe.InvalidRequestError() if code == "resource_missing":
            return GatewayRefused(message, "not_found")
        case stripe.InvalidRequestError() if status == 404:
            return GatewayMisconfigured(
                _("STRIPE_API_BASE is not Stripe's API: %(message)s") % {"message": message}, "bad_address"
            )
        case stripe.InvalidRequestError() if _is_processing(error):
            return GatewayUnavailable(message, code, trouble=Trouble.THIS_ONE)
        case stripe.CardError() | stripe.InvalidRequestError():
            return GatewayRefused(message, code or "invalid_request")
    if status is not None and 400 <= status < 500 and status not in (408, 409, 424, 425):
        # An address that answers, but not as Stripe does: a "no" from there would be a lie.
        return GatewayMisconfigured(
            _("STRIPE_API_BASE is not Stripe's API: %(message)s") % {"message": message}, f"http_{status}"
        )
    trouble = Trouble.THIS_ONE if status is not None and status < 500 else Trouble.OUTAGE
    return GatewayUnavailable(message, code or f"http_{status}", _retry_after(error), trouble)


def _is_processing(error: stripe.StripeError) -> bool:
    """Whether a write met an intent that the customer's bank is just deciding about: ask again."""
    intent = (error.error.to_dict() if error.error else {}).get("payment_intent") or {}
    return bool(intent.get("status") == "processing")


def _retry_after(error: stripe.StripeError) -> float | None:
    return retry_after((error.headers or {}).get("retry-after", ""))


def _look(payment_reference: str) -> Seen:
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
        return Seen(intent, refunds, disputes)


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
