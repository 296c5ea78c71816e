"""One story from all the books, and amounts as people type them."""

from __future__ import annotations

import pytest
from django.utils import timezone

from orders.models import Saga, SagaStep
from orders.services import lifecycle
from orders.services.packing import printable
from orders.services.timeline import timeline
from payments.models import OutgoingTransfer, ReviewItem
from shop.kernel.models import OutboxMessage
from tests import factories
from tests.orders.test_admin import shop, waiting

__all__ = ["shop"]  # a fixture


def undo(order_pk: int, step: str, outcome: str, *, attempt: int = 1, error: str = "") -> None:
    saga = Saga.objects.get(order=order_pk)
    SagaStep.objects.create(
        saga=saga,
        step=step,
        kind="compensation",
        outcome=outcome,
        attempt=attempt,
        idempotency_key="k",
        error=error,
        actor="saga",
        rollback_run="run-1",
        started_at=timezone.now(),
    )


@pytest.mark.django_db
def test_a_rollback_is_one_entry_with_its_undos_in_the_order_undone() -> None:
    factories.product()
    order = waiting()
    lifecycle.cancel(order.number, "ada", "no money")
    Saga.objects.update(reason="no money", status="compensating")
    undo(order.pk, "payment_hold", "failed", error="The provider is down.")
    undo(order.pk, "payment_hold", "failed", attempt=2, error="The provider is down.")
    undo(order.pk, "inventory", "succeeded")
    before = next(entry for entry in timeline(order) if entry.kind == "rollback")
    assert (before.state, before.text) == ("failed", "no money (1 undone, 1 not undone)")

    undo(order.pk, "payment_hold", "succeeded", attempt=3)  # the dead letter's retry
    story = timeline(order)
    assert [entry.at for entry in story] == sorted(entry.at for entry in story)
    (rollback,) = (entry for entry in story if entry.kind == "rollback")
    assert (rollback.state, rollback.text) == ("succeeded", "no money (2 undone)")
    assert [(part.title, part.state) for part in rollback.parts] == [
        ("Undo of payment hold (try 1)", "failed"),
        ("Undo of payment hold (try 2)", "failed"),
        ("Stock released", "succeeded"),
        ("Authorization released (try 3)", "succeeded"),
    ]


@pytest.mark.django_db
def test_staff_see_whether_what_they_did_is_queued_or_delivered() -> None:
    factories.product()
    order = waiting()
    lifecycle.cancel(order.number, "ada", "no money")
    OutboxMessage.objects.filter(name="cancel_order").update(last_error="Temporal cannot be reached")
    cancel = timeline(order)[-1]
    assert (cancel.actor, cancel.state) == ("ada", "queued")
    assert cancel.text == "no money (Temporal cannot be reached)"
    OutboxMessage.objects.update(state="delivered", delivered_at=timezone.now())
    cancel = timeline(order)[-1]
    assert (cancel.state, cancel.text) == ("delivered", "no money")


def test_what_the_pdf_font_lacks_loses_its_accents_only() -> None:
    assert printable("Größe, Łódź, Škoda – “Ærø” 10 €") == 'Größe, Lódz, Skoda - "Ærø" 10 EUR'


@pytest.mark.django_db
def test_money_in_review_and_on_its_way_back_is_part_of_the_story() -> None:
    factories.product()
    order = waiting()
    payment = Saga.objects.get(order=order).payment
    assert payment is not None
    ReviewItem.objects.create(
        key="k",
        reason=ReviewItem.Reason.LATE,
        merchant_reference=order.number,
        amount=890,
        currency="EUR",
        detail="It came after the cancellation.",
    )
    OutgoingTransfer.objects.create(
        payment=payment,
        idempotency_key="k",
        end_to_end_id="VK-1",
        amount=890,
        currency="EUR",
        remittance_information="back",
    )
    told = {entry.kind: entry for entry in timeline(order)}
    assert told["review"].title == "For review, order cancelled or finished: €8.90"
    assert (told["review"].state, told["review"].text) == ("open", "It came after the cancellation.")
    assert told["transfer"].title == "Transfer of €8.90 to the customer"
