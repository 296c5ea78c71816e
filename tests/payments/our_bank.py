"""The shop's account and its bank, for tests: what the settings say, and money that a statement shows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

from payments.gateways import gateway
from payments.gateways.base import EventOutcome, EventType, GatewayEvent
from payments.models import Allocation, BankStatement, BankTransaction, Payment
from payments.services.recording import absorb, open_payment, record
from shop.kernel.money import Money

IBAN = "DE89370400440532013000"
BIC = "COBADEFFXXX"
HOLDER = "Tee & Kännchen GmbH"
ADA = "DE02120300000000202051"
GRACE = "NL91ABNA0417164300"

_numbers = itertools.count(1)


@contextmanager
def our_bank(settings: Any) -> Iterator[None]:
    """The shop takes bank transfers, beside what it takes already."""
    settings.BANK_IBAN = IBAN
    settings.BANK_BIC = BIC
    settings.BANK_ACCOUNT_HOLDER = HOLDER
    settings.BANK_NAME = "Commerzbank"
    settings.REFUND_LATE_MONEY = False
    settings.REFUND_LIMIT = 0
    settings.PAYMENT_GATEWAYS = settings.PAYMENT_GATEWAYS | {
        "bank_transfer": "payments.gateways.bank_transfer.BankTransferGateway"
    }
    gateway.cache_clear()
    yield
    gateway.cache_clear()


def opened(number: str = "ORD-100001", amount: int = 3998, currency: str = "EUR", key: str = "") -> Payment:
    """A payment by bank transfer, with its instructions."""
    key = key or f"{number}/{next(_numbers)}/payment_hold"
    money = Money(amount, currency)
    payment = open_payment("bank_transfer", number, money, key)
    return absorb(payment, gateway("bank_transfer").authorize(number, money, key).payment, "call")


def captured(number: str = "ORD-100001", amount: int = 3998, currency: str = "EUR") -> Payment:
    """A payment whose money came from Ada's account, and that was booked."""
    payment = opened(number, amount, currency)
    arrives(payment, amount)
    money = Money(amount, currency)
    answer = gateway("bank_transfer").capture(payment.reference, money, f"{payment.pk}/capture")
    return absorb(payment, answer.payment, "call")


def arrives(payment: Payment, amount: int, iban: str = ADA, name: str = "Ada Lovelace") -> BankTransaction:
    """A statement shows money for the payment."""
    n = next(_numbers)
    statement = BankStatement.objects.create(
        kind="camt.053", account_iban=IBAN, file_name=f"{n}.xml", currency=payment.currency
    )
    booking = BankTransaction.objects.create(
        key=f"test/{n}",
        statement=statement,
        position="entry 1",
        direction="credit",
        amount=amount,
        currency=payment.currency,
        booking_date=date(2026, 1, 5),
        counterparty_name=name,
        counterparty_iban=iban,
    )
    Allocation.objects.create(
        transaction=booking, purpose="matched", amount=amount, payment=payment, key=f"bank/{booking.pk}/1"
    )
    event = GatewayEvent(
        type=EventType.RECEIPT,
        outcome=EventOutcome.SUCCEEDED,
        psp_reference=booking.key,
        payment_reference=payment.reference,
        merchant_reference=payment.merchant_reference,
        money=Money(amount, payment.currency),
        occurred_at=datetime(2026, 1, 5, tzinfo=UTC),
    )
    record(payment, [event], "statement")
    return booking
