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
    """The totals of one payment, in minor units of its currency.

    `refund_requested` is on its way back to the customer: asked for, and neither done nor failed yet.
    """

    authorized: int = 0
    received: int = 0
    captured: int = 0
    voided: int = 0
    refunded: int = 0
    refund_requested: int = 0
    declined: bool = False

    @property
    def refundable(self) -> int:
        """What was captured and not given back yet."""
        return max(0, self.captured - self.refunded)

    @property
    def kept(self) -> int:
        """What of the captured money stays with us, once all refunds that were asked for are done."""
        return self.captured - self.refunded - self.refund_requested

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
    """The totals that `events` give, whatever their order. Only succeeded events move money.

    A provider's news of a refund carries the provider's reference, not the key under which it was asked for:
    so requests are set against answers by their sums.
    """
    sums = dict.fromkeys(EventType, 0)
    declined = False
    asked = answered = 0
    for event in events:
        if event.outcome == EventOutcome.SUCCEEDED:
            sums[EventType(event.type)] += event.amount
        elif event.outcome == EventOutcome.FAILED and event.type == EventType.AUTHORIZATION:
            declined = True
        if event.type == EventType.REFUND:
            if event.outcome == EventOutcome.REQUESTED:
                asked += event.amount
            else:
                answered += event.amount
    return Totals(
        authorized=sums[EventType.AUTHORIZATION] + sums[EventType.AUTHORIZATION_ADJUSTMENT],
        received=sums[EventType.RECEIPT],
        captured=sums[EventType.CAPTURE],
        voided=sums[EventType.VOID],
        refunded=sums[EventType.REFUND] + sums[EventType.CHARGEBACK] - sums[EventType.REFUND_REVERSAL],
        refund_requested=max(0, asked - answered),
        declined=declined,
    )
