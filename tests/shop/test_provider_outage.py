"""Two workers, fifty orders that have just been paid, and a provider that goes down and comes back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection
from pytest_django.fixtures import Settings

from orders.models import DeadLetter, Order, Product, Saga, SagaStep
from payments.gateways import gateway
from payments.gateways.sandbox import SandboxGateway
from payments.models import GatewayIncident, GatewayState, Payment
from payments.services.recording import record
from tests import factories
from tests.payments.counted_provider import CountedProvider, counted_provider
from tests.servers import Mailbox
from tests.shop.processes import WorkerUnderTest
from tests.waiting import wait_until

ORDERS = 50
RATE = 40  # requests a second, by both workers together


@pytest.fixture
def counted(tmp_path: Path, settings: Settings) -> Iterator[CountedProvider]:
    with counted_provider(tmp_path / "books.sqlite3") as running:
        settings.SANDBOX_URL, settings.SANDBOX_API_KEY = running.url, running.api_key
        settings.PAYMENT_GATEWAYS = {"sandbox": "payments.gateways.sandbox.SandboxGateway"}
        gateway.cache_clear()
        yield running
    gateway.cache_clear()


@pytest.fixture
def workers(
    transactional_db: None, temporal_server: str, counted: CountedProvider, mailbox: Mailbox, tmp_path: Path
) -> Iterator[list[WorkerUnderTest]]:
    db = connection.settings_dict
    env = {
        "DATABASE_URL": f"postgresql://{db['USER']}:{db['PASSWORD']}@{db['HOST']}:{db['PORT']}/{db['NAME']}",
        "TEMPORAL_ADDRESS": temporal_server,
        "SANDBOX_URL": counted.url,
        "SANDBOX_API_KEY": counted.api_key,
        "GATEWAY_RATES": f"sandbox={RATE}",
        "EMAIL_URL": mailbox.url,
    }
    started = [WorkerUnderTest(tmp_path / f"worker-{n}.log", **env) for n in (1, 2)]
    yield started
    for worker in started:
        worker.kill()


def test_outage_in_the_middle_of_fifty_sagas_ends_with_all_completed_and_no_storm(
    workers: list[WorkerUnderTest], counted: CountedProvider
) -> None:
    factories.product("TEA", on_hand=2 * ORDERS)
    orders = [factories.place() for _ in range(ORDERS)]
    wait_until(lambda: Saga.objects.filter(status="waiting").count() == ORDERS, 120)
    assert counted.most_in_a_second() <= 1.5 * RATE
    payments = list(Payment.objects.all())
    with counted.client() as customer:
        for payment in payments:
            customer.post(f"/customer/{payment.reference}/pay", json={}).raise_for_status()
    news = {payment: SandboxGateway().status(payment.reference).events for payment in payments}

    counted.faults(down=True)
    counted.arrivals.clear()
    began = time.monotonic()
    for payment, events in news.items():
        record(payment, events, "webhook")  # each tells its saga, which asks for the capture
    wait_until(lambda: GatewayState.objects.filter(times_opened__gte=2).exists(), 60)
    during, lasted = len(counted.arrivals), time.monotonic() - began
    # What was under way when the circuit opened (16 threads each), and from then on one call at a time.
    assert during <= 2 * 16 + 5 + lasted / 4
    counted.arrivals.clear()
    counted.faults()

    wait_until(lambda: not Saga.objects.exclude(status__in=Saga.FINAL).exists(), 120)
    assert Counter(Order.objects.values_list("status", flat=True)) == {"completed": len(orders)}
    assert not DeadLetter.objects.exists()
    assert len(counted.arrivals) == ORDERS  # one capture each, and nothing more
    assert counted.most_in_a_second() <= 1.5 * RATE
    failed = SagaStep.objects.filter(outcome="failed").values_list("saga_id", flat=True)
    assert max(Counter(failed).values()) <= 6  # of ten
    assert list(GatewayIncident.objects.order_by("id").values_list("kind", flat=True)) == [
        "went down",
        "came back",
    ]
    assert Product.objects.get().reserved == 0
