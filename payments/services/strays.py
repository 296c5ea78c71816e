"""News of payments that nobody here has opened. Money in them is a person's matter, never guessed, never dropped.

A payment is opened here before its provider is asked, so news may be early only while a payment of the same
merchant reference waits for its PSP reference. That wait ends with the provider's answer, or with the
payment's end; whoever brings it about calls `look_again`. News left over are a review item, one for each
unknown payment, which closes itself when the payment becomes known after all.

Locks are taken in this order: payments, webhooks, review items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from django.db.models import Exists, OuterRef, QuerySet, Value
from django.db.models.functions import Concat

from payments import ledger
from payments.gateways.base import EventOutcome, EventType, GatewayEvent
from payments.models import Payment, PaymentEvent, ReviewItem, WebhookDelivery
from payments.services.review_items import close_all
from shop.kernel.money import Money

State = WebhookDelivery.State

MONEY = (
    EventType.RECEIPT, EventType.CAPTURE, EventType.REFUND, EventType.REFUND_REVERSAL, EventType.CHARGEBACK,
)  # fmt: skip


def are_about_money(news: Iterable[GatewayEvent]) -> bool:
    """Whether money has moved, or is held, for certain."""
    return any(event.type in MONEY and event.outcome == EventOutcome.SUCCEEDED for event in news)


def unanswered(gateway: str, merchant_reference: str) -> QuerySet[Payment]:
    """The payments of a merchant reference whose PSP reference is not known, oldest first."""
    return Payment.objects.filter(
        gateway=gateway, merchant_reference=merchant_reference, reference=""
    ).order_by("pk")


def review(gateway: str, payment_reference: str) -> None:
    """Have a person decide about all waiting news of an unknown payment; once more if there are more of them."""
    news = waiting_for(gateway, payment_reference).order_by("id")
    webhook = news.first()
    if webhook is None:
        return
    key = _key(gateway, payment_reference)
    unknown = {"reason": ReviewItem.Reason.UNKNOWN_REFERENCE, "webhook": webhook, "detail": ""}
    ReviewItem.objects.get_or_create(key=key, defaults=unknown)
    # From here on one at a time, so the last to come has seen what all the others have written.
    item = ReviewItem.objects.select_for_update().get(key=key)
    events = {(event.type, event.psp_reference): event for delivery in news.all() for event in delivery.news}
    first = next(iter(events.values()), webhook.news[0])
    moved = _moved(event for event in events.values() if event.money.currency == first.money.currency)
    told = ", ".join(f"{verb} {Money(amount, first.money.currency)}" for verb, amount in moved.items())
    order = f" for {first.merchant_reference}" if first.merchant_reference else ""
    detail = (
        f"{gateway} tells of payment {payment_reference}{order}, which was not opened here: "
        f"{told or 'no money has moved'}."
    )
    if item.detail == detail:
        if (
            item.state == ReviewItem.State.CLOSED
        ):  # a person has decided about the same, told by other messages
            news.update(state=State.DISCARDED, error=item.resolution)
        return
    item.detail, item.merchant_reference = detail, first.merchant_reference[:40]
    item.amount = next(iter(moved.values()), None)
    item.currency = first.money.currency if moved else ""
    item.state = ReviewItem.State.OPEN
    item.save(update_fields=["detail", "merchant_reference", "amount", "currency", "state"])


def keep(gateway: str, told: Mapping[str, Sequence[GatewayEvent]]) -> None:
    """Keep news from the provider's list of changes, by the unknown payment's reference, as webhooks are kept.

    The caller is in a transaction. What has become known while we waited for a lock is left to the caller.
    """
    named = {event.merchant_reference for events in told.values() for event in events}
    # Locked, so that `absorb` looks for waiting news after they are written.
    opening = set(
        Payment.objects.select_for_update()
        .filter(gateway=gateway, reference="", closed_at=None, merchant_reference__in=named)
        .order_by("pk")
        .values_list("merchant_reference", flat=True)
    )
    known = Payment.objects.filter(gateway=gateway, reference__in=list(told))
    for_us = {
        reference: events
        for reference, events in told.items()
        if events[0].merchant_reference in opening or are_about_money(events)
    }
    for reference in known.values_list("reference", flat=True):
        for_us.pop(reference, None)
    WebhookDelivery.objects.bulk_create(
        [_waiting(gateway, reference, events) for reference, events in for_us.items()], ignore_conflicts=True
    )
    for reference, events in for_us.items():
        if events[0].merchant_reference not in opening:
            review(gateway, reference)


def _waiting(gateway: str, reference: str, events: Sequence[GatewayEvent]) -> WebhookDelivery:
    return WebhookDelivery(
        gateway=gateway,
        event_id=f"changes/{events[-1].psp_reference}"[:120],
        payment_reference=reference,
        body=b"",
        events=[event.to_json() for event in events],
        state=State.WAITING,
        error="Found in the provider's list of changes. No payment here has this PSP reference yet.",
    )


def look_again(gateway: str, merchant_reference: str) -> None:
    """A payment of this merchant reference has been answered or has ended: what still waits may wait in vain."""
    waiting = WebhookDelivery.objects.filter(
        gateway=gateway, state=State.WAITING, events__0__merchant_reference=merchant_reference
    ).defer("body", "headers")
    found = {delivery.payment_reference for delivery in waiting if are_about_money(delivery.news)}
    if found and not unanswered(gateway, merchant_reference).filter(closed_at=None).exists():
        for payment_reference in sorted(found):
            review(gateway, payment_reference)


def is_known(payment: Payment) -> None:
    """The payment's reference is in our books now, and so are the news that have waited for it."""
    close_all(
        ReviewItem.objects.filter(key=_key(payment.gateway, payment.reference)),
        f"Its payment is known now, of {payment.merchant_reference}: the money is in its books.",
        payment=payment,
    )


def item_about(delivery: WebhookDelivery) -> ReviewItem | None:
    """The review item about the payment that a webhook told of, if there ever was one."""
    return ReviewItem.objects.filter(key=_key(delivery.gateway, delivery.payment_reference)).first()


def is_in_review(gateway: str, payment_reference: str) -> bool:
    """Whether people have the unknown payment before them."""
    key = _key(gateway, payment_reference)
    return ReviewItem.objects.filter(key=key, state=ReviewItem.State.OPEN).exists()


def unseen() -> QuerySet[WebhookDelivery]:
    """Waiting news that no open review item is about."""
    key = Concat(Value("webhook:"), OuterRef("gateway"), Value(":"), OuterRef("payment_reference"))
    items = ReviewItem.objects.filter(state=ReviewItem.State.OPEN).filter(key=key)
    return WebhookDelivery.objects.filter(~Exists(items), state=State.WAITING).defer("body", "headers")


def _key(gateway: str, payment_reference: str) -> str:
    return f"webhook:{gateway}:{payment_reference}"


def waiting_for(gateway: str, payment_reference: str) -> QuerySet[WebhookDelivery]:
    """The news of an unknown payment that nobody has decided about."""
    return WebhookDelivery.objects.filter(
        gateway=gateway, payment_reference=payment_reference, state=State.WAITING
    ).defer("body", "headers")


def _moved(events: Iterable[GatewayEvent]) -> dict[str, int]:
    """What the news add up to, in words and minor units; the amount that matters most is the first."""
    totals = ledger.totals(
        PaymentEvent(type=event.type, outcome=event.outcome, amount=event.money.amount) for event in events
    )
    moved = {
        "received": totals.received,
        "captured": totals.captured,
        "refunded": max(0, totals.refunded),
        "got back of refunds": max(0, -totals.refunded),
        "authorized": totals.authorized,
    }
    return {verb: amount for verb, amount in moved.items() if amount}
