"""What payments announce. Sent inside the transaction that records the event; receivers only write."""

from django.dispatch import Signal

# payment: Payment, totals: Totals, new: minor units that the totals had not before. Money was received; it may or
# may not be enough.
payment_received = Signal()

# received: Sequence[tuple[Payment, Totals]]. The same for all payments of a part of a bank statement, whose
# receipts never exceed what is due and are never late. Receivers take a constant number of queries.
payments_received = Signal()

# payment: Payment, detail: str. The authorization was declined, lapsed, or was released at the provider.
payment_failed = Signal()

# payment: Payment. Its `authorized_until` has become known, or later.
authorization_lasts = Signal()

# payment: Payment, money: Money, request: PaymentEvent (the refund that was asked for). The gateway has taken on a
# refund that a person asked for; it may take days until it is done.
payment_refunded = Signal()
