"""What staff may refund: within what is left and within their limit, once per form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from payments import ledger
from payments.gateways.base import EventOutcome, EventType
from payments.models import OutgoingTransfer, PaymentEvent
from payments.services import refunding
from payments.services.refunding import RefundRefused, refund
from shop.kernel.models import OutboxMessage
from tests.payments.our_bank import captured, opened, our_bank

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def bank(settings: Any) -> Iterator[None]:
    with our_bank(settings):
        yield


def why(call: Callable[[], object]) -> str:
    with pytest.raises(RefundRefused) as refusal:
        call()
    return str(refusal.value)


def test_refund_is_written_down_and_queued_before_anyone_is_asked() -> None:
    payment = captured(amount=1000)
    asked = refund(payment.pk, 400, "grace", "A dent", "f1")
    event = PaymentEvent.objects.get(outcome="requested")
    assert (event.amount, event.actor, event.detail, event.psp_reference) == (
        400,
        "grace",
        "A dent",
        asked.key,
    )
    message = OutboxMessage.objects.get()
    assert (message.name, message.workflow_id) == ("RefundWorkflow", f"refund-{asked.key}")
    assert message.options["task_queue"] == "payment-checks"
    assert not OutgoingTransfer.objects.exists()
    assert payment.totals().kept == 600


def test_double_click_refunds_once_and_a_changed_form_is_refused() -> None:
    payment = captured(amount=1000)
    first = refund(payment.pk, 400, "grace", "A dent", "f1")
    again = refund(payment.pk, 400, "grace", "A dent", "f1")
    assert (again.key, again.repeated) == (first.key, True)
    assert "€4.00" in why(lambda: refund(payment.pk, 500, "grace", "A dent", "f1"))
    assert OutboxMessage.objects.count() == PaymentEvent.objects.filter(outcome="requested").count() == 1


def test_no_more_than_is_left_is_refunded() -> None:
    payment = captured(amount=1000)
    refund(payment.pk, 400, "grace", "A dent", "f1")
    assert "€6.00" in why(lambda: refund(payment.pk, 601, "grace", "A dent", "f2"))
    refund(payment.pk, 600, "grace", "Another", "f3")
    assert "on its way back" in why(lambda: refund(payment.pk, 1, "grace", "More", "f4"))


def test_uncaptured_or_empty_or_unexplained_is_refused() -> None:
    waiting, payment = opened("ORD-100002", 1000), captured(amount=1000)
    assert "Nothing has been captured" in why(lambda: refund(waiting.pk, 1, "grace", "A dent", "f"))
    assert "more than zero" in why(lambda: refund(payment.pk, 0, "grace", "A dent", "f"))
    assert "more than zero" in why(lambda: refund(payment.pk, -1, "grace", "A dent", "f"))
    assert "why" in why(lambda: refund(payment.pk, 1, "grace", " ", "f"))
    assert not OutboxMessage.objects.exists()


def test_limit_holds_unless_the_actor_may_go_beyond(settings: Any) -> None:
    settings.REFUND_LIMIT = 500
    payment = captured(amount=1000)
    refund(payment.pk, 500, "grace", "A dent", "f1")
    payment = captured("ORD-100002", 1000)
    assert "€5.00" in why(lambda: refund(payment.pk, 501, "grace", "A dent", "f2"))
    refund(payment.pk, 501, "grace", "A dent", "f2", beyond_limit=True)


@pytest.mark.django_db(transaction=True)
def test_refunds_at_once_stay_within_what_was_captured() -> None:
    payment = captured(amount=1000)

    def ask(form: str) -> bool:
        try:
            refund(payment.pk, 400, "grace", "A dent", form)
            return True
        except RefundRefused:
            return False
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(ask, ["f1", "f2", "f3", "f4"]))
    assert sum(done) == 2
    assert payment.totals().kept == 200


def test_refund_performed_twice_is_one_transfer() -> None:
    payment = captured(amount=1000)
    asked = refund(payment.pk, 400, "grace", "A dent", "f1")
    assert refunding.perform(asked.key) == refunding.perform(asked.key)
    assert OutgoingTransfer.objects.get().amount == 400
    assert payment.totals().kept == 600


class Row:
    def __init__(self, type_: EventType, outcome: EventOutcome, amount: int) -> None:
        self.type, self.outcome, self.amount = type_.value, outcome.value, amount


CAPTURED = Row(EventType.CAPTURE, EventOutcome.SUCCEEDED, 1000)
ASKED = Row(EventType.REFUND, EventOutcome.REQUESTED, 400)
DONE = Row(EventType.REFUND, EventOutcome.SUCCEEDED, 400)
FAILED = Row(EventType.REFUND, EventOutcome.FAILED, 400)
BACK = Row(EventType.REFUND_REVERSAL, EventOutcome.SUCCEEDED, 400)


@pytest.mark.parametrize(
    ("events", "refunded", "requested", "kept"),
    [
        ([CAPTURED], 0, 0, 1000),
        ([CAPTURED, ASKED], 0, 400, 600),
        ([CAPTURED, ASKED, DONE], 400, 0, 600),
        ([CAPTURED, ASKED, ASKED, DONE], 400, 400, 200),
        ([CAPTURED, ASKED, FAILED], 0, 0, 1000),
        ([CAPTURED, ASKED, DONE, BACK], 0, 0, 1000),
        ([CAPTURED, DONE], 400, 0, 600),
    ],
)
def test_refund_counts_as_given_back_from_the_request_to_a_refusal(
    events: list[Row], refunded: int, requested: int, kept: int
) -> None:
    for order in (events, list(reversed(events))):
        totals = ledger.totals(order)
        assert (totals.refunded, totals.refund_requested, totals.kept) == (refunded, requested, kept)
