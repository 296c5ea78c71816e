"""What staff do with webhooks, and with payments that only webhooks know. The rules are in `reprocessing`."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _

from payments.models import ReviewItem, WebhookDelivery
from payments.services import reprocessing
from payments.services.reprocessing import NotProcessed, Reprocessed
from shop.kernel.admin.acting import Act, ActForm
from shop.kernel.forms import ReasonField

REPROCESS = "payments.reprocess_webhook"
State = WebhookDelivery.State

_WILL = {
    State.RECEIVED: _(
        "It was stored and never processed. It is verified, and booked if its signature holds."
    ),
    State.REJECTED: _("It is verified with the secrets in force now, and booked if its signature holds."),
    State.WAITING: _("Its payment is looked for again."),
    State.DISCARDED: _("Its payment is looked for again."),
    State.PROCESSED: _("It was processed. What is in the books already is not booked twice."),
}


class Reprocess(Act):
    """On a webhook's page, and for many at once."""

    slug = "reprocess"
    label = _("Process again")
    permission = REPROCESS
    refusals = (NotProcessed,)
    follows = _(
        "A webhook counts only if its signature holds and it was not too old when it came in. "
        "Who had it processed again, and what came of it, is written down."
    )

    def will(self, subject: WebhookDelivery) -> str:
        return str(_WILL[State(subject.state)])

    def do(self, subject: WebhookDelivery, data: dict[str, Any], actor: str, seen: str) -> Reprocessed:
        return reprocessing.reprocess(subject.pk, actor)


class Retry(Act):
    """The same from the review item about its payment."""

    slug = "webhook-again"
    label = _("Look for the payment again")
    permission = REPROCESS
    refusals = (NotProcessed,)
    follows = _(
        "If the payment is known by now, all that webhooks have told of it is booked, and the item closes."
    )

    def why_not(self, subject: ReviewItem) -> str:
        return reprocessing.why_not_decide(subject)

    def will(self, subject: ReviewItem) -> str:
        return subject.detail

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Reprocessed:
        return reprocessing.retry(subject.pk, actor)


class DiscardForm(ActForm):
    reason = ReasonField(label=_("Reason"))


class Discard(Act):
    """For payments of another shop, or of a test, that share the provider's account."""

    slug = "webhook-discard"
    label = _("Discard the webhooks")
    may_take_two = True
    permission = "payments.discard_money"
    form = DiscardForm
    dangerous = True
    refusals = (NotProcessed,)
    follows = _(
        "Nothing is sent back: the payment stays at the provider as it is. If it becomes known "
        "here after all, it is booked all the same."
    )

    def why_not(self, subject: ReviewItem) -> str:
        return reprocessing.why_not_decide(subject)

    def will(self, subject: ReviewItem) -> str:
        return subject.detail

    def seen(self, subject: ReviewItem) -> str:
        return subject.detail

    def do(self, subject: ReviewItem, data: dict[str, Any], actor: str, seen: str) -> Reprocessed:
        return reprocessing.discard(subject.pk, actor, data["reason"], seen=seen)


DELIVERY_ACTS = (Reprocess(),)
STRAY_ACTS = (Retry(), Discard())
