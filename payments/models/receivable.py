"""The store of the `bank_transfer` gateway: what customers owe us, and what we have to send back."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.postgres.indexes import GinIndex, OpClass
from django.db import models
from django.db.models import Q
from django.db.models.functions import Upper
from django.utils.translation import gettext_lazy as _

from shop.kernel.money import Money


class Receivable(models.Model):
    """A payment in advance that a customer was asked for; its ISO 11649 reference is the PSP reference.

    It is to the bank transfer what an authorization is to a card: captured (booked as income) or voided
    (closed unpaid) once, each under its own idempotency key.
    """

    reference = models.CharField(_("creditor reference"), max_length=25, unique=True)
    merchant_reference = models.CharField(_("merchant reference"), max_length=40, db_index=True)
    amount = models.BigIntegerField(_("amount"))
    currency = models.CharField(_("currency"), max_length=3)
    idempotency_key = models.CharField(max_length=120, unique=True)
    capture_key = models.CharField(max_length=120, blank=True, default="")
    captured = models.BigIntegerField(_("captured"), default=0)
    captured_at = models.DateTimeField(_("captured at"), null=True, blank=True)
    void_key = models.CharField(max_length=120, blank=True, default="")
    voided_at = models.DateTimeField(_("voided at"), null=True, blank=True)
    created_at = models.DateTimeField(_("opened"), auto_now_add=True)

    class Meta:
        verbose_name = _("receivable")
        verbose_name_plural = _("receivables")
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="receivable_amount_positive"),
            models.CheckConstraint(
                condition=Q(captured_at__isnull=True) | Q(voided_at__isnull=True),
                name="receivable_captured_or_voided",
            ),
        ]

    def __str__(self) -> str:
        return self.reference

    @property
    def money(self) -> Money:
        return Money(self.amount, self.currency)


class TransferBatch(models.Model):
    """A pain.001 file: refunds that staff download, hand to the bank, and mark as sent."""

    message_id = models.CharField(_("message id"), max_length=35, unique=True)
    xml = models.TextField(_("pain.001"))
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    created_by = models.CharField(_("created by"), max_length=150)
    sent_at = models.DateTimeField(_("sent to the bank"), null=True, blank=True)
    sent_by = models.CharField(_("sent by"), max_length=150, blank=True, default="")
    refused_at = models.DateTimeField(_("refused by the bank"), null=True, blank=True)
    refused_by = models.CharField(_("refusal written down by"), max_length=150, blank=True, default="")
    refusal = models.TextField(_("why it was refused"), blank=True, default="")

    class Meta:
        verbose_name = _("transfer batch")
        verbose_name_plural = _("transfer batches")
        ordering: ClassVar = ["-id"]

    def __str__(self) -> str:
        return self.message_id


class OutgoingTransfer(models.Model):
    """Money to send back by credit transfer. Closed only by the statement line that shows it booked.

    `end_to_end_id` is ours and comes back on the statement. `receivable` is set where captured money is
    refunded, and empty where money goes back that was never captured (it came late, or too much of it);
    `payment` is the payment that it came for, if any.
    """

    class State(models.TextChoices):
        NEEDS_ACCOUNT = "needs_account", _("account of the payee is missing")
        READY = "ready", _("ready to be sent")
        EXPORTED = "exported", _("in a batch")
        BOOKED = "booked", _("booked by the bank")
        RETURNED = "returned", _("returned by the payee's bank")

    receivable = models.ForeignKey(Receivable, models.PROTECT, null=True, blank=True, related_name="outgoing")
    payment = models.ForeignKey(
        "payments.Payment", models.PROTECT, null=True, blank=True, related_name="outgoing"
    )
    idempotency_key = models.CharField(max_length=120, unique=True)
    end_to_end_id = models.CharField(_("end-to-end id"), max_length=35, unique=True)
    amount = models.BigIntegerField(_("amount"))
    currency = models.CharField(_("currency"), max_length=3)
    payee_name = models.CharField(_("payee"), max_length=140, blank=True, default="")
    payee_iban = models.CharField(_("IBAN"), max_length=34, blank=True, default="")
    remittance_information = models.CharField(_("remittance information"), max_length=140)
    state = models.CharField(_("state"), max_length=15, choices=State, default=State.NEEDS_ACCOUNT)
    batch = models.ForeignKey(TransferBatch, models.PROTECT, null=True, blank=True, related_name="transfers")
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    requested_by = models.CharField(_("asked for by"), max_length=150, blank=True, default="")
    account_set_by = models.CharField(_("account entered by"), max_length=150, blank=True, default="")
    booked_at = models.DateTimeField(_("booked at"), null=True, blank=True)
    bank_reference = models.CharField(_("bank's reference"), max_length=120, blank=True, default="")
    returned_at = models.DateTimeField(_("returned at"), null=True, blank=True)
    return_reason = models.CharField(_("return reason"), max_length=140, blank=True, default="")

    class Meta:
        verbose_name = _("outgoing transfer")
        verbose_name_plural = _("outgoing transfers")
        ordering: ClassVar = ["-id"]
        permissions: ClassVar = [
            ("refund", "Can refund payments and send refunds to the bank"),
            ("refund_beyond_limit", "Can refund more than REFUND_LIMIT at once"),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="outgoing_transfer_amount_positive"),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["bank_reference"],
                name="outgoing_transfer_at_bank",
                condition=~Q(bank_reference=""),
            ),
            models.Index(
                fields=["state", "created_at"],
                name="outgoing_transfer_to_send",
                condition=Q(state__in=["ready", "needs_account"]),
            ),
            models.Index(fields=["-created_at", "-id"], name="outgoing_transfer_by_age"),
            models.Index(fields=["state", "-created_at", "-id"], name="outgoing_transfer_by_state"),
            models.Index(fields=["amount"], name="outgoing_transfer_by_amount"),
            models.Index(
                fields=["payee_iban"], opclasses=["varchar_pattern_ops"], name="outgoing_transfer_by_iban"
            ),
            GinIndex(OpClass(Upper("payee_name"), name="gin_trgm_ops"), name="outgoing_transfer_by_part"),
        ]

    def __str__(self) -> str:
        return self.end_to_end_id

    @property
    def money(self) -> Money:
        return Money(self.amount, self.currency)
