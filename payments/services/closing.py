"""The end of a payment: from then on no money is of use for it, and what is left over goes back.

The merchant closes a payment when its order is shipped or given up. Money that had come by bank and was never
captured goes into review, or back to the payer where REFUND_LATE_MONEY says so.
"""

from __future__ import annotations

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from payments.models import Allocation, BankTransaction, Payment, ReviewItem
from payments.services import bookings, strays, transfers
from payments.services.bookings import IN_REVIEW, Place
from payments.services.review_items import close_all
from shop.kernel import second_person
from shop.kernel.money import Money

Purpose = Allocation.Purpose


@transaction.atomic
def close_payment(payment: Payment, why: str) -> None:
    """Close it, for the reason `why` (a sentence). The second call changes nothing."""
    payment = Payment.objects.select_for_update().get(pk=payment.pk)
    if payment.closed_at is not None:
        return
    payment.closed_at = timezone.now()
    payment.save(update_fields=["closed_at"])
    if not payment.reference:
        strays.look_again(payment.gateway, payment.merchant_reference)
    close_all(ReviewItem.objects.filter(payment=payment, reason=ReviewItem.Reason.TOO_LITTLE), why)
    second_person.lapse([f"payment/{payment.pk}/received"], why)
    if not payment.totals().captured:
        for booking, amount in bookings.matched_to(payment):
            take_back(booking, amount, payment, why)


def take_back(booking: BankTransaction, amount: int, payment: Payment, why: str) -> None:
    """The payment has not received this money after all: it is late."""
    key = bookings.unmatch(booking, amount, payment, IN_REVIEW, "shop", why)
    item = bookings.open_item(
        booking,
        amount,
        ReviewItem.Reason.LATE,
        payment,
        " ".join((why, _("%s had come for it.") % Money(amount, booking.currency))),
        key,
    )
    if settings.REFUND_LATE_MONEY:
        send_back(item, payment, why)


def send_back(item: ReviewItem, payment: Payment, why: str) -> None:
    """Pay late money back without asking anyone, as the setting says. The item tells that it was done."""
    booking = item.transaction
    assert booking is not None
    assert item.amount is not None
    key = bookings.move(booking, item.amount, IN_REVIEW, Place(Purpose.REFUNDED), "shop", why)
    payee = bookings.payer(booking)
    money = Money(item.amount, booking.currency)
    transfers.pay_back(money, key, "shop", payment=payment, payee=payee)
    bookings.finish(
        item, "shop", _("%(money)s are paid back, as the setting REFUND_LATE_MONEY says.") % {"money": money}
    )
