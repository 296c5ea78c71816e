"""The outbox on PostgreSQL and a real Temporal server: nothing is lost, nothing overtakes, twice does no harm."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from shop.kernel import dispatcher, outbox
from shop.kernel.dispatcher import Dispatcher
from shop.kernel.models import OutboxMessage
from shop.up import ports, temporal
from shop.up.processes import spawn
from tests.servers import temporary_folder

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Word:
    message_id: str
    text: str


def _client(address: str) -> Client:
    """Connects with its first call, as the shop's own client does."""
    return asyncio.run(Client.connect(address, lazy=True))


@pytest.fixture
def client(temporal_server: str) -> Client:
    return _client(temporal_server)


def _start(workflow_id: str) -> OutboxMessage:
    """Queue the start of a workflow that no worker here will ever run: what it was told is in its history."""
    return outbox.start_workflow(
        f"{workflow_id}/start",
        workflow_id,
        "Listener",
        Word(f"{workflow_id}/start", "start"),
        task_queue="nobody-works-here",
    )


def _say(workflow_id: str, text: str) -> OutboxMessage:
    message_id = f"{workflow_id}/{text}"
    return outbox.signal_workflow(message_id, workflow_id, "hear", Word(message_id, text))


def _new_id() -> str:
    return f"outbox-{uuid.uuid4()}"


def _heard(client: Client, workflow_id: str) -> list[str]:
    """What reached the workflow, in the order of its history."""

    async def read() -> list[str]:
        history = await client.get_workflow_handle(workflow_id).fetch_history()
        found = []
        for event in history.events:
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
                payloads = event.workflow_execution_started_event_attributes.input.payloads
            elif event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                payloads = event.workflow_execution_signaled_event_attributes.input.payloads
            else:
                continue
            (word,) = await client.data_converter.decode(payloads, [dict[str, Any]])
            found.append(word["text"])
        return found

    return asyncio.run(read())


def _deliver(client: Client) -> int:
    with asyncio.Runner() as runner:
        return outbox.deliver_batch(client, runner)


def _until(condition: Callable[[], object], seconds: float = 30) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, f"{condition} did not become true in {seconds} s"
        time.sleep(0.02)


def _all(state: str) -> Callable[[], bool]:
    return lambda: not OutboxMessage.objects.exclude(state=state).exists()


@contextlib.contextmanager
def _dispatching(*clients: Client) -> Iterator[None]:
    threads = [Dispatcher(client) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.stop()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()


# --- in order, whatever happens --------------------------------------------------------------------------


def test_messages_wait_while_temporal_is_down_and_go_in_order_once_it_is_up() -> None:
    port = ports.any_free()
    client = _client(f"{ports.HOST}:{port}")
    ids = [_new_id() for _ in range(3)]
    for workflow_id in ids:
        _start(workflow_id)
        _say(workflow_id, "one")
    with _dispatching(client), temporary_folder() as folder:
        first = OutboxMessage.objects.filter(kind="start")
        _until(lambda: not first.filter(attempts=0).exists())
        assert _all("queued")()
        assert all(message.last_error for message in first)
        with (folder / "log").open("wb") as log:
            server = spawn(temporal.command(port), log, env=temporal.environment(), cwd=folder)
        try:
            for workflow_id in ids:  # the shop goes on while the server starts
                _say(workflow_id, "two")
            _until(_all("delivered"), 60)
            assert [_heard(client, workflow_id) for workflow_id in ids] == [["start", "one", "two"]] * 3
        finally:
            server.terminate()
            server.wait(20)


def test_dispatcher_killed_after_delivering_leaves_its_messages_to_the_next_one(
    client: Client, temporal_server: str
) -> None:
    workflow_id = _new_id()
    _start(workflow_id)
    for text in ("one", "two"):
        _say(workflow_id, text)
    assert _deliver(client) == 1  # the start
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED_BEFORE_IT_WRITES, connection.settings_dict["NAME"], temporal_server],
        cwd=ROOT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "shop.settings"},
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert _heard(client, workflow_id) == ["start", "one"]
    assert OutboxMessage.objects.filter(state="queued").count() == 2, "it was not written down"
    while _deliver(client):
        pass
    # Told twice, with the same message id, by which the workflow knows it; and nothing has overtaken it.
    assert _heard(client, workflow_id) == ["start", "one", "one", "two"]
    assert _all("delivered")()


_KILLED_BEFORE_IT_WRITES = """
import asyncio, os, signal, sys
import django
django.setup()
from django.db import connection
from temporalio.client import Client
from shop.kernel import outbox
connection.settings_dict["NAME"] = sys.argv[1]
outbox._write_down = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
client = asyncio.run(Client.connect(sys.argv[2], lazy=True))
with asyncio.Runner() as runner:
    outbox.deliver_batch(client, runner)
"""


def test_start_that_is_delivered_twice_is_one_run(client: Client) -> None:
    workflow_id = _new_id()
    message = _start(workflow_id)
    _deliver(client)
    OutboxMessage.objects.filter(pk=message.pk).update(state="queued")
    _deliver(client)
    assert _heard(client, workflow_id) == ["start"]
    assert _all("delivered")()


def test_two_dispatchers_deliver_each_message_once_and_in_order(client: Client, temporal_server: str) -> None:
    ids = [_new_id() for _ in range(20)]
    words = [f"word {i}" for i in range(5)]
    for workflow_id in ids:
        _start(workflow_id)
    with _dispatching(client, _client(temporal_server)):
        for word in words:  # while they are at work
            for workflow_id in ids:
                _say(workflow_id, word)
        _until(_all("delivered"))
    for workflow_id in ids:
        assert _heard(client, workflow_id) == ["start", *words]
    assert set(OutboxMessage.objects.values_list("attempts", flat=True)) == {1}


def test_message_that_another_dispatcher_holds_is_not_overtaken(client: Client) -> None:
    workflow_id = _new_id()
    message = _start(workflow_id)
    _say(workflow_id, "one")
    held, done = threading.Event(), threading.Event()

    def other() -> None:
        with transaction.atomic():
            OutboxMessage.objects.select_for_update().get(pk=message.pk)
            held.set()
            done.wait(30)
        connection.close()

    thread = threading.Thread(target=other)
    thread.start()
    try:
        assert held.wait(30)
        assert _deliver(client) == 0
    finally:
        done.set()
        thread.join()
    while _deliver(client):
        pass
    assert _heard(client, workflow_id) == ["start", "one"]


# --- what cannot be delivered ----------------------------------------------------------------------------


def test_signal_to_a_vanished_workflow_is_undeliverable_and_holds_up_no_other(client: Client) -> None:
    gone, there = _new_id(), _new_id()
    told: list[tuple[str, bool]] = []

    def on_undeliverable(message: OutboxMessage, **_: Any) -> None:
        told.append((message.message_id, connection.in_atomic_block))

    _say(gone, "hello")
    _start(there)
    outbox.message_undeliverable.connect(on_undeliverable)
    try:
        while _deliver(client):
            pass
    finally:
        outbox.message_undeliverable.disconnect(on_undeliverable)
    message = OutboxMessage.objects.get(workflow_id=gone)
    assert (message.state, message.attempts) == ("undeliverable", 1)
    assert message.last_error.startswith("NOT_FOUND")
    assert told == [(f"{gone}/hello", True)], "told once, in the transaction that says so"
    assert _heard(client, there) == ["start"]


def test_wrong_namespace_is_ours_to_repair_and_loses_no_signal(temporal_server: str) -> None:
    client = asyncio.run(Client.connect(temporal_server, namespace="no-such-namespace", lazy=True))
    message = _say(_new_id(), "hello")
    assert _deliver(client) == 0
    message.refresh_from_db()
    assert (message.state, message.attempts) == ("queued", 1)
    assert message.available_at > message.created_at


# --- writing and waking ----------------------------------------------------------------------------------


def test_message_is_written_with_the_effect_it_tells_of_or_not_at_all() -> None:
    with contextlib.suppress(ConnectionError), transaction.atomic():
        _start("a")
        raise ConnectionError("the effect broke")
    assert not OutboxMessage.objects.exists()


def test_message_with_the_same_id_is_written_once() -> None:
    assert _say("a", "hello") == _say("a", "hello")
    assert OutboxMessage.objects.count() == 1


def test_notification_wakes_the_dispatcher(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "POLL", 20.0)
    with _dispatching(client):
        _until(_someone_listens)
        asked_at = time.monotonic()
        message = _start(_new_id())
        _until(lambda: OutboxMessage.objects.get(pk=message.pk).state == "delivered", 10)
        assert time.monotonic() - asked_at < 10
        _say(message.workflow_id, "wakes it once more, and so it stops")
        _until(_all("delivered"), 10)
        monkeypatch.setattr(dispatcher, "POLL", 0.1)
        with connection.cursor() as cursor:
            cursor.execute(f"NOTIFY {outbox.CHANNEL}")


def _someone_listens() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%%' AND state = 'idle' "
            "AND datname = current_database()"
        )
        return cursor.fetchone() is not None
