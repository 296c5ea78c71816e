"""Search for orders: what the words may be, and the orders that each of it leads to, by an index.

A word that can only be one thing (an e-mail address, an IBAN, a number with its prefix) is looked for as that alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from django.db.models import Q, QuerySet

from orders.models import Order, OrderLine, Saga, Shipment
from payments.admin.searching import amounts_meant, iban_meant, order_numbers
from payments.models import Allocation, BankTransaction
from shop.kernel.admin.lists import each_word

_TRACKING = re.compile(r"(?=.*\d)[A-Z0-9/_-]{6,80}", re.ASCII)


def finds(orders: QuerySet[Order], term: str, most: int | None) -> Iterator[QuerySet[Order]]:
    """The orders by each thing that the words may be."""
    compact = "".join(term.split()).upper()
    if "@" in term:
        yield orders.filter(customer_email__icontains=term)
        return
    if named := order_numbers(term, "number"):
        yield orders.filter(named)
        if not term[0].isdigit():
            return
    if iban := iban_meant(term):
        yield _paid_by(orders, Q(counterparty_iban__startswith=iban), most)
    if amounts := amounts_meant(term):
        yield orders.filter(total__in=amounts)
    if _TRACKING.fullmatch(compact):
        # Its index has only those with a number, and PostgreSQL must be told that no other is wanted.
        parcels = Shipment.objects.exclude(tracking_number="").filter(
            _begins("tracking_number", *{compact, term})
        )
        yield orders.filter(pk__in=parcels.values("saga__order"))
    yield orders.filter(pk__in=OrderLine.objects.filter(sku__in={term, term.upper()}).values("order"))
    if any(character.isalpha() for character in term):
        yield orders.filter(each_word("customer_name", term))
        if len(term) > 2 and len(term.split()) == 1:
            yield orders.filter(customer_email__icontains=term)
        yield _paid_by(orders, each_word("counterparty_name", term), most)


def _begins(field: str, *texts: str) -> Q:
    wanted = Q()
    for text in texts:
        wanted |= Q(**{f"{field}__startswith": text})
    return wanted


def _paid_by(orders: QuerySet[Order], booking: Q, most: int | None) -> QuerySet[Order]:
    """The orders that such bookings are matched to."""
    bookings = BankTransaction.objects.filter(booking).order_by("-booking_date", "-id")[:most]
    allocations = Allocation.objects.filter(transaction__in=bookings, payment__isnull=False)
    return orders.filter(
        pk__in=Saga.objects.filter(payment__in=allocations.values("payment")).values("order")
    )
