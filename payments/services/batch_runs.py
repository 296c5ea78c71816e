"""The rows of the batch runs, so that people see what each has found, and that it ran at all."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from django.conf import settings
from django.db import transaction

from payments.gateways import gateway
from payments.models import BatchRun
from payments.workflows.types import BatchEnd, BatchStart, GatewayCheck


@transaction.atomic
def start(run: BatchStart) -> list[GatewayCheck]:
    """Write down that the run has begun, or goes on; which gateways it has to check, and how.

    Without names these are all gateways whose calls leave the process: the others have no news of their own.
    Raises `GatewayMisconfigured` for a gateway that is not set up.
    """
    names = run.gateways or sorted(settings.PAYMENT_GATEWAYS)
    able = {name: gateway(name).capabilities for name in names}
    todo = [GatewayCheck(name, changes=can.change_feed) for name, can in able.items() if can.remote]
    row, created = BatchRun.objects.get_or_create(
        workflow_id=run.workflow_id,
        run_id=run.run_id,
        defaults={
            "started_at": datetime.fromisoformat(run.started_at),
            "gateways": [check.gateway for check in todo],
        },
    )
    if not created:
        row.save(update_fields=["seen_at"])
    return todo


@transaction.atomic
def finish(end: BatchEnd) -> None:
    """Write down what the run came to. The second call changes nothing."""
    row = BatchRun.objects.select_for_update().get(workflow_id=end.workflow_id, run_id=end.run_id)
    if row.finished_at is not None:
        return
    for name, number in asdict(end.tally).items():
        setattr(row, name, number)
    row.finished_at = datetime.fromisoformat(end.finished_at)
    row.unavailable = end.unavailable
    row.save()
