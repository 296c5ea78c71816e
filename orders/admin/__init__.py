"""The staff's screens for orders. Thin: what they do is in `orders.services`."""

from orders.admin import api_keys, catalogue, dead_letters, mails, orders

__all__ = ["api_keys", "catalogue", "dead_letters", "mails", "orders"]
