"""Orders taken in bulk, from the import to the parcel or the rollback; the hybrid check that looks after them."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import DatabaseError, IntegrityError, transaction
from django.utils import timezone
from pytest_django.fixtures import Settings

from orders.models import Mail, Order, OrderEvent, PaidInBulk, Product, Saga
from orders.services import fulfilling, lifecycle
from orders.services.lifecycle import ActionRefused
from orders.services.reconciling import sagas
from orders.workflows.types import FulfillmentStart
from payments.models import ReviewItem
from shop.kernel.models import OutboxMessage
from tests import factories
from tests.orders.bulk_shop import BulkShop, taken
from tests.orders.practice_shop import PracticeShop
from tests.orders.reconciling import found
from tests.payments.our_bank import arrives, our_bank


@pytest.fixture
def bulk_shop(shop: PracticeShop, settings: Settings, tmp_path: Path) -> BulkShop:
    settings.CARRIER = "practice"
    made = BulkShop(shop.engine, shop.provider, shop.mailbox)
    made.folder = tmp_path
    return made


def runs(shop: BulkShop, workflow_id: str) -> int:
    """How many runs of this workflow the engine has begun."""

    async def count() -> int:
        found = 0
        run_id = (await shop.engine.handle(workflow_id).describe()).run_id
        while run_id:
            found += 1
            handle = shop.engine.client.get_workflow_handle(workflow_id, run_id=run_id)
            first = (await handle.fetch_history()).events[0].workflow_execution_started_event_attributes
            run_id = first.continued_execution_run_id
        return found

    return shop.engine.wait(count())


def overdue(order: Order) -> None:
    Saga.objects.filter(order=order).update(deadline=timezone.now() - timedelta(minutes=1))


# --- the way of an order ---------------------------------------------------------------------------------


def test_a_paid_order_is_shipped_with_the_next_check(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    bulk_shop.engine.deliver()
    assert (bulk_shop.status(order), bulk_shop.saga(order).status) == ("awaiting_payment", "waiting")
    assert bulk_shop.shelf() == (5, 2)
    assert bulk_shop.check() == {"pending": 1}
    assert not OutboxMessage.objects.filter(workflow_id=order.workflow_id).exists(), (
        "waits without a workflow"
    )
    bulk_shop.pay(order)
    assert bulk_shop.check() == {"paid": 1, "fulfillment_started": 1}
    bulk_shop.assert_completed(order, bulk_shop.end(order, skip=False))
    assert bulk_shop.mail_kinds() == ["received", "confirmed"]
    assert bulk_shop.check() == {}
    assert not PaidInBulk.objects.exists()


def test_money_on_a_bank_statement_is_enough(bulk_shop: BulkShop, settings: Settings) -> None:
    with our_bank(settings):
        order = bulk_shop.imported(payment_method="bank_transfer")
        payment = bulk_shop.saga(order).payment
        assert payment is not None
        arrives(payment, 1000)
        assert bulk_shop.check() == {"pending": 1}
        arrives(payment, order.total - 1000)
        assert bulk_shop.check() == {"paid": 1, "fulfillment_started": 1}
        assert bulk_shop.end(order, skip=False)["status"] == "completed"
    text = Mail.objects.get(kind="received").text
    assert payment.reference.replace(" ", "")[:4] in text, "the mail says how to pay"


def test_confirming_by_hand_does_not_wait_for_the_check(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    bulk_shop.confirm(order, 1000, "B1")
    assert not OutboxMessage.objects.filter(workflow_id=order.workflow_id).exists()
    bulk_shop.confirm(order, order.total - 1000, "B2")
    assert bulk_shop.end(order, skip=False)["status"] == "completed"
    assert bulk_shop.check() == {}


def test_a_failed_capture_undoes_everything_newest_first(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    bulk_shop.pay(order)
    bulk_shop.provider.faults(create_shipment={"refuse_rate": 1})
    assert bulk_shop.check()["fulfillment_started"] == 1
    result = bulk_shop.end(order, skip=False)
    bulk_shop.assert_rolled_back(order, result, undone=["payment_captured", "inventory"])


def test_a_refused_order_has_its_dead_letter(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    bulk_shop.pay(order)
    bulk_shop.provider.faults(create_shipment={"refuse_rate": 1}, refund={"refuse_rate": 1})
    bulk_shop.check()
    assert bulk_shop.end(order, skip=False)["status"] == "compensation_failed"
    assert bulk_shop.saga(order).dead_letters.get().step == "payment_captured"


# --- once ------------------------------------------------------------------------------------------------


def test_two_checks_at_once_fulfil_an_order_once(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    bulk_shop.pay(order)
    bulk_shop.provider.faults(capture={"latency_ms": 1500})
    first, second = bulk_shop.start_check(), bulk_shop.start_check()
    counts = [bulk_shop.engine.result(check, skip=False) for check in (first, second)]
    assert sum(found["fulfillment_started"] for found in counts) == 1
    bulk_shop.assert_completed(order, bulk_shop.end(order, skip=False))
    assert runs(bulk_shop, order.workflow_id) == 1


def test_a_check_that_is_killed_is_made_good_by_the_next(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    bulk_shop.pay(order)
    bulk_shop.provider.faults(capture={"latency_ms": 2000})
    check = bulk_shop.start_check()
    bulk_shop.engine.until(lambda: bulk_shop.saga(order).status == "running")
    with contextlib.suppress(Exception):
        bulk_shop.engine.wait(bulk_shop.engine.handle(check).terminate("killed"))
    assert bulk_shop.check().get("fulfillment_started", 0) == 0
    bulk_shop.assert_completed(order, bulk_shop.end(order, skip=False))


def test_a_fulfillment_that_is_begun_twice_does_nothing_twice(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    bulk_shop.pay(order)
    bulk_shop.check()
    result = bulk_shop.end(order, skip=False)
    bulk_shop.assert_completed(order, result)
    lifecycle._queue_start(bulk_shop.saga(order), "once more")
    bulk_shop.engine.deliver()
    assert bulk_shop.end(order, skip=False) == result
    bulk_shop.assert_completed(order, result)


def test_a_fulfillment_whose_workflow_was_lost_is_rolled_back_by_reconcile(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    waiting = bulk_shop.imported()
    bulk_shop.pay(order)
    bulk_shop.provider.faults(create_shipment={"error_rate": 1})
    bulk_shop.check()
    bulk_shop.until_failed(order, "shipping")
    bulk_shop.engine.wait(bulk_shop.engine.handle(order.workflow_id).terminate("by hand"))
    bulk_shop.provider.faults()
    (difference,) = found(sagas.in_temporal, bulk_shop.engine.client)
    assert difference.about == order.number
    assert difference.fix()
    bulk_shop.engine.deliver()
    assert bulk_shop.end(order, skip=False)["compensated_steps"] == ["payment_captured", "inventory"]
    assert bulk_shop.saga(waiting).status == "waiting", "an order that waits is no orphan"


def test_orders_with_a_saga_are_not_touched(bulk_shop: BulkShop) -> None:
    order = bulk_shop.waiting()
    bulk_shop.pay(order)
    assert bulk_shop.check() == {}
    bulk_shop.assert_completed(order, bulk_shop.end(order, skip=False))
    refused = fulfilling.begin(FulfillmentStart(order.number, 1))
    assert refused is not None
    assert refused.status == "completed"


def test_the_fulfillment_of_an_order_with_a_saga_is_refused(bulk_shop: BulkShop) -> None:
    order = bulk_shop.waiting()
    refused = fulfilling.begin(FulfillmentStart(order.number, 1))
    assert refused is not None
    assert (refused.status, refused.reason) == ("refused", "The order has its own saga.")
    assert bulk_shop.saga(order).status == "waiting"


def test_the_database_refuses_to_change_the_way(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    for number, way in ((order.number, "saga"), (bulk_shop.place().number, "bulk")):
        with pytest.raises(DatabaseError, match="Cannot update"), transaction.atomic():
            Order.objects.filter(number=number).update(way=way)
    neither = bulk_shop.place()
    neither.pk, neither.number, neither.way = None, "ORD-1", "both"
    with pytest.raises(IntegrityError, match="one_of_two_ways"), transaction.atomic():
        neither.save(force_insert=True)


# --- many ------------------------------------------------------------------------------------------------


def test_pages_of_paid_orders_are_all_fulfilled_in_several_runs(
    bulk_shop: BulkShop, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fulfilling, "PAGE", 10)
    factories.product("PIN", price=100, on_hand=1000)
    with our_bank(settings):
        for _ in range(25):
            order = taken(("PIN", 1), payment_method="bank_transfer", carrier="manual")
            payment = bulk_shop.saga(order).payment
            assert payment is not None
            arrives(payment, order.total)
        OutboxMessage.objects.all().delete()  # their first mails are not what this is about
        check = bulk_shop.start_check()
        result = bulk_shop.engine.result(check, skip=False)
        assert (result["paid"], result["fulfillment_started"]) == (25, 25)
        assert runs(bulk_shop, check) == 2, "two pages each"
        done = Order.objects.filter(status="completed")
        bulk_shop.engine.until(lambda: done.count() == 25, seconds=120)
    assert list(Product.objects.values_list("sku", "on_hand", "reserved").order_by("sku")) == [
        ("PIN", 975, 0),
        ("TEA", 5, 0),
    ]
    assert Mail.objects.filter(kind="confirmed", state="sent").count() == 25


def test_many_orders_go_on_as_new_with_their_counts(
    bulk_shop: BulkShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fulfilling, "PAGE", 1)
    orders = [bulk_shop.imported(lines=[{"sku": "TEA", "quantity": 1}]) for _ in range(5)]
    for order in orders[:3]:
        bulk_shop.pay(order)
    overdue(orders[3])
    overdue(orders[4])
    check = bulk_shop.start_check()
    result = bulk_shop.engine.result(check, skip=False)
    assert (result["paid"], result["fulfillment_started"], result["given_up"]) == (3, 3, 2)
    assert runs(bulk_shop, check) > 2
    bulk_shop.engine.deliver()
    ends = [bulk_shop.end(order, skip=False)["status"] for order in orders]
    assert ends == ["completed"] * 3 + ["cancelled"] * 2
    assert bulk_shop.shelf() == (2, 0)


# --- the end of the wait ---------------------------------------------------------------------------------


def test_an_unpaid_order_is_rolled_back_after_its_deadline(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    overdue(order)
    assert bulk_shop.check() == {"given_up": 1, "pending": 1}
    result = bulk_shop.end(order, skip=False)
    reason = "No payment arrived before the deadline"
    bulk_shop.assert_rolled_back(order, result, undone=["payment_hold", "inventory"], reason=reason)
    assert bulk_shop.check() == {}


def test_money_that_came_just_before_the_check_counts(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    overdue(order)
    bulk_shop.pay(order)
    assert bulk_shop.check() == {"paid": 1, "fulfillment_started": 1}
    bulk_shop.assert_completed(order, bulk_shop.end(order, skip=False))


def test_no_order_is_given_up_while_its_provider_cannot_be_asked(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    overdue(order)
    bulk_shop.provider.faults(changes={"down": True}, status={"down": True})
    found = bulk_shop.check(skip=True)
    assert (found.get("given_up", 0), found["unanswered"]) == (0, 1)
    bulk_shop.provider.faults()
    assert bulk_shop.saga(order).status == "waiting"
    bulk_shop.pay(order)
    assert bulk_shop.check() == {"paid": 1, "fulfillment_started": 1}


def test_an_extended_deadline_holds(bulk_shop: BulkShop, settings: Settings) -> None:
    with our_bank(settings):
        order = bulk_shop.imported(payment_method="bank_transfer")
        overdue(order)
        later = timezone.now() + timedelta(days=20)
        lifecycle.extend_deadline(order.number, "grace", "The customer called", later)
        assert bulk_shop.check() == {"pending": 1}
        assert not OutboxMessage.objects.filter(workflow_id=order.workflow_id).exists()


def test_a_declined_payment_rolls_the_order_back(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    bulk_shop.decline(order)
    bulk_shop.check()
    assert bulk_shop.end(order, skip=False)["status"] == "cancelled"
    assert (bulk_shop.shelf(), bulk_shop.status(order)) == ((5, 0), "cancelled")


def test_cancelling_a_waiting_order_rolls_it_back(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    bulk_shop.cancel(order)
    bulk_shop.assert_rolled_back(
        order, bulk_shop.end(order, skip=False), undone=["payment_hold", "inventory"], reason="Ordered twice"
    )
    with pytest.raises(ActionRefused, match="taken in bulk"):
        lifecycle.start(order.number, "grace")


def test_a_cancelled_order_is_not_fulfilled_even_if_it_is_paid(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    bulk_shop.pay(order)
    bulk_shop.hear(order)
    lifecycle.cancel(order.number, "grace", "Ordered twice")  # the engine does not know yet
    refused = fulfilling.begin(FulfillmentStart(order.number, 1))
    assert refused is not None
    assert (refused.status, refused.reason) == (
        "refused",
        "Its cancellation was asked for and is on its way.",
    )
    bulk_shop.check()
    assert bulk_shop.end(order, skip=False)["reason"] == "Ordered twice"
    bulk_shop.assert_nothing_left(order)
    assert bulk_shop.check() == {}
    assert not PaidInBulk.objects.exists()


def test_cancelling_while_it_is_fulfilled_undoes_the_capture(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    bulk_shop.pay(order)
    bulk_shop.provider.faults(create_shipment={"error_rate": 1})
    bulk_shop.check()
    bulk_shop.until_failed(order, "shipping")
    bulk_shop.cancel(order)
    bulk_shop.provider.faults()
    result = bulk_shop.end(order, skip=False)
    assert (result["status"], result["reason"]) == ("cancelled", "Ordered twice")
    bulk_shop.assert_nothing_left(order)


def test_a_raw_cancel_rolls_back_what_was_done_when_the_order_was_taken(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    bulk_shop.pay(order)
    bulk_shop.provider.faults(capture={"error_rate": 1})
    bulk_shop.check()
    bulk_shop.until_failed(order, "payment_captured")
    bulk_shop.raw_cancel(order)
    bulk_shop.provider.faults()
    result = bulk_shop.end(order, skip=False)
    assert (result["status"], result["reason"]) == ("cancelled", "Cancelled in Temporal")
    bulk_shop.assert_nothing_left(order)


def test_money_for_a_cancelled_order_is_reviewed(bulk_shop: BulkShop, settings: Settings) -> None:
    with our_bank(settings):
        order = bulk_shop.imported(payment_method="bank_transfer")
        payment = bulk_shop.saga(order).payment
        bulk_shop.cancel(order)
        bulk_shop.end(order, skip=False)
        assert payment is not None
        payment.refresh_from_db()
        arrives(payment, order.total)
    assert bulk_shop.check() == {}
    assert bulk_shop.saga(order).status == "cancelled"


def test_a_message_to_a_lost_fulfillment_is_reviewed_and_the_order_rolled_back(bulk_shop: BulkShop) -> None:
    order = bulk_shop.imported()
    bulk_shop.pay(order)
    bulk_shop.provider.faults(create_shipment={"error_rate": 1})
    bulk_shop.check()
    bulk_shop.until_failed(order, "shipping")
    bulk_shop.engine.wait(bulk_shop.engine.handle(order.workflow_id).terminate("by hand"))
    bulk_shop.provider.faults()
    bulk_shop.cancel(order)
    assert bulk_shop.end(order, skip=False)["status"] == "cancelled"
    bulk_shop.assert_nothing_left(order)
    assert ReviewItem.objects.filter(reason="undeliverable").count() == 1
    assert OrderEvent.objects.filter(order=order, kind="late").exists()


def test_a_monitored_gateway_does_not_watch_every_bulk_order(bulk_shop: BulkShop, settings: Settings) -> None:
    settings.MONITORED_GATEWAYS = ["sandbox"]
    order = bulk_shop.imported()
    assert not OutboxMessage.objects.filter(workflow_id=f"payment-monitor-{order.number}").exists()
