"""The review of dead letters: they arrive, and people have them tried again, resolve them, or pass them on.

Each is one transaction under the order's lock, which guards its letters too, with a row that says who did what
and why. A form acts once on each letter (`key`), and only on what it showed (`seen`, the letter's version).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop, ngettext

from orders.carriers import carrier
from orders.carriers.base import CarrierMisconfigured
from orders.models import DeadLetter, DeadLetterAct, Order, OrderEvent, Saga, SagaStep
from orders.models.dead_letter import kind_of
from orders.services import alerting, ending
from orders.services.audit import lock_saga
from orders.services.lifecycle import Acted, ActionRefused
from orders.words import by, moment
from orders.workflows.types import TASK_QUEUE, Alert, FailedUndo, MailInput, RetryInput, Step
from payments.gateways import gateway
from payments.gateways.base import GatewayMisconfigured
from shop.kernel import outbox, second_person

State = DeadLetter.State
Verb = DeadLetterAct.Verb

LONGEST_SNOOZE = timedelta(days=30)


class ChangedMeanwhile(ActionRefused):
    """Somebody has done something to the letter since the page was loaded."""


# --- which of them ---------------------------------------------------------------------------------------


def awake(letters: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
    """The open ones that wait for a person now."""
    return letters.filter(Q(snoozed_until=None) | Q(snoozed_until__lte=timezone.now()), state=State.OPEN)


def snoozed(letters: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
    return letters.filter(state=State.OPEN, snoozed_until__gt=timezone.now())


def why_not_retry(letter: DeadLetter) -> str:
    if letter.state == State.RESOLVED:
        return _("It is resolved.")
    if letter.state == State.RETRYING and not letter.retry_is_lost:
        return _("It is being retried already.")
    return ""


def why_not_resolve(letter: DeadLetter) -> str:
    if letter.state == State.RESOLVED:
        return _("It is resolved.")
    if letter.state == State.RETRYING and not letter.retry_is_lost:
        return _("It is being retried: wait for what comes of it.")
    return ""


def why_not_snooze(letter: DeadLetter) -> str:
    return "" if letter.state == State.OPEN else _("It is {state}.").format(state=letter.get_state_display())


# --- they arrive -----------------------------------------------------------------------------------------


@transaction.atomic
def write(failed: FailedUndo) -> DeadLetter:
    """Keep an undo that failed for good, with all that is needed to try it again. Opens a retried one anew.

    Told twice, or late (the retry is not the latest, or a person has resolved it), it changes nothing.
    """
    saga = lock_saga(failed.order_number, failed.attempt)
    letter = saga.dead_letters.filter(step=failed.step).first()
    if letter is not None and not _is_news(letter, failed):
        return letter
    payment = saga.payment
    attempts = saga.steps.filter(step=failed.step, kind=SagaStep.Kind.COMPENSATION, outcome="failed")
    action = saga.steps.filter(step=failed.step, kind=SagaStep.Kind.ACTION, outcome="succeeded").first()
    money = failed.step in (Step.PAYMENT_HOLD, Step.PAYMENT_CAPTURED)
    if letter is None:
        letter = DeadLetter(
            saga=saga,
            step=failed.step,
            idempotency_key=f"{failed.order_number}/{failed.attempt}/{failed.step}/undo",
            amount=payment.amount if payment and money else 0,
            currency=saga.order.currency,
        )
    letter.rollback_run = failed.rollback_run
    letter.error, letter.error_type = failed.error, failed.error_type
    letter.kind = kind_of(failed.error_type)
    letter.attempts = attempts.count()
    letter.reference = action.reference if action else ""
    letter.state = State.OPEN
    letter.version += 1
    letter.save()
    if failed.retry:
        _note(letter, Verb.FAILED_AGAIN, "saga", f"retry-{failed.retry}/failed", text=failed.error)
        _tell_of_failed_retry(letter, failed)
    else:
        _note(letter, Verb.ARRIVED, "saga", f"arrived/{failed.rollback_run}", text=failed.error)
    return letter


def _is_news(letter: DeadLetter, failed: FailedUndo) -> bool:
    if failed.retry:
        return letter.state == State.RETRYING and letter.retries == failed.retry
    return letter.state == State.OPEN and letter.rollback_run != failed.rollback_run


def _tell_of_failed_retry(letter: DeadLetter, failed: FailedUndo) -> None:
    """Whoever retried it may have left by now. The saga itself tells of the first failure."""
    alerting.raise_alert(
        Alert(
            f"{letter.workflow_id}/retry-{failed.retry}",
            failed.order_number,
            f"Retry failed again: {failed.step}",
            f"{failed.error}\n\n{letter.advice}",
            topic="rollback",
        )
    )


# --- tried again -----------------------------------------------------------------------------------------


@transaction.atomic
def retry(pk: int, actor: str, reason: str, *, key: str, seen: int | None = None) -> Acted:
    """Have the undo tried again, by a workflow of its own, under the same idempotency key."""
    letter, saga = _locked(pk)
    if _done_before(letter, key):
        return Acted(_("The undo is tried again."), repeated=True)
    if letter.state == State.RETRYING and not letter.retry_is_lost:
        return Acted(_("It is being retried already.") + _by_whom(letter), repeated=True)
    _refuse_if_resolved(letter)
    _refuse_if_changed(letter, seen)
    order = saga.order
    try:
        remote = _is_remote(letter.step, order)
    except (GatewayMisconfigured, CarrierMisconfigured) as error:
        raise ActionRefused(str(error)) from None
    letter.state, letter.retries, letter.retried_at = State.RETRYING, letter.retries + 1, timezone.now()
    letter.snoozed_until = None
    _change(letter, "state", "retries", "retried_at", "snoozed_until")
    undo = FailedUndo(
        order.number, saga.attempt, letter.step, letter.rollback_run, letter.error, letter.error_type
    )
    message = outbox.start_workflow(
        f"{letter.workflow_id}/retry-{letter.retries}",
        letter.workflow_id,
        "CompensationRetryWorkflow",
        RetryInput(dead_letter=pk, actor=actor, undo=replace(undo, retry=letter.retries), remote=remote),
        task_queue=TASK_QUEUE,
        summary=f"{order.number}: undo {letter.step} again",
        order_number=order.number,
    )
    _note(letter, Verb.RETRY, actor, key, text=reason)
    OrderEvent.objects.create(
        order=order,
        kind=OrderEvent.Kind.RETRY,
        actor=actor,
        reason=reason,
        message=message,
        data={"dead_letter": pk, "step": letter.step},
    )
    return Acted(_("The undo is tried again."))


def _is_remote(step: str, order: Order) -> bool:
    match step:
        case Step.INVENTORY:
            return False
        case Step.SHIPPING:
            return carrier(order.carrier).remote
        case _:
            return gateway(order.payment_method).capabilities.remote


@transaction.atomic
def close_after_retry(retry: RetryInput) -> list[str]:
    """The retried undo succeeded. With the last letter of its saga the order is cancelled; the mails to send."""
    letter, saga = _locked(retry.dead_letter)
    if letter.state != State.RESOLVED:
        _resolve(letter, retry.actor, gettext_noop("The retried undo succeeded."))
        _note(letter, Verb.UNDONE, "saga", f"retry-{retry.undo.retry}/undone")
    return ending.cancel_if_settled(saga)


# --- resolved by hand ------------------------------------------------------------------------------------


@transaction.atomic
def resolve(pk: int, actor: str, done: str, evidence: str, *, key: str, seen: int | None = None) -> Acted:
    """Close a letter because a person has undone the step, and says how and where that can be seen.

    Our own books stay as they are: what the provider tells of it comes in as its news.
    """
    done, evidence = done.strip(), evidence.strip()
    if not done:
        raise ActionRefused(_("Say what was done."))
    if not evidence:
        raise ActionRefused(_("Give a reference by which others can see it."))
    letter, saga = _locked(pk)
    if _done_before(letter, key):
        return Acted(_("It is resolved."), repeated=True)
    _refuse_if_resolved(letter)
    _refuse_if_changed(letter, seen)
    if why_not := why_not_resolve(letter):
        raise ActionRefused(why_not)
    if letter.stake is not None:
        second_person.demand(
            letter.stake,
            act="resolve",
            subject=subject_of(pk),
            what=_("Resolve by hand the undo of {step} of {order}: {stake} at stake.").format(
                step=letter.undo, order=saga.order.number, stake=letter.stake.format()
            ),
            reason=_("{done} Evidence: {evidence}").format(done=done, evidence=evidence),
            standing=f"{letter.state}/{letter.retries}",
            order_number=saga.order.number,
        )
    letter.evidence = evidence
    _resolve(letter, actor, done)
    _note(letter, Verb.RESOLVE, actor, key, text=done, evidence=evidence)
    OrderEvent.objects.create(
        order=saga.order,
        kind=OrderEvent.Kind.RESOLVE,
        actor=actor,
        reason=done,
        data={"dead_letter": pk, "step": letter.step, "evidence": evidence},
    )
    _send(saga, ending.cancel_if_settled(saga))
    left = saga.dead_letters.exclude(state=State.RESOLVED).count()
    if left:
        others = ngettext(
            "It is resolved. The order has another dead letter left.",
            "It is resolved. The order has {n} other dead letters left.",
            left,
        )
        return Acted(others.format(n=left))
    if saga.status != Saga.Status.CANCELLED:
        return Acted(_("It is resolved. The rest of the order is still being rolled back."))
    return Acted(_("It is resolved. The order is cancelled, and its customer is told."))


def _send(saga: Saga, kinds: Iterable[str]) -> None:
    for kind in kinds:
        workflow_id = f"order-mail-{saga.order.number}-{saga.attempt}-{kind}"
        outbox.start_workflow(
            workflow_id,
            workflow_id,
            "OrderMailWorkflow",
            MailInput(saga.order.number, saga.attempt, kind),
            task_queue=TASK_QUEUE,
            summary=f"{saga.order.number}: {kind} mail",
            order_number=saga.order.number,
        )


# --- passed on -------------------------------------------------------------------------------------------


@transaction.atomic
def hand_over(pk: int, actor: str, to: str, text: str, *, key: str, seen: int | None = None) -> Acted:
    """Put it into somebody's hands: a user name, or empty for nobody's."""
    letter, _saga = _locked(pk)
    message = _("It is in the hands of {who}.").format(who=to) if to else _("It is in nobody's hands.")
    if _done_before(letter, key):
        return Acted(message, repeated=True)
    _refuse_if_resolved(letter)
    _refuse_if_changed(letter, seen)
    letter.assignee = to
    _change(letter, "assignee")
    _note(letter, Verb.HAND_OVER, actor, key, text=text, to=to)
    return Acted(message)


@transaction.atomic
def snooze(pk: int, actor: str, until: datetime, text: str, *, key: str, seen: int | None = None) -> Acted:
    """Take it off the queue until then; it comes back by itself."""
    letter, _saga = _locked(pk)
    message = _("It comes back on {until}.").format(until=moment(until))
    if _done_before(letter, key):
        return Acted(message, repeated=True)
    now = timezone.now()
    if not now < until <= now + LONGEST_SNOOZE:
        raise ActionRefused(
            _("Choose a moment within the next {days} days.").format(days=LONGEST_SNOOZE.days)
        )
    _refuse_if_resolved(letter)
    _refuse_if_changed(letter, seen)
    if why_not := why_not_snooze(letter):
        raise ActionRefused(why_not)
    letter.snoozed_until = until
    _change(letter, "snoozed_until")
    _note(letter, Verb.SNOOZE, actor, key, text=text, until=until)
    return Acted(message)


@transaction.atomic
def wake(pk: int, actor: str, *, key: str) -> Acted:
    """Put a snoozed letter back on the queue now."""
    letter, _saga = _locked(pk)
    if not letter.is_snoozed:
        return Acted(_("It is on the queue."), repeated=True)
    letter.snoozed_until = None
    _change(letter, "snoozed_until")
    _note(letter, Verb.WAKE, actor, key)
    return Acted(_("It is back on the queue."))


@transaction.atomic
def comment(pk: int, actor: str, text: str, *, key: str) -> Acted:
    """Write something down about it. Possible at any time, and others see it before they act."""
    if not text.strip():
        raise ActionRefused(_("Write a comment."))
    letter, _saga = _locked(pk)
    if _done_before(letter, key):
        return Acted(_("The comment was written down before."), repeated=True)
    _change(letter)
    _note(letter, Verb.COMMENT, actor, key, text=text.strip())
    return Acted(_("The comment is written down."))


# --- pieces ----------------------------------------------------------------------------------------------


def _locked(pk: int) -> tuple[DeadLetter, Saga]:
    """The letter and its saga under the order's lock."""
    number, attempt = DeadLetter.objects.values_list("saga__order__number", "saga__attempt").get(pk=pk)
    saga = lock_saga(number, attempt)
    letter = DeadLetter.objects.get(pk=pk)
    letter.saga = saga
    return letter, saga


def _done_before(letter: DeadLetter, key: str) -> bool:
    return letter.acts.filter(key=key).exists()


def _refuse_if_resolved(letter: DeadLetter) -> None:
    if letter.state == State.RESOLVED:
        raise ChangedMeanwhile(_("It was resolved in the meantime.") + _by_whom(letter))


def _refuse_if_changed(letter: DeadLetter, seen: int | None) -> None:
    if seen is not None and seen != letter.version:
        raise ChangedMeanwhile(
            _("It was processed in the meantime.{by_whom} Look at it anew.").format(by_whom=_by_whom(letter))
        )


def _by_whom(letter: DeadLetter) -> str:
    last = letter.acts.last()
    return f" {by(last.actor)}: {last.get_verb_display()}, {moment(last.at)}." if last else ""


def subject_of(pk: int) -> str:
    """What requests to a second person call a dead letter."""
    return f"dead-letter/{pk}"


def _resolve(letter: DeadLetter, actor: str, resolution: str) -> None:
    why = _("It was resolved by {who}: {how}").format(who=actor, how=resolution)
    second_person.lapse([subject_of(letter.pk)], why)
    letter.state, letter.resolved_at = State.RESOLVED, timezone.now()
    letter.resolved_by, letter.resolution = actor, resolution
    letter.snoozed_until = None
    _change(letter, "state", "resolved_at", "resolved_by", "resolution", "evidence", "snoozed_until")


def _change(letter: DeadLetter, *fields: str) -> None:
    letter.version += 1
    letter.save(update_fields=[*fields, "version"])


def _note(
    letter: DeadLetter,
    verb: str,
    actor: str,
    key: str,
    *,
    text: str = "",
    evidence: str = "",
    to: str = "",
    until: datetime | None = None,
) -> None:
    DeadLetterAct.objects.create(
        letter=letter, verb=verb, actor=actor, key=key, text=text, evidence=evidence, to=to, until=until
    )
