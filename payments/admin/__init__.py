"""The staff's screens for payments: the books to look at, and what a person has to decide."""

from payments.admin import (
    batch_runs,
    gateways,
    payments,
    review,
    statement_files,
    statements,
    transfers,
    webhooks,
)

__all__ = [
    "batch_runs",
    "gateways",
    "payments",
    "review",
    "statement_files",
    "statements",
    "transfers",
    "webhooks",
]
