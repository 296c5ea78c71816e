"""A payment and the append-only events that are its books."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.postgres.indexes import GinIndex, OpClass
from django.db import models
from django.db.models import Q
from django.db.models.functions import Upper
from django.utils.translation import gettext_lazy as _

from payments import ledger
from payments.gateways.base import EventOutcome, EventType
from payments.models.gateway_state import called
from shop.kernel.models import AppendOnly
from shop.kernel.money import Money

STATUSES = {
    "authorized": _("authorized"),
    "captured": _("captured"),
    "declined": _("declined"),
    "paid": _("paid"),
    "partially_paid": _("partially paid"),
    "partially_refunded": _("partially refunded"),
    "pending": _("pending"),
    "refunded": _("refunded"),
    "voided": _("voided"),
}
SOURCES = {
    "call": _("call"),
    "check": _("check"),
    "staff": _("staff"),
    "statement": _("statement"),
    "webhook": _("webhook"),
}
_TYPES = {
    EventType.AUTHORIZATION: _("authorization"),
    EventType.AUTHORIZATION_ADJUSTMENT: _("authorization adjustment"),
    EventType.RECEIPT: _("receipt"),
    EventType.CAPTURE: _("capture"),
    EventType.VOID: _("void"),
    EventType.REFUND: _("refund"),
    EventType.REFUND_REVERSAL: _("refund reversal"),
    EventType.CHARGEBACK: _("chargeback"),
}
_OUTCOMES = {
    EventOutcome.REQUESTED: _("requested"),
    EventOutcome.SUCCEEDED: _("succeeded"),
    EventOutcome.FAILED: _("failed"),
}


def status_in_words(status: str) -> str:
    """A payment's `Totals.status` for people."""
    return str(STATUSES[status])


def source_in_words(source: str) -> str:
    """Where an event was told, for people."""
    return str(SOURCES.get(source, source))


class Payment(models.Model):
    """One authorization-to-capture attempt for a merchant reference (the order number).

    Amounts are in minor units. `reference` is the provider's PSP reference, empty until its answer is known.
    `closed_at` is set when the merchant has no more use for money: the order was shipped or given up.
    """

    gateway = models.CharField(_("gateway"), max_length=30)
    merchant_reference = models.CharField(_("merchant reference"), max_length=40, db_index=True)
    idempotency_key = models.CharField(_("idempotency key"), max_length=120, unique=True)
    reference = models.CharField(_("PSP reference"), max_length=120, blank=True, default="")
    amount = models.BigIntegerField(_("amount due"))
    currency = models.CharField(_("currency"), max_length=3)
    authorized_until = models.DateTimeField(_("authorized until"), null=True, blank=True)
    # What only this payment's customer needs to pay it, such as Stripe's client_secret. Empty once paid.
    instructions = models.JSONField(_("instructions"), default=dict, blank=True, editable=False)
    payer_name = models.CharField(_("payer"), max_length=200, blank=True, default="")
    closed_at = models.DateTimeField(_("closed"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("payment")
        verbose_name_plural = _("payments")
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [
            models.Index(fields=["-created_at", "-id"], name="payment_by_age"),
            models.Index(fields=["gateway", "-created_at", "-id"], name="payment_by_gateway"),
            models.Index(
                fields=["-created_at", "-id"], condition=Q(closed_at=None), name="payment_open_by_age"
            ),
            models.Index(fields=["amount", "-created_at", "-id"], name="payment_by_amount"),
            models.Index(
                fields=["reference"],
                opclasses=["varchar_pattern_ops"],
                condition=~Q(reference=""),
                name="payment_by_reference",
            ),
            GinIndex(
                OpClass(Upper("payer_name"), name="gin_trgm_ops"),
                condition=~Q(payer_name=""),
                name="payment_by_part_of_payer",
            ),
            models.Index(
                fields=["amount", "currency"], condition=Q(closed_at=None), name="payment_open_by_amount"
            ),
            models.Index(
                fields=["gateway", "id"], condition=Q(closed_at=None), name="payment_open_by_gateway"
            ),
            models.Index(
                fields=["authorized_until"], condition=Q(closed_at=None), name="payment_open_by_authorization"
            ),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(amount__gte=0), name="payment_amount_not_negative"),
            models.UniqueConstraint(
                fields=["gateway", "reference"],
                condition=~Q(reference=""),
                name="payment_reference_unique_per_gateway",
            ),
        ]

    def __str__(self) -> str:
        return f"{called(self.gateway)} {self.reference or self.merchant_reference}"

    @property
    def due(self) -> Money:
        return Money(self.amount, self.currency)

    @property
    def is_open(self) -> bool:
        """Whether money for it is still of use."""
        return self.closed_at is None

    def expected(self, totals: ledger.Totals) -> int:
        """What has to come in: the amount due, or less where staff have accepted less (an adjustment)."""
        return min(self.amount, totals.authorized) if totals.authorized else self.amount

    def waived(self, totals: ledger.Totals) -> int:
        """How much of the amount due staff have given up by accepting less as full payment."""
        return self.amount - self.expected(totals)

    def missing(self, totals: ledger.Totals) -> int:
        """What has not come in yet; below zero if more has."""
        return self.expected(totals) - totals.received

    def totals(self) -> ledger.Totals:
        """Computed from the events each time; use `prefetch_related("events")` for many."""
        return ledger.totals(self.events.all())


class PaymentEvent(models.Model):
    """One thing that happened to a payment. Append-only: the database refuses UPDATE and DELETE.

    Unique on (gateway, PSP reference, type), so the same news told twice is written once.
    """

    payment = models.ForeignKey(Payment, models.PROTECT, related_name="events")
    gateway = models.CharField(_("gateway"), max_length=30)
    type = models.CharField(_("type"), max_length=30, choices=[(t.value, _TYPES[t]) for t in EventType])
    outcome = models.CharField(
        _("outcome"), max_length=10, choices=[(o.value, _OUTCOMES[o]) for o in EventOutcome]
    )
    psp_reference = models.CharField(_("PSP reference"), max_length=160)
    amount = models.BigIntegerField(_("amount"))
    currency = models.CharField(_("currency"), max_length=3)
    occurred_at = models.DateTimeField(_("occurred"))
    recorded_at = models.DateTimeField(_("recorded"), auto_now_add=True)
    source = models.CharField(_("source"), max_length=20, help_text=_("call, webhook, check or staff"))
    raw_id = models.CharField(_("raw id"), max_length=120, blank=True, default="")
    actor = models.CharField(_("actor"), max_length=150, blank=True, default="")
    detail = models.TextField(_("detail"), blank=True, default="")

    class Meta:
        verbose_name = _("payment event")
        verbose_name_plural = _("payment events")
        ordering: ClassVar = ["id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["gateway", "psp_reference", "type"], name="payment_event_told_twice_is_written_once"
            ),
        ]
        triggers: ClassVar = [AppendOnly(personal=["detail"])]

    def __str__(self) -> str:
        return f"{self.get_type_display()} {self.get_outcome_display()} {self.money}"

    @property
    def money(self) -> Money:
        return Money(self.amount, self.currency)
