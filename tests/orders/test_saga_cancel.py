"""Cancelling, by staff and past the shop in Temporal, at every point: all is undone, and no undo comes too early."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from orders.models import Order
from orders.services import lifecycle
from orders.workflows.types import CancelOrder, Step
from tests.orders.practice_shop import OPERATION, PracticeShop

BY_STAFF = "Ordered twice"
PAST_THE_SHOP = "Cancelled in Temporal"

Cancel = Callable[[PracticeShop, Order], None]


def by_staff(shop: PracticeShop, order: Order) -> None:
    shop.cancel(order, BY_STAFF)


def past_the_shop(shop: PracticeShop, order: Order) -> None:
    shop.raw_cancel(order)


WAYS = pytest.mark.parametrize(
    ("cancel", "reason"), [(by_staff, BY_STAFF), (past_the_shop, PAST_THE_SHOP)], ids=["staff", "raw"]
)

# What there is to undo when the step under way did not happen, and when it did.
NOT_DONE = {
    Step.PAYMENT_HOLD: ["inventory"],
    Step.PAYMENT_CAPTURED: ["payment_hold", "inventory"],
    Step.SHIPPING: ["payment_captured", "inventory"],
}
DONE = {
    Step.PAYMENT_HOLD: ["payment_hold", "inventory"],
    Step.PAYMENT_CAPTURED: ["payment_captured", "inventory"],
    Step.SHIPPING: ["shipping", "payment_captured", "inventory"],
}


@WAYS
def test_cancel_in_the_wait_releases_stock_and_authorization(
    shop: PracticeShop, cancel: Cancel, reason: str
) -> None:
    order = shop.waiting()
    cancel(shop, order)
    shop.assert_rolled_back(order, shop.end(order), undone=["payment_hold", "inventory"], reason=reason)
    assert shop.trail(order) == [
        "inventory action succeeded",
        "payment_hold action succeeded",
        "payment_hold compensation succeeded",
        "inventory compensation succeeded",
    ]
    assert shop.mail_kinds() == ["received", "cancelled"]


@WAYS
@pytest.mark.parametrize("step", NOT_DONE)
def test_cancel_between_two_tries_of_a_step_undoes_the_steps_before(
    shop: PracticeShop, step: Step, cancel: Cancel, reason: str
) -> None:
    order = _held(shop, step, {"error_rate": 1})
    shop.until_failed(order, step)
    cancel(shop, order)
    shop.provider.faults()
    shop.assert_rolled_back(order, shop.end(order), undone=NOT_DONE[step], reason=reason)
    assert f"{step} action succeeded" not in shop.trail(order)


@WAYS
@pytest.mark.parametrize("step", DONE)
def test_cancel_during_a_slow_step_waits_for_it_and_undoes_it_too(
    shop: PracticeShop, step: Step, cancel: Cancel, reason: str
) -> None:
    order = _held(shop, step, {"latency_ms": 8000})
    shop.until_in_flight(order, step)
    cancel(shop, order)
    assert not any("compensation" in row for row in shop.trail(order)), "an undo has overtaken its step"
    shop.provider.faults()  # the provider goes on, and does it
    shop.assert_rolled_back(order, shop.end(order), undone=DONE[step], reason=reason)
    rows = shop.trail(order)
    assert rows.index(f"{step} action succeeded") < rows.index(f"{step} compensation succeeded")


@WAYS
def test_cancel_while_the_stock_is_being_reserved_gives_it_back(
    shop: PracticeShop, cancel: Cancel, reason: str
) -> None:
    order = shop.place()
    with shop.shelf_locked():
        shop.engine.deliver()
        shop.until_stuck_at_shelf()
        if cancel is by_staff:  # not through the service: the step holds the order's lock
            message = CancelOrder("m1", 1, reason, "grace")
            signal = shop.engine.handle(order.workflow_id).signal("cancel_order", asdict(message))
            shop.engine.wait(signal)
        else:
            shop.raw_cancel(order)
    result = shop.end(order)
    # The engine sees a cancel between two steps: the next one may have begun.
    undone = ["payment_hold", "inventory"] if shop.payments(order) else ["inventory"]
    shop.assert_rolled_back(order, result, undone=undone, reason=reason)


@WAYS
def test_cancel_before_the_confirmation_mail_has_gone_calls_everything_back(
    shop: PracticeShop, cancel: Cancel, reason: str
) -> None:
    order = shop.waiting()
    shop.mailbox.refuses["ada@example.com"] = "451 Try again later"
    shop.pay(order)
    shop.hear(order)
    shop.until_failed(order, Step.CONFIRMATION)
    cancel(shop, order)
    shop.mailbox.refuses.clear()
    shop.assert_rolled_back(order, shop.end(order), undone=DONE[Step.SHIPPING], reason=reason)
    assert "confirmed" not in shop.mail_kinds()


@WAYS
def test_cancel_while_the_confirmation_mail_is_going_out_calls_everything_back(
    shop: PracticeShop, cancel: Cancel, reason: str
) -> None:
    order = shop.waiting()
    shop.mailbox.holding = True
    shop.pay(order)
    shop.hear(order)
    shop.engine.until(lambda: shop.mailbox.held)
    cancel(shop, order)
    shop.mailbox.holding = False
    shop.assert_rolled_back(order, shop.end(order), undone=DONE[Step.SHIPPING], reason=reason)


def test_order_cancelled_before_its_start_was_delivered_leaves_nothing(shop: PracticeShop) -> None:
    order = shop.place()
    lifecycle.cancel(order.number, "grace", BY_STAFF)
    shop.engine.deliver()
    result = shop.end(order)
    began = [row.split()[0] for row in shop.trail(order) if row.endswith("action succeeded")]
    shop.assert_rolled_back(order, result, undone=began[::-1], reason=BY_STAFF)
    assert "payment_captured" not in began


def test_order_without_a_saga_is_cancelled_at_once(shop: PracticeShop, settings: Any) -> None:
    settings.AUTO_START_SAGAS = False
    order = shop.place()
    lifecycle.cancel(order.number, "grace", BY_STAFF)
    assert shop.status(order) == "cancelled"
    assert (shop.shelf(), order.sagas.count()) == ((5, 0), 0)


def test_order_is_cancelled_once_for_two_clicks(shop: PracticeShop) -> None:
    order = shop.waiting()
    assert not lifecycle.cancel(order.number, "grace", BY_STAFF).repeated
    assert lifecycle.cancel(order.number, "ada", "Out of patience").repeated
    shop.engine.deliver()
    undone = ["payment_hold", "inventory"]
    shop.assert_rolled_back(order, shop.end(order), undone=undone, reason=BY_STAFF)
    with pytest.raises(lifecycle.ActionRefused, match="cancelled already"):
        lifecycle.cancel(order.number, "grace", BY_STAFF)


def test_cancel_that_comes_after_the_confirmation_wins_until_the_end(shop: PracticeShop) -> None:
    order = _held(shop, Step.PAYMENT_CAPTURED, {"error_rate": 1})
    shop.until_failed(order, Step.PAYMENT_CAPTURED)
    shop.cancel(order)
    message = {"message_id": "m1", "attempt": 1}
    shop.engine.wait(shop.engine.handle(order.workflow_id).signal("confirm_payment", message))
    shop.provider.faults()
    shop.assert_rolled_back(order, shop.end(order), undone=NOT_DONE[Step.PAYMENT_CAPTURED])


def test_cancel_that_is_delivered_after_the_end_is_for_review(shop: PracticeShop) -> None:
    order = shop.waiting()
    lifecycle.cancel(order.number, "grace", BY_STAFF)  # stays in the outbox
    shop.engine.wait(
        shop.engine.handle(order.workflow_id).signal("confirm_payment", {"message_id": "m1", "attempt": 1})
    )
    result = shop.end(order)
    shop.assert_completed(order, result)
    shop.engine.deliver()
    shop.assert_completed(order, result)
    late = order.events.filter(kind="late")
    assert [e.reason.split(":")[0] for e in late] == [
        "The cancellation came too late",
        "“cancel_order” could not be delivered",
    ]


# --- a second cancel, in the middle of the rollback ------------------------------------------------------


@pytest.mark.parametrize("again", [1, 3])
@WAYS
def test_more_cancels_in_the_middle_of_the_rollback_stop_no_undo(
    shop: PracticeShop, cancel: Cancel, reason: str, again: int
) -> None:
    order = shop.waiting()
    shop.provider.faults(void={"error_rate": 1})
    cancel(shop, order)
    shop.until_failed(order, Step.PAYMENT_HOLD, "compensation")
    for _ in range(again):
        shop.raw_cancel(order)
        shop.engine.progress(order)  # it has been seen
    shop.provider.faults()
    undone = ["payment_hold", "inventory"]
    shop.assert_rolled_back(order, shop.end(order), undone=undone, reason=reason)


def test_raw_cancel_in_the_middle_of_a_rollback_after_a_failure_stops_no_undo(shop: PracticeShop) -> None:
    shop.provider.faults(create_shipment={"refuse_rate": 1}, refund={"latency_ms": 8000})
    order = shop.waiting()
    shop.pay(order)
    shop.hear(order)
    shop.engine.until(lambda: shop.in_flight("/payments", f"{order.number}/1/payment_captured/undo"))
    shop.raw_cancel(order)
    shop.engine.progress(order)
    shop.raw_cancel(order)
    shop.provider.faults()
    reason = "The practice provider was told to refuse this."
    undone = ["payment_captured", "inventory"]
    shop.assert_rolled_back(order, shop.end(order), undone=undone, reason=reason)


# --- pieces ----------------------------------------------------------------------------------------------


def _held(shop: PracticeShop, step: Step, fault: dict[str, float]) -> Order:
    """An order that a fault of the provider keeps in this step."""
    if step == Step.PAYMENT_HOLD:
        shop.provider.faults(authorize=fault)
        order = shop.place()
        shop.engine.deliver()
        return order
    order = shop.waiting()
    shop.provider.faults(**{OPERATION[step]: fault})
    shop.pay(order)
    shop.hear(order)
    return order
