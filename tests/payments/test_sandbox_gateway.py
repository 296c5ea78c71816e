"""The practice provider as the shop sees it: the gateway and the carrier, against the real process."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pytest_django.fixtures import Settings

from orders.carriers.base import CarrierMisconfigured, CarrierRefused, CarrierUnavailable, ShipmentStatus
from orders.carriers.manual import ManualCarrier
from orders.carriers.practice import PracticeCarrier
from payments.gateways.base import (
    EventOutcome,
    EventType,
    GatewayMisconfigured,
    GatewayRefused,
    GatewayResult,
    GatewayUnavailable,
    RemoteStatus,
    WebhookRejected,
)
from payments.gateways.sandbox import SandboxGateway
from payments.sandbox.signing import new_secret, signature
from shop.kernel.money import Money
from tests.payments.sandbox_process import SandboxProcess, sandbox

keys = (f"key-{number}" for number in itertools.count())
TEN_EURO = Money(1000, "EUR")


@pytest.fixture(scope="module")
def shared_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with sandbox(tmp_path_factory.mktemp("provider") / "provider.sqlite3") as process:
        yield process


@pytest.fixture
def provider(shared_provider: SandboxProcess, settings: Settings) -> Iterator[SandboxProcess]:
    settings.SANDBOX_URL = shared_provider.url
    settings.SANDBOX_API_KEY = shared_provider.api_key
    settings.SANDBOX_WEBHOOK_SECRETS = [new_secret(), shared_provider.webhook_secret]
    yield shared_provider
    shared_provider.faults()


@pytest.fixture
def gateway(provider: SandboxProcess) -> SandboxGateway:
    return SandboxGateway()


def authorized(gateway: SandboxGateway, key: str = "") -> GatewayResult:
    return gateway.authorize("VK-1", TEN_EURO, key or next(keys))


def pay(provider: SandboxProcess, reference: str) -> None:
    with provider.client() as customer:
        customer.post(f"/customer/{reference}/pay", json={}).raise_for_status()


def test_a_payment_is_authorized_paid_captured_and_refunded(
    gateway: SandboxGateway, provider: SandboxProcess
) -> None:
    opened = authorized(gateway)
    reference = opened.payment.payment_reference
    assert opened.reference == reference
    assert opened.payment.status == RemoteStatus.AUTHORIZED
    assert opened.payment.authorized_until is not None
    lasts = opened.payment.authorized_until - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < lasts <= timedelta(days=30)

    pay(provider, reference)
    assert gateway.status(reference).status == RemoteStatus.PAID
    captured = gateway.capture(reference, TEN_EURO, next(keys))
    assert (captured.payment.status, captured.payment.captured) == (RemoteStatus.CAPTURED, 1000)
    refunded = gateway.refund(reference, Money(400, "EUR"), next(keys))
    assert (refunded.payment.captured, refunded.payment.refunded) == (1000, 400)

    last = gateway.status(reference).events[-1]
    assert (last.type, last.outcome, last.money) == (
        EventType.REFUND,
        EventOutcome.SUCCEEDED,
        Money(400, "EUR"),
    )
    assert (last.psp_reference, last.payment_reference) == (refunded.reference, reference)
    assert last.merchant_reference == "VK-1"


def test_a_void_releases_what_was_authorized(gateway: SandboxGateway) -> None:
    opened = authorized(gateway)
    voided = gateway.void(opened.reference, next(keys)).payment
    assert (voided.status, voided.voided) == (RemoteStatus.VOIDED, 1000)


def test_the_same_key_gives_the_same_answer(gateway: SandboxGateway) -> None:
    assert authorized(gateway, "once") == authorized(gateway, "once")


def test_a_refusal_carries_the_providers_code_and_sentence(gateway: SandboxGateway) -> None:
    opened = authorized(gateway)
    gateway.void(opened.reference, next(keys))
    with pytest.raises(GatewayRefused, match=r"This payment was voided; it cannot be captured now\.") as info:
        gateway.capture(opened.reference, TEN_EURO, next(keys))
    assert info.value.code == "already_voided"


def test_an_unknown_payment_is_refused_as_not_found(gateway: SandboxGateway) -> None:
    with pytest.raises(GatewayRefused) as info:
        gateway.status("pay_none")
    assert info.value.code == "not_found"


def test_an_unknown_outcome_is_unavailable_and_found_by_its_key(
    gateway: SandboxGateway, provider: SandboxProcess
) -> None:
    provider.faults(authorize={"lost_answer_rate": 1})
    with pytest.raises(GatewayUnavailable) as info:
        authorized(gateway, "lost")
    assert info.value.code == "connection_failed"
    found = gateway.find("lost")
    assert found is not None
    provider.faults()
    assert authorized(gateway, "lost").reference == found.payment_reference


def test_a_key_that_never_took_effect_finds_nothing(
    gateway: SandboxGateway, provider: SandboxProcess
) -> None:
    provider.faults(authorize={"error_rate": 1})
    with pytest.raises(GatewayUnavailable) as info:
        authorized(gateway, "failed")
    assert info.value.code == "practice_error"
    assert gateway.find("failed") is None


def test_a_key_in_flight_is_unavailable_not_none(gateway: SandboxGateway, provider: SandboxProcess) -> None:
    provider.faults(authorize={"latency_ms": 60_000})
    call = threading.Thread(target=authorized, args=[gateway, "in-flight"])
    call.start()
    give_up_at = time.monotonic() + 20
    code = ""
    while code != "in_progress" and time.monotonic() < give_up_at:
        try:
            assert gateway.find("in-flight") is None
        except GatewayUnavailable as error:
            code = error.code
    provider.faults()
    call.join()
    assert code == "in_progress"
    assert gateway.find("in-flight") is not None


def test_too_many_calls_carry_when_to_come_again(gateway: SandboxGateway, provider: SandboxProcess) -> None:
    provider.faults(status={"rate_limit_per_s": 0})
    with pytest.raises(GatewayUnavailable) as info:
        gateway.status("pay_any")
    assert (info.value.code, info.value.retry_after) == ("rate_limited", 1.0)


def test_a_provider_that_is_down_or_gone_is_unavailable(
    gateway: SandboxGateway, provider: SandboxProcess, settings: Settings
) -> None:
    provider.faults(down=True)
    with pytest.raises(GatewayUnavailable):
        gateway.status("pay_any")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        settings.SANDBOX_URL = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(GatewayUnavailable):
            gateway.find("any")


def test_a_wrong_key_or_address_is_a_matter_for_a_person(
    gateway: SandboxGateway, provider: SandboxProcess, settings: Settings
) -> None:
    settings.SANDBOX_API_KEY = "wrong"
    with pytest.raises(GatewayMisconfigured, match="API key"):
        gateway.status("pay_any")
    settings.SANDBOX_URL = f"{provider.url}/elsewhere"
    with pytest.raises(GatewayMisconfigured, match="SANDBOX_URL"):
        gateway.find("any")
    settings.SANDBOX_URL = ""
    with pytest.raises(GatewayMisconfigured, match="SANDBOX_URL"):
        gateway.find("any")


def test_changes_continue_after_their_cursor(gateway: SandboxGateway) -> None:
    cursor = gateway.changes("").cursor
    while (page := gateway.changes(cursor)).more:
        cursor = page.cursor
    cursor = page.cursor
    references = [authorized(gateway).reference for _ in range(3)]
    first = gateway.changes(cursor, limit=2)
    rest = gateway.changes(first.cursor, limit=2)
    assert [event.psp_reference for event in first.events + rest.events] == references
    assert (first.more, rest.more) == (True, False)
    assert gateway.changes(rest.cursor).events == ()


# Webhooks

EVENT = {
    "id": "evt_1",
    "type": "receipt",
    "outcome": "succeeded",
    "psp_reference": "rcv_1",
    "payment_reference": "pay_1",
    "merchant_reference": "VK-1",
    "amount": 1000,
    "currency": "EUR",
    "occurred_at": "2026-01-02T03:04:05.678901Z",
    "detail": "",
}


def webhook(
    secret: str, age_s: int = 0, type_: str = "payment.event", **changed: object
) -> tuple[dict[str, str], bytes]:
    body = json.dumps({"id": "evt_1", "type": type_, "data": EVENT | changed}).encode()
    timestamp = int(time.time()) - age_s
    return {
        "Webhook-Id": "evt_1",
        "Webhook-Timestamp": str(timestamp),
        "Webhook-Signature": f"v1,bm90aGluZw== {signature(secret, 'evt_1', timestamp, body)}",
    }, body


def test_a_signed_webhook_gives_its_event(gateway: SandboxGateway, provider: SandboxProcess) -> None:
    (event,) = gateway.parse_webhook(*webhook(provider.webhook_secret))
    assert (event.type, event.money, event.raw_id) == (EventType.RECEIPT, TEN_EURO, "evt_1")
    assert event.occurred_at == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def test_a_webhook_signed_with_a_secret_of_the_rotation_is_taken(
    gateway: SandboxGateway, settings: Settings
) -> None:
    for secret in settings.SANDBOX_WEBHOOK_SECRETS:
        assert gateway.parse_webhook(*webhook(secret))


def test_a_forged_webhook_is_rejected(gateway: SandboxGateway, provider: SandboxProcess) -> None:
    headers, body = webhook(provider.webhook_secret)
    for forged in (
        webhook(new_secret()),
        (headers, body.replace(b"1000", b"9000")),
        (headers | {"Webhook-Id": "evt_2"}, body),
        (headers | {"Webhook-Timestamp": str(int(headers["Webhook-Timestamp"]) + 1)}, body),
        (headers | {"Webhook-Signature": "v1,é"}, body),
    ):
        with pytest.raises(WebhookRejected, match="signature is wrong"):
            gateway.parse_webhook(*forged)
    with pytest.raises(WebhookRejected, match="not signed"):
        gateway.parse_webhook({}, body)


@pytest.mark.parametrize("age_s", [301, -302])
def test_a_stale_webhook_is_rejected(gateway: SandboxGateway, provider: SandboxProcess, age_s: int) -> None:
    with pytest.raises(WebhookRejected, match="five minutes"):
        gateway.parse_webhook(*webhook(provider.webhook_secret, age_s=age_s))


def test_a_webhook_that_makes_no_sense_is_rejected(gateway: SandboxGateway, provider: SandboxProcess) -> None:
    secret = provider.webhook_secret
    for senseless in (
        webhook(secret, type_="customer.birthday"),
        webhook(secret, type="theft"),
        webhook(secret, amount="1000"),
    ):
        with pytest.raises(WebhookRejected, match="not understood"):
            gateway.parse_webhook(*senseless)


# Carriers


def test_the_practice_carrier_creates_finds_and_cancels(provider: SandboxProcess) -> None:
    carrier = PracticeCarrier()
    assert carrier.find("ship") is None
    shipment = carrier.create_shipment("ship", "VK-1")
    assert shipment.status == ShipmentStatus.CREATED
    assert shipment.tracking_number
    assert carrier.create_shipment("ship", "VK-1") == carrier.find("ship") == shipment
    assert carrier.cancel(shipment.reference, "unship").status == ShipmentStatus.CANCELLED
    assert carrier.track(shipment.reference).status == ShipmentStatus.CANCELLED
    with pytest.raises(CarrierRefused) as info:
        carrier.cancel(shipment.reference, "unship-again")
    assert info.value.code == "already_cancelled"


def test_the_practice_carrier_fails_in_a_carriers_words(provider: SandboxProcess, settings: Settings) -> None:
    carrier = PracticeCarrier()
    provider.faults(create_shipment={"lost_answer_rate": 1}, cancel_shipment={"refuse_rate": 1})
    with pytest.raises(CarrierUnavailable):
        carrier.create_shipment("ship-lost", "VK-1")
    shipment = carrier.find("ship-lost")
    assert shipment is not None
    with pytest.raises(CarrierRefused) as info:
        carrier.cancel(shipment.reference, "refused")
    assert info.value.code == "refused_for_practice"
    settings.SANDBOX_API_KEY = "wrong"
    with pytest.raises(CarrierMisconfigured):
        carrier.track(shipment.reference)


def test_the_manual_carrier_has_one_shipment_per_key() -> None:
    carrier = ManualCarrier()
    shipment = carrier.create_shipment("ship", "VK-1")
    assert carrier.create_shipment("ship", "VK-1") == carrier.find("ship") == shipment
    assert carrier.create_shipment("ship-2", "VK-1").reference != shipment.reference
    assert carrier.cancel(shipment.reference, "unship").status == ShipmentStatus.CANCELLED
