"""Authorizations that end before their order's deadline: renewed, warned of, lapsed, and never captured blindly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orders.api.outgoing import order_now
from orders.models import Mail, OpsAlertEntry, Order, OrderEvent
from orders.services import authorizations, lifecycle
from orders.services.outlook import outlook
from payments.gateways.base import EventOutcome, EventType, GatewayEvent
from payments.models import Payment, ReviewItem
from payments.services.recording import record
from shop.kernel.models import OutboxMessage
from shop.kernel.money import Money
from tests.orders.practice_shop import PracticeShop
from tests.orders.test_stripe_saga import deliver_webhooks, stripe
from tests.payments.stripe_server import StripeServer

__all__ = ["stripe"]

WEEK = timedelta(days=7)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
NO_PAYMENT = "No payment arrived before the deadline"


def waiting_with_hold(shop: PracticeShop, hold: timedelta = WEEK, **changes: Any) -> Order:
    """An order whose money is authorized for `hold`, in a payment window of 14 days unless told."""
    shop.provider.faults(authorize={"hold_s": hold.total_seconds()})
    return shop.waiting(**changes)


def payment_of(shop: PracticeShop, order: Order) -> Payment:
    payment = shop.saga(order).payment
    assert payment is not None
    return payment


def lapses(shop: PracticeShop, order: Order) -> datetime:
    until = payment_of(shop, order).authorized_until
    assert until is not None
    return until


def pay_until(order: Order) -> datetime:
    """What the shop's frontend and the customer's mails say."""
    deadline: datetime | None = order_now(order.number).deadline
    assert deadline is not None
    return deadline


def renewals(shop: PracticeShop, order: Order) -> int:
    return shop.moved(order).count("authorization_adjustment 0")


def notes(order: Order) -> list[str]:
    return list(order.events.filter(kind=OrderEvent.Kind.LAPSE).values_list("reason", flat=True))


def until_lapse_is_noted(shop: PracticeShop, order: Order) -> None:
    shop.engine.until(lambda: notes(order))
    shop.engine.until(OpsAlertEntry.objects.exists)


# --- renewed ---------------------------------------------------------------------------------------------


def test_hold_of_seven_days_is_renewed_once_in_a_window_of_fourteen(shop: PracticeShop) -> None:
    order = waiting_with_hold(shop)
    first = lapses(shop, order)
    assert pay_until(order) == first
    told = Mail.objects.get(saga__order=order, kind="received").text
    assert f"{first.day} {first:%B %Y, %H:%M} UTC" in told

    shop.engine.sleep_until(first - timedelta(days=2))
    assert shop.mail_kinds() == ["received"]
    shop.engine.sleep_until(first - DAY - MINUTE)
    assert shop.mail_kinds() == ["received", "reminder"]
    assert renewals(shop, order) == 0
    shop.engine.sleep_until(first - DAY + MINUTE)
    shop.engine.until(lambda: lapses(shop, order) > first)
    assert pay_until(order) == shop.saga(order).deadline

    result = shop.end(order)
    shop.assert_rolled_back(order, result, undone=["payment_hold", "inventory"], reason=NO_PAYMENT)
    assert timedelta(days=13, hours=23) < shop.engine.took(order) < timedelta(days=14, hours=1)
    assert renewals(shop, order) == 1
    assert notes(order) == []
    assert shop.alerts() == []


def test_money_after_the_renewal_completes_the_order(shop: PracticeShop) -> None:
    order = waiting_with_hold(shop)
    first = lapses(shop, order)
    shop.engine.sleep_until(first - DAY + MINUTE)
    shop.engine.until(lambda: lapses(shop, order) > first)
    shop.engine.sleep_until(first + DAY)
    shop.pay(order)
    shop.hear(order)
    shop.assert_completed(order, shop.end(order))


def test_hold_that_outlasts_the_deadline_is_not_renewed(shop: PracticeShop) -> None:
    order = waiting_with_hold(shop, timedelta(days=15))
    shop.engine.sleep_until(shop.engine.now() + timedelta(days=13))
    shop.pay(order)
    shop.hear(order)
    shop.assert_completed(order, shop.end(order))
    assert renewals(shop, order) == 0


def test_short_hold_is_renewed_in_its_last_quarter(shop: PracticeShop) -> None:
    order = waiting_with_hold(shop, timedelta(hours=8), payment_window=timedelta(hours=12))
    first = lapses(shop, order)
    shop.engine.sleep_until(first - timedelta(hours=2, minutes=1))
    assert renewals(shop, order) == 0
    shop.engine.sleep_until(first - timedelta(hours=2) + MINUTE)
    shop.engine.until(lambda: renewals(shop, order) == 1)
    assert shop.end(order)["reason"] == NO_PAYMENT


def test_extended_deadline_is_reached_by_renewals(shop: PracticeShop) -> None:
    order = waiting_with_hold(shop)
    deadline = shop.saga(order).deadline
    assert deadline is not None
    acted = lifecycle.extend_deadline(order.number, "grace", "The customer asked", deadline + 3 * DAY)
    assert "renewed before, if the provider agrees" in acted.message
    shop.engine.deliver()
    assert shop.end(order)["reason"] == NO_PAYMENT
    assert timedelta(days=16, hours=23) < shop.engine.took(order) < timedelta(days=17, hours=1)
    assert renewals(shop, order) == 2


def test_renewal_whose_answer_was_lost_is_done_once(shop: PracticeShop) -> None:
    order = waiting_with_hold(shop)
    first = lapses(shop, order)
    shop.provider.faults(renew={"lost_answer_rate": 1})
    shop.engine.sleep_until(first - DAY)
    shop.engine.until(lambda: shop.engine.failures(order, "renew_authorization"))
    shop.provider.faults()
    shop.engine.sleep_until(first - timedelta(hours=20))
    shop.engine.until(lambda: lapses(shop, order) > first)
    assert renewals(shop, order) == 1
    assert notes(order) == []


def test_provider_that_was_away_is_asked_again(shop: PracticeShop) -> None:
    order = waiting_with_hold(shop)
    first = lapses(shop, order)
    shop.provider.faults(renew={"error_rate": 1})
    shop.engine.sleep_until(first - timedelta(hours=20))
    until_lapse_is_noted(shop, order)
    shop.engine.sleep_until(first - timedelta(hours=11))  # in vain, a second time
    shop.provider.faults()
    shop.engine.sleep_until(first - timedelta(hours=5))
    shop.engine.until(lambda: lapses(shop, order) > first)
    assert shop.end(order)["reason"] == NO_PAYMENT
    assert len(notes(order)) == len(shop.alerts()) == 1
    assert shop.engine.took(order) > timedelta(days=13)


# --- not renewed -----------------------------------------------------------------------------------------


def test_refused_renewal_warns_once_and_the_order_ends_with_its_authorization(shop: PracticeShop) -> None:
    order = waiting_with_hold(shop)
    ends = lapses(shop, order)
    shop.provider.faults(renew={"refuse_rate": 1})
    shop.engine.sleep_until(ends - DAY + MINUTE)
    until_lapse_is_noted(shop, order)

    assert "The practice provider was told to refuse this." in notes(order)[0]
    seen = outlook(order, shop.saga(order))
    assert f"ends on {ends:%Y-%m-%d %H:%M} UTC and cannot be renewed" in seen.next
    assert seen.deadline == ends
    with pytest.raises(lifecycle.ActionRefused, match=r"authorization ends on .* cannot be renewed"):
        lifecycle.extend_deadline(order.number, "grace", "The customer asked", ends + 30 * DAY)

    result = shop.end(order)
    reason = f"The authorization lapsed on {ends:%Y-%m-%d %H:%M} UTC before the payment arrived"
    shop.assert_rolled_back(order, result, undone=["payment_hold", "inventory"], reason=reason)
    assert timedelta(days=6, hours=23) < shop.engine.took(order) < timedelta(days=7, hours=1)
    assert len(notes(order)) == 1
    (alert,) = shop.alerts()
    assert f"The authorization ends on {ends:%Y-%m-%d %H:%M} UTC" in str(alert["Subject"])
    assert shop.mail_kinds() == ["received", "reminder", "cancelled"]


def test_money_between_the_warning_and_the_lapse_completes_the_order(shop: PracticeShop) -> None:
    order = waiting_with_hold(shop)
    ends = lapses(shop, order)
    shop.provider.faults(renew={"refuse_rate": 1})
    shop.engine.sleep_until(ends - DAY + MINUTE)
    until_lapse_is_noted(shop, order)
    shop.pay(order)  # no webhook comes: the last check finds it
    shop.assert_completed(order, shop.end(order))


@pytest.mark.parametrize("cancel", [PracticeShop.cancel, PracticeShop.raw_cancel])
def test_cancel_in_the_middle_of_a_renewal_rolls_back(shop: PracticeShop, cancel: Any) -> None:
    order = waiting_with_hold(shop)
    ends = lapses(shop, order)
    shop.provider.faults(renew={"latency_ms": 8000})
    shop.engine.sleep_until(ends - DAY)
    key = f"{order.number}/1/payment_hold/renew/{ends.isoformat()}"
    shop.engine.until(lambda: shop.in_flight("/payments", key))
    cancel(shop, order)
    shop.provider.faults()
    assert shop.end(order)["compensated_steps"] == ["payment_hold", "inventory"]
    assert [payment["status"] for payment in shop.payments(order)] == ["voided"]
    assert notes(order) == []


def test_cancel_between_two_tries_at_a_renewal_warns_of_nothing(shop: PracticeShop) -> None:
    order = waiting_with_hold(shop)
    shop.provider.faults(renew={"error_rate": 1})
    shop.engine.sleep_until(lapses(shop, order) - DAY)
    shop.engine.until(lambda: shop.engine.failures(order, "renew_authorization"))
    shop.raw_cancel(order)
    assert shop.end(order)["compensated_steps"] == ["payment_hold", "inventory"]
    assert notes(order) == []
    assert shop.alerts() == []


# --- learned late ----------------------------------------------------------------------------------------


def news(payment: Payment, until: datetime, reference: str = "adj_1") -> GatewayEvent:
    return GatewayEvent(
        type=EventType.AUTHORIZATION_ADJUSTMENT,
        outcome=EventOutcome.SUCCEEDED,
        psp_reference=reference,
        payment_reference=payment.reference,
        merchant_reference=payment.merchant_reference,
        money=Money(0, payment.currency),
        occurred_at=datetime.now(UTC),
        authorized_until=until,
    )


def test_hold_that_is_learned_of_late_bounds_the_wait(shop: PracticeShop, stripe: StripeServer) -> None:
    order = shop.waiting(payment_method="stripe")
    payment = payment_of(shop, order)
    assert payment.authorized_until is None
    ends = shop.engine.now() + 5 * DAY
    for _ in range(2):
        record(payment, [news(payment, ends)], "webhook")
    assert OutboxMessage.objects.filter(name="authorization_lasts").count() == 1
    shop.engine.deliver()
    shop.engine.until(lambda: shop.engine.progress(order).authorized_until == ends.isoformat())
    assert pay_until(order) == ends
    assert f"lapsed on {ends:%Y-%m-%d %H:%M} UTC" in shop.end(order)["reason"]
    assert ["Stripe cannot renew a hold on a card" in note for note in notes(order)] == [True]
    assert len(shop.alerts()) == 1


def test_renewal_past_the_shop_is_heard_of_and_not_repeated(shop: PracticeShop) -> None:
    order = waiting_with_hold(shop)
    first = lapses(shop, order)
    with shop.provider.client() as merchant:
        path = f"/payments/{payment_of(shop, order).reference}/renew"
        merchant.post(path, headers={"Idempotency-Key": f"{path}/by-hand"}).raise_for_status()
    shop.hear(order)
    later = lapses(shop, order)
    assert later > first
    shop.engine.until(lambda: shop.engine.progress(order).authorized_until == later.isoformat())
    assert shop.end(order)["reason"] == NO_PAYMENT
    assert renewals(shop, order) == 1


def test_news_of_a_hold_after_the_end_is_nobodys_work(shop: PracticeShop) -> None:
    order = shop.waiting()
    payment = payment_of(shop, order)
    record(payment, [news(payment, lapses(shop, order) + DAY)], "webhook")
    message = OutboxMessage.objects.get(name="authorization_lasts")
    OutboxMessage.objects.filter(pk=message.pk).update(state="delivered")  # for now
    shop.cancel(order)
    shop.end(order, skip=False)
    OutboxMessage.objects.filter(pk=message.pk).update(state="queued")
    shop.engine.deliver()
    message.refresh_from_db()
    assert message.state == "undeliverable"
    assert not ReviewItem.objects.exists()


def test_authorization_released_at_the_provider_ends_the_wait(shop: PracticeShop) -> None:
    order = shop.waiting()
    with shop.provider.client() as merchant:
        path = f"/payments/{payment_of(shop, order).reference}/void"
        merchant.post(path, headers={"Idempotency-Key": f"{path}/by-hand"}).raise_for_status()
    shop.hear(order)
    result = shop.end(order, skip=False)
    assert (result["status"], result["reason"]) == (
        "cancelled",
        "The provider released the authorization.",
    )
    assert result["compensated_steps"] == ["inventory"]


# --- captured --------------------------------------------------------------------------------------------


def test_hold_that_is_over_is_not_captured_blindly(shop: PracticeShop, stripe: StripeServer) -> None:
    order = shop.waiting(payment_method="stripe")
    reference = payment_of(shop, order).reference
    over = datetime.now(UTC).replace(microsecond=0) - MINUTE
    stripe.pay(reference, capture_before=int(over.timestamp()))
    stripe.expire(reference)
    deliver_webhooks(shop, stripe, reference)
    result = shop.end(order)
    assert result["status"] == "cancelled"
    assert result["reason"] == (
        f"The authorization lapsed on {over:%Y-%m-%d %H:%M} UTC, before the money was taken."
    )
    assert result["compensated_steps"] == ["inventory"]
    assert "capture" not in stripe.requests
    assert shop.mail_kinds() == ["received", "cancelled"]


def test_hold_that_ends_during_an_outage_of_the_capture_is_told_as_such(
    shop: PracticeShop, stripe: StripeServer
) -> None:
    order = shop.waiting(payment_method="stripe")
    reference = payment_of(shop, order).reference
    stripe.fault("error", "capture")
    stripe.pay(reference)
    deliver_webhooks(shop, stripe, reference)
    shop.until_failed(order, "payment_captured")
    stripe.expire(reference)
    stripe.clear_faults()
    assert shop.end(order)["reason"].startswith("The authorization lapsed on")
    assert stripe.totals(reference)["captured"] == 0


def test_overdue_hold_that_the_provider_still_honours_is_captured(shop: PracticeShop) -> None:
    order = shop.waiting()
    payment = payment_of(shop, order)
    Payment.objects.filter(pk=payment.pk).update(authorized_until=datetime.now(UTC) - DAY)
    shop.pay(order)
    shop.hear(order)
    shop.assert_completed(order, shop.end(order))


def test_money_that_staff_saw_after_the_hold_was_over_is_not_lost(shop: PracticeShop) -> None:
    order = waiting_with_hold(shop, timedelta(seconds=1))
    shop.engine.until(lambda: shop.payments(order)[0]["status"] == "expired")
    shop.confirm(order)
    assert shop.end(order, skip=False)["reason"].startswith("The authorization lapsed on")
    item = ReviewItem.objects.get()
    assert (item.reason, item.amount) == ("late", order.total)


def test_how_long_a_hold_lasts_is_learned_from_webhooks_alone(
    shop: PracticeShop, stripe: StripeServer
) -> None:
    order = shop.waiting(payment_method="stripe")
    payment = payment_of(shop, order)
    stripe.fault("error", "capture")
    until = datetime.now(UTC).replace(microsecond=0) + 5 * DAY
    stripe.pay(payment.reference, capture_before=int(until.timestamp()))
    deliver_webhooks(shop, stripe, payment.reference)
    assert lapses(shop, order) == until
    assert not OutboxMessage.objects.filter(name="authorization_lasts").exists()  # the money is there
    assert "lasts until" in outlook(order, shop.saga(order)).next
    stripe.clear_faults()
    assert shop.end(order)["status"] == "completed"


def test_note_of_a_lapse_is_written_once(shop: PracticeShop) -> None:
    order = waiting_with_hold(shop)
    for why in ("No.", "Still no."):
        authorizations.note_lapse(order.number, 1, lapses(shop, order), why)
    assert len(notes(order)) == 1
