"""The practice provider over a real socket: honest about idempotency, its books and its faults."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from payments.sandbox.signing import is_signed, signature
from payments.sandbox.webhooks import retry_in
from tests.payments.sandbox_process import SandboxProcess, sandbox, webhook_receiver

keys = (f"key-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def shared_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with sandbox(tmp_path_factory.mktemp("provider") / "provider.sqlite3") as process:
        yield process


@pytest.fixture
def provider(shared_provider: SandboxProcess) -> Iterator[SandboxProcess]:
    yield shared_provider
    shared_provider.faults()


@pytest.fixture
def shop(provider: SandboxProcess) -> Iterator[httpx2.Client]:
    with provider.client() as client:
        yield client


def post(client: httpx2.Client, path: str, key: str = "", **body: object) -> httpx2.Response:
    return client.post(path, json=body, headers={"Idempotency-Key": key or next(keys)})


def authorize(client: httpx2.Client, amount: int = 1000, key: str = "", **more: object) -> Any:
    answer = post(client, "/payments", key, merchant_reference="VK-1", amount=amount, currency="EUR", **more)
    assert answer.status_code == 201, answer.text
    return answer.json()


def act(client: httpx2.Client, payment: Any, verb: str, amount: int = 0, key: str = "") -> httpx2.Response:
    money = {"amount": amount, "currency": "EUR"} if amount else {}
    return post(client, f"/payments/{payment['psp_reference']}/{verb}", key, **money)


def pay(client: httpx2.Client, payment: Any, **body: object) -> httpx2.Response:
    return client.post(f"/customer/{payment['psp_reference']}/pay", json=body)


def seen(client: httpx2.Client, payment: Any) -> Any:
    return client.get(f"/payments/{payment['psp_reference']}").json()


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_at, "It did not come about."
        time.sleep(0.005)


# A payment's life


def test_payment_goes_from_authorized_over_paid_and_captured_to_refunded(shop: httpx2.Client) -> None:
    payment = authorize(shop)
    assert (payment["status"], payment["authorized"], payment["received"]) == ("authorized", 1000, 0)
    assert payment["reference"] == payment["psp_reference"]

    assert pay(shop, payment, amount=400).json()["status"] == "authorized"
    assert pay(shop, payment).json()["status"] == "paid"
    captured = act(shop, payment, "capture", 1000).json()
    assert (captured["status"], captured["captured"]) == ("captured", 1000)
    refunded = act(shop, payment, "refund", 1000).json()
    assert (refunded["status"], refunded["refunded"]) == ("refunded", 1000)

    events = seen(shop, payment)["events"]
    assert [(event["type"], event["amount"]) for event in events] == [
        ("authorization", 1000),
        ("receipt", 400),
        ("receipt", 600),
        ("capture", 1000),
        ("refund", 1000),
    ]
    assert len({event["psp_reference"] for event in events}) == 5
    assert {event["payment_reference"] for event in events} == {payment["psp_reference"]}
    assert events[3]["psp_reference"] == captured["reference"]


def test_payment_is_captured_once(shop: httpx2.Client) -> None:
    payment = authorize(shop)
    assert act(shop, payment, "capture", 600).status_code == 200
    assert refusal(act(shop, payment, "capture", 400)) == (422, "already_captured")
    assert seen(shop, payment)["captured"] == 600


def test_more_than_authorized_is_not_captured(shop: httpx2.Client) -> None:
    payment = authorize(shop)
    assert refusal(act(shop, payment, "capture", 1001)) == (422, "amount_too_high")


def test_capture_in_another_currency_is_refused(shop: httpx2.Client) -> None:
    payment = authorize(shop)
    answer = post(shop, f"/payments/{payment['psp_reference']}/capture", amount=1000, currency="CHF")
    assert refusal(answer) == (422, "currency_mismatch")


def test_voided_payment_is_neither_captured_nor_voided_nor_paid(shop: httpx2.Client) -> None:
    payment = authorize(shop)
    assert act(shop, payment, "void").json()["status"] == "voided"
    assert refusal(act(shop, payment, "capture", 1000)) == (422, "already_voided")
    assert refusal(act(shop, payment, "void")) == (422, "already_voided")
    assert refusal(pay(shop, payment)) == (409, "voided")
    assert seen(shop, payment)["voided"] == 1000


def test_captured_payment_is_not_voided(shop: httpx2.Client) -> None:
    payment = authorize(shop)
    act(shop, payment, "capture", 1000)
    assert refusal(act(shop, payment, "void")) == (422, "already_captured")


def test_refunds_never_exceed_what_was_captured(shop: httpx2.Client) -> None:
    payment = authorize(shop)
    assert refusal(act(shop, payment, "refund", 1)) == (422, "not_captured")
    act(shop, payment, "capture", 900)
    assert refusal(act(shop, payment, "refund", 901)) == (422, "refund_too_high")
    assert act(shop, payment, "refund", 300).json()["status"] == "captured"
    assert refusal(act(shop, payment, "refund", 601)) == (422, "refund_too_high")
    assert act(shop, payment, "refund", 600).json()["status"] == "refunded"
    assert refusal(act(shop, payment, "refund", 1)) == (422, "refund_too_high")


def test_concurrent_captures_and_refunds_take_effect_once(shop: httpx2.Client) -> None:
    payment = authorize(shop)
    with ThreadPoolExecutor(8) as pool:
        captures = list(pool.map(lambda _: act(shop, payment, "capture", 1000).status_code, range(8)))
        refunds = list(pool.map(lambda _: act(shop, payment, "refund", 400).status_code, range(8)))
    assert sorted(captures) == [200] + [422] * 7
    assert sorted(refunds) == [200] * 2 + [422] * 6
    assert (seen(shop, payment)["captured"], seen(shop, payment)["refunded"]) == (1000, 800)


def test_declined_payment_has_a_failed_authorization_of_its_own(shop: httpx2.Client) -> None:
    payment = authorize(shop)
    declined = shop.post(f"/customer/{payment['psp_reference']}/decline").json()
    assert declined["status"] == "declined"
    first, second = declined["events"]
    assert (second["type"], second["outcome"]) == ("authorization", "failed")
    assert second["psp_reference"] != first["psp_reference"]
    assert refusal(pay(shop, payment)) == (409, "declined")
    assert refusal(act(shop, payment, "capture", 1000)) == (422, "declined")
    assert refusal(act(shop, payment, "void")) == (422, "declined")


def test_paid_payment_is_not_declined(shop: httpx2.Client) -> None:
    payment = authorize(shop)
    pay(shop, payment)
    answer = shop.post(f"/customer/{payment['psp_reference']}/decline")
    assert refusal(answer) == (409, "already_paid")


def test_payment_expires_unless_it_was_paid(shop: httpx2.Client) -> None:
    unpaid, paid = (authorize(shop, authorized_for_s=0.3) for _ in range(2))
    pay(shop, paid)
    until(lambda: seen(shop, unpaid)["status"] == "expired")
    assert refusal(pay(shop, unpaid)) == (409, "expired")
    assert refusal(act(shop, unpaid, "capture", 1000)) == (422, "expired")
    assert act(shop, paid, "capture", 1000).status_code == 200


def test_payment_is_renewed_three_times_each_as_long_as_at_first(shop: httpx2.Client) -> None:
    payment = authorize(shop, authorized_for_s=1000)
    opened = datetime.fromisoformat(payment["created_at"])
    for n in (2, 3, 4):
        renewed = act(shop, payment, "renew").json()
        lasts = datetime.fromisoformat(renewed["authorized_until"])
        assert abs((lasts - opened).total_seconds() - n * 1000) < 1
        last = renewed["events"][-1]
        assert (last["type"], last["authorized_until"]) == (
            "authorization_adjustment",
            renewed["authorized_until"],
        )
        assert last["detail"] == f"Authorized until {lasts:%Y-%m-%d %H:%M} UTC."
    assert refusal(act(shop, payment, "renew")) == (422, "renewed_too_often")
    assert seen(shop, payment)["authorized"] == 1000


def test_expired_payment_is_not_renewed(shop: httpx2.Client) -> None:
    payment = authorize(shop, authorized_for_s=0.1)
    until(lambda: seen(shop, payment)["status"] == "expired")
    assert refusal(act(shop, payment, "renew")) == (422, "expired")


def test_too_much_and_late_money_is_taken(shop: httpx2.Client) -> None:
    payment = authorize(shop)
    assert pay(shop, payment, amount=1500).json()["status"] == "paid"
    assert refusal(pay(shop, payment)) == (409, "nothing_open")
    act(shop, payment, "capture", 1000)
    assert pay(shop, payment, amount=1).json()["received"] == 1501


# Idempotency


def test_same_key_and_body_give_the_first_answer_and_one_effect(shop: httpx2.Client) -> None:
    payment = authorize(shop)
    first = act(shop, payment, "capture", 1000, key="capture-once")
    act(shop, payment, "refund", 100)
    again = act(shop, payment, "capture", 1000, key="capture-once")
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert seen(shop, payment)["captured"] == 1000


def test_same_key_with_another_body_or_path_is_refused(shop: httpx2.Client) -> None:
    payment, other = authorize(shop), authorize(shop)
    act(shop, payment, "capture", 1000, key="reused")
    for answer in (
        act(shop, payment, "capture", 999, key="reused"),
        act(shop, other, "capture", 1000, key="reused"),
        act(shop, payment, "refund", 1000, key="reused"),
    ):
        assert refusal(answer) == (422, "idempotency_key_reuse")
    assert seen(shop, payment)["refunded"] == seen(shop, other)["captured"] == 0


def test_a_refusal_is_remembered(shop: httpx2.Client) -> None:
    payment = authorize(shop)
    assert refusal(act(shop, payment, "refund", 1000, key="too-early")) == (422, "not_captured")
    act(shop, payment, "capture", 1000)
    assert refusal(act(shop, payment, "refund", 1000, key="too-early")) == (422, "not_captured")
    assert seen(shop, payment)["refunded"] == 0


def test_a_body_that_is_wrong_is_not_remembered(shop: httpx2.Client) -> None:
    answer = post(shop, "/payments", "mended", merchant_reference="VK-1", amount=0, currency="EUR")
    assert (refusal(answer), answer.json()["field"]) == ((422, "invalid_request"), "amount")
    authorize(shop, key="mended")


def test_a_write_without_a_key_is_refused(shop: httpx2.Client) -> None:
    assert refusal(shop.post("/payments", json={})) == (400, "idempotency_key_missing")


def test_a_key_in_flight_is_in_progress_and_never_not_found(
    provider: SandboxProcess, shop: httpx2.Client
) -> None:
    provider.faults(authorize={"latency_ms": 60_000})
    find = {"idempotency_key": "held"}
    assert refusal(shop.get("/payments", params=find)) == (404, "not_found")
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(authorize, shop, key="held")
        until(lambda: shop.get("/payments", params=find).status_code == 409)
        assert refusal(shop.get("/payments", params=find)) == (409, "in_progress")
        body = {"merchant_reference": "VK-1", "amount": 1000, "currency": "EUR"}
        assert refusal(post(shop, "/payments", "held", **body)) == (409, "in_progress")
        provider.faults()
        payment = held.result(timeout=20)
    assert shop.get("/payments", params=find).json()["psp_reference"] == payment["psp_reference"]


def test_concurrent_calls_with_one_key_open_one_payment(shop: httpx2.Client) -> None:
    body = {"merchant_reference": "VK-many", "amount": 1000, "currency": "EUR"}
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: post(shop, "/payments", "many", **body), range(24)))
    opened = {answer.json()["psp_reference"] for answer in answers if answer.status_code == 201}
    assert len(opened) == 1
    assert all(refusal(answer) == (409, "in_progress") for answer in answers if answer.status_code != 201)
    found = shop.get("/payments", params={"merchant_reference": "VK-many"}).json()["payments"]
    assert {payment["psp_reference"] for payment in found} == opened


# Faults


def test_lost_answer_has_its_effect_once(provider: SandboxProcess, shop: httpx2.Client) -> None:
    payment = authorize(shop)
    provider.faults(capture={"lost_answer_rate": 1})
    for _ in range(2):
        with pytest.raises(httpx2.RemoteProtocolError):
            act(shop, payment, "capture", 1000, key="lost")
    assert seen(shop, payment)["captured"] == 1000
    provider.faults()
    assert act(shop, payment, "capture", 1000, key="lost").status_code == 200
    assert [event["type"] for event in seen(shop, payment)["events"]] == ["authorization", "capture"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [({"error_rate": 1}, (503, "practice_error")), ({"refuse_rate": 1}, (422, "refused_for_practice"))],
)
def test_fault_before_the_effect_leaves_no_trace(
    provider: SandboxProcess, shop: httpx2.Client, fault: dict[str, int], expected: tuple[int, str]
) -> None:
    payment = authorize(shop)
    key = next(keys)
    provider.faults(capture=fault)
    assert refusal(act(shop, payment, "capture", 1000, key)) == expected
    assert seen(shop, payment)["captured"] == 0
    assert refusal(shop.get("/payments", params={"idempotency_key": key})) == (404, "not_found")
    provider.faults()
    assert act(shop, payment, "capture", 1000, key).status_code == 200


def test_an_answered_key_is_not_refused_for_practice(provider: SandboxProcess, shop: httpx2.Client) -> None:
    payment = authorize(shop)
    act(shop, payment, "capture", 1000, key="answered")
    provider.faults(refuse_rate=1)
    assert act(shop, payment, "capture", 1000, key="answered").status_code == 200


def test_faults_for_all_spare_the_customer_and_an_operation_of_its_own(
    provider: SandboxProcess, shop: httpx2.Client
) -> None:
    payment = authorize(shop)
    provider.faults(error_rate=1, status={"error_rate": 0})
    assert seen(shop, payment)["status"] == "authorized"
    assert act(shop, payment, "void").status_code == 503
    assert shop.get("/changes").status_code == 503
    assert pay(shop, payment).status_code == 200
    assert shop.get("/").status_code == shop.get("/health").status_code == 200


def test_a_provider_that_is_down_drops_the_connection(provider: SandboxProcess, shop: httpx2.Client) -> None:
    provider.faults(down=True)
    with pytest.raises(httpx2.RemoteProtocolError):
        shop.get("/changes")
    assert shop.get("/faults").json() == {"down": True}


def test_too_many_calls_are_told_when_to_come_again(provider: SandboxProcess, shop: httpx2.Client) -> None:
    provider.faults(changes={"rate_limit_per_s": 0.1})
    assert shop.get("/changes").status_code == 200
    answer = shop.get("/changes")
    assert refusal(answer) == (429, "rate_limited")
    assert int(answer.headers["Retry-After"]) in (9, 10)
    authorize(shop)


@pytest.mark.parametrize(
    ("faults", "field"),
    [
        ({"error_rate": 2}, "error_rate"),
        ({"error_rate": True}, "error_rate"),
        ({"capture": {"latency_ms": "long"}}, "capture.latency_ms"),
        ({"capture": 1}, "capture"),
        ({"webhook": {"refuse_rate": 1}}, "webhook.refuse_rate"),
        ({"colour": "red"}, "colour"),
        ({"down": "yes"}, "down"),
        ({"rate_limit_per_s": -1}, "rate_limit_per_s"),
    ],
)
def test_wrong_faults_are_refused_by_name_and_change_nothing(
    provider: SandboxProcess, shop: httpx2.Client, faults: dict[str, Any], field: str
) -> None:
    provider.faults(status={"latency_ms": 1})
    answer = shop.put("/faults", json=faults)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert field.rpartition(".")[2] in answer.json()["message"]
    assert shop.get("/faults").json() == {"status": {"latency_ms": 1}}


# Reading


def test_changes_are_seen_once_and_in_order_while_others_write(shop: httpx2.Client) -> None:
    start = changes_after(shop, "")[1]
    with ThreadPoolExecutor(6) as pool:
        writes = [pool.submit(authorize, shop) for _ in range(90)]
        events, cursor = [], start
        while not all(write.done() for write in writes):
            page, cursor = changes_after(shop, cursor, limit=7)
            events += page
    events += changes_after(shop, cursor)[0]
    opened = {write.result()["psp_reference"] for write in writes}
    assert len(events) == 90
    assert {event["payment_reference"] for event in events} == opened
    assert events == changes_after(shop, start)[0]


def changes_after(shop: httpx2.Client, cursor: str, limit: int = 100) -> tuple[list[Any], str]:
    events: list[Any] = []
    while True:
        page = shop.get("/changes", params={"cursor": cursor, "limit": limit}).json()
        assert len(page["events"]) <= limit
        events += page["events"]
        cursor = page["cursor"]
        if not page["more"]:
            return events, cursor


@pytest.mark.parametrize("cursor", ["999999999", "x", "-1"])
def test_a_cursor_of_another_store_is_refused(shop: httpx2.Client, cursor: str) -> None:
    assert refusal(shop.get("/changes", params={"cursor": cursor})) == (422, "invalid_cursor")


def test_all_payments_are_listed_page_by_page(shop: httpx2.Client) -> None:
    new = [authorize(shop)["psp_reference"] for _ in range(5)]
    listed: list[str] = []
    after, more = "", True
    while more:
        page = shop.get("/payments", params={"after": after, "limit": 3}).json()
        listed += [payment["psp_reference"] for payment in page["payments"]]
        after, more = page["cursor"], page["more"]
    assert listed[-5:] == new
    assert len(listed) == len(set(listed))


def test_the_merchant_api_needs_its_key_and_the_customer_does_not(
    provider: SandboxProcess, shop: httpx2.Client
) -> None:
    payment = authorize(shop)
    with httpx2.Client(base_url=provider.url, trust_env=False) as stranger:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            assert refusal(stranger.get("/payments", headers=headers)) == (401, "unauthorized")
        assert pay(stranger, payment).is_success


def test_bodies_that_are_no_json_or_too_large_are_refused(shop: httpx2.Client) -> None:
    for content, expected in (
        (b"{", (400, "invalid_json")),
        (b"[]", (422, "invalid_request")),
        (b'"' + b"x" * 70_000 + b'"', (413, "too_large")),
    ):
        answer = shop.post("/payments", content=content, headers={"Idempotency-Key": next(keys)})
        assert refusal(answer) == expected


def test_the_page_lets_a_customer_pay_and_shows_why_not(shop: httpx2.Client) -> None:
    answer = post(shop, "/payments", merchant_reference="<b>VK</b>", amount=1250, currency="EUR")
    path = f"/customer/{answer.json()['psp_reference']}"
    page = shop.get(path)
    assert "€12.50" in page.text
    assert "<b>VK" not in page.text
    assert "<script" not in page.text
    paid = shop.post(f"{path}/pay", data={}, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (paid.status_code, paid.headers["Location"]) == (303, path)
    assert "paid" in shop.get(path).text
    again = shop.post(f"{path}/pay", data={}, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert again.status_code == 409
    assert "already paid in full" in again.text


# Shipments


def test_a_shipment_is_created_once_and_cancelled_once(shop: httpx2.Client) -> None:
    first = post(shop, "/shipments", "ship", merchant_reference="VK-1")
    assert first.status_code == 201
    assert post(shop, "/shipments", "ship", merchant_reference="VK-1").json() == first.json()
    assert shop.get("/shipments", params={"idempotency_key": "ship"}).json() == first.json()

    path = f"/shipments/{first.json()['reference']}"
    cancelled = post(shop, f"{path}/cancel", "unship").json()
    assert cancelled["status"] == shop.get(path).json()["status"] == "cancelled"
    assert post(shop, f"{path}/cancel", "unship").json() == cancelled
    assert refusal(post(shop, f"{path}/cancel")) == (422, "already_cancelled")


def test_the_key_of_a_payment_finds_no_shipment(shop: httpx2.Client) -> None:
    authorize(shop, key="a-payment")
    answer = shop.get("/shipments", params={"idempotency_key": "a-payment"})
    assert refusal(answer) == (404, "not_found")


# Processes


@pytest.mark.parametrize("end", [SandboxProcess.stop, SandboxProcess.kill])
def test_the_store_survives_the_end_of_the_process(
    tmp_path: Path, end: Callable[[SandboxProcess], object]
) -> None:
    with sandbox(tmp_path / "provider.sqlite3") as process, process.client() as shop:
        payment = authorize(shop, key="before")
        process.faults(capture={"lost_answer_rate": 1})
        with pytest.raises(httpx2.RemoteProtocolError):
            act(shop, payment, "capture", 1000, key="lost")
        cursor = changes_after(shop, "")[1]
        end(process)
        process.restart()
        assert authorize(shop, key="before")["psp_reference"] == payment["psp_reference"]
        assert act(shop, payment, "capture", 1000, key="lost").status_code == 200
        assert seen(shop, payment)["captured"] == 1000
        assert changes_after(shop, cursor) == ([], cursor)
        assert shop.get("/faults").json() == {}


def test_a_call_killed_in_flight_has_no_effect_and_can_be_made_again(tmp_path: Path) -> None:
    with sandbox(tmp_path / "provider.sqlite3") as process, process.client() as shop:
        process.faults(authorize={"latency_ms": 60_000})
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(authorize, shop, key="held")
            find = {"idempotency_key": "held"}
            until(lambda: shop.get("/payments", params=find).status_code == 409)
            process.kill()
            assert isinstance(held.exception(timeout=20), httpx2.TransportError)
        process.restart()
        assert refusal(shop.get("/payments", params=find)) == (404, "not_found")
        authorize(shop, key="held")
        assert len(shop.get("/payments").json()["payments"]) == 1


# Webhooks


def test_signature_is_that_of_the_standard_webhooks_specification() -> None:
    # The example of the specification's own reference libraries.
    secret, message_id = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
    made = signature(secret, message_id, 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_every_event_is_posted_signed_and_retried_until_it_is_taken(tmp_path: Path) -> None:
    with (
        webhook_receiver() as receiver,
        sandbox(tmp_path / "provider.sqlite3", receiver.url) as process,
        process.client() as shop,
    ):
        receiver.answers = [500]
        payment = authorize(shop)
        first, second = receiver.next(), receiver.next()
        assert first.headers["webhook-id"] == second.headers["webhook-id"] == payment["events"][0]["id"]
        assert json.loads(first.body) == json.loads(second.body)
        assert json.loads(first.body)["type"] == "payment.event"
        assert json.loads(first.body)["data"] == payment["events"][0]
        for webhook in (first, second):
            headers = webhook.headers
            assert is_signed(
                [process.webhook_secret],
                headers["webhook-id"],
                int(headers["webhook-timestamp"]),
                webhook.body,
                headers["webhook-signature"],
            )
        pay(shop, payment)
        assert json.loads(receiver.next().body)["data"]["type"] == "receipt"
        assert receiver.received.empty()


def test_webhooks_that_were_not_taken_are_sent_after_a_kill(tmp_path: Path) -> None:
    with (
        webhook_receiver() as receiver,
        sandbox(tmp_path / "provider.sqlite3", receiver.url) as process,
        process.client() as shop,
    ):
        process.faults(webhook={"down": True})
        payment = authorize(shop)
        pay(shop, payment)
        process.kill()
        assert receiver.received.empty()
        process.restart()
        types = {json.loads(receiver.next().body)["data"]["type"] for _ in range(2)}
        assert types == {"authorization", "receipt"}


def test_webhooks_come_twice_when_told_to(tmp_path: Path) -> None:
    with (
        webhook_receiver() as receiver,
        sandbox(tmp_path / "provider.sqlite3", receiver.url) as process,
        process.client() as shop,
    ):
        process.faults(webhook={"duplicate_rate": 1})
        authorize(shop)
        assert receiver.next().headers["webhook-id"] == receiver.next().headers["webhook-id"]


def test_retries_come_less_and_less_often_up_to_once_a_minute() -> None:
    assert [retry_in(tries) for tries in (1, 2, 3, 6, 7, 10_000)] == [1, 2, 4, 32, 60, 60]
