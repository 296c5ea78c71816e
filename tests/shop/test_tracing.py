"""One trace from the request through the outbox to the activities, told to a collector over HTTP."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pytest_django.fixtures import Settings

from orders.models import Order, Saga
from orders.services import api_keys, lifecycle
from shop.kernel import outbox, tracing
from shop.kernel.models import OutboxMessage
from tests import factories
from tests.orders.test_api import ORDER
from tests.payments.sandbox_process import SandboxProcess
from tests.shop.processes import ROOT, WorkerUnderTest, web_server
from tests.waiting import wait_until

TRACE = "0af7651916cd43dd8448eb211c80319c"


@dataclass(frozen=True)
class Span:
    service: str
    name: str
    trace: str
    id: str
    parent: str
    everything: str


class Collector:
    """An OTLP/HTTP collector."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.url = ""

    def take(self, body: bytes) -> None:
        for told in ExportTraceServiceRequest.FromString(body).resource_spans:
            attributes = {a.key: a.value.string_value for a in told.resource.attributes}
            for scope in told.scope_spans:
                self.spans += [
                    Span(
                        attributes["service.name"],
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        str(span),
                    )
                    for span in scope.spans
                ]

    def find(self, name: str) -> Span | None:
        return next((span for span in list(self.spans) if span.name == name and span.trace == TRACE), None)


@contextmanager
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            made.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    made = Collector()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.django_db(transaction=True)
def test_one_trace_leads_from_the_shops_frontend_to_the_last_activity(
    start_worker: Callable[..., WorkerUnderTest],
    provider: SandboxProcess,
    temporal_server: str,
    tmp_path: Path,
) -> None:
    factories.product(on_hand=20)
    key = api_keys.create("frontend")
    with collector() as sink:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        worker = start_worker(**endpoint)
        with web_server(
            tmp_path / "web.log",
            SANDBOX_URL=provider.url,
            SANDBOX_API_KEY=provider.api_key,
            TEMPORAL_ADDRESS=temporal_server,
            **endpoint,
        ) as web:
            answer = web.post(
                "/api/orders/",
                json=ORDER,
                headers={
                    "Authorization": f"Bearer {key}",
                    "Idempotency-Key": "basket-1",
                    "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
                },
            )
            assert answer.status_code == 201, answer.text
            order = Order.objects.get()
            wait_until(lambda: Saga.objects.filter(status="waiting"))
            request = wait_until(lambda: sink.find("POST /api/orders/"))
            start = wait_until(lambda: sink.find("StartWorkflow:OrderSagaWorkflow"))
            wait_until(lambda: sink.find("RunWorkflow:OrderSagaWorkflow"))
            activity = wait_until(lambda: sink.find("RunActivity:create_payment_hold"))
            lifecycle.cancel(order.number, "ada", "changed their mind")
            wait_until(lambda: Saga.objects.filter(status="cancelled"))
        worker.process.terminate()
        worker.process.wait(40)
        assert sink.find("RunActivity:release_payment_hold")  # sent before the process ended
    assert (request.service, request.parent) == ("vorkasse-web", "b7ad6b7169203331")
    assert (start.service, start.parent) == ("vorkasse-worker", request.id)
    assert activity.service == "vorkasse-worker"
    assert not any("Ada" in span.everything or "ada@" in span.everything for span in sink.spans)


@dataclass
class Told:
    message_id: str


@pytest.mark.django_db
def test_every_kind_of_message_carries_the_trace_of_its_sender(settings: Settings) -> None:
    settings.TRACING = True
    trace = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    with tracing.going_on(trace):
        outbox.start_workflow("1", "order-saga-1", "OrderSagaWorkflow", Told("1"), task_queue="orders")
        outbox.signal_workflow("2", "order-saga-1", "cancel_order", Told("2"))
        outbox.signal_workflows([("3", "order-saga-1", "confirm_payment", Told("3"))])
    outbox.signal_workflow("4", "order-saga-1", "cancel_order", Told("4"))
    carried = [message.options.get("trace") for message in OutboxMessage.objects.order_by("message_id")]
    assert carried == [trace, trace, trace, None]


@pytest.mark.django_db
def test_without_an_endpoint_messages_carry_nothing() -> None:
    with tracing.going_on({"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}):
        outbox.signal_workflow("1", "order-saga-1", "cancel_order", Told("1"))
    assert OutboxMessage.objects.get().options == {}


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys, shop.asgi, shop.worker, asyncio;"
        "from shop.kernel import tracing, temporal; temporal.client(); tracing.stop();"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr
