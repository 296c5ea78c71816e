"""How every process of the shop gets to Temporal: mutual TLS, and payloads that only we can read."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from django.utils import timezone
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode, TLSConfig

from orders.models import Order
from orders.services import lifecycle
from shop.kernel import temporal
from shop.kernel.encryption import KEY_NAME
from shop.kernel.engine_tls import TLSInvalid, tls_config
from shop.schedules import declared, syncing
from tests import factories
from tests.certificates import Authority, Certificate, mutual_tls
from tests.shop.processes import WorkerUnderTest, start_worker
from tests.shop.test_settings import check
from tests.waiting import wait_until

__all__ = ["start_worker"]
database = pytest.mark.django_db(transaction=True)
A, B = (base64.b64encode(os.urandom(32)).decode() for _ in "ab")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def ours(authority: Authority) -> Certificate:
    return authority.issue("worker")


@pytest.fixture
def door(temporal_server: str, authority: Authority) -> Iterator[str]:
    """Temporal's address for those who have a certificate."""
    with mutual_tls(temporal_server, authority.issue("temporal"), authority.cert) as address:
        yield address


def _history(server: str, workflow_id: str) -> bytes:
    """All that Temporal keeps of a workflow, as it keeps it."""

    async def read() -> bytes:
        client = await Client.connect(server)
        history = await client.get_workflow_handle(workflow_id).fetch_history()
        return b"".join(event.SerializeToString() for event in history.events)

    return asyncio.run(read())


def status(order: Order) -> str:
    order.refresh_from_db()
    return str(order.status)


@database
def test_order_goes_its_way_over_mutual_tls_with_a_key_that_is_changed_in_the_middle(
    start_worker: Callable[..., WorkerUnderTest],
    temporal_server: str,
    door: str,
    authority: Authority,
    ours: Certificate,
) -> None:
    factories.product()
    order = factories.place(("TEA", 1))
    access = {
        "TEMPORAL_ADDRESS": door,
        "TEMPORAL_TLS_CA": str(authority.cert),
        "TEMPORAL_TLS_CERT": ours.cert.read_text(),  # as a text
        "TEMPORAL_TLS_KEY": str(ours.key),  # as a file
    }
    worker = start_worker(**access, TEMPORAL_PAYLOAD_KEYS=f"a:{A}")
    wait_until(lambda: saga_status(order) == "waiting")
    worker.kill()
    lifecycle.confirm_payment(
        order.number,
        "ada",
        "Seen by Grace on the statement.",
        amount=order.total_money,
        received_on=timezone.now().date(),
        bank_reference="B1",
    )
    start_worker(**access, TEMPORAL_PAYLOAD_KEYS=f"b:{B},a:{A}")
    wait_until(lambda: status(order) == "completed")
    kept = _history(temporal_server, order.workflow_id)
    assert b"binary/encrypted" in kept
    for readable in (b"Seen by Grace", b"payment_window_s", b"compensated_steps"):
        assert readable not in kept


def saga_status(order: Order) -> str:
    order.refresh_from_db()
    return str(order.saga.status) if order.saga else ""


def test_without_our_certificate_nobody_gets_in(
    settings: Any, door: str, authority: Authority, ours: Certificate, tmp_path: Path
) -> None:
    async def ask() -> None:
        client = await temporal.connect()
        await client.count_workflows()

    settings.TEMPORAL_ADDRESS = door
    stranger = Authority(tmp_path, "stranger").issue("impostor")
    for own in (None, stranger):
        cert, key = (str(own.cert), str(own.key)) if own else ("", "")
        settings.TEMPORAL_TLS = tls_config(True, str(authority.cert), cert, key)
        with pytest.raises(RuntimeError):
            asyncio.run(ask())
    settings.TEMPORAL_TLS = tls_config(True, str(authority.cert), str(ours.cert), str(ours.key))
    asyncio.run(ask())
    settings.TEMPORAL_TLS = tls_config(
        True, "", str(ours.cert), str(ours.key)
    )  # and the server is not believed
    with pytest.raises(RuntimeError):
        asyncio.run(ask())


def test_schedules_are_written_anew_with_the_new_key_and_else_left_alone(
    settings: Any, temporal_server: str, monkeypatch: pytest.MonkeyPatch, db: None
) -> None:
    settings.TEMPORAL_ADDRESS = temporal_server
    schedule, *others = declared.ours()
    all_of_them = 1 + len(others)

    async def sync() -> tuple[list[str], list[bytes]]:
        client = await temporal.connect()
        synced = await syncing.sync(client)
        assert not synced.problems
        made = (await client.get_schedule_handle(schedule.id).describe()).raw_description.schedule
        payloads = made.action.start_workflow.input.payloads
        return synced.done, [payload.metadata.get(KEY_NAME, b"") for payload in payloads]

    async def clear() -> None:
        client = await Client.connect(temporal_server)
        for each in declared.ours():
            await client.get_schedule_handle(each.id).delete()

    settings.TEMPORAL_PAYLOAD_KEYS = {"a": base64.b64decode(A)}
    asyncio.run(sync())
    try:
        assert asyncio.run(sync()) == ([], [b"a"])
        settings.TEMPORAL_PAYLOAD_KEYS = {"b": base64.b64decode(B), "a": base64.b64decode(A)}
        done, keys = asyncio.run(sync())
        assert (len(done), keys) == (all_of_them, [b"b"])
        assert asyncio.run(sync()) == ([], [b"b"])
        settings.TEMPORAL_PAYLOAD_KEYS = {"c": os.urandom(32)}  # the old ones are lost, even
        done, keys = asyncio.run(sync())
        assert (len(done), keys) == (all_of_them, [b"c"])
    finally:
        asyncio.run(clear())


def test_api_key_goes_with_tls_and_to_every_client(settings: Any) -> None:
    settings.TEMPORAL_API_KEY = "key-of-temporal-cloud"
    settings.TEMPORAL_TLS = tls_config(True, "", "", "")
    client = asyncio.run(temporal.connect(lazy=True))
    config = client.service_client.config
    assert config.api_key == "key-of-temporal-cloud"
    assert config.tls == TLSConfig()


@pytest.mark.parametrize("status", [RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED])
def test_worker_does_without_making_search_attributes_where_it_may_not(
    status: RPCStatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    class Cloud:
        namespace = "shop.a1b2c"

        @property
        def operator_service(self) -> Any:
            return self

        async def add_search_attributes(self, request: object) -> None:
            raise RPCError("Request unauthorized.", status, b"")

    with caplog.at_level("INFO"):
        asyncio.run(temporal.register_search_attributes(cast(Client, Cloud())))
    assert "OrderNumber and SagaStage" in caplog.text


def test_settings_that_do_not_fit_together_are_said(tmp_path: Path) -> None:
    wrong = {
        "belong together": {"TEMPORAL_TLS_CERT": "-----BEGIN CERTIFICATE-----"},
        "TEMPORAL_TLS is off": {"TEMPORAL_TLS": "off", "TEMPORAL_TLS_CA": "-----BEGIN CERTIFICATE-----"},
        "neither a PEM text nor a file": {"TEMPORAL_TLS_CA": str(tmp_path / "nothing.pem")},
        "does not hold a PEM text": {"TEMPORAL_TLS_CA": __file__},
        "key 1 is not of the form": {"TEMPORAL_PAYLOAD_KEYS": "a:b"},
    }
    for sentence, env in wrong.items():
        refused = check(DEBUG="on", **env)
        assert refused.returncode != 0
        assert sentence in refused.stderr


def test_key_in_the_wrong_place_is_not_repeated() -> None:
    with pytest.raises(TLSInvalid) as refused:
        tls_config(True, "", "MIIBsecret", "MIIBsecret")
    assert "MIIBsecret" not in str(refused.value)
