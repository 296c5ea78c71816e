"""What every gateway must do, each against the other side of its wire.

A new gateway adds a `Provider` and a line to `PROVIDERS`. Its capabilities decide which tests are skipped.
"""

from __future__ import annotations

import itertools
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import httpx2
import pytest
from pytest_django.fixtures import Settings

from payments import ledger
from payments.gateways import sandbox as sandbox_module
from payments.gateways import stripe as stripe_module
from payments.gateways.bank_transfer import BankTransferGateway
from payments.gateways.base import (
    EventOutcome,
    EventType,
    Gateway,
    GatewayEvent,
    GatewayMisconfigured,
    GatewayRefused,
    GatewayResult,
    GatewayUnavailable,
    ListedPayment,
    RemotePayment,
    RemoteStatus,
    WebhookRejected,
)
from payments.gateways.sandbox import SandboxGateway
from payments.gateways.stripe import StripeGateway
from payments.models import OutgoingTransfer, Receivable
from payments.sandbox.signing import new_secret, signature
from payments.services import transfers
from payments.services.recording import absorb, open_payment
from shop.kernel.money import Money
from tests.payments import paper_bank
from tests.payments.sandbox_process import SandboxProcess, WebhookReceiver, sandbox, webhook_receiver
from tests.payments.stripe_server import StripeServer, stripe_server
from tests.payments.stripe_server import new_secret as new_stripe_secret

ORDER = "ORD-100001"
TEN = Money(1000, "EUR")
SIX = Money(600, "EUR")
FOUR = Money(400, "EUR")
F = TypeVar("F", bound=Callable[..., None])
_numbers = itertools.count(1)


def new_key() -> str:
    return f"VK-{next(_numbers)}/1/{secrets.token_hex(4)}"


@dataclass(frozen=True)
class Webhook:
    headers: dict[str, str]
    body: bytes


class Provider(ABC):
    """The other side of one gateway: its customers, its books, its bad days and its webhooks.

    `declines`: whether a declined payment is over, or the customer may try again, or nobody declines one.
    `needs_database`: the gateway keeps its state in our own database; the others' tests are kept out of it.
    """

    declines: ClassVar[Literal["for good", "this try", "never"]] = "for good"
    needs_database: ClassVar[bool] = False
    gateway: Gateway

    @classmethod
    @abstractmethod
    def running(cls, folder: Path) -> Any:
        """A context manager that gives the provider, for all tests of this file."""

    @abstractmethod
    def connect(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        """Set the shop up for it, for one test. Calls must give up within about a second."""

    @abstractmethod
    def customer_pays(self, reference: str) -> None:
        """The customer pays in full."""

    def customer_is_declined(self, reference: str) -> None:
        """The customer's card, or the like, is refused; needed unless `declines` is never."""
        raise NotImplementedError

    def refunds_go_through(self) -> None:
        """What was refunded so far reaches the customer; for providers that take their time."""
        return

    @abstractmethod
    def totals(self, reference: str) -> dict[str, int]:
        """Authorized, received, captured, refunded and voided in the provider's own books, past the gateway."""

    # Of remote gateways

    def fault(self, name: str, operation: str) -> None:
        """Switch on `lost_answer`, `error`, `rate_limited` or `slow` for one method of the gateway."""
        raise NotImplementedError

    def clear_faults(self) -> None:
        """All is well again. Called after each test, whatever the gateway."""
        return

    # Of gateways with webhooks

    secrets_setting: ClassVar[str] = ""

    def webhooks(self, reference: str) -> list[Webhook]:
        """All that were sent about a payment so far."""
        raise NotImplementedError

    def signed(self, body: bytes, secret: str = "", age_s: int = 0) -> Webhook:
        """A body signed again: with the right secret or another, now or some time ago."""
        raise NotImplementedError

    def new_secret(self) -> str:
        raise NotImplementedError


class Sandbox(Provider):
    """The practice provider, a process of its own."""

    secrets_setting = "SANDBOX_WEBHOOK_SECRETS"

    def __init__(self, process: SandboxProcess, receiver: WebhookReceiver) -> None:
        self.gateway = SandboxGateway()
        self.process = process
        self.receiver = receiver
        self.received: list[Webhook] = []

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[Sandbox]:
        with webhook_receiver() as receiver, sandbox(folder / "provider.sqlite3", receiver.url) as process:
            yield cls(process, receiver)

    def connect(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        settings.SANDBOX_URL = self.process.url
        settings.SANDBOX_API_KEY = self.process.api_key
        settings.SANDBOX_WEBHOOK_SECRETS = [self.process.webhook_secret]
        hasty = httpx2.Client(timeout=1, trust_env=False)
        monkeypatch.setattr(sandbox_module, "_client", lambda: hasty)

    def customer_pays(self, reference: str) -> None:
        self._customer(f"/customer/{reference}/pay")

    def customer_is_declined(self, reference: str) -> None:
        self._customer(f"/customer/{reference}/decline")

    def _customer(self, path: str) -> None:
        with self.process.client() as customer:
            customer.post(path, json={}).raise_for_status()

    def totals(self, reference: str) -> dict[str, int]:
        payment = self._payment(reference)
        return {name: payment[name] for name in ("authorized", "received", "captured", "refunded", "voided")}

    def _payment(self, reference: str) -> dict[str, Any]:
        with self.process.client() as client:
            payment: dict[str, Any] = client.get(f"/payments/{reference}").raise_for_status().json()
            return payment

    def fault(self, name: str, operation: str) -> None:
        switched: dict[str, dict[str, float]] = {
            "lost_answer": {"lost_answer_rate": 1},
            "error": {"error_rate": 1},
            "rate_limited": {"rate_limit_per_s": 0},
            "slow": {"latency_ms": 60_000},
        }
        self.process.faults(**{operation: switched[name]})

    def clear_faults(self) -> None:
        self.process.faults()

    def webhooks(self, reference: str) -> list[Webhook]:
        expected = len(self._payment(reference)["events"])
        while len(about := [w for w in self.received if reference.encode() in w.body]) < expected:
            arrived = self.receiver.next()
            self.received.append(Webhook(arrived.headers, arrived.body))
        return about

    def signed(self, body: bytes, secret: str = "", age_s: int = 0) -> Webhook:
        timestamp = int(time.time()) - age_s
        signed = signature(secret or self.process.webhook_secret, "evt_1", timestamp, body)
        return Webhook(
            {"Webhook-Id": "evt_1", "Webhook-Timestamp": str(timestamp), "Webhook-Signature": signed}, body
        )

    def new_secret(self) -> str:
        return new_secret()


class Stripe(Provider):
    """A stand-in for Stripe's HTTP API; the official library talks to it."""

    declines = "this try"
    secrets_setting = "STRIPE_WEBHOOK_SECRETS"

    def __init__(self, server: StripeServer) -> None:
        self.gateway = StripeGateway()
        self.server = server

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[Stripe]:
        with stripe_server() as server:
            yield cls(server)

    def connect(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        settings.STRIPE_API_KEY = self.server.api_key
        settings.STRIPE_API_BASE = self.server.url
        settings.STRIPE_WEBHOOK_SECRETS = [self.server.webhook_secret]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(stripe_module, "READ_TIMEOUT_S", 1)
        stripe_module._client.cache_clear()

    def customer_pays(self, reference: str) -> None:
        self.server.pay(reference)

    def customer_is_declined(self, reference: str) -> None:
        self.server.decline(reference)

    def totals(self, reference: str) -> dict[str, int]:
        return self.server.totals(reference)

    def fault(self, name: str, operation: str) -> None:
        self.server.fault(name, operation)

    def clear_faults(self) -> None:
        self.server.clear_faults()

    def webhooks(self, reference: str) -> list[Webhook]:
        return [Webhook(sent.headers, sent.body) for sent in self.server.webhooks(reference)]

    def signed(self, body: bytes, secret: str = "", age_s: int = 0) -> Webhook:
        signed = self.server.signed(body, secret, age_s)
        return Webhook(signed.headers, signed.body)

    def new_secret(self) -> str:
        return new_stripe_secret()


class BankTransfer(Provider):
    """The shop's account at a bank on paper. Its statements are imported; staff send it the refunds in a file."""

    declines = "never"
    needs_database = True

    def __init__(self) -> None:
        self.gateway = BankTransferGateway()
        self.bank = paper_bank.PaperBank()

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[BankTransfer]:
        yield cls()

    def connect(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bank = paper_bank.PaperBank()  # the receivables of the test before are rolled back
        for name, value in paper_bank.SETTINGS.items():
            setattr(settings, name, value)

    def customer_pays(self, reference: str) -> None:
        due = Receivable.objects.get(reference=reference)
        # The books that the import looks in; the suite calls the gateway without them.
        payment = open_payment(self.gateway.name, due.merchant_reference, due.money, due.idempotency_key)
        absorb(payment, self.gateway.status(reference), "call")
        self._books(paper_bank.Entry(due.amount, creditor_reference=reference))

    def refunds_go_through(self) -> None:
        batch = transfers.make_batch(OutgoingTransfer.objects.filter(state="ready"), "grace")
        transfers.mark_sent(batch, "grace")
        self._books(
            *(
                paper_bank.Entry(-sent.amount, end_to_end_id=sent.end_to_end_id, iban=sent.payee_iban)
                for sent in batch.transfers.all()
            )
        )

    def _books(self, *entries: paper_bank.Entry) -> None:
        paper_bank.load(self.bank.statement(*entries))

    def totals(self, reference: str) -> dict[str, int]:
        """What came and went is the bank's word: a refund that is only asked for is not in it yet."""
        due = Receivable.objects.get(reference=reference)
        sent = set(due.outgoing.values_list("end_to_end_id", flat=True))
        entries = self.bank.entries
        return {
            "authorized": due.amount,
            "received": sum(e.amount for e in entries if e.creditor_reference == reference),
            "captured": due.captured,
            "refunded": -sum(e.amount for e in entries if e.end_to_end_id in sent),
            "voided": due.amount if due.voided_at else 0,
        }


PROVIDERS: dict[str, type[Provider]] = {"sandbox": Sandbox, "stripe": Stripe, "bank_transfer": BankTransfer}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.django_db] if provider.needs_database else [])
        for name, provider in PROVIDERS.items()
    ],
)
def running_provider(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Provider]:
    with PROVIDERS[request.param].running(tmp_path_factory.mktemp(request.param)) as provider:
        yield provider


@pytest.fixture
def provider(
    request: pytest.FixtureRequest,
    running_provider: Provider,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Provider]:
    needed = getattr(request.function, "needs", "")
    if needed and not getattr(running_provider.gateway.capabilities, needed):
        pytest.skip(f"{running_provider.gateway.name} has no {needed.replace('_', ' ')}")
    running_provider.connect(settings, monkeypatch)
    yield running_provider
    running_provider.clear_faults()


@pytest.fixture
def gateway(provider: Provider) -> Gateway:
    return provider.gateway


def needs(capability: str) -> Callable[[F], F]:
    """Skip the test for gateways that cannot do this: a field of `Capabilities`."""

    def marked(test: F) -> F:
        test.needs = capability  # type: ignore[attr-defined]
        return test

    return marked


def opened(gateway: Gateway, key: str = "") -> GatewayResult:
    return gateway.authorize(ORDER, TEN, key or new_key())


def paid(provider: Provider) -> str:
    reference = opened(provider.gateway).reference
    provider.customer_pays(reference)
    return reference


def captured(provider: Provider, money: Money = TEN) -> str:
    reference = paid(provider)
    provider.gateway.capture(reference, money, new_key())
    return reference


def settled(provider: Provider, reference: str) -> RemotePayment:
    """The payment once its refunds have gone through."""
    provider.refunds_go_through()
    return provider.gateway.status(reference)


def totals_of(payment: RemotePayment) -> dict[str, int]:
    return {
        name: getattr(payment, name) for name in ("authorized", "received", "captured", "refunded", "voided")
    }


def succeeded(payment: RemotePayment, type_: EventType) -> list[GatewayEvent]:
    return [e for e in payment.events if e.type == type_ and e.outcome == EventOutcome.SUCCEEDED]


# --- the way of a payment --------------------------------------------------------------------------------


def test_an_opened_payment_waits_for_its_customer(provider: Provider, gateway: Gateway) -> None:
    result = opened(gateway)
    payment = result.payment
    assert result.reference == payment.payment_reference
    assert (payment.status, payment.merchant_reference, payment.currency) == (
        RemoteStatus.AUTHORIZED,
        ORDER,
        "EUR",
    )
    assert (payment.authorized, payment.received, payment.captured) == (1000, 0, 0)
    (event,) = succeeded(payment, EventType.AUTHORIZATION)
    assert (event.psp_reference, event.payment_reference) == (result.reference, result.reference)
    assert (event.money, event.merchant_reference) == (TEN, ORDER)


def test_a_payment_is_paid_captured_and_refunded(provider: Provider, gateway: Gateway) -> None:
    reference = opened(gateway).reference
    provider.customer_pays(reference)
    payment = gateway.status(reference)
    assert (payment.status, payment.received) == (RemoteStatus.PAID, 1000)
    assert payment.authorized_until is None or payment.authorized_until.tzinfo is not None

    result = gateway.capture(reference, TEN, new_key())
    assert (result.payment.status, result.payment.captured) == (RemoteStatus.CAPTURED, 1000)
    assert [e.psp_reference for e in succeeded(result.payment, EventType.CAPTURE)] == [result.reference]

    result = gateway.refund(reference, TEN, new_key())
    assert result.reference
    payment = settled(provider, reference)
    assert (payment.status, payment.refunded) == (RemoteStatus.REFUNDED, 1000)
    if result.payment.refunded:  # it was done at once
        assert [e.psp_reference for e in succeeded(payment, EventType.REFUND)] == [result.reference]


def test_an_unpaid_payment_can_be_voided(provider: Provider, gateway: Gateway) -> None:
    reference = opened(gateway).reference
    result = gateway.void(reference, new_key())
    assert (result.payment.status, result.payment.voided) == (RemoteStatus.VOIDED, 1000)
    assert [e.psp_reference for e in succeeded(result.payment, EventType.VOID)] == [result.reference]


def test_a_paid_payment_can_be_voided(provider: Provider, gateway: Gateway) -> None:
    result = gateway.void(paid(provider), new_key())
    assert (result.payment.status, result.payment.voided) == (RemoteStatus.VOIDED, 1000)


def test_a_decline_is_told_with_a_reason(provider: Provider, gateway: Gateway) -> None:
    if provider.declines == "never":
        pytest.skip("nobody declines here")
    reference = opened(gateway).reference
    provider.customer_is_declined(reference)
    payment = gateway.status(reference)
    (failed,) = [e for e in payment.events if e.outcome == EventOutcome.FAILED]
    assert "declined" in failed.detail.lower()
    if provider.declines == "for good":
        assert payment.status == RemoteStatus.DECLINED
        assert failed.type == EventType.AUTHORIZATION
        with pytest.raises(GatewayRefused):
            gateway.capture(reference, TEN, new_key())
    else:
        assert payment.status == RemoteStatus.AUTHORIZED
        provider.customer_pays(reference)
        assert gateway.capture(reference, TEN, new_key()).payment.captured == 1000


@needs("renewal")
def test_a_renewed_authorization_lasts_longer_and_is_worth_the_same(
    provider: Provider, gateway: Gateway
) -> None:
    before = opened(gateway).payment
    result = gateway.renew(before.payment_reference, new_key())
    after = result.payment
    assert before.authorized_until is not None
    assert after.authorized_until is not None
    assert after.authorized_until > before.authorized_until
    (event,) = succeeded(after, EventType.AUTHORIZATION_ADJUSTMENT)
    assert (event.psp_reference, event.money.amount) == (result.reference, 0)
    assert event.authorized_until == after.authorized_until
    assert (after.status, after.authorized) == (RemoteStatus.AUTHORIZED, 1000)
    provider.customer_pays(before.payment_reference)
    assert gateway.capture(before.payment_reference, TEN, new_key()).payment.captured == 1000


# --- what is refused -------------------------------------------------------------------------------------


def refused(call: Callable[[], object]) -> str:
    """The code with which it is refused; there must be a sentence too."""
    with pytest.raises(GatewayRefused, match=r"\w+ \w+") as info:
        call()
    return info.value.code


def test_no_second_capture(provider: Provider, gateway: Gateway) -> None:
    reference = captured(provider, SIX)
    assert refused(lambda: gateway.capture(reference, FOUR, new_key()))
    assert provider.totals(reference)["captured"] == 600


def test_no_capture_after_a_void(provider: Provider, gateway: Gateway) -> None:
    reference = paid(provider)
    gateway.void(reference, new_key())
    assert refused(lambda: gateway.capture(reference, TEN, new_key()))


def test_no_second_void(provider: Provider, gateway: Gateway) -> None:
    reference = paid(provider)
    gateway.void(reference, new_key())
    assert refused(lambda: gateway.void(reference, new_key()))


def test_no_void_after_a_capture(provider: Provider, gateway: Gateway) -> None:
    reference = captured(provider)
    assert refused(lambda: gateway.void(reference, new_key()))
    assert provider.totals(reference)["voided"] == 0


def test_nothing_is_renewed_that_cannot_be(provider: Provider, gateway: Gateway) -> None:
    """Captured, voided; and where the gateway renews nothing, not even what is open."""
    voided = opened(gateway).reference
    gateway.void(voided, new_key())
    references = [captured(provider), voided]
    if not gateway.capabilities.renewal:
        references.append(opened(gateway).reference)
    for reference in references:
        before = gateway.status(reference)
        assert refused(partial(gateway.renew, reference, new_key()))
        assert gateway.status(reference) == before


def test_no_more_is_captured_than_authorized(provider: Provider, gateway: Gateway) -> None:
    reference = paid(provider)
    assert refused(lambda: gateway.capture(reference, TEN + Money(1, "EUR"), new_key()))


def test_no_more_is_refunded_than_captured(provider: Provider, gateway: Gateway) -> None:
    reference = captured(provider)
    gateway.refund(reference, FOUR, new_key())
    assert refused(lambda: gateway.refund(reference, SIX + Money(1, "EUR"), new_key()))
    gateway.refund(reference, SIX, new_key())
    assert refused(lambda: gateway.refund(reference, Money(1, "EUR"), new_key()))


def test_nothing_is_refunded_that_was_not_captured(provider: Provider, gateway: Gateway) -> None:
    reference = paid(provider)
    assert refused(lambda: gateway.refund(reference, TEN, new_key()))


def test_another_currency_is_refused(provider: Provider, gateway: Gateway) -> None:
    reference = paid(provider)
    yen = Money(1000, "JPY")
    assert refused(lambda: gateway.capture(reference, yen, new_key())) == "currency_mismatch"
    gateway.capture(reference, TEN, new_key())
    assert refused(lambda: gateway.refund(reference, yen, new_key())) == "currency_mismatch"
    assert provider.totals(reference) | {"captured": 1000, "refunded": 0} == provider.totals(reference)


def test_an_unknown_payment_is_not_found(provider: Provider, gateway: Gateway) -> None:
    assert refused(lambda: gateway.status("nothing_like_it")) == "not_found"
    assert refused(lambda: gateway.void("nothing_like_it", new_key())) == "not_found"


# --- parts -----------------------------------------------------------------------------------------------


@needs("partial_capture")
def test_a_part_is_captured(provider: Provider, gateway: Gateway) -> None:
    reference = paid(provider)
    payment = gateway.capture(reference, SIX, new_key()).payment
    assert (payment.status, payment.captured, payment.refunded) == (RemoteStatus.CAPTURED, 600, 0)
    assert refused(lambda: gateway.refund(reference, TEN, new_key()))
    gateway.refund(reference, SIX, new_key())
    assert settled(provider, reference).status == RemoteStatus.REFUNDED
    assert provider.totals(reference)["refunded"] == 600


@needs("partial_refund")
def test_parts_are_refunded(provider: Provider, gateway: Gateway) -> None:
    reference = captured(provider)
    first = gateway.refund(reference, FOUR, new_key())
    second = gateway.refund(reference, FOUR, new_key())
    assert first.reference != second.reference
    payment = settled(provider, reference)
    assert (payment.status, payment.refunded) == (RemoteStatus.CAPTURED, 800)
    assert provider.totals(reference)["refunded"] == 800


# --- idempotency keys ------------------------------------------------------------------------------------


def test_a_key_opens_one_payment(provider: Provider, gateway: Gateway) -> None:
    key = new_key()
    assert opened(gateway, key) == opened(gateway, key)


def test_a_key_captures_once(provider: Provider, gateway: Gateway) -> None:
    reference, key = paid(provider), new_key()
    first = gateway.capture(reference, TEN, key)
    assert gateway.capture(reference, TEN, key).reference == first.reference
    assert provider.totals(reference)["captured"] == 1000


def test_a_key_voids_once(provider: Provider, gateway: Gateway) -> None:
    reference, key = paid(provider), new_key()
    assert gateway.void(reference, key).reference == gateway.void(reference, key).reference
    assert provider.totals(reference)["voided"] == 1000


@needs("renewal")
def test_a_key_renews_once(gateway: Gateway) -> None:
    reference, key = opened(gateway).reference, new_key()
    first = gateway.renew(reference, key)
    assert gateway.renew(reference, key) == first
    assert gateway.status(reference).authorized_until == first.payment.authorized_until


@needs("renewal")
def test_a_renewal_whose_answer_was_lost_is_not_done_again(provider: Provider, gateway: Gateway) -> None:
    reference, key = opened(gateway).reference, new_key()
    provider.fault("lost_answer", "renew")
    with pytest.raises(GatewayUnavailable):
        gateway.renew(reference, key)
    provider.clear_faults()
    result = gateway.renew(reference, key)
    assert len(succeeded(result.payment, EventType.AUTHORIZATION_ADJUSTMENT)) == 1


def test_a_key_refunds_once(provider: Provider, gateway: Gateway) -> None:
    reference, key = captured(provider), new_key()
    first = gateway.refund(reference, FOUR, key)
    assert gateway.refund(reference, FOUR, key).reference == first.reference
    provider.refunds_go_through()
    assert provider.totals(reference)["refunded"] == 400


def test_a_key_is_for_one_body(provider: Provider, gateway: Gateway) -> None:
    key = new_key()
    opened(gateway, key)
    assert refused(lambda: gateway.authorize(ORDER, SIX, key)) == "idempotency_key_reuse"
    reference, key = captured(provider), new_key()
    gateway.refund(reference, FOUR, key)
    assert refused(lambda: gateway.refund(reference, SIX, key)) == "idempotency_key_reuse"
    provider.refunds_go_through()
    assert provider.totals(reference)["refunded"] == 400


# --- bad days --------------------------------------------------------------------------------------------

OPERATIONS: dict[str, tuple[Callable[[Provider], str], Callable[[Gateway, str, str], GatewayResult], str]] = {
    "authorize": (lambda provider: "", lambda g, _, key: g.authorize(ORDER, TEN, key), "authorized"),
    "capture": (paid, lambda g, reference, key: g.capture(reference, TEN, key), "captured"),
    "void": (paid, lambda g, reference, key: g.void(reference, key), "voided"),
    "refund": (captured, lambda g, reference, key: g.refund(reference, TEN, key), "refunded"),
}


@needs("remote")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_lost_answer_is_unknown_and_the_same_key_acts_once(
    provider: Provider, gateway: Gateway, operation: str
) -> None:
    prepare, act, total = OPERATIONS[operation]
    reference, key = prepare(provider), new_key()
    provider.fault("lost_answer", operation)
    with pytest.raises(GatewayUnavailable):
        act(gateway, reference, key)
    provider.clear_faults()
    result = act(gateway, reference, key)
    assert result == act(gateway, reference, key)
    assert (
        totals_of(result.payment)[total] == provider.totals(result.payment.payment_reference)[total] == 1000
    )


@needs("remote")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_error_of_the_provider_is_unavailable(
    provider: Provider, gateway: Gateway, operation: str
) -> None:
    prepare, act, total = OPERATIONS[operation]
    reference, key = prepare(provider), new_key()
    provider.fault("error", operation)
    with pytest.raises(GatewayUnavailable):
        act(gateway, reference, key)
    provider.clear_faults()
    assert totals_of(act(gateway, reference, key).payment)[total] == 1000


@needs("remote")
@pytest.mark.parametrize("operation", ["authorize", "status"])
def test_too_many_calls_carry_when_to_come_again(
    provider: Provider, gateway: Gateway, operation: str
) -> None:
    reference = opened(gateway).reference
    provider.fault("rate_limited", operation)
    with pytest.raises(GatewayUnavailable) as info:
        opened(gateway) if operation == "authorize" else gateway.status(reference)
    assert info.value.retry_after is not None
    assert info.value.retry_after > 0


@needs("remote")
def test_a_timeout_is_unknown_and_the_key_in_flight_is_unavailable(
    provider: Provider, gateway: Gateway
) -> None:
    reference, key = paid(provider), new_key()
    provider.fault("slow", "capture")
    with pytest.raises(GatewayUnavailable) as info:
        gateway.capture(reference, TEN, key)
    assert info.value.code == "timeout"
    with pytest.raises(GatewayUnavailable):
        gateway.capture(reference, TEN, key)
    provider.clear_faults()
    until_free(lambda: gateway.capture(reference, TEN, key))
    assert provider.totals(reference)["captured"] == 1000


def until_free(call: Callable[[], GatewayResult]) -> GatewayResult:
    """Repeat a call whose key may still be in flight for a moment."""
    for _ in range(200):
        try:
            return call()
        except GatewayUnavailable:
            continue
    return call()


@needs("remote")
def test_a_lost_authorization_is_found_by_its_key(provider: Provider, gateway: Gateway) -> None:
    key = new_key()
    provider.fault("lost_answer", "authorize")
    with pytest.raises(GatewayUnavailable):
        opened(gateway, key)
    provider.clear_faults()
    found = gateway.find(key)
    assert found is not None
    assert gateway.void(found.payment_reference, new_key()).payment.status == RemoteStatus.VOIDED


def test_a_payment_is_found_by_its_key(provider: Provider, gateway: Gateway) -> None:
    key = new_key()
    payment = opened(gateway, key).payment
    assert gateway.find(key) == payment


def test_what_never_happened_is_not_found(provider: Provider, gateway: Gateway) -> None:
    assert gateway.find(new_key()) is None


# --- webhooks --------------------------------------------------------------------------------------------


@needs("webhooks")
def test_a_genuine_webhook_gives_its_event(provider: Provider, gateway: Gateway) -> None:
    reference = paid(provider)
    told = [event for sent in provider.webhooks(reference) for event in events_in(gateway, sent)]
    received = {event for event in told if event.type == EventType.RECEIPT}
    assert {(e.outcome, e.money, e.payment_reference, e.merchant_reference) for e in received} == {
        (EventOutcome.SUCCEEDED, TEN, reference, ORDER)
    }
    assert all(event.raw_id for event in told)


def events_in(gateway: Gateway, sent: Webhook) -> tuple[GatewayEvent, ...]:
    return gateway.parse_webhook(sent.headers, sent.body)


def rejected(gateway: Gateway, sent: Webhook) -> str:
    with pytest.raises(WebhookRejected, match=r"\w+ \w+") as info:
        events_in(gateway, sent)
    return info.value.code


@needs("webhooks")
def test_a_forged_webhook_is_rejected(provider: Provider, gateway: Gateway) -> None:
    sent = provider.webhooks(paid(provider))[-1]
    assert rejected(gateway, Webhook(sent.headers, sent.body.replace(b"1000", b"9000"))) == "bad_signature"
    assert rejected(gateway, provider.signed(sent.body, secret=provider.new_secret())) == "bad_signature"
    garbled = {name: value + "é" if "ignature" in name else value for name, value in sent.headers.items()}
    assert rejected(gateway, Webhook(garbled, sent.body)) == "bad_signature"
    assert rejected(gateway, Webhook({}, sent.body)) == "not_signed"


@needs("webhooks")
def test_a_stale_webhook_is_rejected(provider: Provider, gateway: Gateway) -> None:
    sent = provider.webhooks(paid(provider))[-1]
    assert events_in(gateway, provider.signed(sent.body, age_s=200))
    assert rejected(gateway, provider.signed(sent.body, age_s=301)) == "stale"


@needs("webhooks")
def test_both_secrets_of_a_rotation_are_taken(
    provider: Provider, gateway: Gateway, settings: Settings
) -> None:
    sent = provider.webhooks(paid(provider))[-1]
    old, new = getattr(settings, provider.secrets_setting)[0], provider.new_secret()
    setattr(settings, provider.secrets_setting, [new, old])
    assert events_in(gateway, provider.signed(sent.body, secret=old))
    assert events_in(gateway, provider.signed(sent.body, secret=new))
    setattr(settings, provider.secrets_setting, [new])
    assert rejected(gateway, provider.signed(sent.body, secret=old)) == "bad_signature"


@needs("webhooks")
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'"text"', b"\xff", b'{"type": 1, "data": []}'])
def test_a_signed_webhook_that_makes_no_sense_is_rejected(
    provider: Provider, gateway: Gateway, body: bytes
) -> None:
    try:
        sent = provider.signed(body)
    except UnicodeDecodeError:
        pytest.skip("this provider signs text only")
    assert rejected(gateway, sent) in ("not_understood", "bad_signature")


# --- the same news, whichever way ------------------------------------------------------------------------


@dataclass
class Entry:
    """An event as the books keep it."""

    type: str
    outcome: str
    amount: int
    psp_reference: str


def entry(event: GatewayEvent) -> Entry:
    return Entry(event.type, event.outcome, event.money.amount, event.psp_reference)


def all_changes(gateway: Gateway, cursor: str = "") -> tuple[list[GatewayEvent], str]:
    events: list[GatewayEvent] = []
    for _ in range(1000):
        page = gateway.changes(cursor, limit=3)
        events += page.events
        cursor = page.cursor
        if not page.more:
            return events, cursor
    raise AssertionError("The changes never end.")


def lives(provider: Provider) -> Iterator[tuple[str, list[GatewayEvent]]]:
    """Payments with different ends: the reference, and what the answers to the calls told."""
    gateway = provider.gateway

    def told(*results: GatewayResult) -> list[GatewayEvent]:
        return [event for result in results for event in result.payment.events]

    first = opened(gateway)
    provider.customer_pays(first.reference)
    calls = told(
        first,
        gateway.capture(first.reference, TEN, new_key()),
        gateway.refund(first.reference, FOUR, new_key()),
        gateway.refund(first.reference, Money(100, "EUR"), new_key()),
    )
    provider.refunds_go_through()
    yield first.reference, calls
    second = opened(gateway)
    yield second.reference, told(second, gateway.void(second.reference, new_key()))
    third = opened(gateway)
    provider.customer_pays(third.reference)
    yield third.reference, told(third, gateway.void(third.reference, new_key()))
    if provider.declines == "never":
        return
    fourth = opened(gateway)
    provider.customer_is_declined(fourth.reference)
    yield fourth.reference, told(fourth)


def test_news_has_the_same_key_whichever_way_it_is_learned(provider: Provider, gateway: Gateway) -> None:
    able = gateway.capabilities
    for reference, called in lives(provider):
        ways = {"call": called, "status": list(gateway.status(reference).events)}
        if able.webhooks:
            ways["webhook"] = [e for sent in provider.webhooks(reference) for e in events_in(gateway, sent)]
        if able.change_feed:
            ways["changes"] = [e for e in all_changes(gateway)[0] if e.payment_reference == reference]
        books: dict[tuple[str, str], Entry] = {}
        for way, events in ways.items():
            for event in events:
                kept = books.setdefault((event.type, event.psp_reference), entry(event))
                assert kept == entry(event), f"{way} tells it differently"
        # Each way that sees the end knows every key; the answers to calls end before the customer acts.
        complete = set(books)
        for way in ways.keys() - {"call"}:
            assert {(e.type, e.psp_reference) for e in ways[way]} == complete, way
        assert ledger_totals(books.values()) == provider.totals(reference)
        assert totals_of(gateway.status(reference)) == provider.totals(reference)


def ledger_totals(entries: Iterable[Entry]) -> dict[str, int]:
    sums = ledger.totals(entries)
    return {
        name: getattr(sums, name) for name in ("authorized", "received", "captured", "refunded", "voided")
    }


@needs("change_feed")
def test_changes_go_on_after_their_cursor(provider: Provider, gateway: Gateway) -> None:
    _, cursor = all_changes(gateway)
    references = [opened(gateway).reference for _ in range(5)]
    events, cursor = all_changes(gateway, cursor)
    # What came before may come again; nothing new is left out, and the order is that of the happening.
    new = [e.psp_reference for e in events if e.psp_reference in references]
    assert new == references
    reference = paid(provider)
    events, _ = all_changes(gateway, cursor)
    assert EventType.RECEIPT in {e.type for e in events if e.payment_reference == reference}


def test_many_payments_are_asked_for_at_once(provider: Provider, gateway: Gateway) -> None:
    unpaid, paid_one = opened(gateway).reference, paid(provider)
    assert gateway.statuses([unpaid, "nobody's", paid_one]) == {
        unpaid: gateway.status(unpaid),
        "nobody's": None,
        paid_one: gateway.status(paid_one),
    }
    assert gateway.statuses([]) == {}


@needs("batch_status")
def test_a_hundred_payments_are_the_most_at_once(provider: Provider, gateway: Gateway) -> None:
    references = [f"nobody's-{n}" for n in range(101)]
    assert len(gateway.statuses(references[:100])) == 100
    with pytest.raises(GatewayRefused, match="100"):
        gateway.statuses(references)


@needs("lists_payments")
def test_the_list_has_each_payment_of_its_time_once_and_what_became_of_it(
    provider: Provider, gateway: Gateway
) -> None:
    began = datetime.now(UTC).replace(microsecond=0)
    untouched, captured, part, voided = opened(gateway).reference, *(paid(provider) for _ in range(3))
    gateway.capture(captured, TEN, new_key())
    gateway.refund(captured, FOUR, new_key())
    gateway.capture(part, SIX, new_key())
    gateway.void(voided, new_key())
    ended = datetime.now(UTC) + timedelta(seconds=1)
    lines = list_of(gateway, began, ended)
    assert len(lines) == len({line.payment_reference for line in lines})
    listed = {line.payment_reference: line for line in lines}
    for reference in (untouched, captured, part, voided):
        line, remote = listed[reference], gateway.status(reference)
        assert (line.merchant_reference, line.currency) == (remote.merchant_reference, "EUR")
        assert (line.received, line.captured, line.refunded, line.voided) == (
            remote.received, remote.captured, remote.refunded, remote.voided,
        )  # fmt: skip
    assert not {untouched, captured} & {
        line.payment_reference for line in list_of(gateway, began - timedelta(days=1), began)
    }


@needs("lists_payments")
def test_the_list_goes_on_page_by_page(gateway: Gateway) -> None:
    began = datetime.now(UTC).replace(microsecond=0)
    references = {opened(gateway).reference for _ in range(103)}
    lines = list_of(gateway, began, datetime.now(UTC) + timedelta(seconds=1))
    assert references <= {line.payment_reference for line in lines}
    assert len(lines) == len({line.payment_reference for line in lines})


def list_of(gateway: Gateway, opened_from: datetime, opened_until: datetime) -> list[ListedPayment]:
    lines: list[ListedPayment] = []
    cursor = ""
    while True:
        page = gateway.payments(opened_from, opened_until, cursor)
        assert len(page.payments) <= 100
        lines += page.payments
        if not page.cursor:
            return lines
        cursor = page.cursor


@needs("change_feed")
def test_a_run_that_overlaps_begins_no_later_than_its_cursor(provider: Provider, gateway: Gateway) -> None:
    _, cursor = all_changes(gateway)
    reference = paid(provider)
    page = gateway.changes(cursor, overlap=True)
    read = [*page.events, *(all_changes(gateway, page.cursor)[0] if page.more else [])]
    assert {e.psp_reference for e in all_changes(gateway, cursor)[0]} <= {e.psp_reference for e in read}
    assert EventType.RECEIPT in {e.type for e in read if e.payment_reference == reference}


@needs("remote")
def test_a_wrong_key_or_address_is_a_matter_for_a_person(
    provider: Provider, gateway: Gateway, settings: Settings
) -> None:
    name = gateway.name.upper()
    reference = opened(gateway).reference
    setattr(settings, f"{name}_API_KEY", "wrong")
    with pytest.raises(GatewayMisconfigured, match="API"):
        gateway.status(reference)
    setattr(settings, f"{name}_API_KEY", "")
    with pytest.raises(GatewayMisconfigured, match=f"{name}_API_KEY"):
        gateway.status(reference)
