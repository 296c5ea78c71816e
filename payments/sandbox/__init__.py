"""The practice provider: a payment provider and a carrier to try a shop against, in a process of its own.

It speaks real HTTP, keeps its books in SQLite, and is honest about idempotency. It imports no Django, and the
shop knows it only through its HTTP interface (`docs/sandbox.md`).
"""
