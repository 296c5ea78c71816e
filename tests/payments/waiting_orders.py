"""Orders that wait for their money at the practice provider, many at once; their sagas are rows without a workflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.utils import timezone

from orders.models import Saga
from payments.gateways.base import EventOutcome, EventType
from payments.models import Payment, PaymentEvent
from tests import factories

PRICE = 4690


def waiting_orders(references: Sequence[str], *, first: int = 500_001) -> list[Payment]:
    """One order for each PSP reference, numbered from `ORD-{first}` on; their payments."""
    numbers = range(first, first + len(references))
    orders = factories.many_waiting(numbers, total=PRICE, payment_method="sandbox")
    common: dict[str, Any] = {"gateway": "sandbox", "amount": PRICE, "currency": "EUR"}
    payments = Payment.objects.bulk_create(
        (
            Payment(
                merchant_reference=order.number,
                idempotency_key=f"{order.number}/1/payment_hold",
                reference=reference,
                **common,
            )
            for order, reference in zip(orders, references, strict=True)
        ),
        batch_size=5000,
    )
    PaymentEvent.objects.bulk_create(
        (
            PaymentEvent(
                payment=payment,
                type=EventType.AUTHORIZATION,
                outcome=EventOutcome.SUCCEEDED,
                psp_reference=payment.reference,
                occurred_at=timezone.now(),
                source="call",
                **common,
            )
            for payment in payments
        ),
        batch_size=5000,
    )
    Saga.objects.bulk_create(
        (
            Saga(order=order, attempt=1, status="waiting", payment=payment)
            for order, payment in zip(orders, payments, strict=True)
        ),
        batch_size=5000,
    )
    return payments
