"""The staff's screens for payments: the books to look at, and what a person has to decide."""

from payments.admin import batch_runs, payments, review, statement_files, statements, transfers, webhooks

__all__ = ["batch_runs", "payments", "review", "statement_files", "statements", "transfers", "webhooks"]
