"""What payments announce. Sent inside the transaction that records the event; receivers only write.

Receivers take a constant number of queries, however many payments there are.
"""

from django.dispatch import Signal

# received: Sequence[tuple[Payment, Totals]]. Money was received for them; it may or may not be enough.
# new: Mapping[int, int]. How much of it has just come (minor units, by the payment's key) and may be too much or
# too late. Left out for money of a bank statement, where what is too much or too late is not recorded as received.
payments_received = Signal()

# failed: Sequence[tuple[Payment, str]], with the reason. The authorization was declined, lapsed, or was
# released at the provider.
payments_failed = Signal()

# payments: Sequence[Payment]. Their `authorized_until` has become known, or later.
authorizations_last = Signal()

# payment: Payment, money: Money, about: str (which of the payment's refunds), needs_account: bool (nobody knows yet
# where to send it). Money is on its way back: a refund that a person asked for and the gateway has taken on, or money
# that was never captured. It may take days until it is there.
payment_refunded = Signal()
