"""What orders should have come to against their payments, and the bank's bookings against receipts."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Exists, OuterRef
from django.utils.translation import gettext_noop

from orders.models import DeadLetter, Order, Saga
from orders.services.reconciling.finding import Finding, Look
from orders.workflows.types import Step
from payments.services import proving
from shop.kernel.money import Money

AT_A_TIME = 500
ABOUT_MONEY = (Step.PAYMENT_HOLD, Step.PAYMENT_CAPTURED)


def orders(look: Look) -> Iterator[Finding]:
    """A completed saga has captured the total, and a cancelled one has given everything back.

    A refund counts from when it was asked for: a bank needs days. What staff refunded of a completed order
    is no difference, nor what they have undone by hand, with their evidence in the dead letter.
    """
    by_hand = DeadLetter.objects.filter(saga=OuterRef("pk"), step__in=ABOUT_MONEY).exclude(evidence="")
    ended = Saga.objects.filter(
        status__in=(Saga.Status.COMPLETED, Saga.Status.CANCELLED), payment__isnull=False
    ).exclude(Exists(by_hand))
    ended = ended.select_related("order", "payment").prefetch_related("payment__events").order_by("pk")
    after = 0
    while sagas := list(ended.filter(pk__gt=after)[:AT_A_TIME]):
        look.beat()
        for saga in sagas:
            sentence = _difference(saga)
            if sentence:
                yield Finding(
                    saga.order.number,
                    sentence,
                    gettext_noop(
                        "See the timeline of the order and its payment at the provider; then refund, capture or void "
                        "there what is wrong."
                    ),
                    order_number=saga.order.number,
                    payment=saga.payment_id,
                )
        after = sagas[-1].pk


def _difference(saga: Saga) -> str:
    assert saga.payment is not None
    currency = saga.order.currency
    totals = saga.payment.totals()
    completed = saga.status == Saga.Status.COMPLETED
    # The total, or the little less that staff have accepted.
    due = saga.payment.expected(totals)
    kept, expected = (totals.captured, due) if completed else (totals.kept, 0)
    if kept != expected:
        return (
            f"The order is {saga.get_status_display()}: {Money(expected, currency)} should have been "
            f"{'captured' if completed else 'kept'}, and {Money(kept, currency)} were."
        )
    if totals.kept < 0:
        return f"{Money(-totals.kept, currency)} more were given back than were captured."
    still_held = totals.authorized and not (totals.voided or totals.captured or totals.declined)
    if not completed and still_held:
        return gettext_noop("The order is cancelled, but its authorization is still open.")
    return ""


def statements(look: Look) -> Iterator[Finding]:
    """Each booking of the bank is where the books say it is; what is matched is a receipt, and the reverse."""
    for difference in proving.differences():
        number = difference.about.split(" ")[0]
        known = Order.objects.filter(number=number).exists()
        yield Finding(
            difference.about,
            difference.sentence,
            gettext_noop(
                "See the statement line and what it was matched to. The books of the bank mend nothing by themselves."
            ),
            order_number=number if known else "",
        )
