"""What people do to a schedule, once for each form, and on record."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from asgiref.sync import async_to_sync
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from temporalio.client import Client

from shop.kernel import temporal
from shop.models import ScheduleAct
from shop.schedules import syncing, verbs
from shop.schedules.engine import ScheduleProblem

Verb = ScheduleAct.Verb
_VERBS: dict[str, Callable[[Client, str, str, str], Coroutine[Any, Any, str]]] = {
    Verb.PAUSE: verbs.pause,
    Verb.RESUME: verbs.resume,
    Verb.TRIGGER: verbs.trigger,
    Verb.SYNC: syncing.sync_one,
    Verb.DELETE: verbs.delete,
}


@dataclass(frozen=True, slots=True)
class Acted:
    """`repeated`: the same form had done it before."""

    message: str
    repeated: bool = False


def act(schedule: str, verb: str, actor: str, reason: str, key: UUID) -> Acted:
    """Do it, and write down who, when, why and what came of it; raises `ScheduleProblem`.

    The row is locked while Temporal answers (a few seconds at most), so of a double click the second waits for
    the first. After a problem the same key may be used again: Temporal heeds one request of a key too.
    """
    asked, _new = ScheduleAct.objects.get_or_create(
        key=key, defaults={"schedule": schedule, "verb": verb, "actor": actor, "reason": reason}
    )
    if (asked.schedule, asked.verb) != (schedule, verb):
        raise ScheduleProblem(_("This form was used for something else. Load the page again."))
    problem: ScheduleProblem | None = None
    with transaction.atomic():
        row = ScheduleAct.objects.select_for_update().get(pk=asked.pk)
        if row.done_at is not None:
            return Acted(_told(row), repeated=True)
        row.actor, row.reason = actor, reason
        try:
            row.outcome = async_to_sync(_VERBS[verb])(temporal.client(), schedule, row.note, str(key))
        except ScheduleProblem as met:
            problem = met
            row.outcome = str(met)
        else:
            row.done_at = timezone.now()
        row.save(update_fields=["actor", "reason", "outcome", "done_at"])
    if problem is not None:
        raise problem
    return Acted(_told(row))


def _told(row: ScheduleAct) -> str:
    return _("Schedule %(id)s: %(outcome)s") % {"id": row.schedule, "outcome": row.outcome}
