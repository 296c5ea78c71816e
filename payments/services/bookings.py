"""Where the money of one booking is: moving a part of it, and the review item that a person decides on.

Each cent in review belongs to one open item. Locks are taken in this order: payments (by primary key), review
items, bookings. Moving money is one allocation out and one in.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from django.db.models import Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from payments.banking.account import AccountInvalid, valid_iban
from payments.gateways.base import EventOutcome, EventType
from payments.models import Allocation, BankTransaction, Payment, PaymentEvent, ReviewItem
from payments.services.review_items import closed_by, subject_of
from payments.services.transfers import Payee
from shop.kernel import second_person
from shop.kernel.money import Money

Purpose = Allocation.Purpose


class NotThere(Exception):
    """More was to be moved than is there."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part of a booking is: matched to a payment, in review, …"""

    purpose: str
    payment: Payment | None = field(default=None)


IN_REVIEW = Place(Purpose.REVIEW)


def balance(transaction: BankTransaction, place: Place) -> int:
    """How much of the booking is there; minor units."""
    rows = Allocation.objects.filter(transaction=transaction, purpose=place.purpose, payment=place.payment)
    found: int | None = rows.aggregate(sum=Sum("amount"))["sum"]
    return found or 0


def first_key(transaction: BankTransaction, n: int) -> str:
    """The key of a booking's n-th allocation."""
    return f"bank/{transaction.pk}/{n}"


def move(
    transaction: BankTransaction, amount: int, source: Place, target: Place, actor: str, reason: str
) -> str:
    """Move a part of a booking; returns a key for what belongs to this move. Raises `NotThere`."""
    BankTransaction.objects.select_for_update().get(pk=transaction.pk)
    if not 0 < amount <= balance(transaction, source):
        raise NotThere(_("%s are not there to be moved.") % Money(amount, transaction.currency))
    n = Allocation.objects.filter(transaction=transaction).count()
    Allocation.objects.bulk_create(
        Allocation(
            transaction=transaction,
            purpose=place.purpose,
            payment=place.payment,
            amount=change,
            key=first_key(transaction, n + i),
            actor=actor,
            reason=reason,
        )
        for i, (place, change) in enumerate(((source, -amount), (target, amount)), start=1)
    )
    return first_key(transaction, n + 2)


def matched_to(payment: Payment) -> list[tuple[BankTransaction, int]]:
    """The bookings in which money for the payment came, and how much of each it still has: oldest first."""
    rows = (
        Allocation.objects.filter(
            payment=payment, purpose=Purpose.MATCHED, transaction__direction=BankTransaction.Direction.CREDIT
        )
        .values("transaction_id")
        .annotate(sum=Sum("amount"))
        .filter(sum__gt=0)
        .order_by("transaction_id")
    )
    sums = {row["transaction_id"]: row["sum"] for row in rows}
    found = BankTransaction.objects.in_bulk(sums)
    gone = Allocation.objects.filter(
        payment=payment, purpose=Purpose.MATCHED, transaction__direction=BankTransaction.Direction.DEBIT
    )
    taken_back = gone.aggregate(sum=Sum("amount"))["sum"] or 0
    left = []
    for pk, amount in sums.items():
        kept = max(0, amount - taken_back)
        taken_back -= amount - kept
        if kept:
            left.append((found[pk], kept))
    return left


def unmatch(
    transaction: BankTransaction, amount: int, payment: Payment, target: Place, actor: str, why: str
) -> str:
    """The payment has not received this part of the booking after all; returns the key of the move."""
    key = move(transaction, amount, Place(Purpose.MATCHED, payment), target, actor, why)
    PaymentEvent.objects.create(
        payment=payment,
        gateway=payment.gateway,
        type=EventType.RECEIPT.value,
        outcome=EventOutcome.SUCCEEDED.value,
        psp_reference=key,
        amount=-amount,
        currency=payment.currency,
        occurred_at=timezone.now(),
        source="statement",
        actor=actor,
        detail=why,
    )
    return key


def item_of(transaction: BankTransaction) -> ReviewItem | None:
    """The open item about what of the booking is in review, locked."""
    return (
        ReviewItem.objects.select_for_update(of=("self",))
        .filter(transaction=transaction, state=ReviewItem.State.OPEN)
        .exclude(reason__in=WITHOUT_MONEY)
        .first()
    )


def open_item(
    transaction: BankTransaction, amount: int, reason: str, payment: Payment | None, detail: str, key: str
) -> ReviewItem:
    """Have a person decide on money of a booking that was moved into review. A booking has one open item."""
    item = item_of(transaction)
    if item is not None:
        item.amount = (item.amount or 0) + amount
        item.reason, item.detail = reason, f"{detail} {item.detail}"
        item.save(update_fields=["amount", "reason", "detail"])
        return item
    return ReviewItem.objects.create(
        key=key,
        reason=reason,
        payment=payment,
        merchant_reference=payment.merchant_reference if payment else "",
        transaction=transaction,
        amount=amount,
        currency=transaction.currency,
        detail=detail,
    )


def lessen(item: ReviewItem, amount: int, actor: str, what: str) -> int:
    """`amount` of the item's money has been moved; the rest stays in review. Returns what is left."""
    left = (item.amount or 0) - amount
    if left > 0:
        item.amount = left
        item.resolution = " ".join(filter(None, (item.resolution, f"{what} ({actor})")))
        item.save(update_fields=["amount", "resolution"])
    else:
        finish(item, actor, " ".join(filter(None, (item.resolution, what))))
    return left


def finish(item: ReviewItem, actor: str, resolution: str) -> None:
    """Close an item that the caller has locked or just made."""
    item.state, item.resolution = ReviewItem.State.CLOSED, resolution
    item.resolved_by, item.resolved_at = actor, timezone.now()
    item.save(update_fields=["state", "resolution", "resolved_by", "resolved_at"])
    second_person.lapse([subject_of(item.pk)], closed_by(actor, resolution))


# Their money is not in review: it is matched, or it is gone.
WITHOUT_MONEY = (ReviewItem.Reason.TOO_LITTLE, ReviewItem.Reason.CHARGEBACK, ReviewItem.Reason.UNDELIVERABLE)


def payer(transaction: BankTransaction) -> Payee | None:
    """Who sent it, if the bank says so and the account works for sending it back."""
    try:
        return Payee(transaction.counterparty_name[:140], valid_iban(transaction.counterparty_iban))
    except AccountInvalid:
        return None


def sender(transaction: BankTransaction) -> Payee:
    """The same with the name alone where the account is not known, or does not work."""
    return payer(transaction) or Payee(transaction.counterparty_name[:140], "")
