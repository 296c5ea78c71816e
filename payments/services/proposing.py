"""What money without a clear reference probably pays: proposals for a person, each with its reason, no more."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Protocol

from django.db.models import F
from django.db.models.functions import Lower
from django.utils.translation import gettext_noop

from payments.models import Allocation, BankTransaction, Payment
from payments.services.transfers import BANK_TRANSFER

MOST = 5
"""Proposals for one booking."""


class Undecided(Protocol):
    booking: BankTransaction
    proposals: list[tuple[str, str]]

    @property
    def in_review(self) -> int: ...

    @property
    def standing(self) -> object: ...


def add(decisions: Sequence[Undecided]) -> None:
    """Add proposals to bookings of which no payment is known: two queries, however many there are."""
    undecided = [d for d in decisions if d.in_review and d.standing is None and not d.booking.is_reversal]
    if not undecided:
        return
    by_payer = _waiting_for_the_rest([d.booking for d in undecided])
    by_amount = _same_amount_and_name([d.booking for d in undecided])
    for decision in undecided:
        known = {reference for reference, _ in decision.proposals}
        more = by_payer[decision.booking.pk] + by_amount[decision.booking.pk]
        for reference, why in more:
            if reference not in known:
                known.add(reference)
                decision.proposals.append((reference, why))
        del decision.proposals[MOST:]


def _waiting_for_the_rest(bookings: Iterable[BankTransaction]) -> dict[int, list[tuple[str, str]]]:
    """Open orders that have had money from the same account."""
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    by_iban = defaultdict(list)
    for booking in bookings:
        if booking.counterparty_iban:
            by_iban[booking.counterparty_iban].append(booking.pk)
    if not by_iban:
        return found
    rows = (
        Allocation.objects.filter(
            transaction__counterparty_iban__in=by_iban,
            purpose=Allocation.Purpose.MATCHED,
            payment__closed_at=None,
        )
        .values_list("transaction__counterparty_iban", "payment__merchant_reference")
        .distinct()
        .order_by("-payment__merchant_reference")
    )
    for iban, reference in rows[:1000]:
        for pk in by_iban[iban]:
            found[pk].append((reference, gettext_noop("Money came for it from the same account.")))
    return found


def _same_amount_and_name(bookings: Iterable[BankTransaction]) -> dict[int, list[tuple[str, str]]]:
    """Open orders of exactly this amount, of a customer with the payer's name."""
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    by_name = defaultdict(list)
    for booking in bookings:
        for name in _spellings(booking.counterparty_name):
            by_name[name, booking.amount, booking.currency].append(booking.pk)
    if not by_name:
        return found
    rows = (
        Payment.objects.filter(
            gateway=BANK_TRANSFER,
            closed_at=None,
            amount__in={amount for _name, amount, _currency in by_name},
            currency__in={currency for _name, _amount, currency in by_name},
        )
        .annotate(name=Lower(F("payer_name")))
        .filter(name__in={name for name, _amount, _currency in by_name})
        .order_by("-pk")
        .values_list("merchant_reference", "name", "amount", "currency")
    )
    for reference, name, amount, currency in rows[:1000]:
        for pk in by_name[name, amount, currency]:
            found[pk].append(
                (reference, gettext_noop("Its amount and the name of its customer are the same."))
            )
    return found


def _spellings(name: str) -> set[str]:
    """“Lovelace, Ada” is “ada lovelace” as well."""
    words = re.findall(r"[^\W_][\w'’-]*\.?", name.lower())
    if len(words) < 2:
        return {" ".join(words)} - {""}
    return {" ".join(words), " ".join([*words[1:], words[0]]), " ".join([words[-1], *words[:-1]])}
