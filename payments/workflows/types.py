"""What goes into the payment checks and comes out of them: names, counts and keys, never a list of all orders."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

TASK_QUEUE = "payment-checks"
# As many as one call may check; providers take no more at once either.
MOST_ORDERS = 100


class PaymentState(StrEnum):
    """What a check says about an order's payment."""

    PAID = "paid"
    PENDING = "pending"
    FAILED = "failed"


@dataclass(frozen=True)
class PaymentsToCheck:
    """The numbers of at most `MOST_ORDERS` orders."""

    order_numbers: list[str]


@dataclass(frozen=True)
class PendingQuery:
    """Orders that wait for money at a gateway, after the key `after`; at most `MOST_ORDERS`."""

    gateway: str
    after: int = 0
    limit: int = MOST_ORDERS


@dataclass(frozen=True)
class PendingOrders:
    """A page of them, oldest first. `after` is the key for the next page; 0 if this was the last."""

    order_numbers: list[str]
    after: int


@dataclass(frozen=True)
class Tally:
    """How many payments were checked, and what was found.

    With a change feed these are the payments of which something new was told. `timeout` are those whose
    authorization has lapsed before they were paid. `provider_calls` counts the answered calls.
    """

    total_checked: int = 0
    paid: int = 0
    pending: int = 0
    failed: int = 0
    timeout: int = 0
    provider_calls: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.total_checked + other.total_checked,
            self.paid + other.paid,
            self.pending + other.pending,
            self.failed + other.failed,
            self.timeout + other.timeout,
            self.provider_calls + other.provider_calls,
        )


@dataclass(frozen=True)
class GatewayCheck:
    """How far the check of one gateway has come.

    By its change feed (`changes`), or else by asking for the orders that wait, of which `after` is the key of
    the last one asked for.
    """

    gateway: str
    changes: bool
    after: int = 0
    pages: int = 0


@dataclass(frozen=True)
class PageChecked:
    """What came of one page. `more`: go on, after the key `after` if there is no change feed."""

    tally: Tally
    more: bool
    after: int = 0


@dataclass(frozen=True)
class Progress:
    """What a batch run hands to the run that goes on for it. `unavailable`: why, by gateway."""

    started_at: str
    todo: list[GatewayCheck]
    tally: Tally = field(default_factory=Tally)
    unavailable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BatchCheckInput:
    """`gateways`: their names; all if there is none. `progress` is for runs that go on for another."""

    gateways: list[str] = field(default_factory=list)
    progress: Progress | None = None


@dataclass(frozen=True)
class BatchStart:
    """A batch run, known by its workflow id and the id of its first run."""

    workflow_id: str
    run_id: str
    started_at: str
    gateways: list[str]


@dataclass(frozen=True)
class BatchEnd:
    """What a batch run came to."""

    workflow_id: str
    run_id: str
    finished_at: str
    tally: Tally
    unavailable: dict[str, str]


@dataclass(frozen=True)
class BatchCheckResult:
    """What a batch run found; see `Tally`. `duration` in seconds. `unavailable`: gateways to be tried next time."""

    total_checked: int
    paid: int
    pending: int
    failed: int
    timeout: int
    provider_calls: int
    duration: float
    unavailable: list[str] = field(default_factory=list)
