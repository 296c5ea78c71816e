"""Rows by COPY are as `bulk_create` would have written them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.db import IntegrityError, transaction

from payments.models import Payment, PaymentEvent
from shop.kernel.bulk import any_key, any_text, copy_in

pytestmark = pytest.mark.django_db


def _payment() -> Payment:
    return Payment.objects.create(
        gateway="sandbox", merchant_reference="ORD-1", idempotency_key="k", amount=1, currency="EUR"
    )


def _event(payment: Payment, reference: str, detail: str = "") -> PaymentEvent:
    return PaymentEvent(
        payment=payment,
        gateway="sandbox",
        type="receipt",
        outcome="succeeded",
        psp_reference=reference,
        amount=-(2**40),
        currency="EUR",
        occurred_at=datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC),
        source="statement",
        detail=detail,
    )


def test_rows_are_written_as_they_are_and_get_their_keys_in_order() -> None:
    payment, odd = _payment(), "tab\tline\nback\\slash \\N “ä” {1,2} ''"
    rows = [_event(payment, "a", odd), _event(payment, "b")]
    copy_in(rows)
    assert list(PaymentEvent.objects.order_by("pk")) == rows
    written = PaymentEvent.objects.order_by("pk")[0]
    assert written.recorded_at is not None
    for field in PaymentEvent._meta.concrete_fields:
        assert getattr(written, field.attname) == getattr(rows[0], field.attname)
    after = _event(payment, "c")
    after.save()
    assert after.pk > rows[1].pk
    copy_in([])


def test_a_row_that_is_there_already_is_an_error_and_nothing_is_written() -> None:
    payment = _payment()
    copy_in([_event(payment, "a")])
    with pytest.raises(IntegrityError), transaction.atomic():
        copy_in([_event(payment, "b"), _event(payment, "a")])
    assert PaymentEvent.objects.count() == 1


def test_any_of_many_is_one_parameter() -> None:
    payment = _payment()
    copy_in([_event(payment, name) for name in ("a", "b", "c'")])
    found = PaymentEvent.objects.filter(payment_id__in=any_key([payment.pk, 0]))
    assert found.count() == 3
    assert found.filter(psp_reference__in=any_text(["a", "c'", "d"])).count() == 2
    assert not found.filter(psp_reference__in=any_text([])).exists()
    assert not found.filter(payment_id__in=any_key([])).exists()
