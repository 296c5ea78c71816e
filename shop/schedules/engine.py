"""Temporal's requests about schedules, and what can go wrong with them, in sentences.

They are made of the protocol's own messages, because the client's methods leave out the two things that make
them safe to repeat: the key of a request, and the token without which an update undoes somebody else's.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar
from uuid import uuid4

from django.conf import settings
from django.utils.translation import gettext as _
from temporalio.api.common.v1 import Memo
from temporalio.api.schedule.v1 import Schedule as Made
from temporalio.api.schedule.v1 import SchedulePatch
from temporalio.api.workflowservice.v1 import (
    CreateScheduleRequest,
    DeleteScheduleRequest,
    DescribeScheduleRequest,
    DescribeScheduleResponse,
    ListSchedulesRequest,
    PatchScheduleRequest,
    UpdateScheduleRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

MARK = "vorkasse"  # the memo that makes a schedule ours

P = ParamSpec("P")
T = TypeVar("T")


class ScheduleProblem(Exception):
    """The message is a sentence for people."""


class TemporalAway(ScheduleProblem):
    """Nobody knows how the schedules are, and whether what was asked for was done."""

    def __init__(self) -> None:
        super().__init__(
            _(
                "Temporal does not answer at %s. Nothing is lost: runs that are missed are made up for when it is "
                "back. Check that it runs and that TEMPORAL_ADDRESS is right, then try again."
            )
            % settings.TEMPORAL_ADDRESS
        )


class UnknownSchedule(ScheduleProblem):
    def __init__(self, schedule_id: str) -> None:
        super().__init__(
            _(
                "Temporal has no schedule “%s”. A worker makes ours when it starts; `manage.py schedules sync` makes "
                "them now."
            )
            % schedule_id
        )


class ForeignSchedule(ScheduleProblem):
    def __init__(self, schedule_id: str) -> None:
        super().__init__(
            _(
                "The schedule “%s” was not made by this shop, so it is left alone. Use Temporal's own tools for it."
            )
            % schedule_id
        )


def patient(
    seconds: float,
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Give up after some time, and say in a sentence what is wrong with the engine."""

    def decorate(ask: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @functools.wraps(ask)
        async def asking(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                async with asyncio.timeout(seconds):
                    return await ask(*args, **kwargs)
            except (RuntimeError, OSError) as error:  # no connection; a timeout is an OSError
                raise TemporalAway from error
            except RPCError as error:
                raise as_problem(error) from error

        return asking

    return decorate


def as_problem(error: RPCError) -> ScheduleProblem:
    """What the engine's answer means, in a sentence."""
    match error.status:
        case RPCStatusCode.UNAVAILABLE | RPCStatusCode.DEADLINE_EXCEEDED | RPCStatusCode.CANCELLED:
            return TemporalAway()
        case RPCStatusCode.UNAUTHENTICATED | RPCStatusCode.PERMISSION_DENIED:
            return ScheduleProblem(
                _("Temporal refuses us; check TEMPORAL_API_KEY. It says: %s") % error.message
            )
    return ScheduleProblem(_("Temporal refuses that: %s") % error.message)


# --- the requests ----------------------------------------------------------------------------------------


async def describe(client: Client, schedule_id: str) -> DescribeScheduleResponse:
    """Raises `UnknownSchedule`, `ForeignSchedule`."""
    request = DescribeScheduleRequest(namespace=client.namespace, schedule_id=schedule_id)
    while True:
        try:
            found = await client.workflow_service.describe_schedule(request)
            break
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND and "namespace" not in error.message.lower():
                raise UnknownSchedule(schedule_id) from None
            if error.status is not RPCStatusCode.RESOURCE_EXHAUSTED:
                raise
        await asyncio.sleep(
            random.uniform(0.05, 0.25)
        )  # asked by several at once, the server turns some away
    if MARK not in found.memo.fields:
        raise ForeignSchedule(schedule_id)
    return found


async def list_ours(client: Client) -> set[str]:
    """The ids of all schedules that bear our mark."""
    ids: set[str] = set()
    token = b""
    while True:
        page = await client.workflow_service.list_schedules(
            ListSchedulesRequest(namespace=client.namespace, maximum_page_size=100, next_page_token=token)
        )
        ids |= {entry.schedule_id for entry in page.schedules if MARK in entry.memo.fields}
        token = page.next_page_token
        if not token:
            return ids


async def create(client: Client, schedule_id: str, wanted: Made) -> bool:
    """False if it is there already."""
    (mark,) = await client.data_converter.encode(["declared in shop/schedules"])
    request = CreateScheduleRequest(
        namespace=client.namespace,
        schedule_id=schedule_id,
        schedule=wanted,
        memo=Memo(fields={MARK: mark}),
        identity=client.identity,
        request_id=str(uuid4()),
    )
    try:
        await client.workflow_service.create_schedule(request)
    except RPCError as error:
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise
        return False
    return True


async def update(client: Client, schedule_id: str, wanted: Made, token: bytes) -> None:
    """Void if the token is stale, and it depends on the server whether it says so: look again afterwards."""
    request = UpdateScheduleRequest(
        namespace=client.namespace,
        schedule_id=schedule_id,
        schedule=wanted,
        conflict_token=token,
        identity=client.identity,
        request_id=str(uuid4()),
    )
    try:
        await client.workflow_service.update_schedule(request)
    except RPCError as error:
        if error.status is not RPCStatusCode.FAILED_PRECONDITION:
            raise


async def patch(client: Client, schedule_id: str, patch: SchedulePatch, key: str) -> None:
    """Pause, resume or trigger. Of requests with the same key the server heeds one."""
    request = PatchScheduleRequest(
        namespace=client.namespace,
        schedule_id=schedule_id,
        patch=patch,
        identity=client.identity,
        request_id=key,
    )
    await client.workflow_service.patch_schedule(request)


async def delete(client: Client, schedule_id: str) -> bool:
    """False if it was gone."""
    request = DeleteScheduleRequest(
        namespace=client.namespace, schedule_id=schedule_id, identity=client.identity
    )
    try:
        await client.workflow_service.delete_schedule(request)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return False
    return True
