"""The wait for the money: its deadline, the reminder, the extension, and the last check."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from orders.models import Order
from orders.services import lifecycle
from tests.orders.practice_shop import PracticeShop

NO_PAYMENT = "No payment arrived before the deadline"


def test_order_that_is_not_paid_for_14_days_is_cancelled_and_all_is_undone(shop: PracticeShop) -> None:
    order = shop.waiting()
    payment_id = shop.payments(order)[0]["psp_reference"]
    result = shop.end(order)
    assert result == {
        "status": "cancelled",
        "order_id": order.number,
        "payment_id": payment_id,
        "shipment_id": "",
        "reason": NO_PAYMENT,
        "compensated_steps": ["payment_hold", "inventory"],
    }
    shop.assert_rolled_back(order, result, undone=["payment_hold", "inventory"], reason=NO_PAYMENT)
    assert timedelta(days=13, hours=23) < shop.engine.took(order) < timedelta(days=14, hours=1)
    assert [p["status"] for p in shop.payments(order)] == ["voided"]
    assert shop.mail_kinds() == ["received", "reminder", "cancelled"]


def test_money_one_minute_before_the_deadline_is_found_without_a_webhook(shop: PracticeShop) -> None:
    order = shop.waiting()
    shop.engine.sleep_until(_deadline(shop, order) - timedelta(minutes=1))
    shop.pay(order)
    shop.assert_completed(order, shop.end(order))


def test_money_is_found_though_the_provider_fails_at_first_at_the_deadline(shop: PracticeShop) -> None:
    order = shop.waiting()
    shop.pay(order)
    shop.provider.faults(status={"error_rate": 1})
    shop.engine.sleep_until(_deadline(shop, order) + timedelta(seconds=1))
    shop.engine.until(lambda: shop.engine.failures(order, "check_payment_status"))
    shop.provider.faults()
    shop.assert_completed(order, shop.end(order))


def test_half_of_the_money_at_the_deadline_is_not_enough(shop: PracticeShop) -> None:
    order = shop.waiting()
    shop.pay(order, 1000)
    result = shop.end(order)
    shop.assert_rolled_back(order, result, undone=["payment_hold", "inventory"], reason=NO_PAYMENT)
    payment = shop.saga(order).payment
    assert payment is not None
    assert payment.totals().received == 1000


def test_reminder_is_sent_once_three_days_before_the_deadline(shop: PracticeShop) -> None:
    order = shop.waiting()
    deadline = _deadline(shop, order)
    shop.engine.sleep_until(deadline - timedelta(days=3, minutes=1))
    assert shop.mail_kinds() == ["received"]
    shop.engine.sleep_until(deadline - timedelta(days=3) + timedelta(minutes=1))
    shop.engine.until(lambda: "reminder" in shop.mail_kinds())
    shop.engine.sleep_until(deadline - timedelta(hours=1))
    shop.pay(order)
    shop.hear(order)
    shop.assert_completed(order, shop.end(order))
    assert shop.mail_kinds() == ["received", "reminder", "confirmed"]


def test_paid_order_is_not_reminded(shop: PracticeShop) -> None:
    order = shop.completed()
    assert shop.mail_kinds() == ["received", "confirmed"]
    assert order.sagas.get().mails.filter(kind="reminder").count() == 0


@pytest.mark.parametrize("paid_at_all", [True, False])
def test_extension_moves_the_deadline(shop: PracticeShop, paid_at_all: bool) -> None:
    order = shop.waiting()
    first = _deadline(shop, order)
    later = first + timedelta(days=5)
    lifecycle.extend_deadline(order.number, "grace", "The customer asked", later)
    assert lifecycle.extend_deadline(order.number, "grace", "The customer asked", later).repeated
    shop.engine.deliver()
    shop.engine.until(lambda: shop.engine.progress(order).deadline == later.isoformat())
    shop.engine.sleep_until(first + timedelta(days=4))
    assert shop.saga(order).status == "waiting"
    if paid_at_all:
        shop.pay(order)
        shop.hear(order)
        shop.assert_completed(order, shop.end(order))
    else:
        result = shop.end(order)
        shop.assert_rolled_back(order, result, undone=["payment_hold", "inventory"], reason=NO_PAYMENT)
        assert timedelta(days=19) <= shop.engine.took(order) < timedelta(days=19, hours=1)
    assert shop.mail_kinds().count("reminder") == 1


def test_extension_after_the_reminder_does_not_remind_again(shop: PracticeShop) -> None:
    order = shop.waiting()
    first = _deadline(shop, order)
    shop.engine.sleep_until(first - timedelta(days=1))
    shop.engine.until(lambda: "reminder" in shop.mail_kinds())
    lifecycle.extend_deadline(order.number, "grace", "The customer asked", first + timedelta(days=10))
    shop.engine.deliver()
    assert shop.end(order)["reason"] == NO_PAYMENT
    assert shop.mail_kinds().count("reminder") == 1


def test_deadline_can_only_be_moved_later_with_a_reason_and_within_limits(shop: PracticeShop) -> None:
    order = shop.waiting()
    deadline = _deadline(shop, order)
    for reason, moment, complaint in [
        ("", deadline + timedelta(days=1), "Say why"),
        ("asked", deadline - timedelta(days=1), "choose a later one"),
        ("asked", deadline + timedelta(days=365), "at the latest"),
    ]:
        with pytest.raises(lifecycle.ActionRefused, match=complaint):
            lifecycle.extend_deadline(order.number, "grace", reason, moment)
    assert _deadline(shop, order) == deadline


def _deadline(shop: PracticeShop, order: Order) -> datetime:
    deadline = shop.saga(order).deadline
    assert deadline is not None
    return deadline
