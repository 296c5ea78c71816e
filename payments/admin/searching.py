"""Search in the lists of money: what the words may be, and the rows that each of it leads to, by an index."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

from django.db.models import Q, QuerySet

from payments.models import Allocation, BankTransaction, OutgoingTransfer, Payment, ReviewItem
from payments.references import PREFIX, find, parse_creditor_reference
from shop.kernel.admin.lists import each_word
from shop.kernel.amounts import parse_amount
from shop.kernel.money import is_currency

_AMOUNT = re.compile(
    r"[+−-]?\s*([A-Z]{3}|[€$£¥])?\s*[+−-]?\s*(\d[\d.,'’\s]*?)\s*([A-Z]{3}|[€$£¥])?", re.IGNORECASE
)
"""Amounts are looked for as screens show them and as people type them: -€8.90, 8,90 eur, 1.299,99 €."""
_NUMBER = re.compile(rf"(?:{PREFIX}[- ]?)?(\d{{3,15}})", re.ASCII | re.IGNORECASE)
"""An order's number or its beginning, with or without the prefix."""
_IBAN = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{4,30}", re.ASCII)
"""Or its beginning."""


def amounts_meant(term: str) -> list[int]:
    """The minor units that a search for “39.98”, “1.299,99” or “€39.98” may mean, with 2 decimals or none.

    “1.299” may be thousands.
    """
    parts = _AMOUNT.fullmatch(term.strip())
    if parts is None:
        return []
    typed, *currencies = parts.group(2, 1, 3)
    if any(word and word.isalpha() and not is_currency(word.upper()) for word in currencies):
        return []
    found = set()
    for text, currency in product((typed, re.sub(r"^(\d{1,3})[.,](\d{3})$", r"\1\2", typed)), ("EUR", "JPY")):
        try:
            found.add(parse_amount(text, currency))
        except ValueError:
            continue
    return sorted(found)


def order_numbers(term: str, field: str) -> Q | None:
    """For `filter`: the order that the words name by its number, the beginning of that, or an RF reference."""
    if reference := parse_creditor_reference(term):
        return Q(**{field: reference[0]})
    if number := _NUMBER.fullmatch(term):
        return Q(**{f"{field}__startswith": f"{PREFIX}-{number[1]}"})
    named = {number for number, _attempt in find([term]).certain}
    return Q(**{f"{field}__in": named}) if named else None


def iban_meant(term: str) -> str:
    """The IBAN or beginning of one, with spaces or without, that it may be; or nothing."""
    compact = "".join(term.split()).upper()
    return compact if _IBAN.fullmatch(compact) else ""


def bookings(rows: QuerySet[BankTransaction], term: str) -> Iterator[QuerySet[BankTransaction]]:
    compact = "".join(term.split()).upper()
    if iban := iban_meant(term):
        yield rows.filter(counterparty_iban__startswith=iban)
    if amounts := amounts_meant(term):
        yield rows.filter(amount__in=amounts)
    if order := order_numbers(term, "merchant_reference"):
        matched = Allocation.objects.filter(payment__in=Payment.objects.filter(order))
        yield rows.filter(pk__in=matched.values("transaction"))
    yield rows.filter(creditor_reference__in={term, compact})
    yield rows.filter(end_to_end_id__in={term, term.upper()})
    yield rows.filter(each_word("counterparty_name", term))
    yield rows.filter(each_word("remittance_information", term))


def payments(rows: QuerySet[Payment], term: str, most: int | None) -> Iterator[QuerySet[Payment]]:
    if order := order_numbers(term, "merchant_reference"):
        yield rows.filter(order)
    if amounts := amounts_meant(term):
        yield rows.filter(amount__in=amounts)
    if iban := iban_meant(term):
        yield _paid_by(rows, Q(counterparty_iban__startswith=iban), most)
    if len(term.split()) == 1:
        yield rows.filter(~Q(reference=""), reference__startswith=term)
    if any(character.isalpha() for character in term):
        yield rows.filter(each_word("payer_name", term), ~Q(payer_name=""))
        yield _paid_by(rows, each_word("counterparty_name", term), most)


def _paid_by(rows: QuerySet[Payment], booking: Q, most: int | None) -> QuerySet[Payment]:
    found = BankTransaction.objects.filter(booking).order_by("-booking_date", "-id")[:most]
    matched = Allocation.objects.filter(transaction__in=found, payment__isnull=False)
    return rows.filter(pk__in=matched.values("payment"))


def review_items(rows: QuerySet[ReviewItem], term: str) -> Iterator[QuerySet[ReviewItem]]:
    if order := order_numbers(term, "merchant_reference"):
        yield rows.filter(order)
    yield rows.filter(proposals__contains=[{"merchant_reference": term.upper()}])
    yield rows.filter(merchant_reference__iexact=term)
    yield rows.filter(webhook__payment_reference__icontains=term)
    if amounts := amounts_meant(term):
        yield rows.filter(amount__in=amounts)
    for found in bookings(BankTransaction.objects.all(), term):
        yield rows.filter(transaction__in=found)


def transfers(rows: QuerySet[OutgoingTransfer], term: str) -> Iterator[QuerySet[OutgoingTransfer]]:
    if order := order_numbers(term, "merchant_reference"):
        yield rows.filter(payment__in=Payment.objects.filter(order))
    if amounts := amounts_meant(term):
        yield rows.filter(amount__in=amounts)
    if iban := iban_meant(term):
        yield rows.filter(payee_iban__startswith=iban)
    yield rows.filter(end_to_end_id__in={term, term.upper()})
    yield rows.filter(each_word("payee_name", term))
