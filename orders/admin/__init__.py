"""The staff's screens for orders. Thin: what they do is in `orders.services`."""

from orders.admin import alerts, api_keys, catalogue, differences, mails, orders

__all__ = ["alerts", "api_keys", "catalogue", "differences", "mails", "orders"]
