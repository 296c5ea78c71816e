"""`GET /metrics`: everything there is to tell, in one answer."""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from shop.metrics import engine
from shop.metrics.books import Books

# A second series for each, of use to nobody.
disable_created_metrics()  # type: ignore[no-untyped-call]

_books = Books()


class _Told:
    """What was read for this scrape, where prometheus-client expects a registry. `sources` says who answered."""

    def __init__(self, metrics: Sequence[Metric], sources: Mapping[str, bool]) -> None:
        up = GaugeMetricFamily("vorkasse_source_up", "1 if all its figures could be read.", labels=["source"])
        for source, is_up in sources.items():
            up.add_metric([source], is_up)
        self._metrics = [*metrics, up]

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


async def page() -> bytes:
    """All metrics in Prometheus' text format, within a few seconds whoever does not answer."""
    (known, books_up), (told, engine_up), sdk = await asyncio.gather(
        asyncio.to_thread(_books.read), engine.read(), asyncio.to_thread(engine.sdk)
    )
    counted = await asyncio.to_thread(generate_latest, _of_processes())
    read = _Told([*known, *told], {"database": books_up, "temporal": engine_up})
    return counted + generate_latest(read) + sdk


def _of_processes() -> CollectorRegistry:
    """What this process has counted; with PROMETHEUS_MULTIPROC_DIR what all that share the folder have."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def may_read(scope: Any, token: str) -> bool:
    """Whether the request carries the token, as `Authorization: Bearer …`. Nobody may where no token is set."""
    given = dict(scope["headers"]).get(b"authorization", b"")
    return bool(token) and hmac.compare_digest(given, f"Bearer {token}".encode())


async def answer(send: Any) -> None:
    """Send the page as the ASGI response."""
    body = await page()
    headers = [(b"content-type", CONTENT_TYPE_LATEST.encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
