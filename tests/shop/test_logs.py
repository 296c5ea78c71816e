"""What the processes of the shop write: lines that can be followed, in one format, without personal data."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django.db import connection
from temporalio import workflow
from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.testing import ActivityEnvironment
from temporalio.worker import Worker

from shop.kernel import logs
from shop.kernel.activities import orm_activity
from shop.kernel.search_attributes import ORDER_NUMBER
from shop.up import ports
from tests import factories
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
log = logging.getLogger("tests.logs")


@dataclass
class About:
    order_number: str


class Lines:
    """What is written in the JSON format."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.handler = logging.StreamHandler(self._stream)
        self.handler.setFormatter(logs.JSONLines())

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


@pytest.fixture
def lines() -> Iterator[Lines]:
    made, root = Lines(), logging.getLogger()
    root.addHandler(made.handler)
    level = root.level
    root.setLevel(logging.INFO)
    try:
        yield made
    finally:
        root.removeHandler(made.handler)
        root.setLevel(level)


def test_line_of_an_activity_names_its_order_and_workflow(lines: Lines) -> None:
    @orm_activity
    def reserve(about: About) -> None:
        log.warning("The shelf is empty.")

    ActivityEnvironment().run(reserve, About("2026-000042"))
    log.warning("Nobody's line.")
    said, after = lines.all()
    assert said["message"] == "The shelf is empty."
    assert said["order_number"] == "2026-000042"
    assert (said["workflow_id"], said["attempt"]) == ("test", 1)
    assert (said["level"], said["logger"]) == ("WARNING", "tests.logs")
    assert said["time"].endswith("+00:00")
    assert not after.keys() & set(logs.FACTS)


@workflow.defn(sandboxed=False)
class Talker:
    @workflow.run
    async def run(self) -> None:
        workflow.logger.warning("A line of the workflow.")


def test_line_of_a_workflow_names_its_order(lines: Lines, temporal_server: str) -> None:
    workflow_id = f"talker-{uuid.uuid4()}"

    async def talk() -> None:
        client = await Client.connect(temporal_server)
        async with Worker(client, task_queue=workflow_id, workflows=[Talker]):
            number = TypedSearchAttributes([SearchAttributePair(ORDER_NUMBER, "2026-000043")])
            await client.execute_workflow(
                Talker.run, id=workflow_id, task_queue=workflow_id, search_attributes=number
            )

    asyncio.run(talk())
    (said,) = (line for line in lines.all() if "A line of the workflow." in line["message"])
    assert (said["order_number"], said["workflow_id"]) == ("2026-000043", workflow_id)


def test_personal_data_do_not_get_in_whichever_way_they_come(lines: Lines) -> None:
    for text in (
        "550 No such user <ada.lovelace@example.com>",
        'duplicate key\nDETAIL:  Failing row contains (7, Ada Lovelace, "Analytical Row 1").',
        "Paid from DE89 3704 0044 0532 0130 00 for RF18 5390 0754 7034",
        "to DE89370400440532013000",
    ):
        try:
            raise ValueError(text)
        except ValueError:
            log.exception("Failed: %s", text, extra={"customer": "Ada Lovelace", "request": "<GET ?q=Ada>"})
    with logs.about(order_number="2026-000044"):
        log.info("Seen.")
    said = lines.all()
    whole = json.dumps(said)
    for personal in ("ada", "Ada", "Lovelace", "Analytical", "3704", "example.com"):
        assert personal not in whole
    assert "RF18 5390 0754 7034" in whole
    assert "Traceback" in said[0]["exc_info"]
    assert said[-1]["order_number"] == "2026-000044"


def test_people_get_the_same_without_personal_data() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 1, "no such user ada@example.com", None, None)
    assert logs.LineFormatter("{message}", style="{").format(record) == "no such user (mail address)"


@contextlib.contextmanager
def web(log_file: Path, **env: str) -> Iterator[httpx2.Client]:
    """The web server as a process on the test's database."""
    db, port = connection.settings_dict, ports.any_free()
    url = f"postgresql://{db['USER']}:{db['PASSWORD']}@{db['HOST']}:{db['PORT']}/{db['NAME']}"
    argv = [sys.executable, "-m", "uvicorn", "shop.asgi:application", "--port", str(port)]
    argv += ["--no-access-log", "--lifespan", "off"]
    with log_file.open("wb") as out:
        server = subprocess.Popen(
            argv, cwd=ROOT, env=os.environ | {"DATABASE_URL": url} | env, stdout=out, stderr=out
        )
    client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False)

    def answers() -> bool:
        assert server.poll() is None, log_file.read_text()
        with contextlib.suppress(httpx2.HTTPError):
            return client.get("/health/live/").status_code == 200
        return False

    try:
        wait_until(answers)
        yield client
    finally:
        client.close()
        server.terminate()
        server.wait(20)


@pytest.mark.django_db(transaction=True)
def test_request_is_followed_from_its_answer_to_the_workflow_that_it_starts(tmp_path: Path) -> None:
    from orders.services import api_keys

    factories.product()
    api_keys.ensure("shop window", "vk_for_the_logs")
    order = {
        "customer": {"name": "Ada Lovelace", "email": "ada@example.com"},
        "shipping_address": {
            "name": "Ada Lovelace",
            "street": "Analytical Row 1",
            "postal_code": "10115",
            "city": "Berlin",
            "country": "DE",
        },
        "currency": "EUR",
        "lines": [{"sku": "TEA", "quantity": 1}],
        "payment_method": "sandbox",
    }
    log_file = tmp_path / "web.log"
    settings = {"LOG_FORMAT": "json", "SANDBOX_URL": "http://127.0.0.1:9"}
    with web(log_file, **settings) as client:
        key = {"Authorization": "Bearer vk_for_the_logs", "Idempotency-Key": "1"}
        answer = client.post("/api/orders/?note=ada@example.com", json=order, headers=key)
        assert answer.status_code == 201, answer.text
        given = client.get("/admin/login/?q=Lovelace", headers={"X-Request-ID": "from-the-proxy-1"})
        assert given.headers["X-Request-ID"] == "from-the-proxy-1"
        odd = client.get("/admin/login/", headers={"X-Request-ID": 'a"b ' + "c" * 100})
        assert len(odd.headers["X-Request-ID"]) == 32
        client.get("/nowhere/")
    text = log_file.read_text()
    lines = [json.loads(line) for line in text.splitlines()]  # each of them, uvicorn's as well
    request_id = answer.headers["X-Request-ID"]
    queued, told = (line for line in lines if line.get("request_id") == request_id)
    assert queued["order_number"] == answer.json()["number"]
    assert queued["workflow_id"] == f"order-saga-{queued['order_number']}"
    assert (told["method"], told["path"], told["status"]) == ("POST", "/api/orders/", 201)
    assert any(line["message"].startswith("Not Found") for line in lines)
    assert not [line for line in lines if "/health/" in line.get("path", "")]
    for personal in ("ada@example.com", "Lovelace", "Analytical"):
        assert personal not in text


@pytest.mark.django_db(transaction=True)
def test_probes_need_no_host_name_and_no_tls_and_people_do(tmp_path: Path) -> None:
    production = {"DEBUG": "off", "SECRET_KEY": "x" * 50, "SITE_URL": "https://shop.example.com"}
    with web(tmp_path / "web.log", **production, ALLOWED_HOSTS="shop.example.com") as client:
        probe = {"Host": "10.1.2.3:8000"}
        assert client.get("/health/", headers=probe).text == "ok\n"
        assert client.get("/health/live/", headers=probe).status_code == 200
        assert client.get("/admin/", headers=probe).status_code == 400
        assert client.get("/admin/", headers={"Host": "shop.example.com"}).status_code == 301


@pytest.mark.django_db(transaction=True)
def test_without_a_database_the_web_process_is_not_ready_and_lives(tmp_path: Path) -> None:
    nobody = f"postgresql://a:b@127.0.0.1:{ports.any_free()}/c"
    with web(tmp_path / "web.log", DATABASE_URL=nobody) as client:
        assert client.get("/health/", timeout=30).status_code == 503
        assert client.get("/health/live/").status_code == 200
