"""One run over all checks: it keeps the rows of what differs, and mends what needs no person.

Safe to repeat, to stop half-way, and for two at once: a row is one for its kind and subject while it is open, each
remedy has its own key, and a row is closed only by a check that came to its end and began after it was last seen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from itertools import chain, islice
from typing import Any

from django.db.models import Value
from django.db.models.functions import Greatest
from django.utils import timezone
from django.utils.translation import gettext_noop
from temporalio.service import RPCError

from orders.models import Difference, Order, ReconcileRun
from orders.services import alerting
from orders.services.reconciling import messages, money, provider, sagas, stock
from orders.services.reconciling.finding import Check, Finding, Kind, Look
from orders.workflows.types import Alert
from payments.gateways import manners
from payments.gateways.base import GatewayError

log = logging.getLogger(__name__)

# Nobody looks on. Were Temporal empty, by mistake say, every order that waits would be rolled back.
BY_ITSELF = 25

# A row, and whether it was mended just now.
Tell = Callable[[Difference, bool], None]


class Stopped(Exception):
    """The process that runs the checks is to end. The next run begins anew."""


def checks() -> list[Check]:
    """All of them; those that cost least first."""
    return [
        Check(gettext_noop("stock"), Kind.STOCK, stock.reservations),
        Check(gettext_noop("shipments"), Kind.SHIPMENT, stock.shipments),
        Check(gettext_noop("orders and their money"), Kind.MONEY, money.orders),
        Check(gettext_noop("bank statements"), Kind.STATEMENT, money.statements),
        Check(gettext_noop("webhooks"), Kind.WEBHOOK, messages.webhooks),
        Check(gettext_noop("outbox"), Kind.OUTBOX, messages.outgoing),
        Check(gettext_noop("orders and sagas"), Kind.ORDER, sagas.orders),
        Check(gettext_noop("sagas and Temporal"), Kind.SAGA, sagas.in_temporal),
        Check(gettext_noop("refunds and Temporal"), Kind.REFUND, sagas.refunds),
        *provider.checks(),
    ]


def reconcile(
    key: str,
    actor: str,
    *,
    fix: bool,
    at_most: int | None = None,
    tell: Tell = lambda row, mended: None,
    beat: Callable[[], None] = lambda: None,
) -> ReconcileRun:
    """Look at everything, and keep what differs; `fix`: mend what is safe. The run, with its counts.

    Of a kind of which there are more than `at_most`, nothing is mended: a person has to see first what is wrong.

    What keeps one check from its end (a provider or Temporal that is away) keeps no other: see `left_out`. Called
    again with the same `key` it is the same run, done anew. `tell` is told of each difference as it is found.
    """
    run, _created = ReconcileRun.objects.update_or_create(
        key=key,
        defaults={"actor": actor, "fix": fix, "finished_at": None, "left_out": {}}
        | dict.fromkeys(("found", "new", "mended", "closed"), 0),
    )
    with asyncio.Runner() as runner, manners.may_wait():
        look = Look(runner, beat=beat)
        for check in checks():
            beat()
            try:
                _go_through(run, check, look, tell, at_most)
            except Stopped:
                raise
            except (GatewayError, RPCError, RuntimeError, OSError) as error:
                run.left_out[check.name] = str(error) or type(error).__name__
            except Exception as error:
                log.exception("The check of %s failed", check.name)
                run.left_out[check.name] = f"It failed: {error!r}"
    run.finished_at = timezone.now()
    run.save()
    return run


def _go_through(run: ReconcileRun, check: Check, look: Look, tell: Tell, at_most: int | None) -> None:
    since = timezone.now()
    findings = check.find(look)
    first = list(islice(findings, at_most + 1)) if at_most is not None else []
    fix = run.fix and (at_most is None or len(first) <= at_most)
    for finding in chain(first, findings):
        row, new = see(check.kind, finding)
        mended = fix and mend(row, finding, run.actor)
        run.found += 1
        run.new += new
        run.mended += mended
        tell(row, mended)
        look.beat()
    gone = Difference.objects.filter(
        kind=check.kind, subject__startswith=check.scope, closed_at=None, last_seen_at__lt=since
    )
    run.closed += gone.update(closed_at=timezone.now())


def see(kind: str, finding: Finding) -> tuple[Difference, bool]:
    """The open row of what was found, and whether it is new."""
    seen: dict[str, Any] = {
        "sentence": finding.sentence if finding.sentence.endswith(".") else f"{finding.sentence}.",
        "to_do": finding.to_do,
        "weight": finding.weight,
        "remedy": finding.remedy,
        "order": Order.objects.filter(number=finding.order_number).first() if finding.order_number else None,
        "payment_id": finding.payment,
        "last_seen_at": timezone.now(),
    }
    while True:
        row, new = Difference.objects.get_or_create(
            kind=kind,
            subject=finding.subject,
            closed_at=None,
            defaults=seen | {"first_seen_at": seen["last_seen_at"]},
        )
        # Unless another run has just closed it. One that saw it later must not find it unseen since, and close it.
        later = {"last_seen_at": Greatest("last_seen_at", Value(seen["last_seen_at"]))}
        if new or Difference.objects.filter(pk=row.pk, closed_at=None).update(
            **(seen | later), mended_at=None, mended_by=""
        ):
            for name, value in seen.items():
                setattr(row, name, value)
            return row, new


def mend(row: Difference, finding: Finding, actor: str) -> bool:
    """Do what is safe about it; whether anything was done. What refuses is left to people."""
    try:
        done = finding.fix()
    except Stopped:
        raise
    except (GatewayError, RPCError, RuntimeError, OSError) as error:
        log.warning("%s could not be mended: %s", row, error)
        return False
    if done:
        mark_mended(row, actor, timezone.now())
    return done


def reconcile_by_itself(key: str, *, fix: bool, beat: Callable[[], None]) -> ReconcileRun:
    """The daily run: ops are told where money or stock disagrees. Raises `Stopped`, if `beat` does."""
    return reconcile(key, "schedule", fix=fix, at_most=BY_ITSELF, tell=tell_ops, beat=beat)


def tell_ops(row: Difference, mended: bool) -> None:
    """Alert ops of money or stock that disagrees, once while it does: also where it was mended, for something broke."""
    if row.weight not in Difference.HEAVY:
        return
    what = f"Mended: {row.remedy}." if mended else row.to_do
    alerting.raise_alert(
        Alert(
            f"difference-{row.pk}",
            row.order.number if row.order else "",
            f"{row.get_weight_display().capitalize()} disagrees: {row.get_kind_display()}",
            f"{row.sentence} {what}",
            topic="books",
        )
    )


def mark_mended(row: Difference, actor: str, at: datetime) -> None:
    row.mended_at, row.mended_by = at, actor
    row.save(update_fields=["mended_at", "mended_by"])
