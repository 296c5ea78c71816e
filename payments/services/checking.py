"""Asking gateways what has become of payments, many at a time.

A gateway with a change feed is asked what has changed since the stored cursor, so that waiting orders cost
nothing. Another is asked for the orders that wait, as many in one call as it takes. A gateway that is not remote
is not asked at all: the news of `bank_transfer` are bank statements, and importing one writes the receipts and
the messages to the sagas in one transaction.

Nobody is asked inside a transaction. What an answer says is written in one, with the messages to the sagas and
the place from which to go on; so a check that is killed, doubled or late loses and repeats nothing.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from django.db import transaction
from django.utils import timezone
from prometheus_client import Counter as Metric

from payments.gateways import gateway
from payments.gateways.base import Gateway, GatewayError, GatewayEvent, RemotePayment
from payments.ledger import Totals
from payments.models import ChangeCursor, Payment, PaymentEvent
from payments.services import strays, unfit
from payments.services.recording import absorb_many, record, record_many, totals_of
from payments.workflows.types import MOST_ORDERS, PageChecked, PaymentState, PendingOrders, Tally

log = logging.getLogger(__name__)

TIMEOUT = "timeout"

CHECKED = Metric("vorkasse_payments_checked_total", "Payments that checks had news of.", ["gateway", "found"])


class TooManyOrders(ValueError):
    """More orders than one call may check."""


class FeedStands(Exception):
    """A provider says that there is more, and gives the same page for ever. What it gave is in the books."""


# --- by change feed --------------------------------------------------------------------------------------


def check_changes_page(gateway_name: str, *, overlap: bool = False) -> PageChecked:
    """Read the next page of the gateway's changes, and write what it says and how far it went.

    If another run has moved the cursor meanwhile, the page is dropped: that run wrote the same.
    `overlap`, for the first page of a run, is that of `Gateway.changes`. Raises `GatewayError`, `FeedStands`.
    """
    provider = gateway(gateway_name)
    before = ChangeCursor.objects.get_or_create(gateway=gateway_name)[0].cursor
    page = provider.changes(before, overlap=overlap)
    with transaction.atomic():
        cursor = ChangeCursor.objects.select_for_update().get(gateway=gateway_name)
        if cursor.cursor != before:
            return PageChecked(Tally(provider_calls=1), more=True)
        checked = _take(gateway_name, page.events)
        cursor.cursor = page.cursor
        cursor.save()
    _count(gateway_name, checked)
    if page.more and page.cursor == before and not overlap:
        raise FeedStands(
            f"{gateway_name} says that there are more changes but gives the same ones again and again."
        )
    return PageChecked(_tally(checked, calls=1), page.more)


def _take(gateway_name: str, events: Sequence[GatewayEvent]) -> Counter[str]:
    def keep(event: GatewayEvent, why: str) -> None:
        unfit.keep(gateway_name, event, why)

    for event in events:
        if event.flaw:
            keep(event, f"it {event.flaw}")
    news = [event for event in events if not event.flaw]
    new = unfit.write_all_but(keep, lambda some: _write(gateway_name, some), news)
    return _found({row.payment_id: row.payment for row in new}.values())


def _write(gateway_name: str, events: Sequence[GatewayEvent]) -> list[PaymentEvent]:
    """What was new."""
    told: dict[str, list[GatewayEvent]] = defaultdict(list)
    for event in events:
        told[event.payment_reference].append(event)
    known = _known(gateway_name, told)
    strange = {reference: told[reference] for reference in told.keys() - known.keys()}
    if strange:
        strays.keep(gateway_name, strange)
        # One of them may have learnt its reference while we waited for its lock.
        known = _known(gateway_name, told)
    return record_many([(payment, told[reference]) for reference, payment in known.items()], "check")


def _known(gateway_name: str, references: Iterable[str]) -> dict[str, Payment]:
    found = Payment.objects.filter(gateway=gateway_name, reference__in=list(references))
    return {payment.reference: payment for payment in found}


# --- by asking for those that wait -----------------------------------------------------------------------


def pending_orders(gateway_name: str, after: int = 0, limit: int = MOST_ORDERS) -> PendingOrders:
    """The numbers of orders that wait for money at this gateway, oldest first, after the key `after`."""
    page = _waiting(gateway_name, after, limit)
    more = len(page) == limit
    return PendingOrders([payment.merchant_reference for payment in page], page[-1].pk if more else 0)


def check_pending_page(gateway_name: str, after: int = 0) -> PageChecked:
    """Ask for the next `MOST_ORDERS` orders that wait, and write what the gateway says. Raises `GatewayError`.

    It may stop short, where the gateway gives no more answers; the next page begins there.
    """
    provider = gateway(gateway_name)
    waiting = _waiting(gateway_name, after, MOST_ORDERS)
    if not waiting:
        return PageChecked(Tally(), more=False)
    answers = _statuses(provider, waiting)
    asked = [payment for payment in waiting if payment.reference in answers]
    absorbed = _absorb(asked, answers)
    checked = _found(absorbed.get(payment.pk, payment) for payment in asked)
    _count(gateway_name, checked)
    more = len(waiting) == MOST_ORDERS or len(asked) < len(waiting)
    return PageChecked(_tally(checked, _calls(provider, len(asked))), more, asked[-1].pk)


def _waiting(gateway_name: str, after: int, limit: int) -> list[Payment]:
    waiting = Payment.objects.filter(gateway=gateway_name, closed_at=None, pk__gt=after).exclude(reference="")
    return list(waiting.order_by("pk")[:limit])


def check_orders(order_numbers: Sequence[str]) -> dict[str, PaymentState]:
    """Ask for the payments of these orders, write what the gateways say, and answer for each order.

    Where there is nothing to ask for, or no answer, the books tell: an order without a payment is pending. A
    payment that was declined, released, or not paid while its authorization lasted has failed. Raises
    `TooManyOrders` above `MOST_ORDERS`, and `GatewayError` when a gateway gave no answer at all.
    """
    if len(order_numbers) > MOST_ORDERS:
        raise TooManyOrders(
            f"At most {MOST_ORDERS} orders can be checked at once; {len(order_numbers)} were given."
        )
    latest = Payment.objects.filter(merchant_reference__in=order_numbers)
    payments = list(latest.order_by("merchant_reference", "-pk").distinct("merchant_reference"))
    to_ask: dict[str, list[Payment]] = defaultdict(list)
    for payment in payments:
        if payment.is_open and payment.reference:
            to_ask[payment.gateway].append(payment)
    absorbed: dict[int, Payment] = {}
    errors = []
    for name, asked in to_ask.items():
        try:
            provider = gateway(name)
            if provider.capabilities.remote:
                absorbed |= _absorb(asked, _statuses(provider, asked))
        except GatewayError as error:  # the others' answers count all the same
            errors.append(error)
    if errors:
        raise errors[0]
    payments = [absorbed.get(payment.pk, payment) for payment in payments]
    totals = totals_of(payments)
    answer = dict.fromkeys(order_numbers, PaymentState.PENDING)
    for payment in payments:
        found = _state(payment, totals[payment.pk])
        answer[payment.merchant_reference] = PaymentState.FAILED if found == TIMEOUT else PaymentState(found)
    return answer


def _statuses(provider: Gateway, payments: Sequence[Payment]) -> Mapping[str, RemotePayment | None]:
    answers = provider.statuses([payment.reference for payment in payments])
    unknown_there = [reference for reference, remote in answers.items() if remote is None]
    if unknown_there:
        log.warning(
            "%s gave no answer for %d payments, such as %s.",
            provider.name,
            len(unknown_there),
            unknown_there[0],
        )
    return answers


def _calls(provider: Gateway, payments: int) -> int:
    """How many calls it takes to ask for that many payments."""
    return 1 if provider.capabilities.batch_status else payments


def _absorb(asked: Sequence[Payment], answers: Mapping[str, RemotePayment | None]) -> dict[int, Payment]:
    seen = [(payment, remote) for payment in asked if (remote := answers.get(payment.reference))]
    with transaction.atomic():
        absorbed = unfit.write_all_but(_absorb_in_parts, lambda some: absorb_many(some, "check"), seen)
    return {payment.pk: payment for payment in absorbed}


def _absorb_in_parts(view: tuple[Payment, RemotePayment], _why: str) -> None:
    """One of its events cannot be written; the others count all the same."""
    payment, remote = view
    unfit.write_all_but(
        lambda event, why: unfit.keep(payment.gateway, event, why),
        lambda some: record(payment, some, "check"),
        remote.events,
    )


# --- what was found --------------------------------------------------------------------------------------


def _found(payments: Iterable[Payment]) -> Counter[str]:
    payments = list(payments)
    totals = totals_of(payments)
    return Counter(_state(payment, totals[payment.pk]) for payment in payments)


def _state(payment: Payment, totals: Totals) -> str:
    if totals.captured or (payment.missing(totals) <= 0 and not totals.voided):
        return PaymentState.PAID
    if totals.declined:
        return PaymentState.FAILED
    if payment.authorized_until is not None and payment.authorized_until <= timezone.now():
        return TIMEOUT
    return PaymentState.FAILED if totals.voided else PaymentState.PENDING


def _tally(found: Counter[str], calls: int) -> Tally:
    return Tally(
        total_checked=found.total(),
        paid=found[PaymentState.PAID],
        pending=found[PaymentState.PENDING],
        failed=found[PaymentState.FAILED],
        timeout=found[TIMEOUT],
        provider_calls=calls,
    )


def _count(gateway_name: str, found: Counter[str]) -> None:
    for state, number in found.items():
        CHECKED.labels(gateway_name, state).inc(number)
