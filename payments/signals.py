"""What payments announce. Sent inside the transaction that records the event; receivers only write."""

from django.dispatch import Signal

# payment: Payment, totals: Totals, new: minor units that the totals had not before. Money was received; it may or
# may not be enough.
payment_received = Signal()

# received: Sequence[tuple[Payment, Totals]]. The same for all payments of a part of a bank statement, whose
# receipts never exceed what is due and are never late. Receivers take a constant number of queries.
payments_received = Signal()

# payment: Payment, detail: str. The authorization was declined or lapsed.
payment_failed = Signal()

# payment: Payment, money: Money, about: str (which of the payment's refunds), needs_account: bool (nobody knows yet
# where to send it). Money is on its way back: a refund that a person asked for and the gateway has taken on, or money
# that was never captured. It may take days until it is there.
payment_refunded = Signal()
