"""What goes into the order workflows and comes out of them.

Payloads carry ids, amounts in minor units, codes and ISO 8601 texts (UTC); never customer data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

TASK_QUEUE = "orders"

# The reasons of a rollback because no money came in time. Payment timeouts are counted by them.
NO_PAYMENT = "No payment arrived before the deadline"
LAPSED, UNPAID = "The authorization lapsed on", "before the payment arrived"


class Step(StrEnum):
    """The steps of a saga, in their order."""

    INVENTORY = "inventory"
    PAYMENT_HOLD = "payment_hold"
    PAYMENT_CAPTURED = "payment_captured"
    SHIPPING = "shipping"
    CONFIRMATION = "confirmation"


class Status(StrEnum):
    """How a saga ends. `REFUSED` is of a fulfillment that began nothing: the saga is as it was."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    COMPENSATION_FAILED = "compensation_failed"
    REFUSED = "refused"


@dataclass(frozen=True)
class SagaInput:
    """One attempt at an order.

    `payment_window_s`, `reminder_before_s`: seconds. `gateway_remote`, `carrier_remote`: whether their calls
    leave the process. `roll_back_only`: undo whatever an earlier run of this attempt did, for this reason;
    `payment_id` and `shipment_id` are what that run had got.
    """

    order_number: str
    attempt: int
    payment_window_s: int
    reminder_before_s: int
    gateway_remote: bool
    carrier_remote: bool
    roll_back_only: str = ""
    payment_id: str = ""
    shipment_id: str = ""


@dataclass(frozen=True)
class SagaResult:
    """`order_id` is the order number, `payment_id` the PSP reference, `shipment_id` the carrier's reference.

    `compensated_steps`: those really undone, in the order undone.
    """

    status: str
    order_id: str
    payment_id: str = ""
    shipment_id: str = ""
    reason: str = ""
    compensated_steps: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FulfillmentStart:
    """The attempt that a fulfillment is about to begin with."""

    order_number: str
    attempt: int


@dataclass(frozen=True)
class BulkPage:
    """The key after which the next page begins."""

    after: int


@dataclass(frozen=True)
class PaidOrders:
    """A page of bulk orders that are paid and not begun. `after`: the key for the next one; 0 if this was the last."""

    orders: list[SagaInput]
    after: int


@dataclass(frozen=True)
class OverdueOrders:
    """What became of a page of bulk orders whose deadline had passed. `after` as above.

    `unanswered`: their provider did not say whether they are paid; they are asked about again.
    """

    given_up: int
    unanswered: int
    after: int


@dataclass(frozen=True)
class StepInput:
    """Which step of which attempt; `rollback_run` is set for an undo.

    `deadline`: until when the money is waited for, or the authorization lasts; for the payment hold.
    """

    order_number: str
    attempt: int
    step: str
    rollback_run: str = ""
    deadline: str = ""


@dataclass(frozen=True)
class StepResult:
    """`outcome`: succeeded, or skipped where there was nothing to undo."""

    outcome: str
    reference: str = ""


@dataclass(frozen=True)
class HoldResult:
    """`deadline`: until when money is waited for. `authorized_until`: empty if that is not known (yet)."""

    reference: str
    deadline: str
    authorized_until: str


@dataclass(frozen=True)
class Lapse:
    """An authorization that will lapse `at` (ISO 8601 in UTC) and could not be renewed, and why not."""

    order_number: str
    attempt: int
    at: str
    why: str


@dataclass(frozen=True)
class RollbackStart:
    order_number: str
    attempt: int
    rollback_run: str
    reason: str
    actor: str


@dataclass(frozen=True)
class SagaEnd:
    """What `finish_saga` writes."""

    order_number: str
    attempt: int
    result: SagaResult


@dataclass(frozen=True)
class FailedUndo:
    """What a dead letter needs to try the undo again. `retry`: which retry by people failed; 0 is the saga's own."""

    order_number: str
    attempt: int
    step: str
    rollback_run: str
    error: str
    error_type: str
    retry: int = 0


@dataclass(frozen=True)
class Alert:
    """What ops are told. `key` makes a repeated alert the same one; those of one `topic` are told together."""

    key: str
    order_number: str
    subject: str
    text: str
    topic: str = ""


@dataclass(frozen=True)
class AlertGroup:
    """An alert and all that joins it."""

    alert: int


@dataclass(frozen=True)
class AlertLook:
    """Whether more has come than the `seen` entries; at the `last` look the alert closes in any case."""

    alert: int
    seen: int
    last: bool


@dataclass(frozen=True)
class AlertNotice:
    """`notice` is what to send, 0 if there is nothing. `entries` have come so far; `over`: no more will join."""

    notice: int
    entries: int
    over: bool


@dataclass(frozen=True)
class ReconcileInput:
    """`fix`: mend what needs no person."""

    fix: bool = True


@dataclass(frozen=True)
class ReconcileResult:
    """How many differences there were, how many of them were mended, and which checks could not be made."""

    found: int
    mended: int
    left_out: list[str]


@dataclass(frozen=True)
class MailInput:
    """`about`: which of several mails of this kind."""

    order_number: str
    attempt: int
    kind: str
    about: str = ""


@dataclass(frozen=True)
class MentionInput:
    """The row of a mention."""

    mention: int


@dataclass(frozen=True)
class RetryInput:
    """A dead letter, and who asked for its retry."""

    dead_letter: int
    actor: str
    undo: FailedUndo
    remote: bool


@dataclass(frozen=True)
class RetryResult:
    """`cancelled`: this was the order's last dead letter, and the order is cancelled now."""

    resolved: bool
    cancelled: bool = False


# --- signals; `message_id` is the sender's key, `attempt` the saga attempt that is meant -------------------


@dataclass(frozen=True)
class ConfirmPayment:
    message_id: str
    attempt: int
    amount: int = 0
    currency: str = ""
    reference: str = ""


@dataclass(frozen=True)
class CancelOrder:
    message_id: str
    attempt: int
    reason: str
    actor: str


@dataclass(frozen=True)
class ExtendDeadline:
    """`deadline`: the new one, ISO 8601 in UTC. An earlier one than the present is ignored."""

    message_id: str
    attempt: int
    deadline: str


@dataclass(frozen=True)
class AuthorizationLasts:
    """`until`: ISO 8601 in UTC. An earlier one than what is known is ignored."""

    message_id: str
    attempt: int
    until: str


@dataclass(frozen=True)
class PaymentFailed:
    message_id: str
    attempt: int
    detail: str


@dataclass(frozen=True)
class Progress:
    """The answer to the `progress` query.

    `deadline` is until when the saga waits for the money, `authorized_until` how long it may do so without a
    renewal; ISO 8601 in UTC, empty before the wait or where there is none.
    """

    stage: str
    deadline: str
    authorized_until: str
    payment_confirmed: bool
    to_undo: list[str]
    compensated_steps: list[str]
    cancel_reason: str
