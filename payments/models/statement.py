"""Bank statements as imported, and where each cent on them went."""

from __future__ import annotations

from typing import ClassVar

import pgtrigger
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.db import models
from django.db.models import Q
from django.db.models.functions import Upper
from django.utils.formats import date_format
from django.utils.translation import gettext_lazy as _

from shop.kernel.models import AppendOnly
from shop.kernel.money import Money


class BankStatement(models.Model):
    """One statement of one account, from one file. Overlapping ones are fine: transactions count once."""

    kind = models.CharField(_("format"), max_length=30)
    statement_id = models.CharField(_("statement id"), max_length=80, blank=True, default="")
    account_iban = models.CharField(_("account"), max_length=34)
    file_name = models.CharField(_("file"), max_length=200)
    opening = models.BigIntegerField(_("opening balance"), null=True, blank=True)
    closing = models.BigIntegerField(_("closing balance"), null=True, blank=True)
    currency = models.CharField(_("currency"), max_length=3)
    transactions_in_file = models.PositiveIntegerField(_("transactions in the file"), default=0)
    transactions_new = models.PositiveIntegerField(_("new"), default=0)
    imported_at = models.DateTimeField(_("imported"), auto_now_add=True)
    imported_by = models.CharField(_("imported by"), max_length=150)
    source = models.ForeignKey(
        "payments.StatementFile",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="statements",
        verbose_name=_("statement file"),
    )
    place = models.PositiveIntegerField(_("place in the file"), default=0)

    class Meta:
        verbose_name = _("bank statement")
        verbose_name_plural = _("bank statements")
        ordering: ClassVar = ["-id"]
        permissions: ClassVar = [("import_statement", "Can import bank statements")]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["source", "place"], name="bank_statement_once_per_file"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.statement_id or self.file_name}"

    @property
    def opening_money(self) -> Money | None:
        return None if self.opening is None else Money(self.opening, self.currency)

    @property
    def closing_money(self) -> Money | None:
        return None if self.closing is None else Money(self.closing, self.currency)


class BankTransaction(models.Model):
    """One booking on our account, as the bank tells it. Append-only; `Allocation` says what became of it.

    `key` tells the same booking on two statements from two bookings that look alike: the bank's own reference
    where there is one, else the content and its occurrence within the statement. Statements of other formats
    may tell it under other keys: see `Retelling`.
    """

    class Direction(models.TextChoices):
        CREDIT = "credit", _("in")
        DEBIT = "debit", _("out")

    key = models.CharField(max_length=160, unique=True)
    statement = models.ForeignKey(BankStatement, models.PROTECT, related_name="transactions")
    position = models.CharField(_("position"), max_length=60)
    direction = models.CharField(_("direction"), max_length=6, choices=Direction)
    is_reversal = models.BooleanField(_("reversal or return"), default=False)
    amount = models.BigIntegerField(_("amount"))
    currency = models.CharField(_("currency"), max_length=3)
    booking_date = models.DateField(_("booking date"))
    value_date = models.DateField(_("value date"), null=True, blank=True)
    bank_reference = models.CharField(_("bank's reference"), max_length=120, blank=True, default="")
    end_to_end_id = models.CharField(_("end-to-end id"), max_length=70, blank=True, default="")
    creditor_reference = models.CharField(_("creditor reference"), max_length=70, blank=True, default="")
    remittance_information = models.TextField(_("remittance information"), blank=True, default="")
    counterparty_name = models.CharField(_("payer or payee"), max_length=200, blank=True, default="")
    counterparty_iban = models.CharField(_("IBAN"), max_length=34, blank=True, default="", db_index=True)
    return_reason = models.CharField(_("return reason"), max_length=140, blank=True, default="")
    original_end_to_end_id = models.CharField(max_length=70, blank=True, default="")
    recorded_at = models.DateTimeField(_("recorded"), auto_now_add=True)

    class Meta:
        verbose_name = _("bank transaction")
        verbose_name_plural = _("bank transactions")
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [
            models.Index(fields=["amount", "booking_date"], name="bank_transaction_by_amount"),
            models.Index(fields=["-booking_date", "-id"], name="bank_transaction_by_day"),
            models.Index(
                fields=["direction", "is_reversal", "-booking_date", "-id"], name="bank_transaction_by_kind"
            ),
            models.Index(
                fields=["end_to_end_id"], condition=~Q(end_to_end_id=""), name="bank_transaction_by_e2e"
            ),
            models.Index(
                fields=["creditor_reference"],
                condition=~Q(creditor_reference=""),
                name="bank_transaction_by_rf",
            ),
            GinIndex(
                OpClass(Upper("counterparty_name"), name="gin_trgm_ops"),
                OpClass(Upper("remittance_information"), name="gin_trgm_ops"),
                name="bank_transaction_by_part",
            ),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(amount__gte=0), name="bank_transaction_amount_not_negative"),
        ]
        triggers: ClassVar = [
            AppendOnly(
                personal=["counterparty_name", "counterparty_iban", "remittance_information", "return_reason"]
            )
        ]

    def __str__(self) -> str:
        return f"{date_format(self.booking_date, 'SHORT_DATE_FORMAT')} {self.get_direction_display()} {self.money}"

    @property
    def money(self) -> Money:
        return Money(self.amount, self.currency)


class Retelling(models.Model):
    """A booking that is in the books already, told by a statement of another format, there under `key`.

    Append-only. Each format (`kind`) tells a booking once: so two equal bookings of one format are two.
    """

    transaction = models.ForeignKey(BankTransaction, models.PROTECT, related_name="retellings")
    statement = models.ForeignKey(BankStatement, models.PROTECT, related_name="retellings")
    kind = models.CharField(_("format"), max_length=30)
    key = models.CharField(max_length=160, db_index=True)

    class Meta:
        verbose_name = _("retelling")
        verbose_name_plural = _("retellings")
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["transaction", "kind"], name="booking_is_told_once_in_a_format"),
            models.UniqueConstraint(fields=["kind", "key"], name="retelling_key_unique_in_a_format"),
        ]
        triggers: ClassVar = [
            pgtrigger.Protect(name="append_only", operation=pgtrigger.Update | pgtrigger.Delete)
        ]

    def __str__(self) -> str:
        return f"{self.transaction} ({self.kind})"


class StatementLine(models.Model):
    """One line of a statement, in the file's order: a booking, which others may have told too, or what was left out.

    Append-only. It is written with the booking, and stays as it was first written when an import goes on.
    """

    statement = models.ForeignKey(BankStatement, models.PROTECT, related_name="lines")
    place = models.PositiveIntegerField(_("place"))
    position = models.CharField(_("position"), max_length=60)
    transaction = models.ForeignKey(
        BankTransaction, models.PROTECT, null=True, blank=True, related_name="lines"
    )
    is_new = models.BooleanField(_("new"), default=False)
    left_out = models.CharField(_("why it was left out"), max_length=200, blank=True, default="")
    # Only of what was left out: it has no booking that tells them. Negative: out.
    amount = models.BigIntegerField(_("amount"), null=True, blank=True)
    currency = models.CharField(_("currency"), max_length=3, blank=True, default="")
    text = models.CharField(_("text"), max_length=200, blank=True, default="")

    class Meta:
        verbose_name = _("statement line")
        verbose_name_plural = _("statement lines")
        ordering: ClassVar = ["statement_id", "place"]
        default_permissions: ClassVar = ()
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["statement", "place"], name="statement_line_once"),
            models.CheckConstraint(
                condition=Q(transaction__isnull=True) ^ Q(left_out=""),
                name="statement_line_booked_or_left_out",
            ),
        ]
        triggers: ClassVar = [AppendOnly(personal=["text"])]

    def __str__(self) -> str:
        return self.position


class Allocation(models.Model):
    """Where a part of a booking went. Append-only; moving money is one row out and one row in.

    The allocations of a booking always add up to its amount, so nothing is dropped and nothing is invented.
    """

    class Purpose(models.TextChoices):
        MATCHED = "matched", _("matched to a payment")
        REVIEW = "review", _("in review")
        REFUNDED = "refunded", _("paid back")
        DISCARDED = "discarded", _("discarded with a reason")
        OUTGOING = "outgoing", _("our own transfer")
        FOREIGN = "foreign", _("not the shop's business")

    transaction = models.ForeignKey(BankTransaction, models.PROTECT, related_name="allocations")
    purpose = models.CharField(_("purpose"), max_length=10, choices=Purpose)
    amount = models.BigIntegerField(_("amount"))  # negative: moved away from this purpose
    payment = models.ForeignKey(
        "payments.Payment", models.PROTECT, null=True, blank=True, related_name="allocations"
    )
    key = models.CharField(max_length=200, unique=True)
    actor = models.CharField(_("actor"), max_length=150)
    reason = models.TextField(_("reason"), blank=True, default="")
    at = models.DateTimeField(_("at"), auto_now_add=True)

    class Meta:
        verbose_name = _("allocation")
        verbose_name_plural = _("allocations")
        ordering: ClassVar = ["id"]
        triggers: ClassVar = [AppendOnly(personal=["reason"])]

    def __str__(self) -> str:
        return f"{self.amount} {self.get_purpose_display()}"
