"""What is Stripe's own, beyond the contract of all gateways: against a stand-in for its HTTP API."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from hypothesis import HealthCheck
from hypothesis import given as given_any
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django.fixtures import Settings

from payments import ledger
from payments.gateways import stripe as stripe_module
from payments.gateways.base import (
    EventOutcome,
    EventType,
    GatewayError,
    GatewayEvent,
    GatewayMisconfigured,
    GatewayRefused,
    GatewayUnavailable,
    RemotePayment,
    RemoteStatus,
    WebhookRejected,
)
from payments.gateways.stripe import StripeGateway
from payments.services.recording import absorb, open_payment
from shop.kernel.money import Money
from tests.payments.stripe_server import SignedWebhook, StripeServer, stripe_server

TEN, SIX, FOUR = (Money(amount, "EUR") for amount in (1000, 600, 400))
HOUR_S = 3600
DAY_S = 24 * HOUR_S
GATEWAY = StripeGateway()


@pytest.fixture
def stripe(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[StripeServer]:
    with stripe_server() as server:
        settings.STRIPE_API_KEY = server.api_key
        settings.STRIPE_API_BASE = server.url
        settings.STRIPE_WEBHOOK_SECRETS = [server.webhook_secret]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        stripe_module._client.cache_clear()
        yield server


def opened(money: Money = TEN, key: str = "VK-1/1/payment_hold") -> str:
    return GATEWAY.authorize("VK-1", money, key).reference


def paid(stripe: StripeServer) -> str:
    reference = opened()
    stripe.pay(reference)
    return reference


def captured(stripe: StripeServer) -> str:
    reference = paid(stripe)
    GATEWAY.capture(reference, TEN, "capture")
    return reference


def webhook_news(stripe: StripeServer, reference: str) -> list[GatewayEvent]:
    return [
        event
        for sent in stripe.webhooks(reference)
        for event in GATEWAY.parse_webhook(sent.headers, sent.body)
    ]


def changes(cursor: str = "", limit: int = 100) -> tuple[list[GatewayEvent], str]:
    events: list[GatewayEvent] = []
    while True:
        page = GATEWAY.changes(cursor, limit)
        events += page.events
        cursor = page.cursor
        if not page.more:
            return events, cursor


@dataclass
class Entry:
    type: str
    outcome: str
    amount: int


def booked(events: Iterable[GatewayEvent]) -> dict[str, int]:
    return only_totals(ledger.totals(books_of(events)))


def books_of(events: Iterable[GatewayEvent]) -> list[Entry]:
    """A ledger that writes each key once, the first time that it comes."""
    books: dict[tuple[str, str], Entry] = {}
    for event in events:
        key = (event.type, event.psp_reference)
        books.setdefault(key, Entry(event.type, event.outcome, event.money.amount))
    return list(books.values())


def refunds_under_way(events: Iterable[GatewayEvent]) -> int:
    """Asked for, and neither done nor failed."""
    refunds = [entry for entry in books_of(events) if entry.type == EventType.REFUND]
    return sum(e.amount if e.outcome == EventOutcome.REQUESTED else -e.amount for e in refunds)


def only_totals(thing: RemotePayment | ledger.Totals) -> dict[str, int]:
    return {
        name: getattr(thing, name) for name in ("authorized", "received", "captured", "refunded", "voided")
    }


def of_type(payment: RemotePayment, type_: EventType) -> list[GatewayEvent]:
    return [event for event in payment.events if event.type == type_]


# --- the customer ----------------------------------------------------------------------------------------


def test_the_customer_needs_the_client_secret_until_the_payment_is_confirmed(stripe: StripeServer) -> None:
    payment = GATEWAY.authorize("VK-1", TEN, "key").payment
    secret = payment.instructions["client_secret"]
    assert secret.startswith(f"{payment.payment_reference}_secret_")
    assert secret not in repr(payment)
    stripe.decline(payment.payment_reference)
    assert GATEWAY.status(payment.payment_reference).instructions == {"client_secret": secret}
    stripe.pay(payment.payment_reference)
    assert GATEWAY.status(payment.payment_reference).instructions == {}


def test_the_hold_begins_when_the_customer_confirms_and_lasts_as_long_as_the_charge_says(
    stripe: StripeServer,
) -> None:
    reference = opened()
    assert GATEWAY.status(reference).authorized_until is None
    until = int(time.time()) + 5 * DAY_S
    stripe.pay(reference, capture_before=until)
    assert GATEWAY.status(reference).authorized_until == datetime.fromtimestamp(until, UTC)


def test_a_charge_that_does_not_say_how_long_it_is_held_is_held_for_seven_days(stripe: StripeServer) -> None:
    until = GATEWAY.status(paid(stripe)).authorized_until
    assert until is not None
    assert timedelta(days=6, hours=23) < until - datetime.now(UTC) <= timedelta(days=7)


def test_an_eligible_account_may_hold_longer(stripe: StripeServer, settings: Settings) -> None:
    settings.STRIPE_EXTENDED_AUTHORIZATION = True
    stripe.extended_authorizations = True
    until = GATEWAY.status(paid(stripe)).authorized_until
    assert until is not None
    assert until - datetime.now(UTC) > timedelta(days=29)


def test_an_account_that_is_not_eligible_is_not_asked_to_hold_longer_unless_told(
    stripe: StripeServer, settings: Settings
) -> None:
    opened()
    settings.STRIPE_EXTENDED_AUTHORIZATION = True
    with pytest.raises(GatewayRefused, match="not eligible for the requested card features"):
        opened(key="VK-2/1/payment_hold")


def test_the_webhook_of_the_charge_says_how_long_it_is_held(stripe: StripeServer) -> None:
    reference = opened()
    until = int(time.time()) + 5 * DAY_S
    stripe.pay(reference, capture_before=until)
    told = [
        event.authorized_until
        for webhook in stripe.webhooks(reference)
        for event in GATEWAY.parse_webhook(webhook.headers, webhook.body)
    ]
    assert set(told) == {None, datetime.fromtimestamp(until, UTC)}


def test_a_hold_that_ran_out_is_expired_and_released(stripe: StripeServer) -> None:
    reference = paid(stripe)
    stripe.expire(reference)
    payment = GATEWAY.status(reference)
    assert (payment.status, payment.voided) == (RemoteStatus.EXPIRED, 1000)
    assert [e.detail for e in of_type(payment, EventType.VOID)] == ["The authorization expired."]
    with pytest.raises(GatewayRefused, match="could not be captured"):
        GATEWAY.capture(reference, TEN, "late")


@pytest.mark.parametrize("with_charge", [True, False])
def test_each_declined_try_is_one_failed_receipt_and_not_the_end(
    stripe: StripeServer, with_charge: bool
) -> None:
    reference = opened()
    for _ in range(2):
        stripe.decline(reference, with_charge)
    told = {(e.type, e.psp_reference) for e in webhook_news(stripe, reference) if e.outcome == "failed"}
    assert len(told) == 2
    (last,) = of_type(GATEWAY.status(reference), EventType.RECEIPT)
    assert (last.type, last.psp_reference) in told
    assert last.detail == ("Your card was declined." if with_charge else "The card was not authenticated.")
    assert {(e.type, e.psp_reference) for e in changes()[0] if e.outcome == "failed"} == told
    stripe.pay(reference)
    assert booked(webhook_news(stripe, reference)) == stripe.totals(reference)
    assert GATEWAY.status(reference).status == RemoteStatus.PAID


def test_a_payment_that_the_bank_is_deciding_about_is_asked_for_again(stripe: StripeServer) -> None:
    reference = opened()
    stripe.processing(reference)
    assert GATEWAY.status(reference).status == RemoteStatus.AUTHORIZED
    with pytest.raises(GatewayUnavailable, match="processing"):
        GATEWAY.void(reference, "void")
    with pytest.raises(GatewayUnavailable, match="processing"):
        GATEWAY.capture(reference, TEN, "capture")


def test_a_capture_is_dated_when_it_was_made_not_when_the_customer_paid(stripe: StripeServer) -> None:
    with stripe.ago(2 * DAY_S):
        reference = paid(stripe)
    payment = GATEWAY.capture(reference, TEN, "capture").payment
    (receipt,), (capture,) = of_type(payment, EventType.RECEIPT), of_type(payment, EventType.CAPTURE)
    assert capture.occurred_at - receipt.occurred_at >= timedelta(days=2)
    assert {e.occurred_at for e in webhook_news(stripe, reference) if e.type == EventType.CAPTURE} == {
        capture.occurred_at
    }


# --- money going back ------------------------------------------------------------------------------------


def test_what_is_released_uncaptured_is_no_refund(stripe: StripeServer) -> None:
    reference = paid(stripe)
    GATEWAY.capture(reference, SIX, "capture")
    for told in (list(GATEWAY.status(reference).events), webhook_news(stripe, reference), changes()[0]):
        assert booked(told) == stripe.totals(reference)
        assert booked(told)["refunded"] == 0


def test_a_refund_that_the_bank_sends_back_is_reversed(stripe: StripeServer) -> None:
    reference = captured(stripe)
    refund = GATEWAY.refund(reference, FOUR, "refund")
    early = webhook_news(stripe, reference)
    stripe.refund_comes_back(refund.reference)
    payment = GATEWAY.status(reference)
    assert (payment.status, payment.refunded) == (RemoteStatus.CAPTURED, 0)
    (reversal,) = of_type(payment, EventType.REFUND_REVERSAL)
    assert reversal.detail == "The refund failed at Stripe: lost or stolen card."
    late = webhook_news(stripe, reference)
    # However much was heard before: all, the end only, the end first.
    for told in (late, [*early, *payment.events], list(payment.events), [*payment.events, *early]):
        assert booked(told)["refunded"] == 0
    with pytest.raises(GatewayRefused, match="lost or stolen card"):
        GATEWAY.refund(reference, FOUR, "refund")


def test_a_refund_counts_when_it_succeeds(stripe: StripeServer) -> None:
    reference = captured(stripe)
    refund = stripe.refund_in_dashboard(reference, 400, status="pending")
    payment = GATEWAY.status(reference)
    assert payment.refunded == booked(payment.events)["refunded"] == 0
    assert [e.outcome for e in of_type(payment, EventType.REFUND)] == [EventOutcome.REQUESTED]
    stripe.refund_goes_through(refund)
    # The pending one was written before: it must not stand in the way.
    assert booked([*payment.events, *GATEWAY.status(reference).events])["refunded"] == 400
    assert booked(webhook_news(stripe, reference))["refunded"] == 400


def test_a_refund_that_never_left_is_a_failed_refund(stripe: StripeServer) -> None:
    reference = captured(stripe)
    refund = stripe.refund_in_dashboard(reference, 400, status="pending")
    stripe.refund_comes_back(refund)
    payment = GATEWAY.status(reference)
    assert [e.outcome for e in of_type(payment, EventType.REFUND)] == [
        EventOutcome.REQUESTED,
        EventOutcome.FAILED,
    ]
    assert payment.refunded == booked(webhook_news(stripe, reference))["refunded"] == 0


def test_a_refund_that_we_asked_for_is_asked_for_under_its_key(stripe: StripeServer) -> None:
    reference = captured(stripe)
    refund = GATEWAY.refund(reference, FOUR, "VK-1/1/refund").reference
    for told in (list(GATEWAY.status(reference).events), webhook_news(stripe, reference)):
        assert {(e.psp_reference, e.outcome) for e in told if e.type == EventType.REFUND} == {
            ("VK-1/1/refund", EventOutcome.REQUESTED),  # as the books have it since before the call
            (refund, EventOutcome.SUCCEEDED),
        }


def test_a_refund_made_in_the_dashboard_counts_and_names_the_order(stripe: StripeServer) -> None:
    reference = captured(stripe)
    stripe.refund_in_dashboard(reference, 400)
    payment = GATEWAY.status(reference)
    assert payment.refunded == 400
    assert {event.merchant_reference for event in payment.events} == {"VK-1"}
    assert booked(webhook_news(stripe, reference)) == stripe.totals(reference)


def test_a_chargeback_takes_money_and_a_won_dispute_gives_it_back(stripe: StripeServer) -> None:
    reference = captured(stripe)
    dispute = stripe.dispute(reference, 600)
    payment = GATEWAY.status(reference)
    assert payment.refunded == 600
    assert "Disputed: product not received." in {e.detail for e in of_type(payment, EventType.CHARGEBACK)}
    stripe.win(dispute)
    payment = GATEWAY.status(reference)
    assert payment.refunded == 0
    for told in (list(payment.events), webhook_news(stripe, reference), changes()[0]):
        assert booked(told) == stripe.totals(reference)


def test_an_inquiry_takes_no_money(stripe: StripeServer) -> None:
    reference = captured(stripe)
    stripe.dispute(reference, 1000, inquiry=True)
    payment = GATEWAY.status(reference)
    assert [e.outcome for e in of_type(payment, EventType.CHARGEBACK)] == [EventOutcome.REQUESTED]
    assert payment.refunded == booked(webhook_news(stripe, reference))["refunded"] == 0


def test_more_refunds_than_fit_on_a_page_are_all_seen(stripe: StripeServer) -> None:
    reference = captured(stripe)
    for _ in range(120):
        stripe.refund_in_dashboard(reference, 5)
    assert GATEWAY.status(reference).refunded == 600


# --- keys that Stripe has forgotten ----------------------------------------------------------------------


def test_a_capture_is_once_after_stripe_has_forgotten_its_key(stripe: StripeServer) -> None:
    reference = paid(stripe)
    first = GATEWAY.capture(reference, SIX, "capture")
    stripe.forget_keys()
    assert GATEWAY.capture(reference, SIX, "capture") == first
    with pytest.raises(GatewayRefused):
        GATEWAY.capture(reference, FOUR, "capture")


def test_a_refund_is_once_after_stripe_has_forgotten_its_key(stripe: StripeServer) -> None:
    reference = captured(stripe)
    first = GATEWAY.refund(reference, FOUR, "refund")
    stripe.forget_keys()
    assert GATEWAY.refund(reference, FOUR, "refund") == first
    with pytest.raises(GatewayRefused) as info:
        GATEWAY.refund(reference, SIX, "refund")
    assert info.value.code == "idempotency_key_reuse"
    assert stripe.totals(reference)["refunded"] == 400


# --- finding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age_s", [0, HOUR_S, 3 * DAY_S])
def test_a_lost_authorization_is_found_however_old_it_is(stripe: StripeServer, age_s: int) -> None:
    key = r'VK-1/"1"\payment_hold'
    stripe.fault("lost_answer", "authorize")
    with stripe.ago(age_s), pytest.raises(GatewayUnavailable):
        opened(key=key)
    for number in range(120):
        stripe.clear_faults()
        stripe._intent(100, "eur", {"idempotency_key": f"other-{number}"}, "")
    found = GATEWAY.find(key)
    assert found is not None
    assert found.merchant_reference == "VK-1"


# --- the change feed -------------------------------------------------------------------------------------


def test_the_first_run_begins_at_the_oldest_event(stripe: StripeServer) -> None:
    for age_days in (29, 20, 3, 0):
        with stripe.ago(age_days * DAY_S):
            opened(key=f"{age_days}")
    events, _ = changes()
    ages = [(datetime.now(UTC) - event.occurred_at).days for event in events]
    assert ages == [29, 20, 3, 0]


def test_an_account_without_events_has_no_changes(stripe: StripeServer) -> None:
    assert changes() == ([], "")


def test_many_changes_come_page_by_page_oldest_first(stripe: StripeServer) -> None:
    with stripe.ago(HOUR_S):
        references = [
            stripe._intent(100, "eur", {"merchant_reference": "VK-1"}, "")["id"] for _ in range(250)
        ]
    events, cursor = changes(limit=500)
    assert [event.psp_reference for event in events] == references
    assert changes(cursor) == ([], cursor)


def test_an_event_that_becomes_visible_late_is_not_missed(stripe: StripeServer) -> None:
    with stripe.ago(HOUR_S):
        opened(key="long ago")
    opened(key="now")
    _, cursor = changes()
    with stripe.ago(60):  # behind what was read last
        late = opened(key="late")
    stripe._events.sort(key=lambda event: int(event["created"]))
    events, _ = changes(cursor)
    assert late in {event.psp_reference for event in events}


def test_a_cursor_that_stripe_has_forgotten_begins_anew(stripe: StripeServer) -> None:
    with stripe.ago(HOUR_S):
        opened(key="old")
    _, cursor = changes()
    assert cursor
    stripe.forget_events()
    reference = opened(key="new")
    events, _ = changes(cursor)
    assert {event.psp_reference for event in events} == {reference}


# --- other uses of the account ---------------------------------------------------------------------------


def test_payments_of_other_uses_of_the_account_are_not_ours(stripe: StripeServer) -> None:
    foreign = stripe.foreign_payment()
    assert webhook_news(stripe, foreign) == []
    assert changes()[0] == []


# --- webhooks --------------------------------------------------------------------------------------------


def signed_event(stripe: StripeServer, type_: str, thing: dict[str, Any]) -> tuple[dict[str, str], bytes]:
    event = {"id": "evt_1", "object": "event", "type": type_, "created": 1, "data": {"object": thing}}
    sent = stripe.signed(json.dumps(event).encode())
    return sent.headers, sent.body


def test_events_that_are_not_about_payments_say_nothing(stripe: StripeServer) -> None:
    assert GATEWAY.parse_webhook(*signed_event(stripe, "customer.created", {"object": "customer"})) == ()


def test_refunds_inside_a_charge_of_an_older_api_version_are_read(stripe: StripeServer) -> None:
    reference = captured(stripe)
    refund = GATEWAY.refund(reference, FOUR, "refund").reference
    charge = stripe._charges[stripe._intents[reference]["latest_charge"]]
    old = charge | {"refunds": {"object": "list", "data": [stripe._refunds[refund]]}}
    news = GATEWAY.parse_webhook(*signed_event(stripe, "charge.refunded", old))
    assert (EventType.REFUND, refund) in {(event.type, event.psp_reference) for event in news}


def test_a_thin_event_is_rejected_with_what_to_set(stripe: StripeServer) -> None:
    sent = stripe.signed(b'{"id": "evt_1", "object": "v2.core.event", "type": "v1.charge.captured"}')
    with pytest.raises(WebhookRejected, match="snapshot payloads"):
        GATEWAY.parse_webhook(sent.headers, sent.body)


def test_without_a_secret_a_person_has_to_act(stripe: StripeServer, settings: Settings) -> None:
    sent = stripe.webhooks(opened())[0]
    settings.STRIPE_WEBHOOK_SECRETS = []
    with pytest.raises(GatewayMisconfigured, match="STRIPE_WEBHOOK_SECRETS"):
        GATEWAY.parse_webhook(sent.headers, sent.body)


@pytest.mark.django_db
def test_a_paid_card_is_in_the_books_once_however_often_stripe_posts_it(
    stripe: StripeServer, settings: Settings, client: Client
) -> None:
    settings.PAYMENT_GATEWAYS = {"stripe": "payments.gateways.stripe.StripeGateway"}
    payment = open_payment("stripe", "VK-1", TEN, "VK-1/1/payment_hold")
    remote = GATEWAY.authorize("VK-1", TEN, payment.idempotency_key).payment
    stripe.pay(remote.payment_reference)
    posted = stripe.webhooks(remote.payment_reference)
    answers = [post(client, sent) for sent in posted[::-1]]  # before the answer to the call was written down
    absorb(payment, remote, source="call")
    answers += [post(client, sent) for sent in posted]
    assert answers == [200] * 6
    assert only_totals(payment.totals()) == stripe.totals(remote.payment_reference)
    forged = stripe.signed(posted[0].body, secret="whsec_other")
    assert post(client, forged) == 400


def post(client: Client, sent: SignedWebhook) -> int:
    return client.post(
        "/webhooks/payments/stripe/", sent.body, content_type="application/json", headers=sent.headers
    ).status_code


# --- the wire --------------------------------------------------------------------------------------------


def error_of(reference: str = "pi_any") -> GatewayError:
    with pytest.raises(GatewayError) as info:
        GATEWAY.status(reference)
    return info.value


def test_nothing_is_tried_again_here(stripe: StripeServer) -> None:
    stripe.fault("error", "authorize")
    with pytest.raises(GatewayUnavailable, match="bad moment"):
        opened()
    assert stripe.requests == ["authorize"]


def test_every_write_carries_the_callers_key(stripe: StripeServer) -> None:
    reference = opened(key="open")
    stripe.pay(reference)
    GATEWAY.capture(reference, TEN, "capture")
    GATEWAY.refund(reference, FOUR, "refund")
    GATEWAY.void(opened(key="open another"), "void")
    assert stripe.writes == [
        ("authorize", "open"),
        ("capture", "capture"),
        ("refund", "refund"),
        ("authorize", "open another"),
        ("void", "void"),
    ]


def test_no_telemetry_is_sent(stripe: StripeServer) -> None:
    opened()
    opened(key="second")
    assert "X-Stripe-Client-Telemetry" not in stripe.last_headers
    assert "platform" not in stripe.last_headers["X-Stripe-Client-User-Agent"]


def test_an_answer_that_is_not_stripes_is_unknown(stripe: StripeServer) -> None:
    reference = opened()
    stripe.fault("garbage", "status")
    assert isinstance(error_of(reference), GatewayUnavailable)


def test_a_key_without_the_permission_is_for_a_person(stripe: StripeServer) -> None:
    reference = opened()
    stripe.fault("forbidden", "status")
    error = error_of(reference)
    assert isinstance(error, GatewayMisconfigured)
    assert "permissions" in str(error)


def test_an_address_that_is_not_stripe_is_for_a_person(stripe: StripeServer, settings: Settings) -> None:
    settings.STRIPE_API_BASE = f"{stripe.url}/elsewhere"
    assert isinstance(error_of(), GatewayMisconfigured)
    settings.STRIPE_API_BASE = "api.stripe.com"
    assert isinstance(error_of(), GatewayMisconfigured)


def test_a_server_that_is_gone_is_unavailable(stripe: StripeServer, settings: Settings) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        settings.STRIPE_API_BASE = f"http://127.0.0.1:{closed.getsockname()[1]}"
        error = error_of()
    assert isinstance(error, GatewayUnavailable)
    assert error.code == "connection_failed"


# --- currencies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("money", "at_stripe"),
    [
        (Money(1250, "EUR"), 1250),
        (Money(1250, "HUF"), 1250),
        (Money(1250, "JPY"), 1250),
        (Money(1250, "ISK"), 125_000),  # no decimals, written with two at Stripe
        (Money(1250, "UGX"), 125_000),
        (Money(1250, "RSD"), 125_000),  # two decimals in ISO 4217, none in use
        (Money(1250, "KWD"), 1250),
        (Money(1250, "LYD"), 125),  # three decimals, two at Stripe
    ],
)
def test_amounts_are_written_as_stripe_writes_them(
    stripe: StripeServer, money: Money, at_stripe: int
) -> None:
    reference = opened(money)
    assert stripe.totals(reference)["authorized"] == at_stripe
    stripe.pay(reference)
    assert GATEWAY.capture(reference, money, "capture").payment.captured == money.amount
    payment = GATEWAY.refund(reference, money, "refund").payment
    assert (payment.currency, payment.refunded) == (money.currency, money.amount)
    assert {event.money for event in payment.events} == {money}


@pytest.mark.parametrize("money", [Money(1255, "KWD"), Money(1255, "LYD")])
def test_an_amount_too_fine_for_stripe_is_refused_with_a_sentence(stripe: StripeServer, money: Money) -> None:
    with pytest.raises(GatewayRefused, match=r"with two decimals only, not (KWD|LYD)1\.255"):
        opened(money)
    assert stripe.requests == []


# --- any life --------------------------------------------------------------------------------------------

AMOUNTS = st.integers(1, 1200)
DEEDS = st.one_of(
    st.tuples(st.sampled_from(["pay", "decline", "void", "expire", "win", "comes back", "goes through"])),
    st.tuples(st.sampled_from(["capture", "refund", "refund in dashboard", "pending", "dispute"]), AMOUNTS),
)


def live(stripe: StripeServer, reference: str, deed: tuple[Any, ...], key: str) -> None:
    """Do it if Stripe would allow it."""
    intent = stripe._intents[reference]
    refunds = [
        r for r in stripe._refunds.values() if r["payment_intent"] == reference and "_released" not in r
    ]
    succeeded = intent["status"] == "succeeded"
    with suppress(GatewayRefused):
        match deed:
            case ("pay",) if intent["status"] == "requires_payment_method":
                stripe.pay(reference)
            case ("decline",) if intent["status"] == "requires_payment_method":
                stripe.decline(reference)
            case ("void",):
                GATEWAY.void(reference, key)
            case ("expire",) if intent["status"] == "requires_capture":
                stripe.expire(reference)
            case ("capture", amount):
                GATEWAY.capture(reference, Money(amount, "EUR"), key)
            case ("refund", amount):
                GATEWAY.refund(reference, Money(amount, "EUR"), key)
            case ("refund in dashboard", amount) if succeeded:
                stripe.refund_in_dashboard(reference, amount)
            case ("pending", amount) if succeeded:
                stripe.refund_in_dashboard(reference, amount, "pending")
            case ("goes through",) if refunds and refunds[-1]["status"] == "pending":
                stripe.refund_goes_through(refunds[-1]["id"])
            case ("comes back",) if refunds and refunds[-1]["status"] in ("pending", "succeeded"):
                stripe.refund_comes_back(refunds[-1]["id"])
            case ("dispute", amount) if succeeded:
                stripe.dispute(reference, amount)
            case ("win",):
                for dispute in stripe._disputes.values():
                    if dispute["payment_intent"] == reference and len(dispute["balance_transactions"]) == 1:
                        stripe.win(dispute["id"])


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given_any(deeds=st.lists(DEEDS, max_size=12), data=st.data())
def test_the_ledger_agrees_with_stripe_whatever_happened_and_however_it_was_told(
    stripe: StripeServer, deeds: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    number = len(stripe._intents)
    reference = opened(key=f"open-{number}")
    heard: list[GatewayEvent] = []
    for step, deed in enumerate(deeds):
        live(stripe, reference, deed, f"{number}-{step}")
        if data.draw(st.booleans()):
            heard += GATEWAY.status(reference).events
    payment = GATEWAY.status(reference)
    assert only_totals(payment) == stripe.totals(reference)
    posted = webhook_news(stripe, reference)
    assert booked(posted) == stripe.totals(reference)
    assert booked(payment.events) == stripe.totals(reference)
    shuffled = data.draw(st.permutations([*heard, *posted, *payment.events]))
    assert booked(shuffled) == stripe.totals(reference)
    pending = [
        r for r in stripe._refunds.values() if (r["payment_intent"], r["status"]) == (reference, "pending")
    ]
    assert refunds_under_way(shuffled) == sum(refund["amount"] for refund in pending)
