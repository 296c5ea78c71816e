"""The way back: whatever fails, in whatever way, all that was done is undone, newest first, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from orders.models import DeadLetter, Order
from orders.services import dead_letters, lifecycle
from orders.workflows.types import Step
from tests.orders.practice_shop import OPERATION, PracticeShop

# What is really there to undo when a step was refused: nothing of the step itself.
BEFORE = {
    Step.PAYMENT_HOLD: ["inventory"],
    Step.PAYMENT_CAPTURED: ["payment_hold", "inventory"],
    Step.SHIPPING: ["payment_captured", "inventory"],
}
# And when it happened, though no answer ever came. A captured payment is refunded, and not voided as well.
INCLUDING = {
    Step.PAYMENT_HOLD: ["payment_hold", "inventory"],
    Step.PAYMENT_CAPTURED: ["payment_captured", "inventory"],
    Step.SHIPPING: ["shipping", "payment_captured", "inventory"],
}


# --- a step that fails for good --------------------------------------------------------------------------


def test_order_for_more_than_there_is_is_cancelled_and_nothing_was_asked_for(shop: PracticeShop) -> None:
    order = shop.place(quantity=6)
    shop.engine.deliver()
    reason = "Not enough stock: 6 × TEA were ordered, 5 are available."
    shop.assert_rolled_back(order, shop.end(order), undone=[], reason=reason)
    assert shop.trail(order) == ["inventory action failed", "inventory compensation skipped"]
    assert (shop.payments(order), shop.mail_kinds()) == ([], ["cancelled"])


@pytest.mark.parametrize("step", BEFORE)
def test_refused_step_rolls_back_what_was_done_before_it(shop: PracticeShop, step: Step) -> None:
    shop.provider.faults(**{OPERATION[step]: {"refuse_rate": 1}})
    order = _up_to(shop, step)
    reason = "The practice provider was told to refuse this."
    shop.assert_rolled_back(order, shop.end(order), undone=BEFORE[step], reason=reason)
    assert shop.trail(order).count(f"{step} action failed") == 1, "a refusal is final"
    assert f"{step} compensation skipped" in shop.trail(order)
    assert [p["status"] for p in shop.payments(order)] == {
        Step.PAYMENT_HOLD: [],
        Step.PAYMENT_CAPTURED: ["voided"],
        Step.SHIPPING: ["refunded"],
    }[step]
    assert shop.parcels(order) == []
    assert ("refunded" in shop.mail_kinds()) == (step == Step.SHIPPING)


@pytest.mark.parametrize("step", INCLUDING)
def test_step_whose_answer_never_comes_is_undone_all_the_same(shop: PracticeShop, step: Step) -> None:
    shop.provider.faults(**{OPERATION[step]: {"lost_answer_rate": 1}})
    order = _up_to(shop, step)
    shop.assert_rolled_back(order, shop.end(order), undone=INCLUDING[step])
    tries = 5 if step == Step.PAYMENT_HOLD else 10
    assert shop.trail(order).count(f"{step} action failed") == tries
    assert [p["status"] for p in shop.payments(order)] == [
        "voided" if step == Step.PAYMENT_HOLD else "refunded"
    ]
    assert shop.parcels(order) == (["cancelled"] if step == Step.SHIPPING else [])


@pytest.mark.parametrize("step", BEFORE)
def test_step_that_never_gets_through_rolls_back_what_was_done_before_it(
    shop: PracticeShop, step: Step
) -> None:
    shop.provider.faults(**{OPERATION[step]: {"error_rate": 1}})
    order = _up_to(shop, step)
    reason = "The practice provider was told to fail."
    shop.assert_rolled_back(order, shop.end(order), undone=BEFORE[step], reason=reason)


def test_payment_that_the_customer_declines_ends_the_wait(shop: PracticeShop) -> None:
    order = shop.waiting()
    shop.decline(order)
    shop.hear(order)
    result = shop.end(order)
    shop.assert_rolled_back(order, result, undone=["inventory"], reason="Declined by the customer.")
    assert [p["status"] for p in shop.payments(order)] == ["declined"]


# --- an undo whose answer is lost ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "step"),
    [("void", Step.PAYMENT_HOLD), ("refund", Step.PAYMENT_CAPTURED), ("cancel_shipment", Step.SHIPPING)],
)
def test_undo_whose_answer_is_lost_happens_once(shop: PracticeShop, operation: str, step: Step) -> None:
    order = _cancelled_where_it_needs(shop, operation, {operation: {"lost_answer_rate": 1}})
    shop.until_failed(order, step, "compensation")
    shop.provider.faults()
    result = shop.end(order)
    undone = BEFORE[Step.PAYMENT_CAPTURED] if operation == "void" else INCLUDING[Step.SHIPPING]
    shop.assert_rolled_back(order, result, undone=undone)
    assert shop.done(order).count(f"{step} compensation succeeded") == 1


# --- an undo that fails for good -------------------------------------------------------------------------

UNDO_FAILURES = [
    ("void", Step.PAYMENT_HOLD, ["inventory"], (5, 0)),
    ("refund", Step.PAYMENT_CAPTURED, ["shipping", "inventory"], (5, 0)),
    # The parcel is under way, so its pieces are not on the shelf.
    ("cancel_shipment", Step.SHIPPING, ["payment_captured"], (3, 0)),
]


@pytest.mark.parametrize(("operation", "step", "undone", "shelf"), UNDO_FAILURES)
def test_undo_that_fails_for_good_leaves_the_others_done_and_a_dead_letter(
    shop: PracticeShop, operation: str, step: Step, undone: list[str], shelf: tuple[int, int]
) -> None:
    order = _cancelled_where_it_needs(shop, operation, {operation: {"refuse_rate": 1}})
    result = shop.end(order)
    saga = shop.saga(order)
    assert (result["status"], result["compensated_steps"]) == ("compensation_failed", undone)
    assert (shop.status(order), saga.status) == ("compensation_failed", "compensation_failed")
    assert (saga.result, saga.reason) == (result, "Ordered twice")
    assert shop.shelf() == shelf
    assert f"{step} compensation failed" in shop.trail(order)
    letter = DeadLetter.objects.get()
    assert (letter.saga_id, letter.step, letter.state) == (saga.pk, step, "open")
    assert letter.idempotency_key == f"{order.number}/1/{step}/undo"
    assert letter.rollback_run == saga.rollback_run
    assert (letter.error, letter.error_type) == (
        "The practice provider was told to refuse this.",
        "CarrierRefused" if step == Step.SHIPPING else "GatewayRefused",
    )
    assert letter.amount == (0 if step == Step.SHIPPING else order.total)
    assert letter.reference
    (alert,) = shop.alerts()
    assert alert["Subject"] == f"[Vorkasse] {order.number}: Rollback failed: {step}"
    assert "cancelled" not in shop.mail_kinds(), "the customer is not told of a cancellation that is not done"


def test_undo_that_never_gets_through_is_tried_ten_times(shop: PracticeShop) -> None:
    order = _cancelled_where_it_needs(shop, "void", {"void": {"error_rate": 1}})
    assert shop.end(order)["status"] == "compensation_failed"
    assert shop.trail(order).count("payment_hold compensation failed") == 10
    assert shop.shelf() == (5, 0)
    assert DeadLetter.objects.get().attempts == 10


def test_every_undo_that_fails_has_a_dead_letter_and_ops_are_told_once(shop: PracticeShop) -> None:
    faults = {name: {"refuse_rate": 1} for name in ("void", "refund", "cancel_shipment")}
    order = _cancelled_where_it_needs(shop, "cancel_shipment", faults)
    result = shop.end(order)
    assert (result["status"], result["compensated_steps"]) == ("compensation_failed", [])
    assert set(DeadLetter.objects.values_list("step", flat=True)) == {"shipping", "payment_captured"}
    assert len(shop.alerts()) == 1
    shop.provider.faults()
    for letter in DeadLetter.objects.order_by("id"):
        assert shop.status(order) == "compensation_failed"
        _retry(shop, letter)
    assert shop.status(order) == "cancelled"
    shop.assert_nothing_left(order)
    assert sorted(shop.mail_kinds()) == ["cancelled", "received", "refunded"]


# --- dead letters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("operation", "step", "undone", "shelf"), UNDO_FAILURES)
def test_retried_dead_letter_finishes_the_cancellation(
    shop: PracticeShop, operation: str, step: Step, undone: list[str], shelf: tuple[int, int]
) -> None:
    order = _cancelled_where_it_needs(shop, operation, {operation: {"refuse_rate": 1}})
    shop.end(order)
    letter = DeadLetter.objects.get()
    with pytest.raises(lifecycle.ActionRefused, match="dead letters have to be resolved first"):
        lifecycle.start(order.number, "grace", "again")
    shop.provider.faults()
    result = _retry(shop, letter)
    assert result == {"resolved": True, "cancelled": True}
    letter.refresh_from_db()
    assert (letter.state, letter.resolved_by) == ("resolved", "grace")
    assert (shop.status(order), shop.saga(order).status) == ("cancelled", "cancelled")
    shop.assert_nothing_left(order)
    assert shop.mail_kinds().count("cancelled") == 1
    keys = shop.saga(order).steps.filter(step=step, kind="compensation")
    assert set(keys.values_list("idempotency_key", "rollback_run")) == {
        (letter.idempotency_key, letter.rollback_run)
    }
    assert lifecycle.start(order.number, "grace", "again").message == "The saga starts."


def test_retry_that_fails_opens_the_dead_letter_anew(shop: PracticeShop) -> None:
    order = _cancelled_where_it_needs(shop, "void", {"void": {"refuse_rate": 1}})
    shop.end(order)
    letter = DeadLetter.objects.get()
    assert _retry(shop, letter) == {"resolved": False, "cancelled": False}
    letter.refresh_from_db()
    assert (letter.state, letter.retries, letter.attempts) == ("open", 1, 2)
    assert shop.status(order) == "compensation_failed"
    assert "cancelled" not in shop.mail_kinds()
    shop.provider.faults()
    assert _retry(shop, letter) == {"resolved": True, "cancelled": True}
    letter.refresh_from_db()
    assert (letter.state, letter.retries) == ("resolved", 2)
    shop.assert_nothing_left(order)


def test_dead_letter_is_retried_once_for_two_clicks(shop: PracticeShop) -> None:
    order = _cancelled_where_it_needs(shop, "void", {"void": {"refuse_rate": 1}})
    shop.end(order)
    letter = DeadLetter.objects.get()
    shop.provider.faults()
    assert not dead_letters.retry(letter.pk, "grace", "Repaired", key="1").repeated
    assert dead_letters.retry(letter.pk, "ada", "Repaired", key="2").repeated
    shop.engine.deliver()
    shop.engine.result(f"dead-letter-{letter.pk}")
    with pytest.raises(lifecycle.ActionRefused, match="resolved in the meantime"):
        dead_letters.retry(letter.pk, "ada", "Repaired", key="3")
    assert order.events.filter(kind="retry").count() == 1


# --- a workflow that was lost ----------------------------------------------------------------------------


def test_saga_whose_workflow_was_terminated_is_rolled_back_when_staff_cancel(shop: PracticeShop) -> None:
    order = shop.waiting()
    shop.engine.wait(shop.engine.handle(order.workflow_id).terminate("by hand"))
    shop.cancel(order)
    result = shop.end(order)
    assert result["reason"] == "Ordered twice (its workflow was lost in Temporal)"
    shop.assert_rolled_back(order, result, undone=["payment_hold", "inventory"])
    assert [p["status"] for p in shop.payments(order)] == ["voided"]


def test_orphan_that_died_in_the_middle_of_its_rollback_is_rolled_back_to_the_end(shop: PracticeShop) -> None:
    shop.provider.faults(create_shipment={"refuse_rate": 1}, void={"error_rate": 1}, refund={"error_rate": 1})
    order = _up_to(shop, Step.SHIPPING)
    shop.until_failed(order, Step.PAYMENT_CAPTURED, "compensation")
    shop.engine.wait(shop.engine.handle(order.workflow_id).terminate("by hand"))
    shop.provider.faults()
    assert lifecycle.roll_back_orphan(shop.saga(order).pk, "The workflow was lost", "run-1")
    assert lifecycle.roll_back_orphan(shop.saga(order).pk, "The workflow was lost", "run-1")
    shop.engine.deliver()
    result = shop.end(order)
    assert (result["status"], shop.status(order)) == ("cancelled", "cancelled")
    shop.assert_nothing_left(order)
    assert [p["status"] for p in shop.payments(order)] == ["refunded"]
    assert not lifecycle.roll_back_orphan(shop.saga(order).pk, "The workflow was lost", "run-2")


# --- pieces ----------------------------------------------------------------------------------------------


def _up_to(shop: PracticeShop, step: Step) -> Order:
    """An order that is going to do this step, with whatever faults are on."""
    order = shop.place()
    shop.engine.deliver()
    if step != Step.PAYMENT_HOLD:
        shop.until_waiting(order)
        shop.pay(order)
        shop.hear(order)
    return order


def _cancelled_where_it_needs(shop: PracticeShop, undo: str, faults: Mapping[str, object]) -> Order:
    """An order that staff cancel where its rollback needs this undo, while the provider has these faults."""
    order = shop.waiting()
    if undo != "void":
        shop.mailbox.refuses["ada@example.com"] = "451 Try again later"
        shop.pay(order)
        shop.hear(order)
        shop.until_failed(order, Step.CONFIRMATION)
        shop.mailbox.refuses.clear()
    shop.provider.faults(**faults)
    shop.cancel(order)
    return order


def _retry(shop: PracticeShop, letter: DeadLetter) -> object:
    dead_letters.retry(letter.pk, "grace", "Repaired", key=f"retry-{letter.retries}")
    shop.engine.deliver()
    return shop.engine.result(f"dead-letter-{letter.pk}")
