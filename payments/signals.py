"""What payments announce. Sent inside the transaction that records the event; receivers only write."""

from django.dispatch import Signal

# payment: Payment, totals: Totals. Money was received; it may or may not be enough.
payment_received = Signal()

# payment: Payment, detail: str. The authorization was declined or lapsed.
payment_failed = Signal()
