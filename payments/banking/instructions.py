"""What a customer needs to pay by bank transfer."""

from __future__ import annotations

from dataclasses import dataclass

from payments.banking.account import grouped, our_account
from payments.ledger import Totals
from payments.models import Payment
from payments.references import format_creditor_reference
from shop.kernel.money import Money

BANK_TRANSFER = "bank_transfer"


@dataclass(frozen=True, slots=True)
class Instructions:
    """Where to, how much, and the ISO 11649 reference that the money must carry."""

    iban: str
    bic: str
    name: str
    bank: str
    creditor_reference: str
    money: Money

    @property
    def iban_grouped(self) -> str:
        return grouped(self.iban)

    @property
    def reference_grouped(self) -> str:
        return format_creditor_reference(self.creditor_reference)

    @property
    def amount(self) -> str:
        """As people write it, such as `€12.50`."""
        return self.money.format()


def instructions_for(reference: str, money: Money) -> Instructions:
    """How to pay `money` into our account under a creditor reference."""
    ours = our_account()
    return Instructions(ours.iban, ours.bic, ours.holder, ours.bank, reference, money)


def instructions_of(payment: Payment, totals: Totals | None = None) -> Instructions | None:
    """How to pay what is still missing; None if nothing is to be paid by bank transfer (any more)."""
    if payment.gateway != BANK_TRANSFER or not payment.reference:
        return None
    totals = totals or payment.totals()
    missing = payment.missing(totals)
    if missing <= 0 or totals.captured or totals.voided or not payment.is_open:
        return None
    return instructions_for(payment.reference, Money(missing, payment.currency))
