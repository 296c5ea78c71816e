"""The rules and the dashboard in `deploy/`, by Debian's Prometheus. Skipped where it is not installed."""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django.utils import timezone
from temporalio.client import Client

from orders.models import Order, Saga, SagaStep
from orders.services import lifecycle
from shop.up import ports
from tests import factories
from tests.payments.sandbox_process import SandboxProcess
from tests.shop.processes import ROOT, WorkerUnderTest
from tests.waiting import wait_until

RULES = ROOT / "deploy/prometheus/vorkasse.rules.yml"
DASHBOARD = ROOT / "deploy/grafana/vorkasse.json"
RUNBOOK = ROOT / "docs/runbook.md"
ALERTS = {
    "VorkassePaymentTimeoutRate",
    "VorkasseCompensationFailureRate",
    "VorkasseWorkflowExecutionTime",
    "VorkasseTaskQueueBacklog",
    "VorkasseDeadLetterOld",
    "VorkasseBatchRunMissing",
    "VorkasseOutboxLag",
}


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install prometheus")
    return found


def promtool(*arguments: str) -> None:
    run = subprocess.run([tool("promtool"), *arguments], cwd=RULES.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_rules_are_sound() -> None:
    promtool("check", "rules", RULES.name)


def test_each_alert_is_raised_where_it_must_and_not_before() -> None:
    promtool("test", "rules", "vorkasse.test.yml")


def test_each_alert_has_its_chapter_in_the_runbook() -> None:
    text = RULES.read_text()
    assert set(re.findall(r"alert: (\w+)", text)) == ALERTS
    links = set(re.findall(r"runbook_url: docs/runbook.md#(\w+)", text))
    assert links == {alert.lower() for alert in ALERTS}
    if not RUNBOOK.exists():
        pytest.skip("there is no runbook yet")
    chapters = {
        title.strip().lower() for title in re.findall(r"^#+ (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    }
    assert links <= chapters


class Prometheus:
    """A Prometheus with our rules that scrapes one address each second."""

    def __init__(self, folder: Path, target: str) -> None:
        self._port = ports.any_free()
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "worker", "static_configs": [{"targets": [target]}]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        self.log = folder / "prometheus.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    tool("prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log,
                stderr=log,
            )

    def ask(self, query: str) -> list[float]:
        """The values that an instant query gives."""
        try:
            answer = httpx2.get(
                f"http://127.0.0.1:{self._port}/api/v1/query", params={"query": query}, trust_env=False
            )
        except httpx2.HTTPError:
            assert self.process.poll() is None, self.log.read_text()
            return []
        if answer.status_code == 503:  # it starts
            return []
        told = answer.json()
        assert told["status"] == "success", (query, told)
        return [float(sample["value"][1]) for sample in told["data"]["result"]]


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    running = Prometheus(folder, target)
    try:
        yield running
    finally:
        running.process.terminate()
        running.process.wait(20)


def dashboard_queries() -> dict[str, str]:
    """Each query of the dashboard, by the title of its panel, with Grafana's variables filled in."""
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return {
        f"{panel['title']} {target['refId']}": target["expr"].replace("$__rate_interval", "1m")
        for panel in board["panels"]
        for target in panel.get("targets", [])
    }


@pytest.mark.django_db(transaction=True)
def test_every_panel_of_the_dashboard_shows_something_after_a_real_run(
    start_worker: Callable[..., WorkerUnderTest],
    provider: SandboxProcess,
    temporal_server: str,
    tmp_path: Path,
) -> None:
    tool("prometheus")
    queries = dashboard_queries()
    factories.product(on_hand=20)
    worker = start_worker()
    wait_until(lambda: worker.health() == (200, "working"))
    with prometheus(tmp_path, f"127.0.0.1:{worker.port}") as running:
        _trade(provider)
        wait_until(lambda: running.ask("vorkasse:compensations:max"), 60)
        # What was seen once has no rate: it takes something that happens while Prometheus looks.
        _trade(provider)
        asyncio.run(_check_payments(temporal_server))
        empty = dict(queries)

        def all_answered() -> bool:
            for title, query in list(empty.items()):
                if any(not math.isnan(value) for value in running.ask(query)):
                    del empty[title]
            return not empty

        try:
            wait_until(all_answered, 60)
        except AssertionError:
            pytest.fail(f"No data for: {json.dumps(empty, indent=1)}")
        assert running.ask('ALERTS{alertstate="firing"}') == []


def _trade(provider: SandboxProcess) -> None:
    """One order is completed, one is cancelled, and an activity fails before it succeeds."""
    failed, ended = (
        SagaStep.objects.filter(outcome="failed").count(),
        Saga.objects.filter(ended_at__isnull=False),
    )
    before = ended.count()
    provider.faults(authorize={"error_rate": 1})
    orders = [factories.place(("TEA", 1)) for _ in range(2)]
    wait_until(lambda: SagaStep.objects.filter(outcome="failed").count() > failed)
    provider.faults()
    wait_until(lambda: Saga.objects.filter(status="waiting").count() == 2)
    lifecycle.cancel(orders[0].number, "ada", "changed their mind")
    _confirm(orders[1])
    wait_until(lambda: ended.count() == before + 2)


def _confirm(order: Order) -> None:
    lifecycle.confirm_payment(
        order.number,
        "ada",
        "seen",
        amount=order.total_money,
        received_on=timezone.now().date(),
        bank_reference=order.number,
    )


async def _check_payments(address: str) -> None:
    client = await Client.connect(address)
    await client.execute_workflow(
        "BatchPaymentCheckWorkflow", {}, id="payment-batch-dashboard", task_queue="payment-checks"
    )
