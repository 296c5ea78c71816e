"""An alert to ops: told soon, then followed up once if more came, so that a storm is two messages."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from datetime import timedelta

    from orders.workflows import policies
    from orders.workflows.saga import execute
    from orders.workflows.types import AlertGroup, AlertLook, AlertNotice

GATHER = timedelta(seconds=10)  # what fails together is told together
QUIET = timedelta(minutes=15)  # nothing more has come for so long: the storm is over
MOST_LOOKS = 4  # and after an hour it is told in any case


@workflow.defn
class OpsAlertWorkflow:
    """Tells one alert by mail and webhook, each tried on its own; then, once it is quiet, how many more came."""

    @workflow.run
    async def run(self, group: AlertGroup) -> int:
        """How many notices were written: one or two."""
        await asyncio.sleep(GATHER.total_seconds())
        notice: AlertNotice = await execute(
            "word_alert", group, AlertNotice, local=True, policy=policies.PATIENT
        )
        sending = _send(notice.notice)
        for look in range(1, MOST_LOOKS + 1):
            await asyncio.sleep(QUIET.total_seconds())
            seen = AlertLook(group.alert, notice.entries, last=look == MOST_LOOKS)
            notice = await execute("follow_up_alert", seen, AlertNotice, local=True, policy=policies.PATIENT)
            if notice.over:
                break
        if notice.notice:
            sending += _send(notice.notice)
        await asyncio.gather(*sending)
        return 2 if notice.notice else 1


def _send(notice: int) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(_by(way, notice)) for way in ("mail_alert", "post_alert")]


async def _by(way: str, notice: int) -> None:
    try:
        await execute(way, notice, type(None), policy=policies.ALERT, summary=way.replace("_", " "))
    except FailureError:
        workflow.logger.warning("An alert was given up: %s %d", way, notice)
