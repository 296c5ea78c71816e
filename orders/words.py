"""Codes, moments and fixed English sentences as people read them: in the language of who looks.

The worker writes its sentences down in English, whoever will read them. Those that are always the same are marked with
`gettext_noop` where they stand, and `said` finds their translation.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

from django.utils.formats import date_format
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _

_NAMES = {
    # steps
    "inventory": _("inventory"),
    "payment_hold": _("payment hold"),
    "payment_captured": _("payment captured"),
    "shipping": _("shipping"),
    "confirmation": _("confirmation"),
    # how payments and shipments stand, here and at their providers
    "pending": _("pending"),
    "authorized": _("authorized"),
    "partially_paid": _("partially paid"),
    "received": _("received"),
    "paid": _("paid"),
    "captured": _("captured"),
    "partially_refunded": _("partially refunded"),
    "refunded": _("refunded"),
    "voided": _("voided"),
    "declined": _("declined"),
    "expired": _("expired"),
    "created": _("created"),
    "cancelled": _("cancelled"),
    # what providers tell of
    "authorization": _("authorization"),
    "authorization_adjustment": _("authorization adjustment"),
    "receipt": _("receipt"),
    "capture": _("capture"),
    "void": _("void"),
    "refund": _("refund"),
    "refund_reversal": _("refund reversal"),
    "chargeback": _("chargeback"),
    "requested": _("requested"),
    "succeeded": _("succeeded"),
    "failed": _("failed"),
    # from whom the books have it
    "call": _("call"),
    "check": _("check"),
    "webhook": _("webhook"),
    "statement": _("statement"),
    "staff": _("staff"),
    # ways to pay and to ship
    "bank_transfer": _("bank transfer"),
    "sandbox": _("sandbox"),
    "manual": _("manual"),
    "practice": _("practice"),
}

# Who acts where nobody does. All others are people's names, and stay as they are.
_ACTORS = {
    "saga": _("saga"),
    "reconciler": _("reconciliation"),
    "reconcile": _("reconciliation"),
    "schedule": _("schedule"),
    "outbox": _("outbox"),
    "shop": _("shop"),
}
# What is stored by those who know no Django, or put together from a code.
_STORED = (
    gettext_noop("No payment arrived before the deadline"),
    gettext_noop("Cancelled in Temporal"),
    gettext_noop("The authorization is declined at the provider."),
    gettext_noop("The authorization is expired at the provider."),
    gettext_noop("Nothing was captured: authorized at the provider."),
    gettext_noop("Nothing was captured: paid at the provider."),
    gettext_noop("Nothing was captured: voided at the provider."),
    gettext_noop("Nothing was captured: declined at the provider."),
    gettext_noop("Nothing was captured: expired at the provider."),
)


def named(code: str) -> str:
    """A code in words; one that has none here as it is, without its underscores."""
    return str(_NAMES.get(code) or code.replace("_", " "))


def by(actor: str) -> str:
    """Who did it: a person's name, or a part of the program in words."""
    return str(_ACTORS.get(actor) or actor)


def said(sentence: str) -> str:
    """A sentence as it was stored, translated if it is one that the program always says the same."""
    return gettext(sentence) if sentence else ""


def moment(at: datetime) -> str:
    """Such as `2026-12-07 14:00 UTC`."""
    return f"{date_format(at.astimezone(UTC), 'SHORT_DATETIME_FORMAT')} UTC"


def day(on: date) -> str:
    """Such as `2026-12-07`."""
    return date_format(on, "SHORT_DATE_FORMAT")
