"""Bank files, read into the shop's own types: camt.053, camt.054 and MT940, also zipped.

Nothing here knows an order or the database. A file is judged whole before a caller sees a statement of it.
"""

from payments.statements.reading import read
from payments.statements.types import Direction, LeftOut, Statement, StatementError, Transaction

__all__ = ["Direction", "LeftOut", "Statement", "StatementError", "Transaction", "read"]
