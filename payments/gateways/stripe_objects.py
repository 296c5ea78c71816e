"""What Stripe's objects say, in the words of `payments.gateways.base`.

All news, whichever way it came, goes through the same functions, so the same news has the same reference: an
intent's id for its authorization and void, a charge's for its receipt and capture, a refund's for the refund
and its reversal, a dispute's for the chargeback and its reversal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils.translation import gettext as _

from payments.gateways.base import (
    EventOutcome,
    EventType,
    GatewayEvent,
    GatewayRefused,
    ListedPayment,
    RemotePayment,
    RemoteStatus,
)
from shop.kernel.money import Money, decimals

# Without `capture_before` on the charge: https://docs.stripe.com/payments/place-a-hold-on-a-payment-method
CARD_HOLD = timedelta(days=7)

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


@dataclass(frozen=True, slots=True)
class Seen:
    """An intent (its charge expanded) with what may have followed it."""

    intent: Json
    refunds: list[Json]
    disputes: list[Json]


def payment_of(seen: Seen) -> RemotePayment:
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
        merchant_reference=metadata(intent).get("merchant_reference", ""),
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


def is_ours(intent: Json) -> bool:
    """Whether an intent is of an order, and not of another use of the account."""
    return bool(metadata(intent).get("merchant_reference"))


def listed(intent: Json) -> ListedPayment:
    """An intent of a list, its charge expanded.

    What was refunded stands on the charge, with what was released uncaptured; disputes stand elsewhere.
    """
    charge = intent["latest_charge"] or {}
    currency = intent["currency"]
    captured = intent["amount_received"]
    held = charge.get("status") == "succeeded"
    released = charge["amount"] - charge["amount_captured"] if captured else 0
    return ListedPayment(
        payment_reference=intent["id"],
        merchant_reference=metadata(intent).get("merchant_reference", ""),
        currency=currency.upper(),
        received=_minor(charge["amount"], currency) if held else 0,
        captured=_minor(captured, currency),
        refunded=_minor(max(charge["amount_refunded"] - released, 0), currency) if captured else 0,
        voided=_minor(intent["amount"], currency) if intent["status"] == "canceled" else 0,
        unsure=bool(captured and charge["disputed"]),
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


def news_of(event: Json) -> Iterator[GatewayEvent]:
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
    if not metadata(intent).get("merchant_reference"):
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
    if not (metadata(charge).get("merchant_reference") and charge.get("payment_intent")):
        return
    told = _teller(charge, charge["payment_intent"])
    if charge["status"] == "failed":
        why = charge.get("failure_message") or ""
        yield told(
            EventType.RECEIPT, charge["id"], charge["amount"], charge["created"], why, EventOutcome.FAILED
        )
    if charge["status"] != "succeeded":
        return
    receipt = told(EventType.RECEIPT, charge["id"], charge["amount"], charge["created"])
    yield replace(receipt, authorized_until=_held_until(charge))
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
    asked = metadata(refund).get("idempotency_key") or f"{reference}/requested"
    yield told(EventType.REFUND, asked, amount, created, outcome=EventOutcome.REQUESTED)
    failed = refund["status"] in ("failed", "canceled")
    why = why_refund_failed(refund)
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


def why_refund_failed(refund: Json) -> str:
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
    reference = metadata(intent).get("merchant_reference", "")
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
            merchant_reference=metadata(thing).get("merchant_reference", ""),
            money=Money(_minor(amount, currency), currency),
            occurred_at=_moment(at),
            detail=detail,
        )

    return told


def metadata(thing: Json) -> Json:
    return thing.get("metadata") or {}


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


# --- money -----------------------------------------------------------------------------------------------


def to_stripe(money: Money) -> int:
    """The amount as Stripe writes it. Raises `GatewayRefused` for one that it cannot write."""
    amount = _rescaled(money.amount, decimals(money.currency), _stripe_decimals(money.currency))
    # Cards know no third decimal. Stripe would refuse it too, but less clearly.
    if amount is None or (money.currency in THREE_DECIMALS and amount % 10):
        raise GatewayRefused(
            _("Stripe takes %(currency)s with two decimals only, not %(money)s.")
            % {"currency": money.currency, "money": money},
            "amount_too_fine",
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


def same_currency(intent: Json, money: Money) -> None:
    if intent["currency"].upper() != money.currency:
        raise GatewayRefused(
            _("This payment is in %(currency)s, not in %(other)s.")
            % {"currency": intent["currency"].upper(), "other": money.currency},
            "currency_mismatch",
        )
