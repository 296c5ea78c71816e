"""Writing payments down. Every way in which news of money arrives ends in `record_many`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from payments import ledger
from payments.gateways.base import EventOutcome, EventType, GatewayEvent, RemotePayment
from payments.ledger import Totals
from payments.models import Payment, PaymentEvent, ReviewItem, WebhookDelivery
from payments.services import strays
from payments.services.review_items import close_all
from payments.signals import authorizations_last, payments_failed, payments_received
from shop.kernel.money import Money


def open_payment(
    gateway: str, merchant_reference: str, money: Money, idempotency_key: str, payer_name: str = ""
) -> Payment:
    """The payment with this key, made before the provider is asked, so that no answer finds it missing."""
    payment, _new = Payment.objects.get_or_create(
        idempotency_key=idempotency_key,
        defaults={
            "gateway": gateway,
            "merchant_reference": merchant_reference,
            "amount": money.amount,
            "currency": money.currency,
            "payer_name": payer_name,
        },
    )
    return payment


def absorb(payment: Payment, remote: RemotePayment, source: str) -> Payment:
    """Take over the provider's view: its reference, how long the authorization lasts, and all its events.

    Webhooks that came before their payment's reference was known are processed now.
    """
    (absorbed,) = absorb_many([(payment, remote)], source)
    return absorbed


def take_in(payment: Payment) -> list[PaymentEvent]:
    """Process the webhooks that have waited for this payment; returns what was new. The caller holds its lock."""
    waiting = WebhookDelivery.objects.select_for_update().filter(
        gateway=payment.gateway, payment_reference=payment.reference, state__in=WebhookDelivery.STRAY
    )
    deliveries = list(waiting.defer("body", "headers").order_by("id"))
    new: list[PaymentEvent] = []
    for delivery in deliveries:
        new += record(payment, delivery.news, source="webhook")
        delivery.processed()
    if deliveries:
        strays.is_known(payment)
    return new


@transaction.atomic
def absorb_many(seen: Sequence[tuple[Payment, RemotePayment]], source: str) -> list[Payment]:
    """The same for many, each once; in a constant number of queries."""
    locked = {payment.pk: payment for payment in _locking(payment for payment, _ in seen)}
    views = [(locked[payment.pk], remote) for payment, remote in seen]
    answered = [payment for payment, _ in views if not payment.reference]
    for payment, remote in views:
        payment.reference = remote.payment_reference
        payment.instructions = dict(remote.instructions)
    payments = [payment for payment, _ in views]
    Payment.objects.bulk_update(payments, ["reference", "instructions"])
    record_many([(payment, remote.events) for payment, remote in views], source)
    _last_until([(payment, remote.authorized_until) for payment, remote in views])
    waiting = WebhookDelivery.objects.filter(
        gateway__in={payment.gateway for payment in payments},
        payment_reference__in={payment.reference for payment in payments},
        state__in=WebhookDelivery.STRAY,
    )
    waited_for = set(waiting.values_list("gateway", "payment_reference"))
    for payment in payments:
        if (payment.gateway, payment.reference) in waited_for:
            take_in(payment)
    for payment in answered:
        strays.look_again(payment.gateway, payment.merchant_reference)
    return payments


def record(
    payment: Payment, events: Iterable[GatewayEvent], source: str, actor: str = ""
) -> list[PaymentEvent]:
    """Write events that are not in the books yet, and announce what they mean; returns the new ones.

    `source` is `call`, `webhook`, `check` or `staff`. Locks the payment row: callers that also lock a saga
    lock the saga first.
    """
    return record_many([(payment, events)], source, actor)


@transaction.atomic
def record_many(
    told: Iterable[tuple[Payment, Iterable[GatewayEvent]]], source: str, actor: str = ""
) -> list[PaymentEvent]:
    """The same for many payments, in a constant number of queries. Locks them in the order of their keys."""
    told = [(payment, list(events)) for payment, events in told]
    until = dict(_locking(payment for payment, _ in told).values_list("pk", "authorized_until"))
    for payment, _events in told:
        payment.authorized_until = until[payment.pk]
    rows: dict[tuple[str, str, str], PaymentEvent] = {}
    wrong_currency = []
    for payment, events in told:
        for event in events:
            if event.money.currency == payment.currency:
                row = _row(payment, event, source, actor)
                rows.setdefault((row.gateway, row.psp_reference, row.type), row)
            else:
                wrong_currency.append(_wrong_currency(payment, event))
    known = set(
        PaymentEvent.objects.filter(
            gateway__in={gateway for gateway, _, _ in rows},
            psp_reference__in={reference for _, reference, _ in rows},
        ).values_list("gateway", "psp_reference", "type")
    )
    new = PaymentEvent.objects.bulk_create(row for key, row in rows.items() if key not in known)
    ReviewItem.objects.bulk_create(wrong_currency, ignore_conflicts=True)
    # Also from events that are in the books already: they may have come without it at first.
    _last_until([(payment, event.authorized_until) for payment, events in told for event in events])
    _announce(new)
    return new


def _last_until(told: Iterable[tuple[Payment, datetime | None]]) -> None:
    """The only place where `authorized_until` changes. The caller holds the payments' locks.

    News comes twice, late and in any order; an authorization is renewed and never shortened, so the latest
    moment heard of is the one that holds.
    """
    changed = {}
    for payment, until in told:
        if until and (payment.authorized_until is None or until > payment.authorized_until):
            payment.authorized_until = until
            changed[payment.pk] = payment
    if changed:
        Payment.objects.bulk_update(changed.values(), ["authorized_until"])
        authorizations_last.send(Payment, payments=list(changed.values()))


def _locking(payments: Iterable[Payment]) -> QuerySet[Payment]:
    """As they are when it is read, and locked from then on. Everyone who locks several does so in this order."""
    keys = {payment.pk for payment in payments}
    return Payment.objects.select_for_update().filter(pk__in=keys).order_by("pk")


def _announce(new: Sequence[PaymentEvent]) -> None:
    money: dict[int, int] = defaultdict(int)
    failed: dict[int, tuple[Payment, str]] = {}
    payments = {row.payment_id: row.payment for row in new}
    for row in new:
        match row.type, row.outcome:
            case EventType.RECEIPT, EventOutcome.SUCCEEDED:
                money[row.payment_id] += row.amount
            case EventType.AUTHORIZATION, EventOutcome.FAILED:
                failed[row.payment_id] = (row.payment, row.detail or _("The payment was declined."))
            case EventType.VOID, EventOutcome.SUCCEEDED if row.source != "call":  # not our own doing
                failed[row.payment_id] = (
                    row.payment,
                    row.detail or _("The provider released the authorization."),
                )
    if money:
        totals = totals_of(payments[pk] for pk in money)
        received = [(payments[pk], totals[pk]) for pk in money]
        close_what_is_complete(received)
        payments_received.send(Payment, received=received, new=money)
    if failed:
        payments_failed.send(Payment, failed=list(failed.values()))


def totals_of(payments: Iterable[Payment]) -> dict[int, Totals]:
    """The totals of many payments, by their keys, in one query."""
    events: dict[int, list[PaymentEvent]] = {payment.pk: [] for payment in payments}
    for event in PaymentEvent.objects.filter(payment__in=events).only(
        "payment_id", "type", "outcome", "amount"
    ):
        events[event.payment_id].append(event)
    return {pk: ledger.totals(found) for pk, found in events.items()}


def close_what_is_complete(received: Iterable[tuple[Payment, Totals]]) -> None:
    """Take “too little” off the review list where the rest has come. The caller holds the payments' locks."""
    complete = [payment.pk for payment, totals in received if payment.missing(totals) <= 0]
    if complete:
        too_little = ReviewItem.objects.filter(payment__in=complete, reason=ReviewItem.Reason.TOO_LITTLE)
        close_all(too_little, _("The rest has come."))


def _row(payment: Payment, event: GatewayEvent, source: str, actor: str) -> PaymentEvent:
    return PaymentEvent(
        payment=payment,
        gateway=payment.gateway,
        psp_reference=event.psp_reference,
        type=event.type.value,
        outcome=event.outcome.value,
        amount=event.money.amount,
        currency=event.money.currency,
        occurred_at=event.occurred_at,
        source=source,
        raw_id=event.raw_id,
        actor=actor,
        detail=event.detail,
    )


def _wrong_currency(payment: Payment, event: GatewayEvent) -> ReviewItem:
    return ReviewItem(
        key=f"{payment.gateway}:{event.type}:{event.psp_reference}",
        reason=ReviewItem.Reason.WRONG_CURRENCY,
        merchant_reference=payment.merchant_reference,
        payment=payment,
        amount=event.money.amount,
        currency=event.money.currency,
        detail=_("%(money)s came for a payment in %(currency)s; it is not counted.")
        % {"money": event.money, "currency": payment.currency},
    )


@transaction.atomic
def intend_refund(
    payment: Payment, amount: int, idempotency_key: str, *, actor: str = "", reason: str = ""
) -> int:
    """Write down that `amount` (minor units) is going to be refunded under this key, before it is asked for.

    Returns the amount of the first intention under the key, whatever is passed later; 0 if there is nothing
    to refund.
    """
    payment = Payment.objects.select_for_update().get(pk=payment.pk)
    requested = {
        "gateway": payment.gateway,
        "psp_reference": idempotency_key,
        "type": EventType.REFUND.value,
        "outcome": EventOutcome.REQUESTED.value,
    }
    earlier = PaymentEvent.objects.filter(**requested).first()
    if earlier is not None:
        return earlier.amount
    if amount <= 0:
        return 0
    PaymentEvent.objects.create(
        **requested,
        payment=payment,
        amount=amount,
        currency=payment.currency,
        occurred_at=timezone.now(),
        source="call",
        actor=actor,
        detail=reason,
    )
    return amount
