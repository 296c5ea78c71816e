"""The staff's screens for payments: the books to look at, and what a person has to decide."""

from payments.admin import gateways, payments, review, statements, transfers, webhooks

__all__ = ["gateways", "payments", "review", "statements", "transfers", "webhooks"]
