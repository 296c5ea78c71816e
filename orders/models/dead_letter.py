"""What could not be undone, and what people did about it."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from orders.words import named
from orders.workflows import policies
from shop.kernel.models import AppendOnly
from shop.kernel.money import Money

# A retry is over by then, whatever happened: every try timed out, with the longest pause after each.
RETRY_LOST_AFTER = policies.worst_case(policies.HARD) + timedelta(minutes=10)


class DeadLetter(models.Model):
    """An undo that failed for good: what was to be undone, and all that is needed to try it again.

    `version` grows with each change, so that a page can tell whether what it showed still holds.
    """

    class State(models.TextChoices):
        OPEN = "open", _("open")
        RETRYING = "retrying", _("being retried")
        RESOLVED = "resolved", _("resolved")

    class Kind(models.TextChoices):
        """Why it needs a person; what is best done differs."""

        EXHAUSTED = "exhausted", _("no answer")
        REFUSED = "refused", _("refused")
        CONFIGURATION = "configuration", _("configuration")
        BUG = "bug", _("bug")

    saga = models.ForeignKey("orders.Saga", models.PROTECT, related_name="dead_letters")
    step = models.CharField(_("step"), max_length=30)
    idempotency_key = models.CharField(_("idempotency key"), max_length=120)
    rollback_run = models.CharField(_("rollback run"), max_length=36)
    kind = models.CharField(_("kind"), max_length=15, choices=Kind, default=Kind.BUG)
    error_type = models.CharField(_("error type"), max_length=100, blank=True, default="")
    error = models.TextField(_("error"))
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    amount = models.BigIntegerField(_("amount at stake"), default=0)
    currency = models.CharField(_("currency"), max_length=3)
    reference = models.CharField(_("reference"), max_length=160, blank=True, default="")
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.OPEN)
    version = models.PositiveIntegerField(default=0)
    retries = models.PositiveIntegerField(_("retries"), default=0)
    retried_at = models.DateTimeField(_("retried"), null=True, blank=True)
    assignee = models.CharField(_("in the hands of"), max_length=150, blank=True, default="")
    snoozed_until = models.DateTimeField(_("snoozed until"), null=True, blank=True)
    created_at = models.DateTimeField(_("arrived"), auto_now_add=True)
    resolved_at = models.DateTimeField(_("resolved"), null=True, blank=True)
    resolved_by = models.CharField(_("resolved by"), max_length=150, blank=True, default="")
    resolution = models.TextField(_("resolution"), blank=True, default="")
    evidence = models.CharField(_("evidence"), max_length=200, blank=True, default="")

    class Meta:
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")
        ordering: ClassVar = ["-id"]
        permissions: ClassVar = [
            ("retry_deadletter", "Can retry, hand over, snooze and comment dead letters"),
            ("resolve_deadletter", "Can resolve a dead letter by hand"),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["created_at"], condition=~Q(state="resolved"), name="dead_letter_unresolved"
            ),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["saga", "step"], name="dead_letter_once_per_step"),
            models.CheckConstraint(
                condition=~Q(state="resolved") | ~Q(resolution=""), name="dead_letter_resolved_with_a_word"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.saga.order.number}, {self.undo}"

    @property
    def undo(self) -> str:
        """The step that was to be undone, as people read it."""
        return named(self.step)

    @property
    def stake(self) -> Money | None:
        """The money at stake; None where goods are."""
        return Money(self.amount, self.currency) if self.amount else None

    @property
    def age(self) -> timedelta:
        """How long it has been open, or was until it was resolved."""
        return (self.resolved_at or timezone.now()) - self.created_at

    @property
    def advice(self) -> Promise:
        return ADVICE[DeadLetter.Kind(self.kind)]

    @property
    def workflow_id(self) -> str:
        """Of its retries."""
        return f"dead-letter-{self.pk}"

    @property
    def is_snoozed(self) -> bool:
        return self.snoozed_until is not None and self.snoozed_until > timezone.now()

    @property
    def retry_is_lost(self) -> bool:
        """Whether a retry has been under way for longer than any retry takes."""
        return (
            self.state == DeadLetter.State.RETRYING
            and self.retried_at is not None
            and timezone.now() - self.retried_at > RETRY_LOST_AFTER
        )


ADVICE = {
    DeadLetter.Kind.EXHAUSTED: _(
        "No answer came, however often it was asked: nobody knows whether it happened. Retry once the provider "
        "answers again; what has happened already does not happen twice."
    ),
    DeadLetter.Kind.REFUSED: _(
        "The provider said no, and would say no again. See its view below: do there by hand what is still to be "
        "done, then resolve it. Retry only after something has changed at the provider."
    ),
    DeadLetter.Kind.CONFIGURATION: _(
        "The provider did not accept our credentials or settings. Have them put right, then retry all of this kind."
    ),
    DeadLetter.Kind.BUG: _(
        "Our own program failed. Give the error to the developers and retry after the repair; if it cannot wait, do "
        "it by hand at the provider and resolve it."
    ),
}

_KINDS = {
    "GatewayUnavailable": DeadLetter.Kind.EXHAUSTED,
    "CarrierUnavailable": DeadLetter.Kind.EXHAUSTED,
    "TimeoutError": DeadLetter.Kind.EXHAUSTED,
    "OperationalError": DeadLetter.Kind.EXHAUSTED,  # our own database did not answer
    "InterfaceError": DeadLetter.Kind.EXHAUSTED,
    "PoolTimeout": DeadLetter.Kind.EXHAUSTED,
    "GatewayRefused": DeadLetter.Kind.REFUSED,
    "CarrierRefused": DeadLetter.Kind.REFUSED,
    "StepRefused": DeadLetter.Kind.REFUSED,
    "GatewayMisconfigured": DeadLetter.Kind.CONFIGURATION,
    "CarrierMisconfigured": DeadLetter.Kind.CONFIGURATION,
}


def kind_of(error_type: str) -> DeadLetter.Kind:
    """What kind of failure an error of this type is; one that nobody has thought of is a bug."""
    return _KINDS.get(error_type, DeadLetter.Kind.BUG)


class DeadLetterAct(models.Model):
    """One thing that happened to a dead letter, by a person or by the saga. Append-only.

    `key` is the form's, so the same form acts once on each letter; all letters of one bulk retry share it.
    """

    class Verb(models.TextChoices):
        ARRIVED = "arrived", _("arrived")
        RETRY = "retry", _("retried")
        FAILED_AGAIN = "failed_again", _("failed again")
        UNDONE = "undone", _("undone by the retry")
        RESOLVE = "resolve", _("resolved by hand")
        HAND_OVER = "hand_over", _("handed over")
        SNOOZE = "snooze", _("snoozed")
        WAKE = "wake", _("woken")
        COMMENT = "comment", _("commented")

    letter = models.ForeignKey(DeadLetter, models.PROTECT, related_name="acts")
    verb = models.CharField(_("what"), max_length=15, choices=Verb)
    actor = models.CharField(_("who"), max_length=150)
    text = models.TextField(_("text"), blank=True, default="")
    evidence = models.CharField(_("evidence"), max_length=200, blank=True, default="")
    to = models.CharField(_("to"), max_length=150, blank=True, default="")
    until = models.DateTimeField(_("until"), null=True, blank=True)
    key = models.CharField(_("key"), max_length=80)
    at = models.DateTimeField(_("at"), auto_now_add=True)

    class Meta:
        verbose_name = _("dead letter history")
        verbose_name_plural = _("dead letter history")
        ordering: ClassVar = ["id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["letter", "key"], name="dead_letter_act_once"),
        ]
        triggers: ClassVar = [AppendOnly(personal=["text", "evidence"])]

    def __str__(self) -> str:
        return f"{self.get_verb_display()} ({self.actor})"
