"""The forward way of an order: what happens once, whatever is said twice or not answered."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from orders.models import OrderEvent, Saga, SagaStep
from orders.services import lifecycle
from orders.workflows.types import Step
from payments.models import ReviewItem
from shop.kernel.models import OutboxMessage
from tests.orders.practice_shop import OPERATION, PracticeShop

REMOTE_STEPS = list(OPERATION)


def test_paid_order_is_captured_shipped_and_mailed(shop: PracticeShop) -> None:
    order = shop.paid()
    result = shop.end(order)
    shop.assert_completed(order, result)
    assert shop.trail(order) == [f"{step} action succeeded" for step in Step]
    assert shop.moved(order) == [
        f"authorization {order.total}",
        f"receipt {order.total}",
        f"capture {order.total}",
    ]
    assert shop.mail_kinds() == ["received", "confirmed"]
    assert not ReviewItem.objects.exists()


def test_payment_confirmed_by_staff_completes_an_order_that_is_shipped_by_hand(shop: PracticeShop) -> None:
    order = shop.waiting(carrier="manual")
    shop.confirm(order)
    result = shop.end(order)
    assert result["status"] == "completed"
    assert result["shipment_id"].startswith("manual-")
    assert (shop.status(order), shop.shelf(), shop.held(order)) == ("completed", (3, 0), ["consumed"])
    assert [p["status"] for p in shop.payments(order)] == ["captured"]
    assert shop.parcels(order) == []


def test_step_keys_name_the_order_the_attempt_and_the_step(shop: PracticeShop) -> None:
    order = shop.completed()
    keys = SagaStep.objects.order_by("id").values_list("idempotency_key", flat=True)
    assert list(keys) == [f"{order.number}/1/{step}" for step in Step]


def test_order_waits_with_its_stock_reserved_and_its_money_only_authorized(shop: PracticeShop) -> None:
    order = shop.waiting()
    assert (shop.status(order), shop.shelf(), shop.held(order)) == ("awaiting_payment", (5, 2), ["reserved"])
    assert [p["status"] for p in shop.payments(order)] == ["authorized"]
    progress = shop.engine.progress(order)
    assert progress.stage == "waiting for payment"
    assert progress.to_undo == ["payment_hold", "inventory"]
    saga = shop.saga(order)
    assert saga.deadline is not None
    assert progress.deadline == saga.deadline.isoformat()


# --- the same thing said twice ---------------------------------------------------------------------------


def test_payment_confirmed_many_times_is_captured_once(shop: PracticeShop) -> None:
    order = shop.waiting()
    shop.confirm(order)
    shop.confirm(order)
    shop.pay(order)
    shop.hear(order)
    message = OutboxMessage.objects.get(name="confirm_payment")
    for _ in range(3):  # a dispatcher that died before it wrote down that it had delivered
        OutboxMessage.objects.filter(pk=message.pk).update(state="queued")
        shop.engine.deliver()
    result = shop.end(order)
    shop.assert_completed(order, result)
    assert [m for m in shop.moved(order) if m.startswith("capture")] == [f"capture {order.total}"]


def test_start_that_is_delivered_again_while_the_saga_runs_is_the_same_saga(shop: PracticeShop) -> None:
    order = shop.waiting()
    OutboxMessage.objects.update(state="queued")
    shop.engine.deliver()
    shop.pay(order)
    shop.hear(order)
    shop.assert_completed(order, shop.end(order))


@pytest.mark.parametrize("ending", ["completed", "cancelled", "out of stock"])
def test_start_that_is_delivered_again_after_the_end_does_nothing(shop: PracticeShop, ending: str) -> None:
    if ending == "out of stock":
        order = shop.place(quantity=6)
        shop.engine.deliver()
    else:
        order = shop.waiting()
        if ending == "completed":
            shop.pay(order)
            shop.hear(order)
        else:
            shop.cancel(order)
    first = shop.end(order, skip=False)
    before = (shop.done(order), shop.moved(order), shop.parcels(order), shop.shelf(), shop.mail_kinds())
    events = OrderEvent.objects.count()
    OutboxMessage.objects.filter(kind="start").update(state="queued")
    shop.engine.deliver()
    assert shop.end(order) == first
    assert shop.engine.took(order) < timedelta(minutes=1), "the second run waited for money"
    after = (shop.done(order), shop.moved(order), shop.parcels(order), shop.shelf(), shop.mail_kinds())
    assert after == before
    assert OrderEvent.objects.count() == events
    assert shop.saga(order).result == first


def test_message_for_an_earlier_attempt_is_not_taken_for_the_present_one(shop: PracticeShop) -> None:
    order = shop.waiting()
    shop.cancel(order)
    shop.end(order, skip=False)
    lifecycle.start(order.number, "grace", "The customer called")
    shop.engine.deliver()
    shop.until_waiting(order)
    OutboxMessage.objects.filter(name="cancel_order").update(state="queued")
    shop.engine.deliver()
    shop.pay(order)
    shop.hear(order)
    shop.assert_completed(order, shop.end(order))


# --- money that is not exactly the total -----------------------------------------------------------------


def test_partial_payments_add_up(shop: PracticeShop) -> None:
    order = shop.waiting()
    shop.pay(order, 1000)
    shop.hear(order)
    assert shop.saga(order).status == "waiting"
    assert not OutboxMessage.objects.filter(name="confirm_payment").exists()
    shop.confirm(order, order.total - 1500)
    assert shop.saga(order).status == "waiting"
    shop.pay(order, 500)
    shop.hear(order)
    shop.assert_completed(order, shop.end(order))


def test_overpayment_completes_the_order_and_is_for_review(shop: PracticeShop) -> None:
    order = shop.waiting()
    shop.pay(order, order.total + 500)
    shop.hear(order)
    shop.assert_completed(order, shop.end(order))
    item = ReviewItem.objects.get()
    assert (item.reason, item.amount, item.merchant_reference) == ("too_much", 500, order.number)


def test_money_after_the_end_is_for_review_and_not_captured(shop: PracticeShop) -> None:
    order = shop.completed()
    shop.pay(order, 700)
    shop.hear(order)
    item = ReviewItem.objects.get()
    assert (item.reason, item.merchant_reference) == ("late", order.number)
    assert [m for m in shop.moved(order) if m.startswith("capture")] == [f"capture {order.total}"]


def test_confirmation_that_comes_after_the_end_is_for_review_and_captures_nothing(shop: PracticeShop) -> None:
    order = shop.waiting()
    shop.cancel(order)
    result = shop.end(order)
    # The receipt was recorded a moment before the saga ended; its message arrives a moment after.
    saga = shop.saga(order)
    assert saga.payment is not None
    paid = lifecycle.Paid(saga.pk, order.number, order.way, saga.attempt, saga.payment, order.total)
    lifecycle.queue_confirmations([paid])
    shop.engine.deliver()
    shop.assert_rolled_back(order, result, undone=["payment_hold", "inventory"])
    assert OutboxMessage.objects.get(name="confirm_payment").state == "undeliverable"
    item = ReviewItem.objects.get()
    assert (item.reason, item.merchant_reference) == ("undeliverable", order.number)
    assert OrderEvent.objects.filter(order=order, kind="late").count() == 1


# --- answers that do not come ----------------------------------------------------------------------------


@pytest.mark.parametrize("step", REMOTE_STEPS)
def test_lost_answer_is_asked_for_again_and_the_effect_is_there_once(shop: PracticeShop, step: Step) -> None:
    shop.provider.faults(**{OPERATION[step]: {"lost_answer_rate": 1}})
    order = shop.place()
    shop.engine.deliver()
    if step != Step.PAYMENT_HOLD:
        shop.until_waiting(order)
        shop.pay(order)
        shop.hear(order)
    shop.until_failed(order, step)
    shop.provider.faults()
    if step == Step.PAYMENT_HOLD:
        shop.until_waiting(order)
        shop.pay(order)
        shop.hear(order)
    shop.assert_completed(order, shop.end(order))
    assert f"{step} action failed" in shop.trail(order)
    assert shop.moved(order) == [f"{kind} {order.total}" for kind in ("authorization", "receipt", "capture")]
    assert shop.parcels(order) == ["created"]


def test_provider_that_is_away_for_a_while_costs_no_order(shop: PracticeShop) -> None:
    order = shop.waiting()
    shop.pay(order)
    shop.provider.faults(capture={"down": True})
    shop.hear(order)
    shop.until_failed(order, Step.PAYMENT_CAPTURED)
    shop.engine.sleep_until(shop.engine.now() + timedelta(seconds=10))
    shop.provider.faults()
    shop.assert_completed(order, shop.end(order))
    assert shop.trail(order).count("payment_captured action failed") >= 3


# --- the confirmation mail -------------------------------------------------------------------------------


def test_refused_confirmation_mail_calls_back_no_parcel_but_tells_ops(shop: PracticeShop) -> None:
    order = shop.waiting()
    shop.mailbox.refuses["ada@example.com"] = "550 No such user"
    shop.pay(order)
    shop.hear(order)
    result = shop.end(order)
    assert (result["status"], shop.status(order)) == ("completed", "completed")
    assert (shop.shelf(), shop.parcels(order)) == ((3, 0), ["created"])
    assert shop.trail(order)[-1] == "confirmation action failed"
    assert shop.mail_kinds() == ["received"]
    (alert,) = shop.alerts()
    assert order.number in alert["Subject"]
    assert "550" in str(alert.get_payload())
    assert shop.saga(order).mails.get(kind="confirmed").state == "failed"


def test_confirmation_mail_that_may_have_been_sent_is_not_sent_again_and_ops_are_told(
    shop: PracticeShop,
) -> None:
    order = shop.waiting()
    shop.mailbox.hanging_up = True
    shop.pay(order)
    shop.hear(order)
    shop.until_failed(order, Step.CONFIRMATION)
    shop.mailbox.hanging_up = False
    assert shop.end(order)["status"] == "completed"
    assert shop.saga(order).mails.get(kind="confirmed").state == "unknown"
    assert "confirmed" not in shop.mail_kinds()
    assert len(shop.alerts()) == 1


def test_confirmation_mail_is_tried_again_until_the_server_takes_it(shop: PracticeShop) -> None:
    order = shop.waiting()
    shop.mailbox.refuses["ada@example.com"] = "451 Try again later"
    shop.pay(order)
    shop.hear(order)
    shop.until_failed(order, Step.CONFIRMATION)
    shop.mailbox.refuses.clear()
    shop.assert_completed(order, shop.end(order))
    assert shop.mail_kinds().count("confirmed") == 1
    assert shop.alerts() == []


# --- once more -------------------------------------------------------------------------------------------


def test_cancelled_order_started_again_is_a_new_attempt_with_new_keys(shop: PracticeShop) -> None:
    order = shop.waiting()
    shop.cancel(order)
    first_end = shop.end(order, skip=False)
    shop.assert_rolled_back(order, first_end, undone=["payment_hold", "inventory"])
    lifecycle.start(order.number, "grace", "The customer called", attempt=2)
    assert lifecycle.start(order.number, "grace", "double click", attempt=2).repeated
    shop.engine.deliver()
    shop.until_waiting(order)
    shop.pay(order)
    shop.hear(order)
    shop.assert_completed(order, shop.end(order))
    assert [saga.attempt for saga in order.sagas.order_by("attempt")] == [1, 2]
    assert [p["status"] for p in shop.payments(order)] == ["voided", "captured"]
    first, second = (set(saga.steps.values_list("idempotency_key", flat=True)) for saga in Saga.objects.all())
    assert not first & second
    assert shop.held(order) == ["released", "consumed"]
    starts = OutboxMessage.objects.filter(kind="start").values_list("workflow_id", flat=True)
    assert set(starts) == {order.workflow_id}


def test_new_attempt_waits_until_the_last_mail_of_the_one_before_has_gone(shop: PracticeShop) -> None:
    shop.mailbox.refusal = "451 Try again later"
    order = shop.place()
    shop.engine.deliver()
    shop.until_status(order, "waiting")
    shop.cancel(order)
    shop.until_status(order, "cancelled")  # here; in Temporal its mails are still tried
    lifecycle.start(order.number, "grace", "The customer called")
    shop.engine.deliver()
    start = OutboxMessage.objects.get(kind="start", message_id__endswith="/2/start")
    assert (start.state, shop.saga(order).status) == ("queued", "pending")
    shop.mailbox.refusal = None
    shop.end(order, skip=False)
    OutboxMessage.objects.update(available_at=timezone.now())
    shop.engine.deliver()
    shop.until_waiting(order)
    assert shop.saga(order).attempt == 2
