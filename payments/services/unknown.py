"""News of payments that are not in the books under the provider's reference, or not yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from payments.gateways.base import EventOutcome, EventType, GatewayEvent
from payments.models import Payment, ReviewItem, WebhookDelivery

MONEY = (
    EventType.RECEIPT,
    EventType.CAPTURE,
    EventType.REFUND,
    EventType.REFUND_REVERSAL,
    EventType.CHARGEBACK,
)


def keep(gateway_name: str, told: Mapping[str, Sequence[GatewayEvent]]) -> None:
    """Keep `told`, the events by payment reference. The caller is in a transaction.

    A payment that is being opened learns its reference from the answer to a call that is still under way: its
    events wait for it as webhooks do. Of any other, money is for a person. What has become known while we
    waited for a lock is left to the caller.
    """
    opening = set(
        # Locked, so that `absorb` looks for waiting events after they are written.
        Payment.objects.select_for_update()
        .filter(
            gateway=gateway_name,
            reference="",
            closed_at=None,
            merchant_reference__in={event.merchant_reference for events in told.values() for event in events},
        )
        .order_by("pk")
        .values_list("merchant_reference", flat=True)
    )
    known = set(
        Payment.objects.filter(gateway=gateway_name, reference__in=list(told)).values_list(
            "reference", flat=True
        )
    )
    waiting, items = [], []
    for reference, events in told.items():
        if reference in known:
            continue
        if events[0].merchant_reference in opening:
            waiting.append(_waiting(gateway_name, reference, events))
            continue
        money = [e for e in events if e.type in MONEY and e.outcome == EventOutcome.SUCCEEDED]
        if money:
            items.append(_item(gateway_name, money[0]))
    WebhookDelivery.objects.bulk_create(waiting, ignore_conflicts=True)
    ReviewItem.objects.bulk_create(items, ignore_conflicts=True)


def _waiting(gateway_name: str, reference: str, events: Sequence[GatewayEvent]) -> WebhookDelivery:
    return WebhookDelivery(
        gateway=gateway_name,
        event_id=f"changes/{events[-1].psp_reference}"[:120],
        payment_reference=reference,
        body=b"",
        events=[event.to_json() for event in events],
        state=WebhookDelivery.State.WAITING,
        error="Found in the provider's list of changes. No payment here has this PSP reference yet.",
    )


def _item(gateway_name: str, event: GatewayEvent) -> ReviewItem:
    named = f" It names {event.merchant_reference}." if event.merchant_reference else ""
    return ReviewItem(
        key=f"unknown:{gateway_name}:{event.payment_reference}"[:200],
        reason=ReviewItem.Reason.UNKNOWN_REFERENCE,
        merchant_reference=event.merchant_reference[:40],
        amount=event.money.amount,
        currency=event.money.currency,
        detail=f"{gateway_name} tells of {event.money} ({event.type.replace('_', ' ')}) for its payment "
        f"{event.payment_reference}, which is not known here.{named}",
    )
