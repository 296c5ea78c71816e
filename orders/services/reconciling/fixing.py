"""What people have mended: one difference, looked at again first."""

from __future__ import annotations

import asyncio

from django.utils import timezone
from django.utils.translation import gettext as _
from temporalio.service import RPCError

from orders.models import Difference
from orders.services.lifecycle import Acted, ActionRefused
from orders.services.reconciling import running
from orders.services.reconciling.finding import Look
from orders.words import said
from payments.gateways.base import GatewayError


def why_not_fix(row: Difference) -> str:
    """Why no program can mend it; empty if one can."""
    if row.closed_at is not None:
        return _("It is gone: a later look did not find it any more.")
    if not row.remedy:
        return _("It takes a person: nothing that a program may do mends it.")
    return ""


def fix(pk: int, actor: str) -> Acted:
    """Look at it again, and do what is safe about it. Raises `ActionRefused`.

    Nothing is locked meanwhile: each remedy has its own key, so two people at once do it once.
    """
    row = Difference.objects.get(pk=pk)
    if row.closed_at is not None:
        return Acted(_("It was gone in the meantime; nothing was done."), repeated=True)
    if why_not := why_not_fix(row):
        raise ActionRefused(why_not)
    check = next(
        (c for c in running.checks() if c.kind == row.kind and row.subject.startswith(c.scope)), None
    )
    if check is None:
        raise ActionRefused(_("The provider of this payment is not set up here any more."))
    try:
        with asyncio.Runner() as runner:
            found = {f.subject: f for f in check.find(Look(runner, only=row.subject))}
            finding = found.get(row.subject)
            if finding is None:
                Difference.objects.filter(pk=pk, closed_at=None).update(closed_at=timezone.now())
                return Acted(_("It agrees by now; nothing was done."), repeated=True)
            done = finding.fix()
    except (GatewayError, RPCError, RuntimeError, OSError) as error:
        raise ActionRefused(_("It could not be looked at: {error}").format(error=error)) from error
    if not done:
        raise ActionRefused(_("Nothing could be done about it now. Look at it again later."))
    running.mark_mended(row, actor, timezone.now())
    told = _("Done: {remedy}. The next run looks whether it agrees then.")
    return Acted(told.format(remedy=said(finding.remedy)))
