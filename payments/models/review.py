"""Money that does not fit, waiting for a person. It is never dropped and never guessed."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from shop.kernel.money import Money


class ReviewItem(models.Model):
    """One thing about money that a person has to decide. `key` is what it is about: told twice, written once."""

    class Reason(models.TextChoices):
        NO_REFERENCE = "no_reference", _("no reference")
        UNKNOWN_REFERENCE = "unknown_reference", _("unknown reference")
        AMBIGUOUS = "ambiguous", _("ambiguous")
        TOO_LITTLE = "too_little", _("too little")
        LATE = "late", _("order cancelled or finished")
        TOO_MUCH = "too_much", _("too much")
        WRONG_CURRENCY = "wrong_currency", _("wrong currency")
        DUPLICATE = "duplicate", _("possible duplicate")
        CHARGEBACK = "chargeback", _("money taken back")
        REFUND_FAILED = "refund_failed", _("refund failed")
        UNDELIVERABLE = "undeliverable", _("message to a finished order")
        UNFIT = "unfit", _("cannot be stored")

    class State(models.TextChoices):
        OPEN = "open", _("open")
        CLOSED = "closed", _("closed")

    key = models.CharField(max_length=200, unique=True)
    reason = models.CharField(_("reason"), max_length=20, choices=Reason)
    merchant_reference = models.CharField(
        _("merchant reference"), max_length=40, blank=True, default="", db_index=True
    )
    payment = models.ForeignKey("payments.Payment", models.PROTECT, null=True, blank=True)
    amount = models.BigIntegerField(_("amount"), null=True, blank=True)
    currency = models.CharField(_("currency"), max_length=3, blank=True, default="")
    transaction = models.ForeignKey(
        "payments.BankTransaction", models.PROTECT, null=True, blank=True, related_name="reviews"
    )
    # The first webhook that told of a payment which nobody here has opened.
    webhook = models.ForeignKey(
        "payments.WebhookDelivery", models.PROTECT, null=True, blank=True, related_name="reviews"
    )
    # What it probably is, and why we think so: [{"merchant_reference": …, "why": …}], best first.
    proposals = models.JSONField(_("proposals"), default=list, blank=True)
    detail = models.TextField(_("what happened"))
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.OPEN)
    resolution = models.TextField(_("resolution"), blank=True, default="")
    resolved_by = models.CharField(_("resolved by"), max_length=150, blank=True, default="")
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    resolved_at = models.DateTimeField(_("resolved"), null=True, blank=True)

    class Meta:
        verbose_name = _("review item")
        verbose_name_plural = _("review items")
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [
            models.Index(
                fields=["reason", "created_at"], condition=models.Q(state="open"), name="review_item_open"
            ),
            models.Index(fields=["-created_at", "-id"], name="review_item_by_age"),
            models.Index(fields=["-state", "-created_at", "-id"], name="review_item_by_state"),
            models.Index(fields=["amount"], name="review_item_by_amount"),
        ]
        permissions: ClassVar = [
            ("accept_difference", "Can accept a payment that is short by a little as full"),
            ("discard_money", "Can discard money with a reason"),
        ]

    def __str__(self) -> str:
        money = str(Money(self.amount, self.currency)) if self.amount is not None else ""
        return ", ".join(filter(None, (self.get_reason_display(), self.merchant_reference, money)))
