"""Webhooks of the practice provider over HTTP: what they do to the books and to the order that waits for them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx2
import pytest
from django.db import connection, transaction
from django.test import Client
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from orders.models import Order, Saga
from orders.services.audit import lock_saga
from payments.gateways.base import EventOutcome, EventType, GatewayEvent, RemotePayment, RemoteStatus
from payments.ledger import Totals
from payments.models import Payment, PaymentEvent, ReviewItem, WebhookDelivery
from payments.sandbox.signing import new_secret, signature
from payments.services.closing import close_payment
from payments.services.recording import absorb, open_payment, record
from shop.kernel.models import OutboxMessage
from shop.kernel.money import Money
from tests import factories
from tests.orders.test_api import Answer, at_once
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db

SECRET = new_secret()
REFERENCE = "pay_1"
TOTAL = 3998  # two pieces of the factories' tea
State = WebhookDelivery.State


@pytest.fixture(autouse=True)
def shop(settings: Settings) -> Iterator[None]:
    from payments.gateways import gateway

    settings.PAYMENT_GATEWAYS = {"sandbox": "payments.gateways.sandbox.SandboxGateway"}
    settings.SANDBOX_WEBHOOK_SECRETS = [new_secret(), SECRET]
    gateway.cache_clear()
    yield
    gateway.cache_clear()


@dataclass
class Webhook:
    """A signed webhook; change it after signing to forge it."""

    headers: dict[str, str]
    body: bytes


def webhook(
    message_id: str = "evt_1",
    *,
    age_s: int = 0,
    secret: str = SECRET,
    kind: str = "payment.event",
    **changes: Any,
) -> Webhook:
    """By default: the whole amount has come in."""
    event = {
        "type": "receipt",
        "outcome": "succeeded",
        "psp_reference": f"psp_{message_id}",
        "payment_reference": REFERENCE,
        "merchant_reference": "ORD-1",
        "amount": TOTAL,
        "currency": "EUR",
        "occurred_at": "2026-01-02T03:04:05Z",
        "detail": "",
    } | changes
    return signed(
        json.dumps({"id": message_id, "type": kind, "data": event}).encode(), message_id, age_s, secret
    )


def signed(body: bytes, message_id: str = "evt_1", age_s: int = 0, secret: str = SECRET) -> Webhook:
    timestamp = int(time.time()) - age_s
    return Webhook(
        {
            "Webhook-Id": message_id,
            "Webhook-Timestamp": str(timestamp),
            "Webhook-Signature": signature(secret, message_id, timestamp, body),
        },
        body,
    )


def deliver(webhook: Webhook, gateway: str = "sandbox") -> Answer:
    # As any stranger's request: no cookie, no CSRF token.
    return Client(enforce_csrf_checks=True).post(
        f"/webhooks/payments/{gateway}/",
        webhook.body,
        content_type="application/json",
        headers={"User-Agent": "practice/1", "Cookie": "sessionid=1"} | webhook.headers,
    )


def assert_taken(webhook: Webhook, state: str = State.PROCESSED) -> WebhookDelivery:
    response = deliver(webhook)
    assert response.status_code == 200, response.content
    assert json.loads(response.content) == {"state": state}
    return assert_stored(webhook, state)


def assert_rejected(webhook: Webhook) -> WebhookDelivery:
    before = PaymentEvent.objects.count(), OutboxMessage.objects.count(), ReviewItem.objects.count()
    response = deliver(webhook)
    assert response.status_code == 400, response.content
    delivery = assert_stored(webhook, State.REJECTED)
    assert json.loads(response.content) == {"detail": delivery.error}
    assert delivery.error
    assert (delivery.event_id, delivery.payment_reference, delivery.events) == ("", "", [])
    assert before == (PaymentEvent.objects.count(), OutboxMessage.objects.count(), ReviewItem.objects.count())
    return delivery


def assert_stored(webhook: Webhook, state: str) -> WebhookDelivery:
    """The newest webhook, which is this one, word for word."""
    delivery = WebhookDelivery.objects.latest("id")
    assert (bytes(delivery.body), delivery.state) == (webhook.body, state)
    for name, value in webhook.headers.items():
        assert delivery.headers[name.lower()] == value
    assert delivery.headers["user-agent"] == "practice/1"
    assert "cookie" not in delivery.headers
    assert (delivery.processed_at is not None) == (state == State.PROCESSED)
    return delivery


def authorized(reference: str = REFERENCE) -> tuple[Saga, Payment]:
    """An order that waits for its money."""
    factories.product()
    order = factories.place()
    saga = Saga.objects.get(order=order)
    payment = open_payment("sandbox", order.number, order.total_money, saga.key("payment_hold"))
    if reference:
        payment = absorb(payment, remote(payment, reference), "call")
    saga.payment = payment
    saga.status = Saga.Status.WAITING
    saga.deadline = datetime.now(UTC) + timedelta(days=14)
    saga.save()
    return saga, payment


def remote(payment: Payment, reference: str = REFERENCE) -> RemotePayment:
    """The provider's view of a payment that was just authorized."""
    event = GatewayEvent(
        EventType.AUTHORIZATION,
        EventOutcome.SUCCEEDED,
        psp_reference=reference,
        payment_reference=reference,
        merchant_reference=payment.merchant_reference,
        money=payment.due,
        occurred_at=datetime.now(UTC),
    )
    return RemotePayment(
        payment_reference=reference,
        merchant_reference=payment.merchant_reference,
        currency=payment.currency,
        status=RemoteStatus.AUTHORIZED,
        authorized=payment.amount,
        received=0,
        captured=0,
        refunded=0,
        voided=0,
        authorized_until=None,
        events=(event,),
    )


def totals(payment: Payment) -> Totals:
    return Payment.objects.get(pk=payment.pk).totals()


def signals() -> list[str]:
    return list(OutboxMessage.objects.filter(kind="signal").order_by("id").values_list("name", flat=True))


# --- genuine ---------------------------------------------------------------------------------------------


def test_a_genuine_webhook_books_the_money_and_tells_the_saga() -> None:
    saga, payment = authorized()
    delivery = assert_taken(webhook())
    assert (delivery.event_id, delivery.payment_reference) == ("evt_1", REFERENCE)
    event = PaymentEvent.objects.get(type="receipt")
    assert (event.payment, event.amount, event.source, event.raw_id) == (payment, TOTAL, "webhook", "evt_1")
    assert totals(payment).status == "paid"
    message = OutboxMessage.objects.get(kind="signal")
    assert (message.name, message.workflow_id) == ("confirm_payment", saga.order.workflow_id)
    assert (message.payload["attempt"], message.payload["amount"]) == (1, TOTAL)


def test_money_in_parts_tells_the_saga_when_it_suffices() -> None:
    _, payment = authorized()
    assert_taken(webhook("evt_1", amount=TOTAL - 1))
    assert totals(payment).status == "partially_paid"
    assert signals() == []
    assert_taken(webhook("evt_2", amount=1))
    assert totals(payment).status == "paid"
    assert signals() == ["confirm_payment"]
    assert not ReviewItem.objects.exists()


def test_too_much_money_is_counted_and_reviewed() -> None:
    _, payment = authorized()
    assert_taken(webhook(amount=TOTAL + 500))
    assert totals(payment).received == TOTAL + 500
    assert signals() == ["confirm_payment"]
    item = ReviewItem.objects.get()
    assert (item.reason, item.amount, item.currency) == ("too_much", 500, "EUR")
    assert item.detail == "€44.98 have come in for €39.98: €5.00 too much."


def test_a_decline_tells_the_saga() -> None:
    _, payment = authorized()
    assert_taken(webhook(type="authorization", outcome="failed", detail="The customer said no."))
    assert totals(payment).status == "declined"
    assert signals() == ["payment_failed"]
    assert OutboxMessage.objects.get(kind="signal").payload["detail"] == "The customer said no."


# --- twice -----------------------------------------------------------------------------------------------


def test_the_same_webhook_again_changes_nothing() -> None:
    _, payment = authorized()
    first = assert_taken(webhook())
    for _ in range(3):
        again = assert_taken(webhook())
        assert again.event_id == ""
        assert "Seen before" in again.error
    assert totals(payment).received == TOTAL
    assert signals() == ["confirm_payment"]
    assert not ReviewItem.objects.exists()
    first.refresh_from_db()
    assert (first.event_id, first.error) == ("evt_1", "")
    assert WebhookDelivery.objects.count() == 4


def test_the_same_news_in_another_message_is_booked_once() -> None:
    _, payment = authorized()
    assert_taken(webhook("evt_1", psp_reference="rcv_1"))
    again = assert_taken(webhook("evt_2", psp_reference="rcv_1"))
    assert again.error == "Nothing new: it was in the books already."
    assert totals(payment).received == TOTAL


def test_what_a_check_has_found_before_is_booked_once() -> None:
    _, payment = authorized()
    found = GatewayEvent(
        EventType.RECEIPT,
        EventOutcome.SUCCEEDED,
        "rcv_1",
        REFERENCE,
        payment.merchant_reference,
        Money(TOTAL, "EUR"),
        datetime.now(UTC),
    )
    record(payment, [found], source="check")
    assert_taken(webhook(psp_reference="rcv_1"))
    assert totals(payment).received == TOTAL
    assert signals() == ["confirm_payment"]


@pytest.mark.django_db(transaction=True)
def test_the_same_webhook_many_times_at_once_is_booked_once() -> None:
    _, payment = authorized()
    for round_ in range(5):
        same = webhook(f"evt_{round_}", amount=100)
        answers = at_once(*[partial(deliver, same)] * 6)
        assert {a.status_code for a in answers} == {200}
    assert totals(payment).received == 500
    assert WebhookDelivery.objects.filter(state=State.PROCESSED).count() == 30
    assert WebhookDelivery.objects.exclude(event_id="").count() == 5


@pytest.mark.django_db(transaction=True)
def test_the_two_halves_of_the_money_at_once_confirm_the_payment_once() -> None:
    _, payment = authorized()
    halves = [webhook(f"evt_{half}", amount=TOTAL // 2) for half in range(2)]
    at_once(*[partial(deliver, half) for half in halves])
    assert totals(payment).received == TOTAL
    assert signals() == ["confirm_payment"]


# --- forged, stale, broken -------------------------------------------------------------------------------


WRONG = "The webhook's signature is wrong."
NOT_A_TIME = "The webhook's timestamp is not a number of seconds."
STALE = "The webhook is older than five minutes, or from the future."


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (lambda w: Webhook(w.headers, w.body.replace(b"3998", b"9998")), WRONG),
        (lambda w: Webhook(w.headers | {"Webhook-Id": "evt_2"}, w.body), WRONG),  # replayed as another
        (lambda w: Webhook(w.headers | {"Webhook-Timestamp": str(int(time.time()) + 7)}, w.body), WRONG),
        (lambda w: Webhook(w.headers | {"Webhook-Timestamp": "yesterday"}, w.body), NOT_A_TIME),
        (lambda w: Webhook(w.headers | {"Webhook-Timestamp": "9" * 50}, w.body), NOT_A_TIME),
        (lambda w: Webhook(w.headers | {"Webhook-Signature": ""}, w.body), WRONG),
        (lambda w: Webhook(w.headers | {"Webhook-Signature": "v1,"}, w.body), WRONG),
        (lambda w: Webhook(w.headers | {"Webhook-Signature": "v1,ÄÖÜ"}, w.body), WRONG),
        (lambda w: Webhook({}, w.body), "The webhook is not signed."),
        (lambda w: Webhook(w.headers, b""), WRONG),
        (lambda w: Webhook(w.headers, w.body[:-20]), WRONG),  # truncated on its way
        (lambda w: Webhook(w.headers, w.body + b" "), WRONG),
        (lambda w: webhook(secret=new_secret()), WRONG),
    ],
)
def test_a_forged_webhook_is_kept_and_does_nothing(forge: Callable[[Webhook], Webhook], said: str) -> None:
    authorized()
    assert assert_rejected(forge(webhook())).error == said


def test_a_replayed_webhook_is_seen_before_and_stale_after_five_minutes() -> None:
    """Word for word, with its genuine signature: at first it is a duplicate, later it is too old."""
    _, payment = authorized()
    assert_taken(webhook(age_s=290))
    assert assert_taken(webhook(age_s=290)).error == "Seen before as evt_1; nothing was done again."
    assert assert_rejected(webhook(age_s=320)).error == STALE
    assert totals(payment).received == TOTAL


def test_each_secret_of_a_rotation_is_taken_and_a_retired_one_is_not(settings: Settings) -> None:
    authorized()
    new, old = settings.SANDBOX_WEBHOOK_SECRETS
    assert_taken(webhook("evt_1", secret=old))
    assert_taken(webhook("evt_2", secret=new))
    settings.SANDBOX_WEBHOOK_SECRETS = [new]
    assert assert_rejected(webhook("evt_3", secret=old)).error == WRONG


def test_a_forged_webhook_does_not_take_the_place_of_the_genuine_one() -> None:
    _, payment = authorized()
    assert_rejected(webhook(secret=new_secret()))
    assert_taken(webhook())
    assert totals(payment).received == TOTAL


@pytest.mark.parametrize("age_s", [302, 86_400, -302])
def test_a_stale_webhook_is_kept_and_does_nothing(age_s: int) -> None:
    authorized()
    assert assert_rejected(webhook(age_s=age_s)).error == STALE


@pytest.mark.parametrize("age_s", [295, -295])
def test_a_webhook_of_some_minutes_is_taken(age_s: int) -> None:
    authorized()
    assert_taken(webhook(age_s=age_s))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"null",
        b"[]",
        b'"payment.event"',
        b'{"type": "payment.event"}',
        b'{"type": "payment.event", "data": null}',
        b'{"type": "payment.event", "data": {}}',
        b'{"type": "something.else", "data": {}}',
    ],
    ids=lambda body: repr(body[:40]),
)
def test_a_signed_webhook_that_says_nothing_is_kept_and_does_nothing(body: bytes) -> None:
    authorized()
    assert assert_rejected(signed(body)).error.startswith("The webhook was not understood: ")


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "lottery"},
        {"outcome": "perhaps"},
        {"amount": "3998"},
        {"amount": 39.98},
        {"amount": True},
        {"amount": -1},
        {"amount": None},
        {"amount": 2**63},
        {"currency": "euro"},
        {"currency": None},
        {"occurred_at": "yesterday"},
        {"occurred_at": None},
        {"payment_reference": ""},
        {"payment_reference": "x" * 121},
        {"payment_reference": "pay\0"},
        {"psp_reference": ""},
        {"psp_reference": "x" * 161},
        {"psp_reference": "\ud800"},
        {"detail": "a\0b"},
    ],
    ids=lambda changes: repr(changes)[:40],
)
def test_a_signed_webhook_that_cannot_be_booked_is_kept_and_does_nothing(changes: dict[str, Any]) -> None:
    authorized()
    authorized_later = open_payment("sandbox", "ORD-2", Money(100, "EUR"), "ORD-2/1/payment_hold")
    assert_rejected(webhook(**changes))
    assert totals(authorized_later) == Totals()


def test_a_message_id_too_long_to_be_kept_is_rejected() -> None:
    authorized()
    assert_rejected(webhook("e" * 121))


# --- too early -------------------------------------------------------------------------------------------


def test_a_webhook_for_an_unknown_payment_waits_until_its_payment_is_known() -> None:
    _, payment = authorized(reference="")
    early = assert_taken(webhook(merchant_reference=payment.merchant_reference), State.WAITING)
    assert (early.event_id, early.payment_reference) == ("evt_1", REFERENCE)
    assert totals(payment) == Totals()
    assert signals() == []
    # Another payment's answer is not the one.
    other = open_payment("sandbox", "ORD-X", Money(TOTAL, "EUR"), "ORD-X/1/payment_hold")
    absorb(other, remote(other, "pay_other"), "call")
    early.refresh_from_db()
    assert early.state == State.WAITING

    absorb(payment, remote(payment), "call")
    early.refresh_from_db()
    assert (early.state, early.error) == (State.PROCESSED, "")
    assert early.processed_at is not None
    assert totals(payment).status == "paid"
    assert signals() == ["confirm_payment"]
    absorb(payment, remote(payment), "check")
    assert totals(payment).received == TOTAL


def test_a_waiting_webhook_that_comes_again_is_booked_once() -> None:
    _, payment = authorized(reference="")
    assert_taken(webhook(merchant_reference=payment.merchant_reference), State.WAITING)
    assert "Seen before" in assert_taken(webhook()).error
    absorb(payment, remote(payment), "call")
    assert totals(payment).received == TOTAL
    assert_taken(webhook())
    assert totals(payment).received == TOTAL


def test_several_webhooks_may_wait() -> None:
    _, payment = authorized(reference="")
    for number in range(3):
        early = webhook(f"evt_{number}", amount=100, merchant_reference=payment.merchant_reference)
        assert_taken(early, State.WAITING)
    absorb(payment, remote(payment), "call")
    assert totals(payment).received == 300


@pytest.mark.django_db(transaction=True)
def test_a_webhook_that_meets_the_answer_is_not_lost() -> None:
    """The provider's answer is being written down while its webhook arrives."""
    _, payment = authorized(reference="")
    learned, may_commit = threading.Event(), threading.Event()

    def answer() -> None:
        with transaction.atomic():
            absorb(payment, remote(payment), "call")
            learned.set()
            assert may_commit.wait(10)

    def arrive() -> None:
        assert learned.wait(10)
        threading.Timer(0.3, may_commit.set).start()
        assert deliver(webhook(merchant_reference=payment.merchant_reference)).status_code == 200

    at_once(answer, arrive)
    assert WebhookDelivery.objects.get().state == State.PROCESSED
    assert totals(payment).received == TOTAL


@pytest.mark.django_db(transaction=True)
def test_webhooks_and_answers_in_any_order_lose_nothing() -> None:
    factories.product()
    for number in range(20):
        order = factories.place()
        payment = open_payment("sandbox", order.number, order.total_money, f"{order.number}/1/payment_hold")
        arriving = webhook(
            f"evt_{number}", payment_reference=f"pay_{number}", merchant_reference=order.number
        )
        at_once(
            partial[object](deliver, arriving),
            partial[object](absorb, payment, remote(payment, f"pay_{number}"), "call"),
        )
        assert totals(payment).received == TOTAL, number
    assert set(WebhookDelivery.objects.values_list("state", flat=True)) == {State.PROCESSED}


@pytest.mark.django_db(transaction=True)
def test_a_webhook_while_its_order_is_being_worked_on_does_not_deadlock() -> None:
    """A step holds the order and then wants the payment; the webhook holds the payment and must not want the order."""
    saga, payment = authorized()

    def step() -> None:
        with transaction.atomic():
            lock_saga(saga.order.number, 1)
            wait_until(lambda: WebhookDelivery.objects.filter(state=State.PROCESSED).exists(), 20)
            record(payment, [], source="call")

    def arrive() -> None:
        assert deliver(webhook()).status_code == 200

    at_once(step, arrive)
    assert signals() == ["confirm_payment"]


# --- unknown ---------------------------------------------------------------------------------------------


def item() -> ReviewItem:
    return ReviewItem.objects.get()


def test_money_of_a_payment_that_nobody_opened_is_reviewed_at_once() -> None:
    authorized()
    delivery = assert_taken(webhook(payment_reference="pay_x", merchant_reference="ORD-999"), State.WAITING)
    assert delivery.error == (
        "No payment here has the PSP reference pay_x yet. A person has to decide: see the review list."
    )
    assert (item().reason, item().state, item().webhook) == ("unknown_reference", "open", delivery)
    assert (item().amount, item().currency, item().merchant_reference) == (TOTAL, "EUR", "ORD-999")
    assert item().detail == (
        "sandbox tells of payment pay_x for ORD-999, which was not opened here: received €39.98."
    )
    assert signals() == []


def test_all_news_of_an_unknown_payment_are_one_item() -> None:
    assert_taken(webhook("evt_1"), State.WAITING)
    assert_taken(webhook("evt_2", psp_reference="psp_evt_1"), State.WAITING)  # the same, told again
    assert_taken(webhook("evt_3", type="capture", amount=3000), State.WAITING)
    assert_taken(webhook("evt_4", type="refund", amount=500), State.WAITING)
    assert item().amount == TOTAL
    assert item().detail.endswith("received €39.98, captured €30.00, refunded €5.00.")


def test_a_refund_of_an_unknown_payment_that_names_no_order_is_reviewed() -> None:
    """As Stripe tells of what was done in its dashboard; whatever else is being opened here."""
    authorized(reference="")
    assert_taken(webhook(type="refund", merchant_reference="", payment_reference="pay_x"), State.WAITING)
    assert (item().amount, item().merchant_reference) == (TOTAL, "")


@pytest.mark.parametrize("changes", [{"type": "authorization"}, {"type": "void"}, {"outcome": "failed"}])
def test_news_without_money_of_an_unknown_payment_only_wait(changes: dict[str, Any]) -> None:
    assert_taken(webhook(**changes), State.WAITING)
    assert not ReviewItem.objects.exists()


def test_money_waits_without_a_review_while_its_payment_may_be_being_opened() -> None:
    _, payment = authorized(reference="")
    for number in range(2):
        assert_taken(webhook(f"evt_{number}", merchant_reference=payment.merchant_reference), State.WAITING)
    assert not ReviewItem.objects.exists()


def test_what_was_not_of_the_payment_that_was_opened_is_reviewed_when_that_is_clear() -> None:
    """Two webhooks wait for the provider's answer; one of them turns out to be of another payment."""
    _, payment = authorized(reference="")
    assert_taken(webhook("evt_1", merchant_reference=payment.merchant_reference), State.WAITING)
    stray = webhook("evt_2", merchant_reference=payment.merchant_reference, payment_reference="pay_x")
    assert_taken(stray, State.WAITING)
    absorb(payment, remote(payment), "call")
    assert totals(payment).received == TOTAL
    assert item().amount == TOTAL
    assert "tells of payment pay_x" in item().detail


def test_money_of_a_payment_whose_opening_was_given_up_is_reviewed() -> None:
    _, payment = authorized(reference="")
    assert_taken(webhook(merchant_reference=payment.merchant_reference), State.WAITING)
    close_payment(payment, "The order is cancelled.")
    assert (item().reason, item().state) == ("unknown_reference", "open")
    # The late answer comes all the same.
    absorb(payment, remote(payment), "call")
    assert item().state == "closed"


def test_money_for_a_payment_that_was_given_up_before_it_was_answered_is_reviewed_at_once() -> None:
    _, payment = authorized(reference="")
    close_payment(payment, "The order is cancelled.")
    assert_taken(webhook(merchant_reference=payment.merchant_reference), State.WAITING)
    assert item().state == "open"


def test_the_item_closes_when_the_payment_becomes_known_after_all() -> None:
    assert_taken(webhook(merchant_reference="ORD-1"), State.WAITING)
    assert item().state == "open"
    payment = open_payment("sandbox", "ORD-1", Money(TOTAL, "EUR"), "ORD-1/1/payment_hold")
    absorb(payment, remote(payment), "call")
    assert totals(payment).received == TOTAL
    assert (item().state, item().resolved_by, item().payment) == ("closed", "shop", payment)
    assert item().resolution == "Its payment is known now, of ORD-1: the money is in its books."
    assert WebhookDelivery.objects.get().state == State.PROCESSED


@pytest.mark.django_db(transaction=True)
def test_news_of_an_unknown_payment_at_once_are_all_counted() -> None:
    at_once(*[partial(deliver, webhook(f"evt_{number}", amount=100)) for number in range(6)])
    assert (item().amount, WebhookDelivery.objects.filter(state=State.WAITING).count()) == (600, 6)


@pytest.mark.django_db(transaction=True)
def test_an_answer_that_meets_a_webhook_of_another_payment_leaves_it_in_review() -> None:
    factories.product()
    for number in range(10):
        order = factories.place()
        payment = open_payment("sandbox", order.number, order.total_money, f"{order.number}/1/payment_hold")
        stray = webhook(f"evt_{number}", payment_reference=f"x_{number}", merchant_reference=order.number)
        at_once(
            partial[object](deliver, stray),
            partial[object](absorb, payment, remote(payment, f"pay_{number}"), "call"),
        )
        assert ReviewItem.objects.filter(merchant_reference=order.number).count() == 1, number


# --- out of order ----------------------------------------------------------------------------------------


def test_events_in_any_order_give_the_same_books() -> None:
    _, payment = authorized()
    assert_taken(webhook("evt_3", type="refund", amount=1000))
    assert_taken(webhook("evt_2", type="capture"))
    assert_taken(webhook("evt_1"))
    now = totals(payment)
    assert (now.authorized, now.received, now.captured, now.refunded) == (TOTAL, TOTAL, TOTAL, 1000)
    assert now.status == "partially_refunded"


def test_a_decline_after_the_capture_takes_nothing_back() -> None:
    saga, payment = authorized()
    assert_taken(webhook("evt_1"))
    assert_taken(webhook("evt_2", type="capture"))
    Saga.objects.filter(pk=saga.pk).update(status="completed")
    Order.objects.update(status="completed")
    assert_taken(webhook("evt_3", type="authorization", outcome="failed"))
    assert totals(payment).status == "captured"
    assert totals(payment).received == TOTAL
    assert signals() == ["confirm_payment"]


def test_money_for_an_order_that_is_over_is_booked_and_reviewed() -> None:
    saga, payment = authorized()
    Saga.objects.filter(pk=saga.pk).update(status="cancelled")
    assert_taken(webhook())
    assert totals(payment).received == TOTAL
    assert signals() == []
    item = ReviewItem.objects.get()
    assert (item.reason, item.amount, item.merchant_reference) == ("late", TOTAL, saga.order.number)
    assert item.detail.startswith("€39.98 have come in, but the order is ")


def test_money_in_another_currency_is_reviewed_and_not_counted() -> None:
    _, payment = authorized()
    for message in ("evt_1", "evt_2"):
        foreign = assert_taken(webhook(message, currency="USD", psp_reference="rcv_1"))
        assert foreign.error == "The payment is in EUR, this is in USD: not counted, but in the review list."
    assert totals(payment).received == 0
    assert signals() == []
    item = ReviewItem.objects.get()
    assert (item.reason, item.amount, item.currency, item.payment) == (
        "wrong_currency",
        TOTAL,
        "USD",
        payment,
    )


# --- the address -----------------------------------------------------------------------------------------


def test_too_large_a_webhook_is_refused_unread(settings: Settings) -> None:
    for size in (settings.WEBHOOK_MAX_BYTES + 1, settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1):
        response = deliver(signed(b" " * size))
        assert response.status_code == 413
        assert "detail" in json.loads(response.content)
    assert not WebhookDelivery.objects.exists()
    assert_rejected(signed(b" " * settings.WEBHOOK_MAX_BYTES))


@pytest.mark.parametrize("gateway", ["stripe", "bank_transfer", "Sandbox", "nothing"])
def test_a_gateway_that_is_not_set_up_is_not_found(gateway: str) -> None:
    response = deliver(webhook(), gateway)
    assert response.status_code == 404
    assert "detail" in json.loads(response.content)
    assert not WebhookDelivery.objects.exists()


def test_only_post_is_possible(client: Client) -> None:
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        assert client.generic(method, "/webhooks/payments/sandbox/").status_code == 405
    assert not WebhookDelivery.objects.exists()


def test_what_fails_here_is_kept_and_may_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    _, payment = authorized()

    def fails(*args: Any, **options: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr("payments.services.webhooks.record", fails)
        with pytest.raises(RuntimeError):
            deliver(webhook())
    delivery = WebhookDelivery.objects.get()
    assert (delivery.state, delivery.event_id) == (State.RECEIVED, "")
    assert_taken(webhook())
    assert totals(payment).received == TOTAL


@pytest.mark.django_db(transaction=True)
def test_a_webhook_through_a_socket(live_server: LiveServer) -> None:
    _, payment = authorized()
    genuine = webhook()
    with httpx2.Client(base_url=live_server.url, trust_env=False, verify=False) as provider:
        answer = provider.post("/webhooks/payments/sandbox/", content=genuine.body, headers=genuine.headers)
        assert (answer.status_code, answer.json()) == (200, {"state": "processed"})
        forged = genuine.headers | {"Webhook-Id": "evt_2"}
        answer = provider.post("/webhooks/payments/sandbox/", content=genuine.body, headers=forged)
        assert (answer.status_code, answer.json()) == (400, {"detail": "The webhook's signature is wrong."})
    assert totals(payment).received == TOTAL
    assert WebhookDelivery.objects.count() == 2
