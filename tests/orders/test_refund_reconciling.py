"""Refunds that lost their workflow in Temporal: `manage.py reconcile` finds them, and has them asked for again."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django.utils import timezone
from pytest_django.fixtures import Settings
from temporalio.client import Client

from orders.services.reconciling import sagas
from orders.services.reconciling.finding import Finding
from payments.gateways import gateway
from payments.models import Payment, PaymentEvent, ReviewItem
from payments.services import refunding
from payments.services.recording import absorb, open_payment
from shop import worker
from shop.kernel import outbox, temporal
from shop.kernel.models import OutboxMessage
from shop.kernel.money import Money
from tests.orders import reconciling
from tests.payments.sandbox_process import SandboxProcess

pytestmark = pytest.mark.django_db(transaction=True)

FIVE = Money(500, "EUR")


@pytest.fixture(autouse=True)
def engine(
    temporal_server: str, provider: SandboxProcess, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real server; a worker runs only where a test asks for it."""
    settings.TEMPORAL_ADDRESS = temporal_server
    monkeypatch.setattr(temporal, "_client", None)


def asked_for(number: str, amount: int = 500) -> refunding.RefundAsked:
    """A refund of money that was captured at the practice provider."""
    sandbox = gateway("sandbox")
    payment = open_payment("sandbox", number, FIVE, f"{number}/hold")
    payment = absorb(payment, sandbox.authorize(number, FIVE, f"{number}/hold").payment, "call")
    absorb(payment, sandbox.capture(payment.reference, FIVE, f"{number}/capture").payment, "call")
    return refunding.refund(payment.pk, amount, "grace", "A dent", "f1")


def deliver() -> None:
    async def connected() -> Client:
        client = await temporal.connect()
        await temporal.register_search_attributes(client)
        return client

    with asyncio.Runner() as runner:
        client = runner.run(connected())
        while outbox.deliver_batch(client, runner):
            pass


def in_temporal(asked: refunding.RefundAsked, work: str) -> Any:
    """Terminate the refund's workflow, or run a worker until its result."""

    async def go(pool: ThreadPoolExecutor) -> Any:
        client = await temporal.connect()
        handle = client.get_workflow_handle(refunding.workflow_id(asked.key))
        if work == "terminate":
            return await handle.terminate("by mistake")
        async with worker.build(client, "payment-checks", pool, 2):
            return await asyncio.wait_for(handle.result(), 60)

    with ThreadPoolExecutor(2) as pool:
        result = asyncio.run(go(pool))
        list(pool.map(lambda _: connections.close_all(), range(2)))
    return result


def found() -> list[Finding]:
    return reconciling.found(sagas.refunds)


def refunded(number: str) -> tuple[int, int]:
    totals = Payment.objects.get(merchant_reference=number).totals()
    return totals.refunded, totals.refund_requested


def test_a_refund_whose_workflow_was_terminated_is_asked_for_again_once() -> None:
    asked = asked_for("ORD-1")
    assert found() == [], "its start waits in the outbox"
    deliver()
    assert found() == [], "its workflow runs"
    in_temporal(asked, "terminate")
    (difference,) = found()
    assert difference.about == "ORD-1"
    assert difference.sentence == (
        "The workflow of its refund of €5.00 was terminated before the provider has answered."
    )
    assert refunded("ORD-1") == (0, 500)
    assert difference.fix()
    assert not difference.fix(), "somebody was faster"
    deliver()
    assert in_temporal(asked, "run")["status"] == "accepted"
    assert refunded("ORD-1") == (500, 0)
    assert found() == []
    remote = gateway("sandbox").status(Payment.objects.get().reference)
    assert remote.refunded == 500
    assert OutboxMessage.objects.filter(name="RefundWorkflow").count() == 2


def test_one_that_was_terminated_after_its_call_is_not_refunded_twice() -> None:
    """The provider did it, and the workflow died before the answer was written down."""
    asked = asked_for("ORD-2")
    deliver()
    payment = Payment.objects.get()
    gateway("sandbox").refund(payment.reference, FIVE, asked.key)
    in_temporal(asked, "terminate")
    assert [difference.fix() for difference in found()] == [True]
    deliver()
    in_temporal(asked, "run")
    assert refunded("ORD-2") == (500, 0)
    assert gateway("sandbox").status(payment.reference).refunded == 500


def test_the_command_mends_it_and_says_so() -> None:
    asked = asked_for("ORD-3")
    deliver()
    in_temporal(asked, "terminate")
    said = StringIO()
    with pytest.raises(SystemExit):
        call_command("reconcile", stdout=said)
    assert "ORD-3: The workflow of its refund of €5.00 was terminated" in said.getvalue()
    said = StringIO()
    call_command("reconcile", "--fix", stdout=said)
    assert "– it is asked for again under the same key." in said.getvalue()
    assert "The books agree." in said.getvalue()


def test_what_the_provider_has_answered_or_a_person_decides_is_no_difference() -> None:
    answered = asked_for("ORD-4")
    deliver()
    in_temporal(answered, "run")
    given_up = asked_for("ORD-5")
    deliver()
    in_temporal(given_up, "terminate")
    refunding.give_up(given_up.key, "No answer.", refused=False)
    refused = asked_for("ORD-6")
    deliver()
    in_temporal(refused, "terminate")
    refunding.give_up(refused.key, "Too late.", refused=True)
    ReviewItem.objects.filter(key__endswith=refused.key).update(state="closed")
    assert found() == []
    refunding.try_again(given_up.key, "grace")
    assert found() == []
    deliver()
    in_temporal(given_up, "terminate")
    assert [difference.about for difference in found()] == ["ORD-5"]


def test_one_that_the_provider_is_still_working_on_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a bank: the workflow is done, and the money is on its way for days."""
    asked = asked_for("ORD-9")
    deliver()
    monkeypatch.setattr(refunding, "absorb", lambda payment, *_, **__: payment)
    assert in_temporal(asked, "run")["status"] == "accepted"
    assert refunded("ORD-9") == (0, 500)
    assert found() == []


def test_a_refused_refund_beside_one_that_is_open_is_no_difference() -> None:
    asked = asked_for("ORD-10", 200)
    deliver()
    in_temporal(asked, "terminate")
    refunding.give_up(asked.key, "Too late.", refused=True)
    ReviewItem.objects.update(state="closed")
    refunding.refund(Payment.objects.get().pk, 300, "grace", "A dent", "f2")
    assert found() == []


def test_one_that_is_tried_for_too_long_is_told_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for("ORD-7")
    deliver()
    assert found() == []
    monkeypatch.setattr(sagas, "LONG", timedelta(0))
    (difference,) = found()
    assert "and is still being tried." in difference.sentence
    assert "Look whether a worker runs" in difference.to_do
    assert not difference.fix()


def test_a_rollbacks_refund_is_its_sagas_matter() -> None:
    payment = open_payment("sandbox", "ORD-8", FIVE, "ORD-8/1/payment_hold")
    PaymentEvent.objects.create(
        payment=payment, gateway="sandbox", type="refund", outcome="requested", psp_reference="ORD-8/1/undo",
        amount=500, currency="EUR", occurred_at=timezone.now(), source="call",
    )  # fmt: skip
    assert found() == []
