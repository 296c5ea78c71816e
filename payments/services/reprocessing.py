"""What people do with webhooks that did not work out. Each time is written down: who, when, what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import transaction
from django.utils.translation import gettext as _

from payments.gateways.base import GatewayError, WebhookRejected
from payments.models import ReviewItem, WebhookDelivery, WebhookReprocessing
from payments.services import bookings, strays, unfit, webhooks
from payments.services.review_items import subject_of
from shop.kernel import second_person
from shop.kernel.money import Money

State = WebhookDelivery.State


class NotProcessed(Exception):
    """The webhook is where it was; the message says why."""


@dataclass(frozen=True, slots=True)
class Reprocessed:
    """What came of it. `repeated`: it had been processed before, and nothing was new."""

    message: str
    repeated: bool = False


# --- a webhook -------------------------------------------------------------------------------------------


def reprocess(pk: int, actor: str) -> Reprocessed:
    """Process a stored webhook again; one whose signature has never held is verified by the secrets in force now.

    Raises `NotProcessed` if it is rejected again, or its payment is still unknown.
    """
    delivery = WebhookDelivery.objects.get(pk=pk)
    try:
        with transaction.atomic():
            taken = webhooks.take(delivery)
            unfit.close(delivery, actor, taken.message)
            _write_down(delivery, actor, taken.message)
    except GatewayError as error:
        with transaction.atomic():
            delivery = WebhookDelivery.objects.select_for_update().get(pk=pk)
            # What was processed before stays so, whatever has become of the secrets.
            if isinstance(error, WebhookRejected) and delivery.state in (State.RECEIVED, State.REJECTED):
                webhooks.reject(delivery, error)
            _write_down(delivery, actor, str(error))
        raise NotProcessed(str(error)) from error
    if delivery.state in WebhookDelivery.STRAY:
        raise NotProcessed(taken.message)
    return Reprocessed(taken.message, repeated=not taken.new)


def settle(pk: int, actor: str) -> bool:
    """Process an old webhook again; if its payment is still unknown, a person decides. Whether anything was done."""
    try:
        reprocess(pk, actor)
    except NotProcessed:
        with transaction.atomic():
            delivery = WebhookDelivery.objects.select_for_update().get(pk=pk)
            if delivery.state == State.WAITING:
                strays.review(delivery.gateway, delivery.payment_reference)
            return delivery.state in (State.WAITING, State.REJECTED)
    return True


def _write_down(delivery: WebhookDelivery, actor: str, result: str) -> None:
    WebhookReprocessing.objects.create(delivery=delivery, actor=actor, state=delivery.state, result=result)


# --- an unknown payment ----------------------------------------------------------------------------------


def why_not_decide(item: ReviewItem) -> str:
    """Why its webhooks can be neither processed again nor discarded; empty if they can."""
    if item.webhook_id is None:
        return _("It is not about a webhook.")
    if item.reason == ReviewItem.Reason.UNFIT:
        return _("It is not about an unknown payment. Process the webhook again, or close the item.")
    if item.state == ReviewItem.State.CLOSED:
        return _closed_by(item)
    return ""


def retry(pk: int, actor: str) -> Reprocessed:
    """Look for the unknown payment again; with it all that waited for it is processed. Raises `NotProcessed`."""
    item, webhook = _of(pk)
    if item.state == ReviewItem.State.CLOSED:
        return Reprocessed(_closed_by(item), repeated=True)
    return reprocess(webhook.pk, actor)


@transaction.atomic
def discard(pk: int, actor: str, reason: str, *, seen: str = "") -> Reprocessed:
    """The unknown payment is none of ours, for the `reason` given. `seen`: the item's detail, as on the page."""
    if not reason.strip():
        raise NotProcessed(_("Say why the payment is none of the shop's."))
    _item, webhook = _of(pk)
    waiting = strays.waiting_for(webhook.gateway, webhook.payment_reference)
    deliveries = list(waiting.select_for_update().order_by("id"))
    item = ReviewItem.objects.select_for_update().get(pk=pk)
    if item.state == ReviewItem.State.CLOSED:
        return Reprocessed(_closed_by(item), repeated=True)
    if seen and seen != item.detail:
        raise NotProcessed(_("More has come in the meantime. Look at it again."))
    if item.amount is not None:
        money = Money(item.amount, item.currency)
        second_person.demand(
            money,
            act="discard",
            subject=subject_of(item.pk),
            what=_("Discard %(money)s of payment %(payment)s: it is none of the shop's.")
            % {"money": money, "payment": webhook.payment_reference},
            reason=reason,
            standing=item.amount,
            order_number=item.merchant_reference,
        )
    for delivery in deliveries:
        delivery.state, delivery.error = (
            State.DISCARDED,
            _("Discarded by %(actor)s: %(reason)s") % {"actor": actor, "reason": reason.strip()},
        )
        delivery.save(update_fields=["state", "error"])
    bookings.finish(item, actor, _("Discarded: %(reason)s") % {"reason": reason.strip()})
    return Reprocessed(
        _("What the webhooks tell of payment %(payment)s is discarded.")
        % {"payment": webhook.payment_reference}
    )


def _of(pk: int) -> tuple[ReviewItem, WebhookDelivery]:
    item = ReviewItem.objects.select_related("webhook").get(pk=pk)
    if item.webhook is None:
        raise NotProcessed(_("It is not about a webhook."))
    return item, item.webhook


def _closed_by(item: ReviewItem) -> str:
    return _("It was processed in the meantime by %s.") % item.resolved_by
