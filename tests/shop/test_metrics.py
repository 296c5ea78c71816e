"""`/metrics` of workers and web processes, as Prometheus would read it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from orders.models import Saga
from orders.services import dead_letters, lifecycle
from orders.services.status import move_saga
from orders.workflows.types import FailedUndo
from shop.kernel.listening import own_connection
from shop.metrics.books import Books
from shop.metrics.folding import Fold
from shop.up import ports
from tests import factories
from tests.orders.practice_shop import PracticeShop
from tests.shop.processes import WorkerUnderTest, web_server
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = {"Authorization": "Bearer let-me-in"}


class Scrape:
    """What one answer says. Fails where it says a thing twice."""

    def __init__(self, text: str) -> None:
        self.values: dict[str, dict[frozenset[tuple[str, str]], float]] = defaultdict(dict)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = frozenset(sample.labels.items())
                assert labels not in self.values[sample.name], f"{sample} is told twice"
                self.values[sample.name][labels] = sample.value

    def __getitem__(self, name: str) -> float:
        """The sum over all labels."""
        assert self.values[name], f"there is no {name}"
        return sum(self.values[name].values())

    def of(self, name: str, **labels: str) -> float:
        return sum(value for found, value in self.values[name].items() if labels.items() <= set(found))

    def books(self) -> dict[str, object]:
        """What is counted from the database: the same whoever tells it."""
        starts = ("vorkasse_saga_duration", "vorkasse_payment_confirmation", "vorkasse_compensations")
        return {name: values for name, values in self.values.items() if name.startswith(starts)}


def confirm(number: str) -> None:
    order = Saga.objects.get(order__number=number).order
    lifecycle.confirm_payment(
        number,
        "ada",
        "seen",
        amount=order.total_money,
        received_on=timezone.now().date(),
        bank_reference=number,
    )


def test_every_process_tells_the_same_about_the_books_and_a_restart_loses_nothing(
    start_worker: Callable[..., WorkerUnderTest], temporal_server: str, tmp_path: Path
) -> None:
    factories.product(on_hand=20)
    orders = [factories.place(("TEA", 1)) for _ in range(4)]
    worker = start_worker()
    wait_until(lambda: Saga.objects.filter(status="waiting").count() == 4)
    confirm(orders[0].number)
    confirm(orders[1].number)
    lifecycle.cancel(orders[2].number, "ada", "changed their mind")
    wait_until(lambda: Saga.objects.filter(ended_at__isnull=False).count() == 3)
    first = Scrape(worker.metrics())

    assert first.of("vorkasse_saga_duration_seconds_count", status="completed") == 2
    assert first.of("vorkasse_saga_duration_seconds_count", status="cancelled") == 1
    assert first["vorkasse_payment_confirmation_seconds_count"] == 2
    assert first.of("vorkasse_compensations_total", outcome="succeeded") == 2
    assert first.of("vorkasse_compensations_total", outcome="failed") == 0
    assert first.of("vorkasse_sagas_open", status="waiting") == 1
    assert first["vorkasse_stock_below_zero"] == 0
    assert first["vorkasse_task_queue_backlog"] == 0
    assert first.of("vorkasse_workflows", status="running") >= 1
    assert first.of("vorkasse_source_up") == 2
    # The SDK's own, in base units, at the same address.
    assert first.of("temporal_workflow_completed_total", workflow_type="OrderSagaWorkflow") >= 1
    assert first.of("temporal_activity_execution_latency_seconds_count", activity_type="capture_payment") == 2
    assert first.of("temporal_workflow_endtoend_latency_seconds_bucket", le="1296000") >= 1  # 15 days

    worker.kill()
    worker = start_worker()
    wait_until(lambda: worker.health() == (200, "working"))
    second = Scrape(worker.metrics())
    assert second.books() == first.books()
    with web_server(tmp_path / "web.log", TEMPORAL_ADDRESS=temporal_server, METRICS_TOKEN="let-me-in") as web:
        third = Scrape(web.get("/metrics", headers=TOKEN).text)
    # Not the histograms of gateways that the web process knows and nothing was paid with.
    assert third["vorkasse_saga_duration_seconds_sum"] == first["vorkasse_saga_duration_seconds_sum"]
    assert third["vorkasse_payment_confirmation_seconds_count"] == 2
    assert third["vorkasse_task_queue_backlog"] == 0


def test_web_server_of_several_processes_tells_of_all_of_them_and_only_who_has_the_token(
    tmp_path: Path,
) -> None:
    (tmp_path / "counts").mkdir()
    with web_server(
        tmp_path / "web.log",
        *("--workers", "2"),
        METRICS_TOKEN="let-me-in",
        PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "counts"),
        TEMPORAL_ADDRESS=f"127.0.0.1:{ports.any_free()}",
        ALLOWED_HOSTS="shop.example",
        SECURE_SSL_REDIRECT="on",
    ) as web:
        assert web.get("/metrics").status_code != 200
        assert web.get("/metrics", headers={"Authorization": "Bearer guessed"}).status_code != 200
        answer = web.get("/metrics", headers=TOKEN)
    assert answer.status_code == 200
    told = Scrape(answer.text)
    assert told["vorkasse_outbox_queued"] == 0
    assert told.of("vorkasse_source_up", source="database") == 1
    assert told.of("vorkasse_source_up", source="temporal") == 0  # and the page came nevertheless


def test_web_server_without_a_token_has_no_metrics(tmp_path: Path) -> None:
    with web_server(tmp_path / "web.log") as web:
        for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer None"}):
            assert web.get("/metrics", headers=headers).status_code == 404


def test_order_that_is_never_paid_counts_as_a_payment_timeout(shop: PracticeShop) -> None:
    order = shop.waiting()
    shop.cancel(order)
    shop.end(order, skip=False)  # the provider's clock does not go along
    shop.end(shop.waiting())
    metrics, complete = Books().read()
    assert complete
    timeouts = next(metric for metric in metrics if metric.name == "vorkasse_payment_timeouts")
    assert [sample.value for sample in timeouts.samples] == [1]


@pytest.mark.usefixtures("provider")
def test_rollback_that_failed_and_is_closed_by_people_has_ended_once_and_is_counted_once() -> None:
    factories.product()
    order = factories.place()
    saga = Saga.objects.get(order=order)
    for status in ("running", "compensating"):
        move_saga(saga, status)
    letter = dead_letters.write(FailedUndo(order.number, 1, "inventory", "run", "No shelf.", "KeyError"))
    move_saga(saga, "compensation_failed")
    type(order).objects.update(status="compensation_failed")
    three_weeks_ago = timezone.now() - timedelta(days=21)
    Saga.objects.update(created_at=three_weeks_ago - timedelta(hours=1), ended_at=three_weeks_ago)

    def ended(books: Books) -> dict[str, float]:
        metrics, _complete = books.read()
        durations = next(metric for metric in metrics if metric.name == "vorkasse_saga_duration_seconds")
        return {s.labels["status"]: s.value for s in durations.samples if s.name.endswith("_sum") and s.value}

    one_that_runs = Books()
    assert ended(one_that_runs) == {"compensation_failed": 3600}
    dead_letters.resolve(letter.pk, "ada", "Counted the shelf", "T-7", key="k")
    assert Saga.objects.get().status == "cancelled"
    assert ended(one_that_runs) == ended(Books()) == {"compensation_failed": 3600}


def test_rows_that_come_into_sight_late_are_counted_and_none_is_counted_twice() -> None:
    fold = Fold(
        "SELECT key, at, CASE WHEN label <> '' THEN ARRAY[label] END AS labels, value FROM things",
        bounds=(1, 10),
    )
    with own_connection(autocommit=True) as db:
        db.execute("CREATE TEMP TABLE things (key int, at timestamptz, label text, value float8)")

        def insert(key: int, age: str, label: str, value: float) -> None:
            db.execute(
                "INSERT INTO things VALUES (%s, now() - %s::interval, %s, %s)", [key, age, label, value]
            )

        assert fold.count(db, time.monotonic() + 60).total(("a",)) == 0
        insert(1, "1 hour", "a", 0.5)
        insert(2, "1 hour", "b", 5)
        insert(4, "1 second", "a", 50)
        insert(5, "1 second", "", 50)
        for _ in range(3):
            counted = fold.count(db, time.monotonic() + 60)
            assert (counted.total(("a",)), counted.total(("b",))) == (2, 1)
        insert(3, "5 seconds", "a", 5)  # began before 4 and was committed after it
        for _ in range(3):
            counted = fold.count(db, time.monotonic() + 60)
            assert counted.up_to_each(("a",), 2) == [1, 2, 3]
            assert counted.up_to_each(("b",), 2) == [0, 1, 1]
            assert counted.sums[("a",)] == 55.5
        db.execute("UPDATE things SET at = now() - interval '1 hour'")  # time passes
        fold.count(db, time.monotonic() + 60)
        db.execute("DELETE FROM things")  # what has settled is not read again
        assert fold.count(db, time.monotonic() + 60).up_to_each(("a",), 2) == [1, 2, 3]
