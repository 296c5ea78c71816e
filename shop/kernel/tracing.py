"""Traces from a request through the outbox to workflows and activities, where OTEL_EXPORTER_OTLP_ENDPOINT is set.

The SDK reads that and its other variables (`OTEL_…`) itself. Unset, nothing of OpenTelemetry is imported. Spans carry
routes, workflow ids and types: no address that somebody typed in, and no one's data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

if TYPE_CHECKING:
    from opentelemetry.trace import Span
    from temporalio.client import Interceptor

FLUSH_MS = 5000


def start(process: str) -> None:
    """Send the spans of this process, which is named for what it is. Once, before anything is traced."""
    if not settings.TRACING:
        return
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    os.environ.setdefault("OTEL_SERVICE_NAME", f"vorkasse-{process}")
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def stop() -> None:
    """Send what is left, before the process ends without the interpreter's own end."""
    if not settings.TRACING:
        return
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.force_flush(FLUSH_MS)


def interceptors() -> list[Interceptor]:
    """For the engine's client, whose workers take them over."""
    if not settings.TRACING:
        return []
    from temporalio.contrib.opentelemetry import TracingInterceptor

    return [TracingInterceptor()]


# --- across the outbox -----------------------------------------------------------------------------------


def carried() -> dict[str, str]:
    """The trace of which this is a part, to go along with a message (W3C `traceparent`); empty if there is none."""
    carrier: dict[str, str] = {}
    if settings.TRACING:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(carrier)
    return carrier


@contextmanager
def going_on(carrier: Mapping[str, str] | None) -> Iterator[None]:
    """What happens in the block belongs to the trace that was carried along, if one was."""
    if not settings.TRACING or not carrier:
        yield
        return
    from opentelemetry import context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    token = context.attach(TraceContextTextMapPropagator().extract(carrier))
    try:
        yield
    finally:
        context.detach(token)


# --- requests --------------------------------------------------------------------------------------------


@sync_and_async_middleware
def request_spans(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """A span for each request, named for its route. One that comes with a trace goes on with it."""
    if iscoroutinefunction(get_response):

        async def answer_later(request: HttpRequest) -> HttpResponseBase:
            with _span(request) as span:
                response: HttpResponseBase = await get_response(request)
                _describe(span, request, response)
                return response

        return answer_later

    def answer(request: HttpRequest) -> HttpResponseBase:
        with _span(request) as span:
            response: HttpResponseBase = get_response(request)
            _describe(span, request, response)
            return response

    return answer


@contextmanager
def _span(request: HttpRequest) -> Iterator[Span]:
    from opentelemetry import trace

    with (
        going_on({"traceparent": request.headers.get("traceparent", "")}),
        trace.get_tracer("vorkasse").start_as_current_span(
            str(request.method), kind=trace.SpanKind.SERVER
        ) as span,
    ):
        yield span


def _describe(span: Span, request: HttpRequest, response: HttpResponseBase) -> None:
    from opentelemetry.trace import StatusCode

    route = request.resolver_match.route if request.resolver_match else ""
    span.update_name(f"{request.method} /{route}")
    span.set_attributes(
        {
            "http.request.method": str(request.method),
            "http.route": f"/{route}",
            "http.response.status_code": response.status_code,
        }
    )
    if response.status_code >= 500:
        span.set_status(StatusCode.ERROR)
