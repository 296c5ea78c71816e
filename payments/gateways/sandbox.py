"""The practice provider as a gateway: its HTTP interface in the words of `payments.gateways.base`.

Nothing is tried again here: whoever calls decides that, with the same idempotency key.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import quote

import httpx2
from django.conf import settings
from django.utils.translation import gettext as _

from payments.gateways.base import (
    Capabilities,
    ChangesPage,
    EventOutcome,
    EventType,
    GatewayEvent,
    GatewayMisconfigured,
    GatewayRefused,
    GatewayResult,
    GatewayUnavailable,
    ListedPayment,
    ListPage,
    RemotePayment,
    RemoteStatus,
    Trouble,
    WebhookRejected,
    retry_after,
)
from payments.sandbox.signing import BadSecret, is_signed
from shop.kernel.money import Money

WEBHOOK_TOLERANCE_S = 5 * 60
# Events that are read again by the next run. The practice provider shows none late, but what it stands for may.
OVERLAP = 20
PAGE = 100
# Shorter than the provider keeps idle connections, so a call never meets one that is just being closed.
KEEP_IDLE_S = 30


@cache
def _client() -> httpx2.Client:
    return httpx2.Client(
        timeout=httpx2.Timeout(10, connect=3),
        limits=httpx2.Limits(max_connections=100, max_keepalive_connections=50, keepalive_expiry=KEEP_IDLE_S),
        # A proxy for the internet must not come between two processes of one machine.
        trust_env=False,
    )


def call(
    method: str,
    path: str,
    *,
    body: Mapping[str, Any] | None = None,
    params: Mapping[str, str | int | list[str]] | None = None,
    idempotency_key: str = "",
) -> dict[str, Any]:
    """One call of the practice provider's HTTP interface, and its JSON answer.

    Raises `GatewayUnavailable` where the outcome is unknown, `GatewayRefused` with the provider's code and
    sentence, `GatewayMisconfigured` for our address or key.
    """
    url, api_key = _setting("SANDBOX_URL"), _setting("SANDBOX_API_KEY")
    headers = {"Authorization": f"Bearer {api_key}"}
    if idempotency_key:
        headers["Idempotency-Key"] = idempotency_key
    try:
        response = _client().request(
            method, url.rstrip("/") + path, json=body, params=params, headers=headers
        )
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise GatewayMisconfigured(
            _("SANDBOX_URL is not an http address: %(url)s") % {"url": url}, "bad_address"
        ) from error
    except httpx2.TimeoutException as error:
        raise GatewayUnavailable(_("The practice provider did not answer in time."), "timeout") from error
    except httpx2.HTTPError as error:
        raise GatewayUnavailable(
            _("The connection to the practice provider failed: %(error)s") % {"error": error},
            "connection_failed",
        ) from error
    return _understood(response)


def _setting(name: str) -> str:
    value = getattr(settings, name, "")
    if not value:
        raise GatewayMisconfigured(
            _("Set %(name)s to use the practice provider.") % {"name": name}, "not_set_up"
        )
    return str(value)


def _understood(response: httpx2.Response) -> dict[str, Any]:
    status = response.status_code
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.is_success:
        if isinstance(answer, dict):
            return answer
        raise GatewayUnavailable(_("The practice provider's answer was not understood."), "not_understood")
    if not isinstance(answer, dict) or "code" not in answer:
        answer = {}
    code = str(answer.get("code", f"http_{status}"))
    message = str(
        answer.get("message", _("The practice provider answered with HTTP %(status)s.") % {"status": status})
    )
    if status >= 500 or status in (408, 425, 429) or code == "in_progress":
        after = retry_after(response.headers.get("retry-after", ""))
        raise GatewayUnavailable(message, code, after, _trouble(status))
    if status in (401, 403):
        raise GatewayMisconfigured(message, code)
    # An address that answers, but not as the provider does: a "no" from there would be a lie.
    if not answer or code == "no_such_endpoint":
        raise GatewayMisconfigured(
            _("SANDBOX_URL is not the practice provider: %(message)s") % {"message": message}, code
        )
    raise GatewayRefused(message, code)


def _trouble(status: int) -> Trouble:
    if status == 429:
        return Trouble.TOO_MANY
    return Trouble.OUTAGE if status >= 500 else Trouble.THIS_ONE


class SandboxGateway:
    """The practice provider, at `settings.SANDBOX_URL`."""

    name = "sandbox"
    capabilities = Capabilities(
        remote=True,
        change_feed=True,
        partial_capture=True,
        partial_refund=True,
        batch_status=True,
        lists_payments=True,
        renewal=True,
    )

    def authorize(self, merchant_reference: str, money: Money, idempotency_key: str) -> GatewayResult:
        body = {"merchant_reference": merchant_reference} | _money(money)
        return _result(call("POST", "/payments", body=body, idempotency_key=idempotency_key))

    def capture(self, payment_reference: str, money: Money, idempotency_key: str) -> GatewayResult:
        return self._act(payment_reference, "capture", _money(money), idempotency_key)

    def void(self, payment_reference: str, idempotency_key: str) -> GatewayResult:
        return self._act(payment_reference, "void", {}, idempotency_key)

    def renew(self, payment_reference: str, idempotency_key: str) -> GatewayResult:
        return self._act(payment_reference, "renew", {}, idempotency_key)

    def refund(self, payment_reference: str, money: Money, idempotency_key: str) -> GatewayResult:
        return self._act(payment_reference, "refund", _money(money), idempotency_key)

    def status(self, payment_reference: str) -> RemotePayment:
        return _payment(call("GET", _path(payment_reference)))

    def statuses(self, payment_references: Sequence[str]) -> Mapping[str, RemotePayment | None]:
        if not payment_references:
            return {}
        answer = call("GET", "/payments", params={"psp_reference": list(payment_references)})
        try:
            payments = [_payment(payment) for payment in answer["payments"]]
        except (KeyError, TypeError) as error:
            raise _not_understood(error) from error
        return dict.fromkeys(payment_references) | {
            payment.payment_reference: payment for payment in payments
        }

    def find(self, idempotency_key: str) -> RemotePayment | None:
        try:
            return _payment(call("GET", "/payments", params={"idempotency_key": idempotency_key}))
        except GatewayRefused as refusal:
            if refusal.code == "not_found":
                return None
            raise

    def changes(self, cursor: str, limit: int = 500, *, overlap: bool = False) -> ChangesPage:
        """A cursor is the number of the last event that was read; one of another store begins anew."""
        after = str(max(int(cursor) - OVERLAP, 0)) if overlap and cursor else cursor
        try:
            page = call("GET", "/changes", params={"cursor": after, "limit": limit})
        except GatewayRefused as refusal:
            if refusal.code != "invalid_cursor" or not cursor:
                raise
            return self.changes("", limit)
        try:
            events = tuple(_event(event) for event in page["events"])
            return ChangesPage(events, cursor=str(page["cursor"]), more=bool(page["more"]))
        except (KeyError, TypeError, ValueError) as error:
            raise _not_understood(error) from error

    def payments(self, opened_from: datetime, opened_until: datetime, cursor: str = "") -> ListPage:
        window = {"opened_from": opened_from.isoformat(), "opened_until": opened_until.isoformat()}
        page = call("GET", "/payments", params=window | {"after": cursor or "0", "limit": PAGE})
        try:
            listed = tuple(_listed(payment) for payment in page["payments"])
            return ListPage(listed, str(page["cursor"]) if page["more"] else "")
        except (KeyError, TypeError) as error:
            raise _not_understood(error) from error

    def parse_webhook(
        self, headers: Mapping[str, str], body: bytes, received_at: datetime | None = None
    ) -> tuple[GatewayEvent, ...]:
        given = {name.lower(): value for name, value in headers.items()}
        message_id = given.get("webhook-id", "")
        timestamp = given.get("webhook-timestamp", "")
        if not message_id or not timestamp or "webhook-signature" not in given:
            raise WebhookRejected(_("The webhook is not signed."), "not_signed")
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 16):
            raise WebhookRejected(_("The webhook's timestamp is not a number of seconds."), "bad_timestamp")
        try:
            signed = is_signed(
                settings.SANDBOX_WEBHOOK_SECRETS, message_id, int(timestamp), body, given["webhook-signature"]
            )
        except BadSecret as error:
            raise GatewayMisconfigured(f"SANDBOX_WEBHOOK_SECRETS: {error}", "bad_secret") from error
        if not signed:
            raise WebhookRejected(_("The webhook's signature is wrong."), "bad_signature")
        came = received_at.timestamp() if received_at else time.time()
        if abs(came - int(timestamp)) > WEBHOOK_TOLERANCE_S:
            raise WebhookRejected(_("The webhook is older than five minutes, or from the future."), "stale")
        try:
            message = json.loads(body)
            if message["type"] != "payment.event":
                raise ValueError(f"type {message['type']!r}")
            return (_event(message["data"], raw_id=message_id),)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise WebhookRejected(
                _("The webhook was not understood: %(error)s") % {"error": error}, "not_understood"
            ) from error

    def _act(
        self, payment_reference: str, verb: str, body: dict[str, Any], idempotency_key: str
    ) -> GatewayResult:
        path = f"{_path(payment_reference)}/{verb}"
        return _result(call("POST", path, body=body, idempotency_key=idempotency_key))


def _path(payment_reference: str) -> str:
    return f"/payments/{quote(payment_reference, safe='')}"


def _money(money: Money) -> dict[str, Any]:
    return {"amount": money.amount, "currency": money.currency}


def _result(answer: dict[str, Any]) -> GatewayResult:
    payment = _payment(answer)
    if not isinstance(answer.get("reference"), str):
        raise _not_understood(KeyError("reference"))
    return GatewayResult(answer["reference"], payment)


def _payment(answer: dict[str, Any]) -> RemotePayment:
    try:
        return RemotePayment(
            payment_reference=answer["psp_reference"],
            merchant_reference=answer["merchant_reference"],
            currency=answer["currency"],
            status=RemoteStatus(answer["status"]),
            authorized=answer["authorized"],
            received=answer["received"],
            captured=answer["captured"],
            refunded=answer["refunded"],
            voided=answer["voided"],
            authorized_until=datetime.fromisoformat(answer["authorized_until"]),
            events=tuple(_event(event) for event in answer["events"]),
            instructions=_instructions(answer),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _not_understood(error) from error


def _listed(line: Mapping[str, Any]) -> ListedPayment:
    return ListedPayment(
        payment_reference=line["psp_reference"],
        merchant_reference=line["merchant_reference"],
        currency=line["currency"],
        received=line["received"],
        captured=line["captured"],
        refunded=line["refunded"],
        voided=line["voided"],
    )


def _instructions(answer: Mapping[str, Any]) -> dict[str, str]:
    """The page on which the customer pays, while there is something to pay."""
    if answer["status"] != RemoteStatus.AUTHORIZED:
        return {}
    return {"pay_url": f"{settings.SANDBOX_URL}/customer/{answer['psp_reference']}"}


def _event(event: Mapping[str, Any], raw_id: str = "") -> GatewayEvent:
    return GatewayEvent(
        type=EventType(event["type"]),
        outcome=EventOutcome(event["outcome"]),
        psp_reference=event["psp_reference"],
        payment_reference=event["payment_reference"],
        merchant_reference=event["merchant_reference"],
        money=Money(event["amount"], event["currency"]),
        occurred_at=datetime.fromisoformat(event["occurred_at"]),
        raw_id=raw_id,
        detail=event["detail"],
        authorized_until=_moment(event.get("authorized_until")),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _not_understood(error: Exception) -> GatewayUnavailable:
    return GatewayUnavailable(
        _("The practice provider's answer was not understood: %(error)s") % {"error": repr(error)},
        "not_understood",
    )
