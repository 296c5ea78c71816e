"""What the database knows: one cheap query for each figure, on a connection that waits for nobody.

A figure that cannot be read is left out of the scrape; `vorkasse_source_up` says that something was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psycopg
from django.conf import settings
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from orders.models import DeadLetter, Difference, Product, Saga, SagaStep
from orders.workflows.types import LAPSED, NO_PAYMENT, UNPAID, Step
from payments.models import BatchRun, GatewayState, Payment
from shop.kernel.listening import own_connection
from shop.kernel.models import OutboxMessage
from shop.metrics.folding import Counted, Fold

log = logging.getLogger(__name__)

TIMEOUT_S = 2  # to connect, and for one figure
ALL_WITHIN_S = 6  # Prometheus gives up after ten

_dead_letter, _product, _saga, _step, _run, _gateway, _payment, _message, _difference = (
    model._meta.db_table
    for model in (
        DeadLetter,
        Product,
        Saga,
        SagaStep,
        BatchRun,
        GatewayState,
        Payment,
        OutboxMessage,
        Difference,
    )
)
_OPEN_SAGA = ("pending", "running", "waiting", "compensating")


@dataclass(frozen=True, slots=True)
class _Figure:
    """A query that gives rows of label values and one number. `zeros` are label values that are always there."""

    name: str
    help: str
    sql: str
    label: str = ""
    zeros: tuple[str, ...] = ()

    def read(self, connection: psycopg.Connection, give_up_at: float) -> Metric:
        family = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        metric: Metric = family(self.name, self.help, labels=[self.label] if self.label else [])
        found = {tuple(row[:-1]): float(row[-1]) for row in connection.execute(self.sql)}
        for labels, number in ({(zero,): 0.0 for zero in self.zeros} | found).items():
            metric.add_metric(labels, number)  # type: ignore[attr-defined]
        return metric


_FIGURES = (
    _Figure(
        "vorkasse_dead_letters_open",
        "Undos that failed for good and are not resolved.",
        f"SELECT count(*) FROM {_dead_letter} WHERE resolved_at IS NULL",
    ),
    _Figure(
        "vorkasse_dead_letter_oldest_age_seconds",
        "Age of the oldest open dead letter; 0 if there is none.",
        f"SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0) FROM {_dead_letter}"
        " WHERE resolved_at IS NULL",
    ),
    _Figure(
        "vorkasse_outbox_queued",
        "Messages that wait for delivery to Temporal.",
        f"SELECT count(*) FROM {_message} WHERE state = 'queued'",
    ),
    _Figure(
        "vorkasse_outbox_oldest_age_seconds",
        "Age of the oldest message that waits for delivery; 0 if there is none.",
        "SELECT coalesce((SELECT extract(epoch FROM now() - created_at)"
        f" FROM {_message} WHERE state = 'queued' ORDER BY id LIMIT 1), 0)",
    ),
    _Figure(
        "vorkasse_sagas_open",
        "Sagas that have not ended.",
        f"SELECT status, count(*) FROM {_saga} WHERE status NOT IN ('completed', 'cancelled', 'compensation_failed')"
        " GROUP BY status",
        label="status",
        zeros=_OPEN_SAGA,
    ),
    _Figure(
        "vorkasse_stock_below_zero",
        "Products with less than nothing on hand or available. Always 0: the database refuses it.",
        f"SELECT count(*) FROM {_product} WHERE on_hand < 0 OR reserved < 0 OR reserved > on_hand",
    ),
    _Figure(
        "vorkasse_differences_open",
        "Differences in the books that the last look found.",
        f"SELECT kind, count(*) FROM {_difference} WHERE closed_at IS NULL GROUP BY kind",
        label="kind",
        zeros=tuple(Difference.Kind.values),
    ),
    _Figure(
        "vorkasse_gateway_down",
        "1 while a provider gives no answers and is not called.",
        f"SELECT gateway, (open_until IS NOT NULL)::int FROM {_gateway}",
        label="gateway",
    ),
    _Figure(
        "vorkasse_payment_batch_last_run_timestamp_seconds",
        "When a batch payment check last came to its end; 0 if none has.",
        f"SELECT coalesce(extract(epoch FROM max(finished_at)), 0) FROM {_run}",
    ),
    _Figure(
        "vorkasse_payment_batch_runs_total",
        "Batch payment checks that came to their end.",
        "SELECT CASE WHEN unavailable = '{}' THEN 'finished' ELSE 'incomplete' END, count(*)"
        f" FROM {_run} WHERE finished_at IS NOT NULL GROUP BY 1",
        label="state",
        zeros=("finished", "incomplete"),
    ),
    _Figure(
        "vorkasse_payment_batch_provider_calls_total",
        "Calls of providers by batch payment checks.",
        f"SELECT coalesce(sum(provider_calls), 0) FROM {_run}",
    ),
)

# --- counted from rows that are only ever added ----------------------------------------------------------

_HOUR, _DAY = 3600, 86400
# From an order paid at once to one that waits for two weeks and is then rolled back for days.
BOUNDS = (
    *(1, 5, 15, 60, 300, 900),
    *(_HOUR, 6 * _HOUR, 12 * _HOUR),
    *(_DAY * days for days in (1, 2, 3, 5, 7, 10, 14, 15, 16, 21, 30, 60, 90)),
)
_ENDED = f"SELECT ended_at AS key, ended_at AS at, {{labels}} AS labels, {{value}} AS value FROM {_saga}"
# What it came to when it ended: a rollback that failed stays one, though people close it and cancel its order.
_CAME_TO = (
    f"CASE WHEN status = 'cancelled' AND id IN (SELECT saga_id FROM {_dead_letter})"
    " THEN 'compensation_failed' ELSE status END"
)
_TIMED_OUT = f"reason = '{NO_PAYMENT}' OR reason LIKE '{LAPSED} %% {UNPAID}'"
_CAPTURED = f"step.step = '{Step.PAYMENT_CAPTURED}' AND step.kind = 'action' AND step.outcome = 'succeeded'"
_CONFIRMED = f"""
    SELECT step.id AS key, step.at, CASE WHEN payment.id IS NOT NULL THEN ARRAY[payment.gateway] END AS labels,
        greatest(extract(epoch FROM step.started_at - payment.created_at), 0)::float8 AS value
    FROM {_step} step
    LEFT JOIN {_saga} saga ON saga.id = step.saga_id AND {_CAPTURED}
    LEFT JOIN {_payment} payment ON payment.id = saga.payment_id
"""
_UNDONE = f"""
    SELECT id AS key, at, 1::float8 AS value,
        CASE WHEN kind = 'compensation' AND outcome <> 'failed' THEN ARRAY[step, 'succeeded'] END AS labels
    FROM {_step}
"""
_NOT_UNDONE = (
    "SELECT id AS key, created_at AS at, ARRAY[step, 'failed'] AS labels, 1::float8 AS value"
    f" FROM {_dead_letter}"
)


class Books:
    """Reads all figures. One for a process: it remembers what it has counted."""

    def __init__(self) -> None:
        took = _ENDED.format(
            labels=f"ARRAY[{_CAME_TO}]", value="extract(epoch FROM ended_at - created_at)::float8"
        )
        self._durations = Fold(took, start="-infinity", bounds=BOUNDS)
        timed_out = _ENDED.format(
            labels=f"CASE WHEN {_TIMED_OUT} THEN ARRAY[]::text[] END", value="1::float8"
        )
        self._timeouts = Fold(timed_out, start="-infinity")
        self._confirmations = Fold(_CONFIRMED, bounds=BOUNDS)
        self._undone = Fold(_UNDONE)
        self._not_undone = Fold(_NOT_UNDONE)
        self._readers: tuple[Callable[[psycopg.Connection, float], Metric], ...] = (
            *(figure.read for figure in _FIGURES),
            self._read_durations,
            self._read_confirmations,
            self._read_timeouts,
            self._read_compensations,
        )

    def read(self) -> tuple[list[Metric], bool]:
        """All figures, and whether these are all; fewer or none where the database does not answer in time."""
        metrics: list[Metric] = []
        failed = False
        give_up_at = time.monotonic() + ALL_WITHIN_S
        try:
            with own_connection(autocommit=True, connect_timeout=TIMEOUT_S) as connection:
                connection.execute(f"SET statement_timeout = '{TIMEOUT_S}s'")
                for read in self._readers:
                    if time.monotonic() > give_up_at:
                        return metrics, False
                    try:
                        metrics.append(read(connection, give_up_at))
                    except (psycopg.errors.QueryCanceled, TimeoutError) as error:  # the others may be quicker
                        failed = True
                        log.warning("A figure could not be read: %s", str(error).strip())
        except psycopg.Error as error:
            failed = True
            log.warning("The figures could not be read: %s", str(error).strip())
        return metrics, not failed

    def _read_durations(self, connection: psycopg.Connection, give_up_at: float) -> Metric:
        return _histogram(
            "vorkasse_saga_duration_seconds",
            "From a saga's start to its end: the execution time of its workflow.",
            "status",
            [status.value for status in Saga.FINAL],
            self._durations.count(connection, give_up_at),
        )

    def _read_confirmations(self, connection: psycopg.Connection, give_up_at: float) -> Metric:
        # The money is captured as soon as it is confirmed, whoever confirms it.
        counted = self._confirmations.count(connection, give_up_at)
        return _histogram(
            "vorkasse_payment_confirmation_seconds",
            "From a payment's opening until its money was confirmed and captured.",
            "gateway",
            sorted({*settings.PAYMENT_GATEWAYS, *(gateway for (gateway,), _ in counted.numbers)}),
            counted,
        )

    def _read_timeouts(self, connection: psycopg.Connection, give_up_at: float) -> Metric:
        return CounterMetricFamily(
            "vorkasse_payment_timeouts_total",
            "Orders rolled back because no money came in time.",
            value=self._timeouts.count(connection, give_up_at).total(()),
        )

    def _read_compensations(self, connection: psycopg.Connection, give_up_at: float) -> Metric:
        counted = self._undone.count(connection, give_up_at) + self._not_undone.count(connection, give_up_at)
        metric = CounterMetricFamily(
            "vorkasse_compensations_total",
            "Undos that were done, and undos that failed for good.",
            labels=["step", "outcome"],
        )
        for step in (Step.INVENTORY, Step.PAYMENT_HOLD, Step.PAYMENT_CAPTURED, Step.SHIPPING):
            for outcome in ("succeeded", "failed"):
                metric.add_metric([step.value, outcome], counted.total((step.value, outcome)))
        return metric


def _histogram(name: str, help: str, label: str, values: Iterable[str], counted: Counted) -> Metric:
    metric = HistogramMetricFamily(name, help, labels=[label])
    bounds = [str(float(bound)) for bound in BOUNDS] + ["+Inf"]
    for value in values:
        numbers = counted.up_to_each((value,), len(BOUNDS))
        metric.add_metric([value], list(zip(bounds, numbers, strict=True)), float(counted.sums[(value,)]))
    return metric
