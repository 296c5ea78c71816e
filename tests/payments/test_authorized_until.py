"""How long an authorization lasts: one rule for all news of it, whichever way and in whatever order it comes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from payments.gateways.base import EventOutcome, EventType, GatewayEvent, RemotePayment, RemoteStatus
from payments.models import Payment
from payments.services.recording import absorb, open_payment, record
from payments.signals import authorizations_last, payments_failed
from shop.kernel.money import Money

pytestmark = pytest.mark.django_db

TEN = Money(1000, "EUR")
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def day(n: int) -> datetime:
    return NOW + timedelta(days=n)


def event(until: datetime | None, reference: str, type_: EventType = EventType.RECEIPT) -> GatewayEvent:
    return GatewayEvent(
        type=type_,
        outcome=EventOutcome.SUCCEEDED,
        psp_reference=reference,
        payment_reference="pay_1",
        merchant_reference="ORD-1",
        money=TEN,
        occurred_at=NOW,
        authorized_until=until,
    )


def snapshot(until: datetime | None) -> RemotePayment:
    return RemotePayment(
        "pay_1", "ORD-1", "EUR", RemoteStatus.AUTHORIZED, 1000, 0, 0, 0, 0, authorized_until=until, events=()
    )


@pytest.fixture
def payment() -> Payment:
    return open_payment("sandbox", "ORD-1", TEN, "ORD-1/1/payment_hold")


@pytest.fixture
def heard() -> Iterator[list[Any]]:
    """What was announced, in order."""
    moments: list[Any] = []

    def hear(payments: Sequence[Payment], **_: Any) -> None:
        moments.extend(payment.authorized_until for payment in payments)

    authorizations_last.connect(hear)
    yield moments
    authorizations_last.disconnect(hear)


def until(payment: Payment) -> datetime | None:
    return Payment.objects.get(pk=payment.pk).authorized_until


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_news_in_any_order_gives_the_latest_moment(payment: Payment, order: tuple[int, ...]) -> None:
    news: list[Callable[[], object]] = [
        lambda: record(payment, [event(day(7), "r1")], "webhook"),
        lambda: record(payment, [event(day(14), "a1", EventType.AUTHORIZATION_ADJUSTMENT)], "check"),
        lambda: absorb(payment, snapshot(day(7)), "call"),
        lambda: absorb(payment, snapshot(None), "check"),
    ]
    for i in (*order, *order):
        news[i]()
    assert until(payment) == day(14)


def test_it_is_announced_when_it_changes_and_only_then(payment: Payment, heard: list[Any]) -> None:
    for _ in range(2):
        record(payment, [event(day(7), "r1")], "webhook")
        absorb(payment, snapshot(day(7)), "check")
    assert heard == [day(7)]
    absorb(payment, snapshot(day(8)), "check")
    assert heard == [day(7), day(8)]


def test_an_event_that_is_in_the_books_may_still_tell_it(payment: Payment) -> None:
    record(payment, [event(None, "r1")], "webhook")
    assert until(payment) is None
    assert record(payment, [event(day(7), "r1")], "webhook") == []
    assert until(payment) == day(7)


def test_it_survives_the_way_through_a_stored_webhook() -> None:
    for told in (event(day(7), "r1"), event(None, "r2")):
        assert GatewayEvent.from_json(told.to_json()) == told


@pytest.mark.parametrize(("source", "told"), [("call", 0), ("webhook", 1), ("check", 1)])
def test_a_release_that_is_not_ours_is_a_failed_payment(payment: Payment, source: str, told: int) -> None:
    failures: list[str] = []

    def hear(failed: Sequence[tuple[Payment, str]], **_: Any) -> None:
        failures.extend(detail for _, detail in failed)

    payments_failed.connect(hear)
    try:
        for _ in range(2):
            record(payment, [event(None, "pay_1", EventType.VOID)], source)
    finally:
        payments_failed.disconnect(hear)
    assert failures == ["The provider released the authorization."] * told
