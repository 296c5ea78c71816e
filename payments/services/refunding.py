"""Refunds that people ask for, of a part or all of what was captured.

The intention is written first, with the outbox message that has a workflow carry it out: no lock is held
while a provider is asked, and asking again is asking for the same. From then on the amount counts as given
back, until the provider has refused it.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Sum, Value
from django.db.models.functions import Coalesce, Concat
from django.utils import timezone
from django.utils.translation import gettext as _

from payments.gateways import gateway
from payments.gateways.base import EventOutcome, EventType, GatewayResult
from payments.models import Payment, PaymentEvent, ReviewItem
from payments.services import transfers
from payments.services.recording import absorb, intend_refund
from payments.services.review_items import closed_by, subject_of
from payments.signals import payment_refunded
from payments.workflows.refund import TASK_QUEUE, RefundInput
from shop.kernel import outbox, second_person
from shop.kernel.models import OutboxMessage
from shop.kernel.money import Money


class RefundRefused(Exception):
    """A refund is not possible; the message says why. `field`: what of the request it is about, if one thing."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class RefundAsked:
    """What came of it. `key` is the refund's idempotency key. `repeated`: it had been asked for before."""

    message: str
    key: str
    repeated: bool = False


def why_not_refund(payment: Payment) -> str:
    """Why nothing of the payment can be refunded now; empty if something can."""
    totals = payment.totals()
    if not totals.captured:
        nothing = _("Nothing has been captured, so there is nothing to refund.")
        if totals.received > 0 and payment.gateway == transfers.BANK_TRANSFER:
            return " ".join((nothing, _("What has come in can be paid back from the payment's page.")))
        return nothing
    if totals.kept <= 0:
        return _("All that was captured is refunded, or on its way back.")
    return ""


@transaction.atomic
def refund(
    payment_pk: int,
    amount: int,
    actor: str,
    reason: str,
    form_id: str,
    *,
    beyond_limit: bool = False,
    seen: int | None = None,
) -> RefundAsked:
    """Have `amount` (minor units) of what was captured sent back to the customer.

    `form_id` tells a double click from a second refund. `beyond_limit`: the actor may refund more than
    `REFUND_LIMIT` at once. `seen`: what could be refunded as the actor saw it; another refund made meanwhile is
    told, not doubled. Raises `RefundRefused`.
    """
    payment = Payment.objects.select_for_update().get(pk=payment_pk)
    key = f"{payment.pk}-{form_id}"
    money = Money(amount, payment.currency)
    earlier = _request(key).first()
    if earlier is not None:
        if earlier.amount != amount:
            raise RefundRefused(
                _("This form has been used to refund %(money)s. Start anew.")
                % {"money": earlier.money.format()}
            )
        return RefundAsked(_("This refund was asked for before; nothing was done again."), key, repeated=True)
    if not reason.strip():
        raise RefundRefused(_("Say why the money is refunded."), "reason")
    if amount <= 0:
        raise RefundRefused(_("The amount must be more than zero."), "amount")
    if why_not := why_not_refund(payment):
        raise RefundRefused(why_not)
    left = Money(payment.totals().kept, payment.currency)
    if amount > left.amount:
        raise RefundRefused(
            _("%(money)s are more than the %(left)s that can be refunded.")
            % {"money": money.format(), "left": left.format()},
            "amount",
        )
    if seen is not None and seen != left.amount:
        raise RefundRefused(
            _("Something was refunded meanwhile: %(left)s can be refunded now. Look again, then send it.")
            % {"left": left.format()}
        )
    check_limit(money, beyond_limit=beyond_limit)
    if amount < payment.totals().captured and not gateway(payment.gateway).capabilities.partial_refund:
        raise RefundRefused(_("This payment method refunds the whole amount or nothing."), "amount")
    second_person.demand(
        money,
        act="refund",
        subject=f"payment/{payment.pk}",
        what=_("Refund %(money)s of %(number)s.")
        % {"money": money.format(), "number": payment.merchant_reference},
        reason=reason,
        standing=left.amount,
        order_number=payment.merchant_reference,
    )
    intend_refund(payment, amount, key, actor=actor, reason=reason.strip())
    if amount == left.amount:
        second_person.lapse(
            [f"payment/{payment.pk}"], _("%(actor)s has refunded all of it.") % {"actor": actor}
        )
    _queue(payment, key)
    return RefundAsked(_("%(money)s are being refunded.") % {"money": money.format()}, key)


def check_limit(money: Money, *, beyond_limit: bool) -> None:
    """Raises `RefundRefused` above `REFUND_LIMIT`, unless the actor may go beyond it."""
    if settings.REFUND_LIMIT and money.amount > settings.REFUND_LIMIT and not beyond_limit:
        limit = Money(settings.REFUND_LIMIT, money.currency)
        raise RefundRefused(
            _("You may send back up to %(limit)s at once. Ask someone who may more.") % {"limit": limit},
            "amount",
        )


def failed_refunds(payment: Payment) -> list[ReviewItem]:
    """What a person still has to decide about the payment's refunds, the oldest first."""
    wanted = ReviewItem.objects.filter(
        payment=payment, reason=ReviewItem.Reason.REFUND_FAILED, state=ReviewItem.State.OPEN
    )
    return list(wanted.order_by("id"))


def unclear_refunds(payment: Payment) -> list[PaymentEvent]:
    """The requests of which nobody knows whether the provider did them: those that can be tried again."""
    keys = {item.key.removeprefix(_review_key("")) for item in failed_refunds(payment)}
    refunds = PaymentEvent.objects.filter(payment=payment, type=EventType.REFUND.value)
    refused = set(refunds.filter(outcome=EventOutcome.FAILED.value).values_list("psp_reference", flat=True))
    asked = refunds.filter(psp_reference__in=keys, outcome=EventOutcome.REQUESTED.value).order_by("id")
    return [request for request in asked if _failed_reference(request) not in refused]


def why_not_try_again(payment: Payment) -> str:
    """Why no refund of the payment can be tried again; empty if one can."""
    return "" if unclear_refunds(payment) else _("There is no refund whose outcome is unknown.")


@transaction.atomic
def try_again(key: str, actor: str) -> RefundAsked:
    """Ask again for a refund of which nobody knows whether the provider did it. Raises `RefundRefused`."""
    request = _request(key).select_related("payment").first()
    if request is None:
        raise RefundRefused(_("There is no such refund."))
    Payment.objects.select_for_update().get(pk=request.payment_id)
    item = ReviewItem.objects.filter(key=_review_key(key), state=ReviewItem.State.OPEN).first()
    if item is None:
        return RefundAsked(_("It is on its way already."), key, repeated=True)
    if _failed(request).exists():
        raise RefundRefused(_("The provider has refused this refund: ask for a new one."))
    _close(item, actor, _("It is tried again."))
    _queue(request.payment, key)
    return RefundAsked(_("The refund is tried again."), key)


# --- those that nobody carries out any more ---------------------------------------------------------------


def workflow_id(key: str) -> str:
    return f"refund-{key}"


def unanswered() -> list[PaymentEvent]:
    """The refunds that people asked for, of payments of which not all refunds are answered; the oldest first.

    Without those that a person has to decide about, that the provider has refused, or whose workflow is yet to start.
    """
    refunds = PaymentEvent.objects.filter(type=EventType.REFUND.value)
    asked = Q(outcome=EventOutcome.REQUESTED.value)
    open_payments = (
        refunds.values("payment")
        .annotate(asked=Sum("amount", filter=asked), answered=Coalesce(Sum("amount", filter=~asked), 0))
        .filter(asked__gt=F("answered"))
    )
    started = OutboxMessage.objects.filter(
        workflow_id=Concat(Value(workflow_id("")), OuterRef("psp_reference"))
    )
    decided = ReviewItem.objects.filter(
        key=Concat(Value(_review_key("")), OuterRef("psp_reference")), state=ReviewItem.State.OPEN
    )
    refused = refunds.filter(
        gateway=OuterRef("gateway"),
        psp_reference=Concat(OuterRef("psp_reference"), Value("/failed")),
        outcome=EventOutcome.FAILED.value,
    )
    queued = started.filter(state=OutboxMessage.State.QUEUED)
    wanted = refunds.filter(asked, Exists(started), ~Exists(queued), ~Exists(decided), ~Exists(refused))
    in_question = wanted.filter(payment__in=open_payments.values("payment"))
    return list(in_question.select_related("payment").order_by("id"))


@transaction.atomic
def start_again(key: str) -> bool:
    """Have a refund carried out whose workflow is gone, under the same key; whether that was needed."""
    payment_pk = _request(key).values_list("payment_id", flat=True).get()
    payment = Payment.objects.select_for_update().get(pk=payment_pk)
    messages = OutboxMessage.objects.filter(workflow_id=workflow_id(key))
    queued = messages.filter(state=OutboxMessage.State.QUEUED).exists()
    if queued or not payment.totals().refund_requested:
        return False
    _queue(payment, key)
    return True


# --- carrying it out, for the workflow -------------------------------------------------------------------


def perform(key: str) -> str:
    """Ask the provider for the refund under `key`, and announce it; returns the provider's reference.

    Done again it is the same refund. Raises `GatewayError`.
    """
    request = _request(key).select_related("payment").first()
    if request is None:
        raise RefundRefused(_("No refund was asked for under %(key)s.") % {"key": key})
    provider = gateway(request.payment.gateway)

    def ask() -> GatewayResult:
        return provider.refund(request.payment.reference, request.money, key)

    # A gateway of our own is part of the transaction; a provider is asked before it, with nothing locked.
    answer = ask() if provider.capabilities.remote else None
    with transaction.atomic():
        payment = Payment.objects.select_for_update().get(pk=request.payment_id)
        answer = answer or ask()
        absorb(payment, answer.payment, source="call")
        payment_refunded.send(
            Payment,
            payment=payment,
            money=request.money,
            about=f"refund-{request.pk}",
            needs_account=transfers.needs_account(key),
        )
    return answer.reference


@transaction.atomic
def give_up(key: str, error: str, *, refused: bool) -> None:
    """The refund has failed for good: a person is told. `refused`: by the provider, so no money has moved."""
    request = _request(key).select_related("payment").get()
    payment = Payment.objects.select_for_update().get(pk=request.payment_id)
    if refused:
        PaymentEvent.objects.get_or_create(
            gateway=payment.gateway,
            psp_reference=_failed_reference(request),
            type=EventType.REFUND.value,
            defaults={
                "payment": payment,
                "outcome": EventOutcome.FAILED.value,
                "amount": request.amount,
                "currency": request.currency,
                "occurred_at": timezone.now(),
                "source": "call",
                "detail": error,
            },
        )
        what = _("%(money)s could not be refunded: %(error)s") % {
            "money": request.money.format(),
            "error": error,
        }
    else:
        what = _(
            "Nobody knows whether %(money)s were refunded: %(error)s Try it again; the same refund "
            "is never made twice."
        ) % {"money": request.money.format(), "error": error}
    ReviewItem.objects.update_or_create(
        key=_review_key(key),
        defaults={
            "reason": ReviewItem.Reason.REFUND_FAILED,
            "merchant_reference": payment.merchant_reference,
            "payment": payment,
            "amount": request.amount,
            "currency": request.currency,
            "detail": what,
            "state": ReviewItem.State.OPEN,
        },
    )


# --- pieces ----------------------------------------------------------------------------------------------


def _queue(payment: Payment, key: str) -> OutboxMessage:
    workflow = workflow_id(key)
    tries = OutboxMessage.objects.filter(workflow_id=workflow).count()
    return outbox.start_workflow(
        f"{workflow}/{tries + 1}",
        workflow,
        "RefundWorkflow",
        RefundInput(key),
        task_queue=TASK_QUEUE,
        summary=f"{payment.merchant_reference}: refund",
        order_number=payment.merchant_reference,
    )


def _request(key: str) -> QuerySet[PaymentEvent]:
    return PaymentEvent.objects.filter(
        psp_reference=key, type=EventType.REFUND.value, outcome=EventOutcome.REQUESTED.value
    )


def _failed(request: PaymentEvent) -> QuerySet[PaymentEvent]:
    return PaymentEvent.objects.filter(
        gateway=request.gateway, psp_reference=_failed_reference(request), type=EventType.REFUND.value
    )


def _failed_reference(request: PaymentEvent) -> str:
    # The request itself has the key; an event is unique by reference and type.
    return f"{request.psp_reference}/failed"


def _review_key(key: str) -> str:
    return f"refund:{key}"


def _close(item: ReviewItem, actor: str, resolution: str) -> None:
    item.state, item.resolution = ReviewItem.State.CLOSED, resolution
    item.resolved_by, item.resolved_at = actor, timezone.now()
    item.save(update_fields=["state", "resolution", "resolved_by", "resolved_at"])
    second_person.lapse([subject_of(item.pk)], closed_by(actor, resolution))
