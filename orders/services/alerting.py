"""What ops are told when a person is needed: by mail and by a signed webhook, grouped by topic.

Raising an alert only writes: it joins the open group of its topic, or opens one and queues the workflow that
tells it. So nothing that raises one ever waits for a mail server.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import timedelta

import httpx2
from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_noop

from orders.models import OpsAlert, OpsAlertEntry, OpsAlertNotice
from orders.workflows.ops_alert import MOST_LOOKS, QUIET
from orders.workflows.types import TASK_QUEUE, Alert, AlertGroup, AlertLook, AlertNotice
from payments.sandbox.signing import signature
from shop.kernel import outbox

Part = OpsAlertNotice.Part

TITLES = {
    "rollback": gettext_noop("rollback failed"),
    "lapse": gettext_noop("authorization about to expire"),
    "confirmation": gettext_noop("confirmation mail not sent"),
    "books": gettext_noop("books that disagree"),
}
# What the alert links to; else the orders.
PATHS = {"rollback": "ops/dead-letters/", "books": "orders/difference/?state=open"}
ORDERS = "orders/order/"
LISTED = 20
WEBHOOK_TIMEOUT_S = 12  # below the time that an activity has
# A group that its workflow has not closed by then has lost it (terminated by hand, say) and takes nothing more.
LOST_AFTER = MOST_LOOKS * QUIET + timedelta(hours=2)
WORTH_ANOTHER_TRY = frozenset({408, 425, 429})


class AlertNotTaken(Exception):
    """The webhook's receiver did not take the alert; it may later."""


class AlertRefused(Exception):
    """The webhook's receiver refused the alert for good."""


@transaction.atomic
def raise_alert(alert: Alert) -> None:
    """Have ops told. The same `key` again changes nothing."""
    if OpsAlertEntry.objects.filter(key=alert.key).exists():
        return
    OpsAlertEntry.objects.get_or_create(
        key=alert.key,
        defaults={
            "alert": _open_group(alert.topic or "other"),
            "order_number": alert.order_number,
            "subject": alert.subject[:200],
            "text": alert.text,
        },
    )


def _open_group(topic: str) -> OpsAlert:
    """The open group of the topic, under its lock: it closes after our entry, or before, but not meanwhile."""
    while True:
        group, created = OpsAlert.objects.get_or_create(topic=topic, closed_at=None)
        if created:
            break
        group = OpsAlert.objects.select_for_update().get(pk=group.pk)
        if group.closed_at is None and timezone.now() - group.opened_at < LOST_AFTER:
            return group
        _close(group)
    outbox.start_workflow(
        f"ops-alert-{group.pk}",
        f"ops-alert-{group.pk}",
        "OpsAlertWorkflow",
        AlertGroup(group.pk),
        task_queue=TASK_QUEUE,
        summary=f"alert: {topic}",
    )
    return group


def _close(group: OpsAlert) -> None:
    if group.closed_at is None:
        group.closed_at = timezone.now()
        group.save(update_fields=["closed_at"])


# --- what is told ----------------------------------------------------------------------------------------


@transaction.atomic
def word_first(alert: int) -> AlertNotice:
    """Write the alert down as it is told; the one that is there already if it was written."""
    group = OpsAlert.objects.select_for_update().get(pk=alert)
    notice = group.notices.filter(part=Part.FIRST).first()
    if notice is None:
        notice = _write(group, Part.FIRST, list(group.entries.all()), 0)
    return AlertNotice(notice.pk, notice.told, over=False)


@transaction.atomic
def follow_up(look: AlertLook) -> AlertNotice:
    """Close the alert if it has become quiet, or at the last look, and word what came since it was told."""
    group = OpsAlert.objects.select_for_update().get(pk=look.alert)
    entries = list(group.entries.all())
    if group.closed_at is None and len(entries) > look.seen and not look.last:
        return AlertNotice(0, len(entries), over=False)
    _close(group)
    notice = group.notices.filter(part=Part.FOLLOW_UP).first()
    told = group.notices.get(part=Part.FIRST).told
    if notice is None and len(entries) > told:
        notice = _write(group, Part.FOLLOW_UP, entries[told:], told)
    return AlertNotice(notice.pk if notice else 0, len(entries), over=True)


def _write(group: OpsAlert, part: str, entries: Sequence[OpsAlertEntry], before: int) -> OpsAlertNotice:
    title = TITLES.get(group.topic, group.topic)
    path = PATHS.get(group.topic, ORDERS)
    if len(entries) == 1 and not before:
        (entry,) = entries
        subject, text = str(entry), entry.text
        if path == ORDERS:
            path += f"?q={entry.order_number}"
    else:
        more = " more" if before else ""
        subject = f"{len(entries)}{more} × {title}"
        lines = [f"- {entry}" for entry in entries[:LISTED]]
        if len(entries) > LISTED:
            lines.append(f"- and {len(entries) - LISTED} more")
        since = f"{(group.notices.get(part=Part.FIRST).at if before else group.opened_at):%Y-%m-%d %H:%M} UTC"
        head = f"{len(entries)}{more} since {'the alert of ' if before else ''}{since}:"
        text = "\n".join([head, *lines])
    return OpsAlertNotice.objects.create(
        alert=group,
        part=part,
        told=before + len(entries),
        subject=f"[Vorkasse] {subject}"[:250],
        text=f"{text}\n\n{settings.SITE_URL}/admin/{path}\n",
        orders=[entry.order_number for entry in entries[:LISTED]],
    )


# --- the ways it is told ---------------------------------------------------------------------------------


def mail(pk: int) -> None:
    """By mail, unless that is done. It may come twice; the Message-ID lets a mailbox drop the second."""
    notice = OpsAlertNotice.objects.get(pk=pk)
    if notice.mailed_at or not settings.OPS_ALERT_EMAILS:
        return
    EmailMessage(
        notice.subject,
        notice.text,
        to=settings.OPS_ALERT_EMAILS,
        headers={"Message-ID": f"<{_message_id(notice)}@vorkasse>"},
    ).send()
    OpsAlertNotice.objects.filter(pk=pk).update(mailed_at=timezone.now())


def post(pk: int) -> None:
    """By webhook, if there is one, unless that is done; raises `AlertNotTaken`, `AlertRefused`.

    Standard Webhooks: the same `webhook-id` and body for each try, so the receiver can drop a second one.
    `text` is what chat tools show.
    """
    notice = OpsAlertNotice.objects.select_related("alert").get(pk=pk)
    if notice.posted_at or not settings.OPS_ALERT_WEBHOOK_URL:
        return
    data = {"topic": notice.alert.topic, "part": notice.part, "told": notice.told, "orders": notice.orders}
    content = {
        "type": "ops.alert",
        "timestamp": notice.at.isoformat(),
        "text": f"{notice.subject}\n{notice.text}",
        "data": data,
    }
    body, now = json.dumps(content).encode(), int(time.time())
    headers = {
        "content-type": "application/json",
        "webhook-id": _message_id(notice),
        "webhook-timestamp": str(now),
        "webhook-signature": signature(settings.OPS_ALERT_WEBHOOK_SECRET, _message_id(notice), now, body),
    }
    try:
        answer = httpx2.post(
            settings.OPS_ALERT_WEBHOOK_URL, content=body, headers=headers, timeout=WEBHOOK_TIMEOUT_S
        )
    except httpx2.InvalidURL:
        # What is wrong with it would quote it, and addresses of chat tools are secrets.
        problem = "The alert webhook could not be sent: OPS_ALERT_WEBHOOK_URL is no address."
        raise _not_posted(pk, AlertNotTaken(problem)) from None
    except httpx2.HTTPError as error:
        raise _not_posted(pk, AlertNotTaken(f"The alert webhook could not be sent: {error}")) from error
    if answer.status_code >= 500 or answer.status_code in WORTH_ANOTHER_TRY:
        raise _not_posted(pk, AlertNotTaken(f"The alert webhook was answered {answer.status_code}."))
    if not answer.is_success:
        raise _not_posted(pk, AlertRefused(f"The alert webhook was refused: {answer.status_code}."))
    OpsAlertNotice.objects.filter(pk=pk).update(posted_at=timezone.now(), error="")


def _not_posted(pk: int, error: Exception) -> Exception:
    OpsAlertNotice.objects.filter(pk=pk).update(error=str(error))
    return error


def _message_id(notice: OpsAlertNotice) -> str:
    return f"alert-{notice.alert_id}-{notice.part}-{notice.at:%Y%m%d%H%M%S}"
