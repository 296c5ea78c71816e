"""Is everything there that the shop needs? Each part is asked itself, all at once, and nobody is waited for long."""

from __future__ import annotations

import asyncio
import smtplib
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.mail import get_connection
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import get_language, gettext, ngettext, override
from django.utils.translation import gettext_lazy as _
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeTaskQueueRequest
from temporalio.service import RPCError, RPCStatusCode

from orders.workflows.types import TASK_QUEUE as ORDERS
from payments.gateways import gateway
from payments.gateways.base import GatewayError
from payments.models import ChangeCursor
from payments.models.gateway_state import called
from payments.workflows.types import TASK_QUEUE as PAYMENT_CHECKS
from shop.kernel import temporal
from shop.schedules.declared import Schedule, is_late, ours
from shop.schedules.engine import ScheduleProblem
from shop.schedules.standing import standings

PATIENCE_S = 3.0  # for all of them together
# A worker asks anew at least once a minute.
GONE_AFTER = timedelta(seconds=100)
_KINDS = (TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY)


@dataclass(frozen=True, slots=True)
class Health:
    """How a part is. `state` is `working`, `failing` (look at it) or `down`; `says` why, and what to do."""

    name: str | Promise
    state: str
    says: str
    url: str = ""
    took_ms: int | None = None

    @property
    def is_down(self) -> bool:
        return self.state == "down"

    @property
    def words(self) -> str | Promise:
        return {"working": _("works"), "failing": _("look at it"), "down": _("does not work")}[self.state]


class Down(Exception):
    """A part does not work. The message says why, and what to do, to people."""


class Doubtful(Exception):
    """It works, but not as it should."""


@dataclass(frozen=True, slots=True)
class _Probe:
    """`ask` answers with a sentence, or raises `Down` or `Doubtful` with one."""

    name: str | Promise
    ask: Callable[[], str]
    url: str = ""


@dataclass(frozen=True, slots=True)
class _EngineProbe:
    """The same of Temporal, which is asked in a loop."""

    name: str | Promise
    ask: Callable[[], Awaitable[str]]
    url: str = ""


def everything() -> list[Health]:
    """How each part is."""
    url = reverse("admin:schedules")
    schedules = (
        _EngineProbe(gettext("Schedule “%s”") % one.id, _schedule(one, is_late(one)), url) for one in ours()
    )
    return _ask_all(
        [_Probe(_("Database"), _database), *_engine(), *_providers(), _Probe(_("Mail"), _mail), *schedules]
    )


def engine() -> list[Health]:
    """How Temporal and the workers are."""
    return _ask_all(_engine())


def mail() -> Health:
    (health,) = _ask_all([_Probe(_("Mail"), _mail)])
    return health


# --- all at once -----------------------------------------------------------------------------------------


def _ask_all(probes: Sequence[_Probe | _EngineProbe]) -> list[Health]:
    """All at once. One that has not answered in time counts as down, and ends by itself.

    A thread for each, but one for all of Temporal: while its client connects, it belongs to one loop.
    """
    language = get_language()
    engine = [probe for probe in probes if isinstance(probe, _EngineProbe)]
    others = [probe for probe in probes if isinstance(probe, _Probe)]
    executor = ThreadPoolExecutor(len(others) + 1, thread_name_prefix="probe")
    futures = [executor.submit(_in_thread, probe, language) for probe in others]
    in_loop = executor.submit(_in_loop, engine, language)
    everyone: list[Future[Any]] = [*futures, in_loop]
    wait(everyone, timeout=PATIENCE_S)
    executor.shutdown(wait=False, cancel_futures=True)
    heard = {
        probe.name: future.result() for probe, future in zip(others, futures, strict=True) if future.done()
    }
    if in_loop.done():
        heard |= {health.name: health for health in in_loop.result()}
    no_answer = gettext("No answer within %d seconds.") % PATIENCE_S
    return [heard.get(probe.name) or Health(probe.name, "down", no_answer, probe.url) for probe in probes]


def _in_thread(probe: _Probe, language: str | None) -> Health:
    began = time.monotonic()
    try:
        with override(language):
            outcome: str | Exception = probe.ask()
    except Exception as error:  # whatever it is, the other parts are still to be seen
        outcome = error
    finally:
        connection.close()
    return _judged(probe, outcome, began)


def _in_loop(probes: Sequence[_EngineProbe], language: str | None) -> list[Health]:
    async def ask(probe: _EngineProbe) -> Health:
        began = time.monotonic()
        try:
            outcome: str | Exception = await _in_time(probe)
        except Exception as error:
            outcome = error
        return _judged(probe, outcome, began)

    async def ask_all() -> list[Health]:
        return await asyncio.gather(*map(ask, probes))

    with override(language):
        return asyncio.run(ask_all())


def _judged(probe: _Probe | _EngineProbe, outcome: str | Exception, began: float) -> Health:
    took_ms = round(1000 * (time.monotonic() - began))
    match outcome:
        case str():
            state, says = "working", outcome
        case Doubtful():
            state, says = "failing", str(outcome)
        case Down() | ScheduleProblem():
            state, says = "down", str(outcome)
        case _:
            state, says = "down", f"{type(outcome).__name__}: {outcome}"[:300]
    return Health(probe.name, state, says, probe.url, took_ms)


# --- each ------------------------------------------------------------------------------------------------


def _database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('server_version')")
            version = str(cursor.fetchone()[0])
        executor = MigrationExecutor(connection)
        missing = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    except DatabaseError as error:
        raise Down(gettext("PostgreSQL does not answer: %s") % error) from error
    if missing:
        told = ngettext(
            "%d migration is missing. Run manage.py migrate.",
            "%d migrations are missing. Run manage.py migrate.",
            missing,
        )
        raise Down(told % missing)
    return gettext("PostgreSQL %s answers, and all migrations are applied.") % version


def _engine() -> list[_EngineProbe]:
    return [
        _EngineProbe("Temporal", _temporal),
        *(
            _EngineProbe(gettext("Worker of the queue “%s”") % queue, _worker(queue))
            for queue in (ORDERS, PAYMENT_CHECKS)
        ),
    ]


async def _in_time(probe: _EngineProbe) -> str:
    """Ask Temporal, or say in a sentence why it does not answer."""
    where = settings.TEMPORAL_ADDRESS
    try:
        async with asyncio.timeout(PATIENCE_S - 0.5):
            return await probe.ask()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise Down(
                gettext(
                    "Temporal at %(where)s has no namespace “%(name)s”. Make it, or set TEMPORAL_NAMESPACE."
                )
                % {"where": where, "name": settings.TEMPORAL_NAMESPACE}
            ) from error
        if error.status not in (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED):
            says = gettext("Temporal at %(where)s says: %(error)s") % {"where": where, "error": error.message}
            raise Down(says) from error
        raise Down(_away()) from error
    except (RuntimeError, OSError) as error:  # no connection; a timeout is an OSError
        raise Down(_away()) from error


def _away() -> str:
    return gettext(
        "Temporal does not answer at %s. Nothing is lost: orders can be taken and acted on, and what they wait for "
        "happens when it is back. Check that it runs and that TEMPORAL_ADDRESS is right."
    ) % settings.TEMPORAL_ADDRESS  # fmt: skip


async def _temporal() -> str:
    request = DescribeNamespaceRequest(namespace=settings.TEMPORAL_NAMESPACE)
    service = temporal.client().workflow_service
    await service.describe_namespace(request, timeout=timedelta(seconds=PATIENCE_S))
    return gettext("Temporal answers at %s.") % settings.TEMPORAL_ADDRESS


def _worker(queue: str) -> Callable[[], Awaitable[str]]:
    async def ask() -> str:
        workers = set.intersection(*await asyncio.gather(*(_pollers(queue, kind) for kind in _KINDS)))
        if workers:
            return gettext("Asks for tasks: %s") % ", ".join(sorted(workers))
        raise Down(
            gettext(
                "No worker takes tasks of this queue, so nothing goes on. Start one: manage.py runworker --queue %s"
            )
            % queue
        )

    return ask


async def _pollers(queue: str, kind: TaskQueueType.ValueType) -> set[str]:
    request = DescribeTaskQueueRequest(
        namespace=settings.TEMPORAL_NAMESPACE, task_queue=TaskQueue(name=queue), task_queue_type=kind
    )
    service = temporal.client().workflow_service
    answer = await service.describe_task_queue(request, timeout=timedelta(seconds=PATIENCE_S))
    since = datetime.now(UTC) - GONE_AFTER
    return {
        poller.identity for poller in answer.pollers if poller.last_access_time.ToDatetime(tzinfo=UTC) > since
    }


def _providers() -> list[_Probe]:
    if not settings.PAYMENT_GATEWAYS:
        return [_Probe(_("Payment provider"), _no_provider)]
    url = reverse("admin:payments_gatewaystate_changelist")
    names = sorted(settings.PAYMENT_GATEWAYS)
    return [_Probe(gettext("Payment provider “%s”") % called(name), _provider(name), url) for name in names]


def _no_provider() -> str:
    raise Down(
        gettext(
            "No way to pay is set up. Set BANK_IBAN for payment in advance, or STRIPE_API_KEY, and restart the shop."
        )
    )


def _provider(name: str) -> Callable[[], str]:
    def ask() -> str:
        try:
            asked = gateway(name)
            if not asked.capabilities.remote:
                return gettext("It is kept here; money comes by the bank's statements.")
            cursor = ChangeCursor.objects.filter(gateway=name).values_list("cursor", flat=True).first()
            asked.changes(cursor or "", limit=1)
        except GatewayError as error:
            raise Down(str(error)) from error
        return gettext("It answers, and takes our credentials.")

    return ask


def _mail() -> str:
    if not settings.EMAIL_BACKEND.endswith(".smtp.EmailBackend"):
        raise Doubtful(
            gettext("Mails reach nobody: they are only printed or kept here. Set EMAIL_URL to a mail server.")
        )
    where = f"{settings.EMAIL_HOST}:{settings.EMAIL_PORT}"
    server = get_connection(timeout=PATIENCE_S - 0.5)
    try:
        server.open()
    except (smtplib.SMTPException, OSError) as error:
        raise Down(
            gettext(
                "The mail server %(where)s cannot be used: %(error)s. Mails wait until it can; check EMAIL_URL."
            )
            % {"where": where, "error": error}
        ) from error
    finally:
        server.close()
    return gettext("The mail server %s answers.") % where


def _schedule(schedule: Schedule, late: bool) -> Callable[[], Awaitable[str]]:
    async def ask() -> str:
        (standing,) = await standings(temporal.client(), [schedule])
        if not standing.made:
            raise Down(gettext("Temporal does not have it yet. A worker makes it when it starts."))
        if late:
            raise Down(
                gettext(
                    "It has not run for two intervals. Check that a worker runs, and that it is not paused."
                )
            )
        if standing.paused:
            raise Doubtful(gettext("It is paused: %s") % (standing.note or "–"))
        if standing.differs:
            raise Doubtful(
                gettext("It is not as declared: %s. Bring it up to date.") % ", ".join(standing.differs)
            )
        return gettext("It runs %s.") % schedule.times

    return ask
