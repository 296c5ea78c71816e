"""Answers of a provider that the books have no room for: an id or a number that is too long, a text with a NUL.

One of them must not keep the others of its page from the books, again and again. It is kept as webhooks are,
whole, and a person decides. A later version with room for it can process it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from django.db import DataError, transaction

from payments.gateways.base import GatewayEvent
from payments.models import Payment, ReviewItem, WebhookDelivery
from payments.services.review_items import close_all

State = WebhookDelivery.State

T = TypeVar("T")
R = TypeVar("R")

_ID = "unfit/"
_ROOM = 120  # of `WebhookDelivery.payment_reference`


def write_all_but(
    unfit: Callable[[T, str], None], write: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]
) -> list[R]:
    """Write all items, and hand those that the database refuses to `unfit`, with what it says about them.

    They are found by halves, so one among many costs some tries and not one for each. Inside a transaction.
    """
    try:
        with transaction.atomic():
            return list(write(items))
    except DataError as error:
        if len(items) == 1:
            unfit(items[0], str(error).strip())
            return []
    half = len(items) // 2
    return [*write_all_but(unfit, write, items[:half]), *write_all_but(unfit, write, items[half:])]


def keep(gateway: str, event: GatewayEvent, why: str) -> None:
    """Keep an event that cannot be written, once, and have a person decide about it."""
    body = json.dumps(event.to_json(), sort_keys=True).encode()
    name = _ID + hashlib.sha256(body).hexdigest()
    reference = _shown(event.payment_reference)
    delivery, is_new = WebhookDelivery.objects.get_or_create(
        gateway=gateway,
        event_id=name,
        defaults={
            "payment_reference": reference if len(reference) <= _ROOM else "",
            "body": body,
            "state": State.REJECTED,
            "error": f"Told by the provider when it was asked, and not to be stored: {why}",
        },
    )
    if not is_new:
        return
    payment = Payment.objects.filter(gateway=gateway, reference=reference).exclude(reference="").first()
    ReviewItem.objects.create(
        key=f"{gateway}:{name}",
        reason=ReviewItem.Reason.UNFIT,
        payment=payment,
        merchant_reference=payment.merchant_reference if payment else "",
        webhook=delivery,
        detail=(
            f"{gateway} tells of payment {reference[:_ROOM]} ({event.type} of {event.money}, {event.outcome}), "
            f"and it cannot be stored: {why} Nothing of it is in the books; look at the provider's own pages."
        ),
    )


def is_ours(delivery: WebhookDelivery) -> bool:
    """Whether it was kept here, and not sent to us: there is no signature to verify."""
    return delivery.event_id.startswith(_ID) and not delivery.headers


def read(delivery: WebhookDelivery) -> list[GatewayEvent]:
    return [GatewayEvent.from_json(json.loads(bytes(delivery.body)))]


def close(delivery: WebhookDelivery, actor: str, message: str) -> None:
    """Nothing is left to decide about one that could be processed after all."""
    if is_ours(delivery) and delivery.state not in (State.RECEIVED, State.REJECTED):
        unfit = ReviewItem.objects.filter(webhook=delivery, reason=ReviewItem.Reason.UNFIT)
        close_all(unfit, message, actor)


def _shown(text: str) -> str:
    """As PostgreSQL takes it."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
