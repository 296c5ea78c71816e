"""The outbox: the web process never talks to the engine, so it works while the engine is down.

`start_workflow` and `signal_workflow` write a message in the caller's transaction. `deliver_batch` hands
queued messages to the engine. Per workflow they go in order: a message waits until the ones before it are
gone. Many dispatchers may run at once; each takes rows that no other holds (`FOR UPDATE SKIP LOCKED`).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import F, OuterRef, Subquery
from django.dispatch import Signal
from django.utils import timezone
from temporalio.client import Client
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from shop.kernel import tracing
from shop.kernel.models import OutboxMessage
from shop.kernel.search_attributes import ORDER_NUMBER, SAGA_STAGE

log = logging.getLogger(__name__)

CHANNEL = "outbox"
BATCH = 50
RPC_TIMEOUT = timedelta(seconds=5)
MEMO = "started_by"  # the id of the message that started a run

# Sent in the transaction that marks a message undeliverable; receivers make it a review item.
message_undeliverable = Signal()


def start_workflow(
    message_id: str,
    workflow_id: str,
    workflow: str,
    argument: Any,
    *,
    task_queue: str,
    execution_timeout: timedelta | None = None,
    summary: str = "",
    order_number: str = "",
) -> OutboxMessage:
    """Queue the start of a workflow. `argument` is a dataclass; a run that is open already is left alone."""
    options = {
        "task_queue": task_queue,
        "execution_timeout_s": execution_timeout.total_seconds() if execution_timeout else None,
        "summary": summary,
        "order_number": order_number,
    }
    return _queue(message_id, workflow_id, OutboxMessage.Kind.START, workflow, argument, options)


def signal_workflow(message_id: str, workflow_id: str, signal: str, argument: Any) -> OutboxMessage:
    """Queue a signal. `argument` is a dataclass that carries `message_id`."""
    return _queue(message_id, workflow_id, OutboxMessage.Kind.SIGNAL, signal, argument, {})


def signal_workflows(signals: Sequence[tuple[str, str, str, Any]]) -> None:
    """Queue many signals, each with the arguments of `signal_workflow`, in two queries."""
    if not signals:
        return
    options = _with_trace({})
    rows = [
        {
            "message_id": message_id,
            "workflow_id": workflow_id,
            "name": signal,
            "payload": asdict(argument),
            "options": options,
        }
        for message_id, workflow_id, signal, argument in signals
    ]
    with connection.cursor() as cursor:
        cursor.execute(_INSERT_SIGNALS, [json.dumps(rows)])
        cursor.execute(f"NOTIFY {CHANNEL}")


# One JSON text is several times faster than the arrays that `bulk_create` sends.
_INSERT_SIGNALS = f"""
    INSERT INTO {OutboxMessage._meta.db_table} (
        message_id, workflow_id, kind, name, payload, options, state, attempts, available_at, last_error, created_at
    )
    SELECT message_id, workflow_id, 'signal', name, payload, options, 'queued', 0, now(), '', now()
    FROM jsonb_to_recordset(%s::jsonb)
        AS signal (message_id text, workflow_id text, name text, payload jsonb, options jsonb)
    ON CONFLICT (message_id) DO NOTHING
"""


def _queue(
    message_id: str, workflow_id: str, kind: str, name: str, argument: Any, options: dict[str, Any]
) -> OutboxMessage:
    message, created = OutboxMessage.objects.get_or_create(
        message_id=message_id,
        defaults={
            "workflow_id": workflow_id,
            "kind": kind,
            "name": name,
            "payload": asdict(argument),
            "options": _with_trace(options),
        },
    )
    if created:
        # Where a request becomes a workflow's business: the line has the ids of both.
        followed = {"workflow_id": workflow_id, "order_number": options.get("order_number") or None}
        log.info("Queued %s %s for %s", kind, name, workflow_id, extra=followed)
        with connection.cursor() as cursor:
            cursor.execute(f"NOTIFY {CHANNEL}")  # delivered to listeners at commit
    return message


def _with_trace(options: dict[str, Any]) -> dict[str, Any]:
    """The trace of whoever sends the message goes along with it."""
    trace = tracing.carried()
    return options | {"trace": trace} if trace else options


class _EarlierRunIsOpen(Exception):
    """The workflow id is taken by a run that another message started; it ends by itself."""


@dataclass(frozen=True, slots=True)
class _Answer:
    state: str
    error: str = ""


def deliver_batch(client: Client, runner: asyncio.Runner) -> int:
    """Deliver the oldest queued message of up to `BATCH` workflows; how many were delivered or given up.

    The rows stay locked while the engine answers (5 s at most), so that a dispatcher that is killed gives
    them back at once. Nothing else ever locks them.
    """
    with transaction.atomic():
        queued = OutboxMessage.objects.filter(state=OutboxMessage.State.QUEUED)
        # Looked up by index for each row until there are enough. A join would read the whole queue each time.
        oldest = queued.filter(workflow_id=OuterRef("workflow_id")).order_by("id").values("id")[:1]
        messages = list(
            queued.select_for_update(skip_locked=True)
            .filter(id=Subquery(oldest), available_at__lte=timezone.now())
            .order_by("id")[:BATCH]
        )
        if not messages:
            return 0
        answers = runner.run(_deliver_all(client, messages))
        _write_down(messages, answers)
        return sum(answer.state != OutboxMessage.State.QUEUED for answer in answers)


def _write_down(messages: list[OutboxMessage], answers: list[_Answer]) -> None:
    delivered = []
    for message, answer in zip(messages, answers, strict=True):
        if answer.state == OutboxMessage.State.DELIVERED:
            delivered.append(message.pk)
        else:
            _write_down_failure(message, answer)
    OutboxMessage.objects.filter(pk__in=delivered).update(
        state=OutboxMessage.State.DELIVERED,
        attempts=F("attempts") + 1,
        last_error="",
        delivered_at=timezone.now(),
    )


def _write_down_failure(message: OutboxMessage, answer: _Answer) -> None:
    message.state = answer.state
    message.attempts += 1
    message.last_error = answer.error
    if answer.state == OutboxMessage.State.QUEUED:
        pause = timedelta(seconds=min(2 ** min(message.attempts, 10), 15))
        message.available_at = timezone.now() + pause
    message.save(update_fields=["state", "attempts", "last_error", "available_at"])
    if answer.state == OutboxMessage.State.UNDELIVERABLE:
        message_undeliverable.send(OutboxMessage, message=message)


async def _deliver_all(client: Client, messages: list[OutboxMessage]) -> list[_Answer]:
    return await asyncio.gather(*(_deliver(client, message) for message in messages))


async def _deliver(client: Client, message: OutboxMessage) -> _Answer:
    with tracing.going_on(message.options.get("trace")):
        return await _hand_over(client, message)


async def _hand_over(client: Client, message: OutboxMessage) -> _Answer:
    try:
        if message.kind == OutboxMessage.Kind.START:
            await _start(client, message)
        else:
            await client.get_workflow_handle(message.workflow_id).signal(
                message.name, message.payload, rpc_timeout=RPC_TIMEOUT
            )
    except _EarlierRunIsOpen:
        return _Answer(OutboxMessage.State.QUEUED, "An earlier run of the workflow is about to end.")
    except RPCError as error:
        # Only a signal to a workflow that is gone is hopeless; the rest is an outage or ours to repair.
        gone = error.status is RPCStatusCode.NOT_FOUND and "namespace" not in error.message.lower()
        hopeless = gone and message.kind == OutboxMessage.Kind.SIGNAL
        state = OutboxMessage.State.UNDELIVERABLE if hopeless else OutboxMessage.State.QUEUED
        return _Answer(state, f"{error.status.name}: {error.message}")
    except (RuntimeError, OSError) as error:  # the client could not connect at all
        return _Answer(OutboxMessage.State.QUEUED, f"Temporal cannot be reached: {error}"[:500])
    return _Answer(OutboxMessage.State.DELIVERED)


async def _start(client: Client, message: OutboxMessage) -> None:
    options = message.options
    attributes = TypedSearchAttributes(
        [
            SearchAttributePair(ORDER_NUMBER, options["order_number"]),
            SearchAttributePair(SAGA_STAGE, "running"),
        ]
        if options["order_number"]
        else []
    )
    timeout = options["execution_timeout_s"]
    try:
        await _start_new(client, message, attributes, timedelta(seconds=timeout) if timeout else None)
    except WorkflowAlreadyStartedError:
        # Our own start, delivered before? Or an earlier attempt that is still sending its last mail?
        open_run = await client.get_workflow_handle(message.workflow_id).describe(rpc_timeout=RPC_TIMEOUT)
        if await open_run.memo_value(MEMO, None) != message.message_id:
            raise _EarlierRunIsOpen from None


async def _start_new(
    client: Client,
    message: OutboxMessage,
    attributes: TypedSearchAttributes,
    execution_timeout: timedelta | None,
) -> None:
    options = message.options
    await client.start_workflow(
        message.name,
        message.payload,
        id=message.workflow_id,
        task_queue=options["task_queue"],
        execution_timeout=execution_timeout,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        memo={MEMO: message.message_id},
        search_attributes=attributes,
        static_summary=options["summary"] or None,
        rpc_timeout=RPC_TIMEOUT,
    )


def find(message_id: str) -> OutboxMessage | None:
    """The message with this id, if it was queued."""
    return OutboxMessage.objects.filter(message_id=message_id).first()
