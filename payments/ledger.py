"""The arithmetic of a payment: totals are a pure fold over its events, and nothing else keeps them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from payments.gateways.base import EventOutcome, EventType


class Entry(Protocol):
    """What the fold reads of an event. `amount` is in minor units of the payment's currency."""

    type: str
    outcome: str
    amount: int


@dataclass(frozen=True, slots=True)
class Totals:
    """The totals of one payment, in minor units of its currency."""

    authorized: int = 0
    received: int = 0
    captured: int = 0
    voided: int = 0
    refunded: int = 0
    declined: bool = False

    @property
    def refundable(self) -> int:
        """What was captured and not given back yet."""
        return max(0, self.captured - self.refunded)

    @property
    def status(self) -> str:
        """The payment's state in one word, as the API and the screens say it."""
        if self.refunded:
            return "refunded" if self.refunded >= self.captured else "partially_refunded"
        if self.captured:
            return "captured"
        if self.voided:
            return "voided"
        if self.declined:
            return "declined"
        if self.received:
            return "paid" if self.received >= self.authorized else "partially_paid"
        return "authorized" if self.authorized else "pending"


def totals(events: Iterable[Entry]) -> Totals:
    """The totals that `events` give, whatever their order. Only succeeded events move money."""
    sums = dict.fromkeys(EventType, 0)
    declined = False
    for event in events:
        if event.outcome == EventOutcome.SUCCEEDED:
            sums[EventType(event.type)] += event.amount
        elif event.outcome == EventOutcome.FAILED and event.type == EventType.AUTHORIZATION:
            declined = True
    return Totals(
        authorized=sums[EventType.AUTHORIZATION] + sums[EventType.AUTHORIZATION_ADJUSTMENT],
        received=sums[EventType.RECEIPT],
        captured=sums[EventType.CAPTURE],
        voided=sums[EventType.VOID],
        refunded=sums[EventType.REFUND] + sums[EventType.CHARGEBACK] - sums[EventType.REFUND_REVERSAL],
        declined=declined,
    )
