"""The sum that every statement must pass: opening balance and movements give the closing balance."""

from __future__ import annotations

from collections import Counter

from payments.statements.types import Statement, StatementError
from shop.kernel.money import Money


def check(statement: Statement, booked: Counter[str]) -> None:
    """`booked` is the sum of all booked entries by currency, minor units. Without both balances nothing is known."""
    opening, closing = statement.opening, statement.closing
    if opening is None or closing is None:
        return
    position = f"statement {statement.statement_id or statement.sequence}"
    foreign = sorted({closing.currency, *booked} - {opening.currency})
    if foreign:
        raise StatementError(
            statement.file,
            position,
            f"the opening balance is in {opening.currency}, but other amounts of the statement are in "
            f"{', '.join(foreign)}. Ask the bank for one statement per currency.",
        )
    movement = Money(booked[opening.currency], opening.currency)
    if opening + movement != closing:
        raise StatementError(
            statement.file,
            position,
            f"the balance does not add up: opening {opening} and movements of {movement} give "
            f"{opening + movement}, but the closing balance says {closing}. Entries are missing or changed; "
            "download the statement from the bank again.",
        )
