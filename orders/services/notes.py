"""What people write about an order: the notes on it, and comments in its timeline. Both can name a colleague.

The notes are the one thing of an order that people may write over; the timeline keeps who did. `@name` in either
puts it before that colleague, until they say that they have seen it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

from django.contrib.auth.models import AnonymousUser, User
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_noop

from orders.models import Mention, Order, OrderEvent

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
    Mention.objects.bulk_create([Mention(event=event, person=person) for person in told])
    return {person.username for person in told}


# --- who was named ---------------------------------------------------------------------------------------


def unseen_mentions(user: User | AnonymousUser) -> list[Mention]:
    """What names this person and was not seen by them, newest first."""
    unseen = Mention.objects.filter(person=user.pk, seen_at=None).select_related("event__order")
    return list(unseen[:SHOWN])


def seen(mention: int, user: User | AnonymousUser) -> bool:
    """The person has seen it; false if it is not theirs or was seen before."""
    mine = Mention.objects.filter(pk=mention, person=user.pk, seen_at=None)
    return bool(mine.update(seen_at=timezone.now()))
