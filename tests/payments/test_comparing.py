"""Our books against the providers' own: the practice provider in its process, and Stripe's stand-in."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from payments.gateways import gateway
from payments.gateways import sandbox as sandbox_module
from payments.gateways.base import EventOutcome, EventType, GatewayEvent, GatewayUnavailable
from payments.models import Payment, PaymentEvent, ReviewItem
from payments.services import comparing, reprocessing
from payments.services.comparing import Mismatch
from payments.services.recording import absorb, open_payment, record
from shop.kernel.money import Money
from tests.orders.conftest import provider, provider_process
from tests.payments.sandbox_process import SandboxProcess
from tests.payments.stripe_server import StripeServer
from tests.payments.test_stripe_gateway import stripe
from tests.waiting import wait_until

__all__ = ["provider", "provider_process", "stripe"]  # fixtures
pytestmark = pytest.mark.django_db

TEN, FOUR = Money(1000, "EUR"), Money(400, "EUR")


@pytest.fixture(autouse=True)
def nothing_is_early(provider: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "EARLY", timedelta(0))


def opened(number: str = "ORD-1", name: str = "sandbox") -> Payment:
    answer = gateway(name).authorize(number, TEN, f"{number}-{timezone.now().timestamp()}")
    payment = open_payment(name, number, TEN, f"{number}/hold-{answer.reference}")
    return absorb(payment, answer.payment, "call")


def captured(number: str = "ORD-1") -> Payment:
    payment = opened(number)
    return absorb(payment, gateway("sandbox").capture(payment.reference, TEN, f"{payment}/c").payment, "call")


def found(name: str = "sandbox", *again: str, stranger: str = "") -> list[Mismatch]:
    """Without the payments of other tests, which were opened in the same second."""
    return [m for m in comparing.mismatches(name, again) if m.payment or m.reference == stranger]


def test_books_that_agree_cost_one_question_a_page(provider: SandboxProcess, monkeypatch: Any) -> None:
    untouched, taken, given_back, released = opened(), captured(), captured(), opened()
    sandbox = gateway("sandbox")
    absorb(given_back, sandbox.refund(given_back.reference, FOUR, f"{given_back}/r").payment, "call")
    absorb(released, sandbox.void(released.reference, f"{released}/v").payment, "call")
    asked: list[str] = []
    real = sandbox_module.call

    def call(method: str, path: str, **options: Any) -> dict[str, Any]:
        asked.append(path)
        return real(method, path, **options)

    monkeypatch.setattr(sandbox_module, "call", call)
    assert found() == []
    assert len(asked) == 1
    assert {untouched.pk, taken.pk} <= set(Payment.objects.values_list("pk", flat=True))


@pytest.mark.parametrize("what", ["capture", "refund", "void"])
def test_what_the_provider_has_and_we_have_not_is_told_and_taken_over(what: str) -> None:
    payment = opened() if what != "refund" else captured()
    sandbox = gateway("sandbox")
    money = () if what == "void" else (FOUR,)
    getattr(sandbox, what)(payment.reference, *money, f"{payment}/{what}")
    (mismatch,) = found()
    assert (mismatch.reference, mismatch.payment, mismatch.can_take) == (payment.reference, payment, True)
    amount = "€10.00" if what == "void" else "€4.00"
    assert mismatch.sentence == f"sandbox tells of a {what} of {amount}, which our books do not have."
    assert comparing.take("sandbox", payment.reference)
    assert comparing.take("sandbox", payment.reference)
    assert found() == []
    assert payment.events.filter(type=what).count() == 1


def test_news_of_the_last_hour_is_not_missed_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    payment = opened()
    gateway("sandbox").capture(payment.reference, TEN, f"{payment}/c")
    invented(captured())
    monkeypatch.setattr(comparing, "EARLY", timedelta(hours=1))
    assert found() == []


def invented(payment: Payment, amount: int = 250, source: str = "webhook") -> None:
    record(
        payment,
        [
            GatewayEvent(
                EventType.REFUND, EventOutcome.SUCCEEDED, f"rfd_{payment.pk}", payment.reference,
                payment.merchant_reference, Money(amount, "EUR"), timezone.now(),
            )
        ],
        source,
    )  # fmt: skip


def test_an_event_that_the_provider_does_not_have_is_told_and_left_to_people() -> None:
    payment = captured()
    invented(payment)
    (mismatch,) = found()
    assert mismatch.sentence == "Our books have a refund of €2.50, of which sandbox does not know."
    assert not mismatch.can_take


def test_what_staff_have_written_is_no_matter_of_the_providers() -> None:
    invented(captured(), source="staff")
    assert found() == []


def test_another_amount_of_the_same_event_is_told() -> None:
    payment = opened()
    answer = gateway("sandbox").capture(payment.reference, TEN, f"{payment}/c")
    event = next(e for e in answer.payment.events if e.type == EventType.CAPTURE)
    PaymentEvent.objects.create(
        payment=payment, gateway="sandbox", type="capture", outcome="succeeded", amount=900, currency="EUR",
        psp_reference=event.psp_reference, occurred_at=event.occurred_at, source="call",
    )  # fmt: skip
    (mismatch,) = found()
    assert mismatch.sentence == "The amounts differ: €10.00 there and €9.00 here."


def test_a_payment_that_was_not_opened_here_is_put_in_review_once() -> None:
    opened()  # from now on the account is used
    sandbox = gateway("sandbox")
    stranger = sandbox.authorize("ORD-77", TEN, f"stranger-{timezone.now()}").reference
    assert found(stranger=stranger) == [], "no money has moved"
    sandbox.capture(stranger, TEN, f"{stranger}/c")
    (mismatch,) = found(stranger=stranger)
    assert mismatch.payment is None
    assert mismatch.sentence.startswith(
        f"sandbox has a payment {stranger} for ORD-77, which was not opened here"
    )
    assert comparing.take("sandbox", stranger)
    item = ReviewItem.objects.get()
    assert (item.amount, item.merchant_reference) == (1000, "ORD-77")
    assert found(stranger=stranger) == []
    assert comparing.take("sandbox", stranger)
    assert ReviewItem.objects.count() == 1
    reprocessing.discard(item.pk, "grace", "Of another shop")
    assert found(stranger=stranger) == [], "a person has decided"


def test_a_payment_that_the_provider_does_not_know_is_told() -> None:
    payment = opened()
    Payment.objects.filter(pk=payment.pk).update(reference="pay_nowhere")
    (mismatch,) = found()
    assert mismatch.sentence == "sandbox knows no payment pay_nowhere, which is in our books."
    assert not mismatch.can_take


def test_an_old_payment_is_looked_at_again_when_something_is_written_about_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, touched, in_question = captured("ORD-1"), captured("ORD-2"), captured("ORD-3")
    Payment.objects.update(created_at=timezone.now() - timedelta(days=90))
    before = timezone.now()
    wait_until(lambda: timezone.now().second != before.second)  # lists count in whole seconds
    later = timezone.now() + comparing.BACK
    monkeypatch.setattr(comparing, "timezone", SimpleNamespace(now=lambda: later))
    sandbox = gateway("sandbox")
    absorb(touched, sandbox.refund(touched.reference, FOUR, f"{touched}/1").payment, "call")
    assert found() == []
    for payment in (old, touched, in_question):
        sandbox.refund(payment.reference, FOUR, f"{payment}/2")
    references = [mismatch.reference for mismatch in found("sandbox", in_question.reference)]
    assert references == [touched.reference, in_question.reference]


def test_each_payment_is_told_once() -> None:
    payment = captured()
    gateway("sandbox").refund(payment.reference, FOUR, f"{payment}/r")
    assert len(found("sandbox", payment.reference)) == 1


def test_an_answer_that_does_not_come_is_no_agreement(provider: SandboxProcess) -> None:
    captured()
    provider.faults(status={"error_rate": 1})
    with pytest.raises(GatewayUnavailable):
        found()


def test_only_providers_that_list_their_payments_are_compared(settings: Settings) -> None:
    opened()
    open_payment("bank_transfer", "ORD-5", TEN, "ORD-5/hold")
    open_payment("gone", "ORD-6", TEN, "ORD-6/hold")
    settings.PAYMENT_GATEWAYS |= {"bank_transfer": "payments.gateways.bank_transfer.BankTransferGateway"}
    assert comparing.comparable() == ["sandbox"]


# --- Stripe ----------------------------------------------------------------------------------------------


@pytest.fixture
def card(stripe: StripeServer, settings: Settings) -> Payment:
    """A payment by card that was captured."""
    settings.PAYMENT_GATEWAYS |= {"stripe": "payments.gateways.stripe.StripeGateway"}
    payment = opened(name="stripe")
    stripe.pay(payment.reference)
    return absorb(payment, gateway("stripe").capture(payment.reference, TEN, "c").payment, "call")


def test_a_refund_in_stripes_dashboard_is_found_and_taken_over(stripe: StripeServer, card: Payment) -> None:
    stripe.foreign_payment()
    assert found("stripe") == []
    stripe.refund_in_dashboard(card.reference, 250)
    (mismatch,) = found("stripe")
    assert mismatch.sentence == "stripe tells of a refund of €2.50, which our books do not have."
    assert comparing.take("stripe", card.reference)
    assert found("stripe") == []
    assert card.totals().refunded == 250


def test_a_dispute_which_the_list_does_not_tell_is_found(stripe: StripeServer, card: Payment) -> None:
    stripe.dispute(card.reference, 1000)
    (mismatch,) = found("stripe")
    assert mismatch.sentence == "stripe tells of a chargeback of €10.00, which our books do not have."
    assert comparing.take("stripe", card.reference)
    assert found("stripe") == []


def test_a_refund_that_is_pending_at_stripe_is_no_difference(stripe: StripeServer, card: Payment) -> None:
    stripe.refund_in_dashboard(card.reference, 250, status="pending")
    assert found("stripe") == []
