"""What ops do to a dead letter: the forms, and which service each calls."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any
from uuid import uuid4

from django import forms
from django.contrib.auth import get_user_model
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from orders.models import DeadLetter
from orders.services import dead_letters
from orders.services.lifecycle import Acted, ActionRefused
from shop.kernel.admin.acting import PAGES, Act, ActForm, Page
from shop.kernel.forms import ReasonField

VIEW = "orders.view_deadletter"
RETRY = "orders.retry_deadletter"
RESOLVE = "orders.resolve_deadletter"
MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"


class LetterForm(ActForm):
    """`key` is new with each form and the same for each press of its button; `seen` is what its page showed."""

    key = forms.UUIDField(widget=forms.HiddenInput)
    seen = forms.IntegerField(widget=forms.HiddenInput, required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["key"] = uuid4()
        if len(self.subjects) == 1:
            (letter,) = self.subjects
            self.initial["seen"] = letter.version
            for bound in self.visible_fields()[:1]:
                bound.field.widget.attrs["autofocus"] = True


class LetterAct(Act):
    permission = RETRY
    form = LetterForm
    refusals = (ActionRefused,)

    def do(self, subject: DeadLetter, data: dict[str, Any], actor: str, seen: str) -> Acted:
        return self.act(subject, {**data, "key": str(data["key"])}, actor)

    def act(self, letter: DeadLetter, data: dict[str, Any], actor: str) -> Acted:
        raise NotImplementedError


class RetryForm(LetterForm):
    reason = ReasonField(label=_("Reason"), help_text=_("What has changed since it failed, for instance."))


class Retry(LetterAct):
    slug = "retry"
    label = _("Retry")
    form = RetryForm
    follows = _(
        "The undo is tried again under its old idempotency key, so what has happened already does not "
        "happen twice. With its last dead letter closed, the order is cancelled and its customer is told."
    )

    def why_not(self, subject: DeadLetter) -> str:
        return dead_letters.why_not_retry(subject)

    def will(self, subject: DeadLetter) -> str:
        stake = f" ({subject.stake.format()})" if subject.stake else ""
        return gettext("The undo of %s is tried again.") % f"{subject.undo}{stake}"

    def act(self, letter: DeadLetter, data: dict[str, Any], actor: str) -> Acted:
        return dead_letters.retry(letter.pk, actor, data["reason"], key=data["key"], seen=data["seen"])


class ResolveForm(LetterForm):
    done = ReasonField(label=_("What was done"))
    evidence = forms.CharField(
        label=_("Evidence"),
        max_length=200,
        help_text=_("By which others can see it: the provider's reference, the bank's, a ticket."),
    )


class Resolve(LetterAct):
    slug = "resolve"
    label = _("Resolve by hand")
    may_take_two = True
    permission = RESOLVE
    form = ResolveForm
    dangerous = True
    follows = _(
        "Only if you, or somebody you trust, have undone the step: nothing is done by this, neither at the provider "
        "nor in our books of money and stock. With its last dead letter closed, the order is cancelled and its "
        "customer is told."
    )

    def why_not(self, subject: DeadLetter) -> str:
        return dead_letters.why_not_resolve(subject)

    def act(self, letter: DeadLetter, data: dict[str, Any], actor: str) -> Acted:
        return dead_letters.resolve(
            letter.pk, actor, data["done"], data["evidence"], key=data["key"], seen=data["seen"]
        )


class HandOverForm(LetterForm):
    to = forms.ModelChoiceField(
        label=pgettext_lazy("a person", "To"),
        queryset=get_user_model().objects.none(),
        to_field_name="username",
        required=False,
        empty_label=_("nobody in particular"),
    )
    text = ReasonField(label=_("Note"), required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["to"]
        assert isinstance(field, forms.ModelChoiceField)
        people: Any = get_user_model().objects
        who = people.with_perm(RETRY, backend=MODEL_BACKEND).filter(is_staff=True)
        field.queryset = who.order_by("username")
        if len(self.subjects) == 1:
            self.initial["to"] = self.subjects[0].assignee


class HandOver(LetterAct):
    slug = "hand-over"
    label = _("Hand over")
    form = HandOverForm
    follows = _("Whoever you choose sees on the work queue how many are in their hands.")

    def why_not(self, subject: DeadLetter) -> str:
        return gettext("It is resolved.") if subject.state == DeadLetter.State.RESOLVED else ""

    def act(self, letter: DeadLetter, data: dict[str, Any], actor: str) -> Acted:
        to = data["to"].get_username() if data["to"] else ""
        return dead_letters.hand_over(letter.pk, actor, to, data["text"], key=data["key"], seen=data["seen"])


class SnoozeForm(LetterForm):
    until = forms.DateTimeField(
        label=_("Until"),
        widget=forms.DateTimeInput(format="%Y-%m-%dT%H:%M", attrs={"type": "datetime-local"}),
        help_text=_("In UTC."),
    )
    text = ReasonField(label=_("Reason"), help_text=_("What is waited for."))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        tomorrow = timezone.now().astimezone(UTC) + timedelta(days=1)
        self.initial["until"] = tomorrow.replace(hour=8, minute=0, second=0, microsecond=0)


class Snooze(LetterAct):
    slug = "snooze"
    label = _("Snooze")
    form = SnoozeForm
    follows = _("It leaves the queue, and comes back by itself at that time.")

    def why_not(self, subject: DeadLetter) -> str:
        return dead_letters.why_not_snooze(subject)

    def act(self, letter: DeadLetter, data: dict[str, Any], actor: str) -> Acted:
        return dead_letters.snooze(
            letter.pk, actor, data["until"], data["text"], key=data["key"], seen=data["seen"]
        )


class Wake(LetterAct):
    slug = "wake"
    label = _("Wake")
    follows = _("It is back on the queue at once.")

    def why_not(self, subject: DeadLetter) -> str:
        return "" if subject.is_snoozed else gettext("It is not snoozed.")

    def act(self, letter: DeadLetter, data: dict[str, Any], actor: str) -> Acted:
        return dead_letters.wake(letter.pk, actor, key=data["key"])


class CommentForm(LetterForm):
    text = ReasonField(label=_("Comment"))


class Comment(LetterAct):
    slug = "comment"
    label = _("Comment")
    form = CommentForm

    def act(self, letter: DeadLetter, data: dict[str, Any], actor: str) -> Acted:
        return dead_letters.comment(letter.pk, actor, data["text"], key=data["key"])


PAGE = "orders.deadletter"
ACTS: dict[str, LetterAct] = {
    act.slug: act for act in (Retry(), Resolve(), HandOver(), Snooze(), Wake(), Comment())
}
PAGES[PAGE] = Page(
    acts=ACTS,
    subject=lambda pk: DeadLetter.objects.select_related("saga__order").filter(pk=pk).first(),
    url=lambda pk: reverse("admin:dead_letter", args=[pk]),
)
