"""What people do to a schedule. Each verb is safe to repeat, and says in a sentence what came of it."""

from __future__ import annotations

from django.utils.translation import gettext as _
from temporalio.api.schedule.v1 import SchedulePatch, TriggerImmediatelyRequest
from temporalio.client import Client

from shop.schedules import engine
from shop.schedules.declared import ours
from shop.schedules.engine import UnknownSchedule, patient

PATIENCE_S = 4


@patient(PATIENCE_S)
async def pause(client: Client, schedule_id: str, note: str, key: str) -> str:
    """No more runs by itself; what came of it, in a sentence. `key` tells a repeated call from a new one."""
    state = (await engine.describe(client, schedule_id)).schedule.state
    if state.paused:
        return _("It was paused already (%s).") % state.notes if state.notes else _("It was paused already.")
    await engine.patch(client, schedule_id, SchedulePatch(pause=note), key)
    return _("It is paused.")


@patient(PATIENCE_S)
async def resume(client: Client, schedule_id: str, note: str, key: str) -> str:
    if not (await engine.describe(client, schedule_id)).schedule.state.paused:
        return _("It was not paused.")
    await engine.patch(client, schedule_id, SchedulePatch(unpause=note), key)
    return _("It runs again.")


@patient(PATIENCE_S)
async def trigger(client: Client, schedule_id: str, note: str, key: str) -> str:
    """One run now, also while paused; after the run that is under way, if there is one.

    Of triggers with the same `key` the server takes one.
    """
    info = (await engine.describe(client, schedule_id)).info
    now = SchedulePatch(trigger_immediately=TriggerImmediatelyRequest())
    await engine.patch(client, schedule_id, now, key)
    if info.running_workflows:
        return _("A run is under way; one more follows when it ends.")
    return _("A run starts now.")


@patient(PATIENCE_S)
async def delete(client: Client, schedule_id: str, note: str, key: str) -> str:
    try:
        await engine.describe(client, schedule_id)
    except UnknownSchedule:
        return _("It was not there any more.")
    await engine.delete(client, schedule_id)
    if any(schedule.id == schedule_id for schedule in ours()):
        return _("It is deleted. The next worker that starts makes it again; to stop it for good, pause it.")
    return _("It is deleted.")
