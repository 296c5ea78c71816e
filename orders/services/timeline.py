"""Everything that happened to an order, from all its books, as one story: oldest first, newest last.

The number of queries does not depend on how much has happened.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import groupby
from typing import Any

from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from orders.models import Mail, Order, OrderEvent, SagaStep
from orders.words import by, moment, named, said
from orders.words import day as in_words
from orders.workflows.types import Step
from payments.gateways.base import EventType
from payments.models import OutgoingTransfer, PaymentEvent, ReviewItem, WebhookDelivery
from shop.kernel.models import ActRequest, OutboxMessage
from shop.kernel.money import Money

STEPS = {
    "inventory": (_("Stock reserved"), _("Reserving stock"), _("Stock released")),
    "payment_hold": (_("Payment opened"), _("Opening the payment"), _("Authorization released")),
    "payment_captured": (_("Payment captured"), _("Capturing the payment"), _("Payment refunded")),
    "shipping": (_("Handed to the carrier"), _("Handing to the carrier"), _("Shipment called back")),
    "confirmation": (_("Confirmation sent"), _("Sending the confirmation"), ""),
}
# Titles of money that goes back, by type and outcome; other events are named by their type.
GOING_BACK = {
    ("refund", "requested"): _("Refund of {money} asked for"),
    ("refund", "succeeded"): _("{money} refunded"),
    ("refund", "failed"): _("Refund of {money} failed"),
    ("refund_reversal", "succeeded"): _("Refund of {money} came back"),
    ("chargeback", "succeeded"): _("{money} taken back by the customer’s bank"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. `kind` is staff, request, step, rollback, payment, review, transfer, mail or
    webhook.

    `state` is a code for its outcome (succeeded, failed, queued, delivered, sent …), empty where there is
    none, and `words` says it. `pk` is that of the row behind it; `parts` are the undos of a rollback, in the order
    undone. `raw` is what the books have of it word by word, and `id` stays the same for the same thing.
    """

    at: datetime
    kind: str
    title: str
    state: str = ""
    words: str = ""
    actor: str = ""
    text: str = ""
    reference: str = ""
    attempt: int = 0
    seconds: float | None = None
    pk: int = 0
    parts: list[Entry] = field(default_factory=list)
    id: str = ""
    raw: list[tuple[str, str]] = field(default_factory=list)
    body: str = ""  # a text of several lines


def timeline(order: Order) -> list[Entry]:
    """The story of an order, all attempts together."""
    steps = list(SagaStep.objects.filter(saga__order=order).select_related("saga").order_by("id"))
    payments = list(
        PaymentEvent.objects.filter(payment__saga__order=order)
        .select_related("payment", "payment__saga")
        .order_by("id")
    )
    entries = [
        *map(_staff, order.events.select_related("message").order_by("id")),
        *(_step(row) for row in steps if row.kind == SagaStep.Kind.ACTION),
        *_rollbacks(row for row in steps if row.kind == SagaStep.Kind.COMPENSATION),
        *map(_payment, payments),
        *map(
            _mail, Mail.objects.filter(saga__order=order).select_related("saga").defer("html").order_by("id")
        ),
        *_webhooks(order),
        *map(_review, ReviewItem.objects.filter(merchant_reference=order.number).order_by("id")),
        *_second_person(order),
        *map(_transfer, OutgoingTransfer.objects.filter(payment__saga__order=order).order_by("id")),
    ]
    return sorted(entries, key=lambda entry: entry.at)


# --- what people did -------------------------------------------------------------------------------------


def _staff(event: OrderEvent) -> Entry:
    message = event.message
    return Entry(
        at=event.at,
        kind="staff",
        title=_capitalized(event.get_kind_display()),
        state=message.state if message else "",
        words=message.get_state_display() if message else "",
        actor=by(event.actor),
        text=" ".join(filter(None, (said(event.reason), _details(event.data), _trouble(message)))),
        attempt=event.data.get("attempt", 0),
        pk=event.pk,
        id=f"staff-{event.pk}",
        raw=_raw(event.data)
        + (_raw({"message": message.message_id, "workflow": message.workflow_id}) if message else []),
    )


_RAW = {
    "Message-ID": _("Message-ID"),
    "attempt": _("attempt"),
    "amount": _("amount"),
    "currency": _("currency"),
    "received_on": _("received on"),
    "bank_reference": _("bank reference"),
    "before": _("before"),
    "after": _("after"),
    "tracking_number": _("tracking number"),
    "dead_letter": _("dead letter"),
    "evidence": _("evidence"),
    "form_id": _("form id"),
    "authorized_until": _("authorized until"),
    "erasure": _("erasure"),
    "message": _("message"),
    "workflow": _("workflow"),
    "step": _("step"),
    "kind": _("kind"),
    "outcome": _("outcome"),
    "try": _("try"),
    "idempotency_key": _("idempotency key"),
    "rollback_run": _("rollback run"),
    "started": _("started"),
    "ended": _("ended"),
    "gateway": _("gateway"),
    "type": _("type"),
    "payment": _("payment"),
    "source": _("source"),
    "raw_id": _("raw id"),
    "occurred": _("occurred"),
    "to": _("to"),
    "tries": _("tries"),
}


def _raw(values: dict[str, Any]) -> list[tuple[str, str]]:
    """What there is of them, as text."""
    return [
        (
            str(_RAW.get(name) or name.replace("_", " ")),
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
        )
        for name, value in values.items()
        if value not in ("", None)
    ]


def _second_person(order: Order) -> Iterator[Entry]:
    """What was asked of a second person, and what came of it."""
    requests = ActRequest.objects.filter(order_number=order.number).select_related("asked_by", "decided_by")
    for asked in requests.order_by("id"):
        who = asked.asked_by.get_username()
        yield Entry(
            at=asked.asked_at,
            kind="request",
            title=gettext("A second person is asked"),
            actor=who,
            text=" ".join(filter(None, (asked.what, asked.reason))),
            pk=asked.pk,
        )
        if asked.decided_at is not None:
            yield Entry(
                at=asked.decided_at,
                kind="request",
                title=gettext("Request: {state}").format(state=asked.get_state_display()),
                actor=asked.decided_by.get_username() if asked.decided_by else by("shop"),
                text=gettext("{what} {outcome} (Asked for by {who}.)").format(
                    what=asked.what, outcome=asked.outcome, who=who
                ),
                pk=asked.pk,
            )


def _trouble(message: OutboxMessage | None) -> str:
    return f"({message.last_error})" if message and message.last_error and not message.delivered_at else ""


def _details(data: dict[str, Any]) -> str:
    parts = []
    if "amount" in data:
        parts.append(
            gettext("{money}, received on {day}").format(
                money=Money(data["amount"], data["currency"]).format(),
                day=in_words(date.fromisoformat(data["received_on"])),
            )
        )
    if data.get("bank_reference"):
        parts.append(gettext("bank reference {reference}").format(reference=data["bank_reference"]))
    if "before" in data:
        parts.append(
            gettext("from {before} to {after}").format(
                before=_minute(data["before"]), after=_minute(data["after"])
            )
        )
    if "tracking_number" in data:
        parts.append(str(data["tracking_number"]))
    if "step" in data:
        parts.append(gettext("undo of {step}").format(step=named(data["step"])))
    if "evidence" in data:
        parts.append(gettext("evidence: {evidence}").format(evidence=data["evidence"]))
    return f"[{'; '.join(parts)}]" if parts else ""


def _minute(text: str) -> str:
    return moment(datetime.fromisoformat(text))


# --- what the saga did -----------------------------------------------------------------------------------


def _step(row: SagaStep) -> Entry:
    done, trying, undone = STEPS.get(row.step, (row.step, row.step, row.step))
    failed = row.outcome == SagaStep.Outcome.FAILED
    if row.kind == SagaStep.Kind.COMPENSATION:
        undo = gettext("Undo of {step}").format(step=named(row.step))
        title = str(undone) if row.outcome == "succeeded" else undo
    else:
        title = str(trying if failed else done)
    if row.attempt > 1 or failed:
        title = gettext("{title} (try {number})").format(title=title, number=row.attempt)
    return Entry(
        at=row.at,
        kind="step",
        title=title,
        state=row.outcome,
        words=row.get_outcome_display(),
        actor=by(row.actor),
        text=said(row.error),
        reference=_pieces(row.reference) if row.step == Step.INVENTORY else row.reference,
        attempt=row.saga.attempt,
        seconds=(row.at - row.started_at).total_seconds(),
        pk=row.pk,
        id=f"step-{row.pk}",
        raw=_raw(
            {
                "step": named(row.step),
                "kind": row.get_kind_display(),
                "outcome": row.get_outcome_display(),
                "try": row.attempt,
                "idempotency_key": row.idempotency_key,
                "rollback_run": row.rollback_run,
                "started": row.started_at.isoformat(),
                "ended": row.at.isoformat(),
            }
        ),
    )


def _pieces(stored: str) -> str:
    """How many were reserved or released: `3 pieces`, in the reader's language."""
    count = stored.partition(" ")[0]
    return ngettext("{n} piece", "{n} pieces", int(count)).format(n=count) if count.isdigit() else stored


def _rollbacks(rows: Iterable[SagaStep]) -> Iterator[Entry]:
    """One entry for each run, with its undos in the order undone: last step first."""
    by_run = sorted(rows, key=lambda row: (row.saga_id, row.rollback_run, row.pk))
    for _key, group in groupby(by_run, key=lambda row: (row.saga_id, row.rollback_run)):
        run = list(group)
        # The last word on each step: a retry may have succeeded.
        last = {row.step: row.outcome for row in run}.values()
        failed = sum(outcome == SagaStep.Outcome.FAILED for outcome in last)
        undone = sum(outcome == SagaStep.Outcome.SUCCEEDED for outcome in last)
        numbers = (
            (undone, gettext("{n} undone")),
            (len(last) - undone - failed, gettext("{n} with nothing to undo")),
            (failed, gettext("{n} not undone")),
        )
        counts = ", ".join(words.format(n=number) for number, words in numbers if number)
        outcome = SagaStep.Outcome.FAILED if failed else SagaStep.Outcome.SUCCEEDED
        yield Entry(
            at=run[0].started_at,
            kind="rollback",
            title=gettext("Rolled back, newest step first"),
            state=outcome,
            words=str(outcome.label),
            text=f"{said(run[0].saga.reason)} ({counts})",
            attempt=run[0].saga.attempt,
            seconds=(run[-1].at - run[0].started_at).total_seconds(),
            parts=[_step(row) for row in run],
            id=f"run-{run[0].pk}",
        )


# --- money, mails, webhooks ------------------------------------------------------------------------------


def _payment(event: PaymentEvent) -> Entry:
    day = event.occurred_at.date()
    dated = gettext("Dated {day}.").format(day=in_words(day)) if day != event.recorded_at.date() else ""
    # A receipt that staff confirmed is told once more, with their reason, as what they did.
    told = "" if event.source == "staff" and event.type == EventType.RECEIPT else said(event.detail)
    return Entry(
        at=event.recorded_at,
        kind="payment",
        title=_named(event),
        state=event.outcome,
        words=named(event.outcome),
        actor=by(event.actor) or named(event.source),
        text=" · ".join(filter(None, (told, dated))),
        reference=event.psp_reference,
        attempt=event.payment.saga.attempt,
        pk=event.payment_id,
        id=f"payment-{event.pk}",
        raw=_raw(
            {
                "gateway": named(event.gateway),
                "type": named(event.type),
                "outcome": named(event.outcome),
                "amount": f"{event.amount} {event.currency}",
                "payment": event.payment.reference,
                "source": named(event.source),
                "raw_id": event.raw_id,
                "occurred": event.occurred_at.isoformat(),
            }
        ),
    )


def _named(event: PaymentEvent) -> str:
    if event.amount < 0 and event.type == EventType.RECEIPT:
        return gettext("{money} no longer counted as received").format(money=-event.money)
    if event.type == EventType.AUTHORIZATION_ADJUSTMENT and event.source == "staff":
        return gettext("Accepted as full payment, {money} short").format(money=-event.money)
    going_back = GOING_BACK.get((event.type, event.outcome))
    if going_back is None:
        return f"{_capitalized(named(event.type))} {event.money}"
    return str(going_back).format(money=event.money)


def _review(item: ReviewItem) -> Entry:
    money = f": {Money(item.amount, item.currency).format()}" if item.amount is not None else ""
    about = gettext("For review, {reason}").format(reason=item.get_reason_display())
    return Entry(
        at=item.created_at,
        kind="review",
        title=f"{about}{money}",
        state=item.state,
        words=item.get_state_display(),
        text=" ".join(filter(None, (said(item.detail), said(item.resolution)))),
        actor=by(item.resolved_by),
        pk=item.pk,
        id=f"review-{item.pk}",
    )


def _transfer(transfer: OutgoingTransfer) -> Entry:
    return Entry(
        at=transfer.created_at,
        kind="transfer",
        title=gettext("Transfer of {money} to the customer").format(money=transfer.money.format()),
        state=transfer.state,
        words=transfer.get_state_display(),
        actor=by(transfer.requested_by),
        reference=transfer.end_to_end_id,
        pk=transfer.pk,
        id=f"transfer-{transfer.pk}",
    )


def _mail(mail: Mail) -> Entry:
    return Entry(
        at=mail.sent_at or mail.created_at,
        kind="mail",
        title=gettext("Mail: {subject}").format(subject=mail.subject),
        state=mail.state,
        words=mail.get_state_display(),
        actor=gettext("to {recipient}").format(recipient=mail.recipient),
        text=mail.error,
        attempt=mail.saga.attempt,
        pk=mail.pk,
        id=f"mail-{mail.pk}",
        raw=_raw({"Message-ID": mail.message_id, "to": mail.recipient, "tries": mail.attempts}),
        body=mail.text,
    )


def _webhooks(order: Order) -> Iterator[Entry]:
    deliveries = WebhookDelivery.objects.filter(
        gateway=order.payment_method,
        payment_reference__in=order.sagas.exclude(payment__reference="").values("payment__reference"),
    ).defer("body", "headers")
    for delivery in deliveries.order_by("id"):
        told = ", ".join(f"{named(event['type'])} {named(event['outcome'])}" for event in delivery.events)
        yield Entry(
            at=delivery.received_at,
            kind="webhook",
            title=gettext("Webhook: {events}").format(events=told) if told else "Webhook",
            state=delivery.state,
            words=delivery.get_state_display(),
            actor=named(delivery.gateway),
            text=said(delivery.error),
            reference=delivery.event_id,
            pk=delivery.pk,
            id=f"webhook-{delivery.pk}",
            body=json.dumps(delivery.events, indent=1, ensure_ascii=False) if delivery.events else "",
        )


def _capitalized(words: str) -> str:
    return words[:1].upper() + words[1:]
