"""Messages that stayed behind: the outbox's to Temporal, and the providers' webhooks to us."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext_noop

from orders.models import Order
from orders.services.reconciling.finding import LONG, Finding, Look, Weight
from payments.models import WebhookDelivery
from payments.services import reprocessing, strays
from shop.kernel import outbox
from shop.kernel.models import OutboxMessage

AT_A_TIME = 500


def outgoing(look: Look) -> Iterator[Finding]:
    """Messages that have waited for Temporal for long."""
    queued = OutboxMessage.objects.filter(
        state=OutboxMessage.State.QUEUED, created_at__lt=timezone.now() - LONG
    ).order_by("id")
    if look.only:
        queued = queued.filter(message_id=look.only)
    for message in queued[:AT_A_TIME]:
        error = f" The last try: {message.last_error}" if message.last_error else " It was never tried."
        yield Finding(
            message.message_id,
            f"“{message.name}” for {message.workflow_id} has waited since "
            f"{message.created_at:%Y-%m-%d %H:%M} UTC.{error}",
            gettext_noop("Look whether a worker runs (it delivers), and whether Temporal answers."),
            Weight.WORK,
            Order.number_in(message.workflow_id),
            remedy=gettext_noop("it is delivered"),
            mend=partial(_deliver, look, message.pk),
        )


def _deliver(look: Look, pk: int) -> bool:
    """Those before it to the same workflow go first."""
    message = OutboxMessage.objects.filter(pk=pk, state=OutboxMessage.State.QUEUED)
    OutboxMessage.objects.filter(
        workflow_id__in=message.values("workflow_id"), state=OutboxMessage.State.QUEUED
    ).update(available_at=timezone.now())
    while message.exists():
        look.beat()
        if not outbox.deliver_batch(look.client, look.runner):
            return False
    return True


def webhooks(look: Look) -> Iterator[Finding]:
    """News of a payment that nobody here has opened, which for a while is only news that was too fast; and
    webhooks that were stored, and that something here kept from being processed."""
    old = timezone.now() - LONG
    for webhook in _each(strays.unseen().filter(received_at__lt=old), look):
        number = webhook.news[0].merchant_reference
        yield _left(
            webhook,
            f"A webhook of {webhook.gateway} tells of payment {webhook.payment_reference}, which is not in our books.",
            gettext_noop("it is processed again, or in review"),
            number,
        )
    stuck = WebhookDelivery.objects.filter(state=WebhookDelivery.State.RECEIVED, received_at__lt=old)
    for webhook in _each(stuck.defer("body", "headers"), look):
        yield _left(
            webhook,
            f"A webhook of {webhook.gateway} was stored and never processed.",
            gettext_noop("it is processed again"),
        )


def _left(webhook: WebhookDelivery, sentence: str, remedy: str, number: str = "") -> Finding:
    return Finding(
        f"webhook {webhook.pk}",
        sentence,
        gettext_noop("Have it processed again."),
        order_number=number,
        remedy=remedy,
        mend=partial(reprocessing.settle, webhook.pk, "reconcile"),
    )


def _each(webhooks: QuerySet[WebhookDelivery], look: Look) -> Iterator[WebhookDelivery]:
    if look.only:
        webhooks = webhooks.filter(pk=look.only.removeprefix("webhook "))
    after = 0
    while page := list(webhooks.filter(pk__gt=after).order_by("pk")[:AT_A_TIME]):
        look.beat()
        yield from page
        after = page[-1].pk
