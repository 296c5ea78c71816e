"""What people write about an order: the notes on it, and comments in its timeline. Both can name a colleague.

The notes are the one thing of an order that people may write over; the timeline keeps who did. `@name` in either
puts it before that colleague, until they say that they have seen it; by mail too, if they have an address.
"""

from __future__ import annotations

import re
import smtplib
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.core.mail import EmailMessage
from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from orders.models import Mention, Order, OrderEvent
from orders.services.mails import MailNotSent
from orders.workflows.types import TASK_QUEUE, MentionInput
from shop.kernel import outbox

# The letters of Django's usernames; a full stop at the end is the sentence's.
_NAMED = re.compile(r"(?<![\w@.+-])@([\w@.+-]*\w)")
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Written:
    """`told` are the names of those who are told, `unknown` those that nobody here has. `is_new`: not done before."""

    is_new: bool
    told: list[str]
    unknown: list[str]


@transaction.atomic
def change_notes(order_number: str, actor: str, notes: str) -> bool:
    """Write the notes down; false if they say that already. Who is named for the first time is told."""
    order = Order.objects.select_for_update().get(number=order_number)
    if order.notes == notes:
        return False
    before = named_in(order.notes)
    order.notes = notes
    order.save(update_fields=["notes"])
    event = OrderEvent.objects.create(
        order=order,
        kind=OrderEvent.Kind.NOTE,
        actor=actor,
        reason=notes or gettext_noop("The notes were emptied."),
    )
    _tell(event, named_in(notes) - before)
    return True


@transaction.atomic
def comment(order_number: str, actor: str, text: str, form_id: UUID) -> Written:
    """Add a comment to the order's timeline. The same form again adds nothing."""
    order = Order.objects.select_for_update().get(number=order_number)
    same = order.events.filter(kind=OrderEvent.Kind.COMMENT, data__form_id=str(form_id)).first()
    if same is not None:
        return Written(False, [], [])
    event = OrderEvent.objects.create(
        order=order, kind=OrderEvent.Kind.COMMENT, actor=actor, reason=text, data={"form_id": str(form_id)}
    )
    names = named_in(text)
    told = _tell(event, names)
    return Written(True, sorted(told), sorted(names - told))


def named_in(text: str) -> set[str]:
    """The names after an @; an e-mail address is none."""
    return set(_NAMED.findall(text))


def _tell(event: OrderEvent, names: set[str]) -> set[str]:
    """Those of the names whom somebody here has, and who may see orders."""
    people = User.objects.filter(username__in=names, is_active=True, is_staff=True)
    told = [person for person in people if person.has_perm("orders.view_order")]
    mentions = Mention.objects.bulk_create([Mention(event=event, person=person) for person in told])
    for mention in mentions:
        if mention.person.email and mention.person.username != event.actor:
            _queue_mail(mention)
    return {person.username for person in told}


# --- by mail, to those who have an address -----------------------------------------------------------------


def _queue_mail(mention: Mention) -> None:
    workflow_id = f"mention-mail-{mention.pk}"
    outbox.start_workflow(
        workflow_id,
        workflow_id,
        "MentionMailWorkflow",
        MentionInput(mention.pk),
        task_queue=TASK_QUEUE,
        summary="mail: mention",
    )


def mail(mention: int) -> bool:
    """Send it; false if it is seen meanwhile, or its person may read it no more.

    It says where, not what: comments tell of customers, and mailboxes forward. It may come twice; the Message-ID
    lets a mailbox drop the second. Raises `MailNotSent`.
    """
    row = Mention.objects.select_related("event__order", "person").filter(pk=mention).first()
    if row is None or row.seen_at or not (row.person.email and row.person.has_perm("orders.view_order")):
        return False
    order = row.event.order
    page = reverse("admin:orders_order_change", args=[order.pk])
    names = {"who": row.event.actor, "order": order.number}
    text = _("%(who)s mentioned you in what they wrote about %(order)s.") % names
    message = EmailMessage(
        f"[{settings.SHOP_NAME}] " + _("%(who)s mentioned you on %(order)s") % names,
        f"{text}\n\n{settings.SITE_URL}{page}\n",
        to=[row.person.email],
        headers={"Message-ID": f"<mention-{row.pk}@vorkasse>"},
    )
    try:
        message.send()
    except (smtplib.SMTPException, OSError):
        raise MailNotSent("The mail server did not take the mail about a mention.") from None
    return True


# --- who was named ---------------------------------------------------------------------------------------


def unseen_mentions(user: User | AnonymousUser) -> list[Mention]:
    """What names this person and was not seen by them, newest first."""
    unseen = Mention.objects.filter(person=user.pk, seen_at=None).select_related("event__order")
    return list(unseen[:SHOWN])


def seen(mention: int, user: User | AnonymousUser) -> bool:
    """The person has seen it; false if it is not theirs or was seen before."""
    mine = Mention.objects.filter(pk=mention, person=user.pk, seen_at=None)
    return bool(mine.update(seen_at=timezone.now()))
