"""The lines of statements, and where the money of each is now: what a report counts, filters and shows."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connection
from django.db.models import Q, QuerySet, Sum

from payments.models import Allocation, StatementLine

Purpose = Allocation.Purpose
ALL, NEW, KNOWN, LEFT_OUT = "all", "new", "known", "left_out"
FATES = (ALL, NEW, KNOWN, LEFT_OUT, *Purpose.values)
"""What lines can be asked for: all, how they came, or a purpose that some of their money has now."""


def counts(statements: Sequence[int]) -> dict[str, int]:
    """How many lines of the statements (primary keys) there are of each of `FATES`: two queries."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE transaction_id IS NULL)"
            " FROM payments_statementline WHERE statement_id = ANY(%s)",
            [list(statements)],
        )
        all_, new, left_out = cursor.fetchone()
        cursor.execute(
            "SELECT purpose, count(*) FROM ("
            " SELECT line.id, purpose FROM payments_statementline line JOIN payments_allocation USING (transaction_id)"
            " WHERE statement_id = ANY(%s) GROUP BY line.id, purpose HAVING sum(payments_allocation.amount) > 0"
            ") places GROUP BY purpose",
            [list(statements)],
        )
        places = dict(cursor.fetchall())
    return {
        ALL: all_,
        NEW: new,
        KNOWN: all_ - new - left_out,
        LEFT_OUT: left_out,
        **{purpose: places.get(purpose, 0) for purpose in Purpose.values},
    }


def lines(statements: Sequence[int], fate: str = ALL) -> QuerySet[StatementLine]:
    """The lines of the statements that have this fate, in the order of the files."""
    found = StatementLine.objects.filter(statement__in=statements).order_by("statement_id", "place")
    if fate in Purpose.values:
        there = (
            Allocation.objects.filter(purpose=fate, transaction__lines__statement__in=statements)
            .values("transaction_id")
            .annotate(sum=Sum("amount"))
            .filter(sum__gt=0)
        )
        return found.filter(transaction__in=there.values("transaction_id"))
    how = {
        NEW: Q(is_new=True),
        KNOWN: Q(is_new=False, transaction__isnull=False),
        LEFT_OUT: Q(transaction__isnull=True),
    }
    return found.filter(how.get(fate, Q()))
