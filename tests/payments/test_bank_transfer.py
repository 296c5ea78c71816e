"""Vorkasse as a gateway: a receivable is opened, booked or closed once, and what goes back is a transfer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from typing import Any

import pytest
from django.db import connections

from payments.banking.instructions import instructions_of
from payments.gateways import gateway
from payments.gateways.bank_transfer import BankTransferGateway
from payments.gateways.base import EventType, GatewayRefused, RemoteStatus, WebhookRejected
from payments.models import OutgoingTransfer, Payment, PaymentEvent, Receivable
from payments.references import creditor_reference
from payments.services import transfers
from payments.services.recording import absorb
from shop.kernel.money import Money
from tests.payments.our_bank import ADA, BIC, GRACE, HOLDER, IBAN, arrives, captured, opened, our_bank

pytestmark = pytest.mark.django_db

TEN = Money(1000, "EUR")
NUMBER = "ORD-100001"


@pytest.fixture(autouse=True)
def bank(settings: Any) -> Iterator[None]:
    with our_bank(settings):
        yield


@pytest.fixture
def bank_transfer() -> BankTransferGateway:
    return BankTransferGateway()


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(GatewayRefused, match=r"\w+ \w+") as refusal:
        call()
    return refusal.value.code


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What each call gives, or the error it raises, all made at the same time."""

    def one(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


# --- opening ---------------------------------------------------------------------------------------------


def test_reference_names_the_order_and_which_attempt_it_is(bank_transfer: BankTransferGateway) -> None:
    first = bank_transfer.authorize(NUMBER, TEN, "a")
    second = bank_transfer.authorize(NUMBER, TEN, "b")
    other = bank_transfer.authorize("ORD-100002", TEN, "c")
    assert first.reference == first.payment.payment_reference == creditor_reference(NUMBER, 1)
    assert second.reference == creditor_reference(NUMBER, 2)
    assert other.reference == creditor_reference("ORD-100002", 1)
    assert first.payment.status == RemoteStatus.AUTHORIZED
    assert first.payment.authorized_until is None


def test_same_key_is_the_same_receivable_and_another_body_is_refused(
    bank_transfer: BankTransferGateway,
) -> None:
    first = bank_transfer.authorize(NUMBER, TEN, "a")
    assert bank_transfer.authorize(NUMBER, TEN, "a") == first
    assert code_of(lambda: bank_transfer.authorize(NUMBER, Money(999, "EUR"), "a")) == "idempotency_key_reuse"
    assert code_of(lambda: bank_transfer.authorize("ORD-100002", TEN, "a")) == "idempotency_key_reuse"
    assert Receivable.objects.count() == 1


def test_nothing_is_opened_over_nothing_or_for_a_number_that_fits_no_reference(
    bank_transfer: BankTransferGateway,
) -> None:
    assert code_of(lambda: bank_transfer.authorize(NUMBER, Money(0, "EUR"), "a")) == "invalid_amount"
    assert code_of(lambda: bank_transfer.authorize("Käse", TEN, "a")) == "invalid_merchant_reference"
    assert not Receivable.objects.exists()


def test_find_knows_what_the_key_opened(bank_transfer: BankTransferGateway) -> None:
    opened_now = bank_transfer.authorize(NUMBER, TEN, "a")
    found = bank_transfer.find("a")
    assert found is not None
    assert found.payment_reference == opened_now.reference
    assert bank_transfer.find("b") is None


def test_unknown_reference_is_refused_everywhere(bank_transfer: BankTransferGateway) -> None:
    calls: list[Callable[[], object]] = [
        lambda: bank_transfer.status("RF00"),
        lambda: bank_transfer.capture("RF00", TEN, "k"),
        lambda: bank_transfer.void("RF00", "k"),
        lambda: bank_transfer.refund("RF00", TEN, "k"),
    ]
    assert [code_of(call) for call in calls] == ["not_found"] * 4


# --- booking and closing ---------------------------------------------------------------------------------


def test_capture_books_once_and_its_key_gives_the_answer_again(bank_transfer: BankTransferGateway) -> None:
    reference = bank_transfer.authorize(NUMBER, TEN, "a").reference
    first = bank_transfer.capture(reference, TEN, "c")
    assert (first.payment.status, first.payment.captured) == (RemoteStatus.CAPTURED, 1000)
    assert bank_transfer.capture(reference, TEN, "c") == first
    assert code_of(lambda: bank_transfer.capture(reference, Money(1, "EUR"), "c")) == "idempotency_key_reuse"
    assert code_of(lambda: bank_transfer.capture(reference, TEN, "d")) == "already_captured"
    assert code_of(lambda: bank_transfer.void(reference, "v")) == "already_captured"


def test_capture_of_more_or_of_another_currency_is_refused(bank_transfer: BankTransferGateway) -> None:
    reference = bank_transfer.authorize(NUMBER, TEN, "a").reference
    assert code_of(lambda: bank_transfer.capture(reference, Money(1001, "EUR"), "c")) == "amount_too_high"
    assert code_of(lambda: bank_transfer.capture(reference, Money(1000, "USD"), "c")) == "currency_mismatch"
    assert bank_transfer.capture(reference, Money(400, "EUR"), "c").payment.captured == 400


def test_void_closes_once(bank_transfer: BankTransferGateway) -> None:
    reference = bank_transfer.authorize(NUMBER, TEN, "a").reference
    first = bank_transfer.void(reference, "v")
    assert (first.payment.status, first.payment.voided) == (RemoteStatus.VOIDED, 1000)
    assert bank_transfer.void(reference, "v") == first
    assert code_of(lambda: bank_transfer.void(reference, "w")) == "already_voided"
    assert code_of(lambda: bank_transfer.capture(reference, TEN, "c")) == "already_voided"


def test_money_on_the_statement_makes_it_paid() -> None:
    payment = opened(amount=1000)
    arrives(payment, 400)
    assert gateway("bank_transfer").status(payment.reference).status == RemoteStatus.AUTHORIZED
    arrives(payment, 600)
    remote = gateway("bank_transfer").status(payment.reference)
    assert (remote.status, remote.received) == (RemoteStatus.PAID, 1000)
    before = PaymentEvent.objects.count()
    absorb(payment, remote, "check")
    assert PaymentEvent.objects.count() == before, "what the books know is not news"


# --- giving back -----------------------------------------------------------------------------------------


def test_refund_is_a_transfer_to_where_the_money_came_from() -> None:
    payment = captured(NUMBER, 1000)
    answer = gateway("bank_transfer").refund(payment.reference, Money(400, "EUR"), "r")
    transfer = OutgoingTransfer.objects.get()
    assert (transfer.state, transfer.payee_iban, transfer.payee_name) == ("ready", ADA, "Ada Lovelace")
    assert (transfer.money, transfer.end_to_end_id) == (Money(400, "EUR"), answer.reference)
    assert NUMBER in transfer.remittance_information
    assert (answer.payment.refunded, answer.payment.status) == (400, RemoteStatus.CAPTURED)
    absorb(payment, answer.payment, "call")
    assert payment.totals().refunded == 0, "it has not left our account"


def test_refund_goes_up_to_what_was_captured_and_not_asked_for_yet() -> None:
    payment = captured(NUMBER, 1000)
    bank_transfer = gateway("bank_transfer")
    bank_transfer.refund(payment.reference, Money(400, "EUR"), "r")
    again = bank_transfer.refund(payment.reference, Money(400, "EUR"), "r")
    assert OutgoingTransfer.objects.get().end_to_end_id == again.reference
    refund = bank_transfer.refund
    assert code_of(lambda: refund(payment.reference, Money(500, "EUR"), "r")) == "idempotency_key_reuse"
    assert code_of(lambda: refund(payment.reference, Money(601, "EUR"), "s")) == "refund_too_high"
    assert refund(payment.reference, Money(600, "EUR"), "s").payment.status == RemoteStatus.REFUNDED


def test_nothing_uncaptured_is_refunded(bank_transfer: BankTransferGateway) -> None:
    reference = bank_transfer.authorize(NUMBER, TEN, "a").reference
    assert code_of(lambda: bank_transfer.refund(reference, TEN, "r")) == "not_captured"


def test_account_that_is_not_certain_is_left_to_a_person() -> None:
    by_hand = opened("ORD-100002", 1000)
    two = opened("ORD-100003", 1000)
    arrives(two, 500, ADA)
    arrives(two, 500, GRACE, "Grace Hopper")
    unreadable = opened("ORD-100004", 1000)
    arrives(unreadable, 1000, "DE00123")
    for payment in (by_hand, two, unreadable):
        gateway("bank_transfer").capture(payment.reference, TEN, f"c{payment.pk}")
        gateway("bank_transfer").refund(payment.reference, TEN, f"r{payment.pk}")
    assert set(OutgoingTransfer.objects.values_list("state", "payee_iban")) == {("needs_account", "")}


def test_booked_refund_is_one_refund_in_the_books_however_often_it_is_seen() -> None:
    payment = captured(NUMBER, 1000)
    bank_transfer = gateway("bank_transfer")
    reference = bank_transfer.refund(payment.reference, TEN, "r").reference
    transfers.booked(reference, "BANK-1", TEN, date(2026, 1, 9))
    remote = bank_transfer.status(payment.reference)
    assert (remote.refunded, remote.status) == (1000, RemoteStatus.REFUNDED)
    assert [e.psp_reference for e in remote.events if e.type == EventType.REFUND] == [reference]
    absorb(payment, remote, "check")
    assert payment.totals().refunded == 1000


# --- at the same time ------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_attempts_opened_at_once_have_different_references(bank_transfer: BankTransferGateway) -> None:
    answers = at_once(*(lambda k=k: bank_transfer.authorize(NUMBER, TEN, k) for k in "abcdabcd"))
    assert sorted({answer.reference for answer in answers}) == sorted(
        creditor_reference(NUMBER, n) for n in range(1, 5)
    )
    assert answers[0] == answers[4]


@pytest.mark.django_db(transaction=True)
def test_of_captures_and_voids_at_once_one_wins(bank_transfer: BankTransferGateway) -> None:
    for n in range(5):
        reference = bank_transfer.authorize(NUMBER, TEN, f"a{n}").reference
        answers = at_once(
            partial(bank_transfer.capture, reference, TEN, "c"),
            partial(bank_transfer.void, reference, "v"),
            partial(bank_transfer.capture, reference, TEN, "d"),
        )
        assert sum(isinstance(answer, GatewayRefused) for answer in answers) == 2
        row = Receivable.objects.get(reference=reference)
        assert bool(row.captured_at) != bool(row.voided_at)


@pytest.mark.django_db(transaction=True)
def test_refunds_at_once_give_no_more_back_than_there_is() -> None:
    payment = captured(NUMBER, 1000)
    refund = gateway("bank_transfer").refund
    answers = at_once(
        *(lambda k=k: refund(payment.reference, Money(400, "EUR"), k) for k in ("r", "s", "t", "r"))
    )
    assert sum(isinstance(answer, GatewayRefused) for answer in answers) in (1, 2)
    assert sum(OutgoingTransfer.objects.values_list("amount", flat=True)) == 800


# --- what it cannot do -----------------------------------------------------------------------------------


def test_banks_have_no_webhooks_and_no_feed(bank_transfer: BankTransferGateway) -> None:
    page = bank_transfer.changes("x")
    assert (page.events, page.cursor, page.more) == ((), "x", False)
    with pytest.raises(WebhookRejected, match="statements"):
        bank_transfer.parse_webhook({}, b"{}")


# --- instructions ----------------------------------------------------------------------------------------


def test_instructions_ask_for_what_is_missing_and_end_with_the_need() -> None:
    payment = opened(NUMBER, 1000)
    asked = instructions_of(payment)
    assert asked is not None
    assert (asked.iban, asked.bic, asked.name, asked.bank) == (IBAN, BIC, HOLDER, "Commerzbank")
    assert (asked.creditor_reference, asked.money) == (payment.reference, TEN)
    arrives(payment, 300)
    rest = instructions_of(payment)
    assert rest is not None
    assert rest.money == Money(700, "EUR")
    arrives(payment, 700)
    assert instructions_of(payment) is None


def test_closed_or_foreign_payment_has_no_instructions() -> None:
    payment = opened(NUMBER, 1000)
    absorb(payment, gateway("bank_transfer").void(payment.reference, "v").payment, "call")
    assert instructions_of(payment) is None
    by_card = Payment.objects.create(
        gateway="stripe",
        merchant_reference=NUMBER,
        idempotency_key="k",
        reference="pi_1",
        amount=5,
        currency="EUR",
    )
    assert instructions_of(by_card) is None
