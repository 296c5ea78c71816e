"""The totals of a payment follow from its events, in whatever order and however often they are told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from payments.gateways.base import EventOutcome, EventType, GatewayEvent
from payments.ledger import Totals, totals
from payments.models import Payment
from payments.services.recording import open_payment, record
from shop.kernel.money import Money

A, R, C, V, F = (
    EventType.AUTHORIZATION,
    EventType.RECEIPT,
    EventType.CAPTURE,
    EventType.VOID,
    EventType.REFUND,
)


@dataclass
class Entry:
    type: str
    amount: int
    outcome: str = "succeeded"


@pytest.mark.parametrize(
    ("events", "expected", "status", "refundable"),
    [
        ([], Totals(), "pending", 0),
        ([Entry(A, 900)], Totals(authorized=900), "authorized", 0),
        ([Entry(A, 900), Entry(A, 900, "failed")], Totals(authorized=900, declined=True), "declined", 0),
        ([Entry(A, 900), Entry(V, 900)], Totals(authorized=900, voided=900), "voided", 0),
        ([Entry(A, 900), Entry(R, 300)], Totals(authorized=900, received=300), "partially_paid", 0),
        ([Entry(A, 900), Entry(R, 300), Entry(R, 600)], Totals(authorized=900, received=900), "paid", 0),
        (
            [Entry(A, 900), Entry(R, 900), Entry(C, 900)],
            Totals(authorized=900, received=900, captured=900),
            "captured",
            900,
        ),
        (
            [Entry(A, 900), Entry(C, 900), Entry(F, 200)],
            Totals(authorized=900, captured=900, refunded=200),
            "partially_refunded",
            700,
        ),
        (
            [Entry(A, 900), Entry(C, 900), Entry(F, 200), Entry(EventType.CHARGEBACK, 700)],
            Totals(authorized=900, captured=900, refunded=900),
            "refunded",
            0,
        ),
        (
            [Entry(A, 900), Entry(C, 900), Entry(F, 900), Entry(EventType.REFUND_REVERSAL, 900)],
            Totals(authorized=900, captured=900),
            "captured",
            900,
        ),
        (
            [Entry(A, 900), Entry(EventType.AUTHORIZATION_ADJUSTMENT, 100)],
            Totals(authorized=1000),
            "authorized",
            0,
        ),
        (
            [Entry(A, 900), Entry(C, 9, "requested"), Entry(F, 9, "failed")],
            Totals(authorized=900),
            "authorized",
            0,
        ),
    ],
)
def test_totals_follow_from_the_events(
    events: list[Entry], expected: Totals, status: str, refundable: int
) -> None:
    assert totals(events) == expected
    assert totals(reversed(events)) == expected
    assert (expected.status, expected.refundable) == (status, refundable)


def _event(number: int, type_: EventType, outcome: EventOutcome, amount: int) -> GatewayEvent:
    return GatewayEvent(
        type_,
        outcome,
        f"ref-{number}",
        "pay",
        "ORD-1",
        Money(amount, "EUR"),
        datetime(2026, 1, 1, tzinfo=UTC),
    )


@st.composite
def tellings(draw: st.DrawFn) -> tuple[list[GatewayEvent], list[GatewayEvent]]:
    """Events, each once; and the same events shuffled, some told again, in the batches of several messages."""
    kinds = st.tuples(
        st.sampled_from(EventType), st.sampled_from(EventOutcome), st.integers(min_value=0, max_value=10**12)
    )
    once = [_event(i, *kind) for i, kind in enumerate(draw(st.lists(kinds, max_size=8)))]
    again = draw(st.lists(st.sampled_from(once), max_size=8)) if once else []
    return once, draw(st.permutations(once + again))


@pytest.mark.django_db
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(telling=tellings(), cut=st.integers(min_value=0, max_value=16))
def test_events_told_again_and_in_any_order_change_nothing(
    telling: tuple[list[GatewayEvent], list[GatewayEvent]], cut: int
) -> None:
    once, told = telling
    key = f"gateway-{Payment.objects.count()}"
    payment = open_payment(key, "ORD-1", Money(1, "EUR"), key)  # a gateway of its own: references start anew
    record(payment, told[:cut], "webhook")
    record(payment, told[cut:], "check")
    record(payment, told, "call")
    assert payment.events.count() == len(once)
    assert payment.totals() == totals([Entry(e.type, e.money.amount, e.outcome) for e in once])
