"""Counters and histograms that are a fold over rows which are only ever added, so that every process agrees."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import psycopg

MOST = 50_000  # rows a query
# A row is in sight within seconds of its key, because transactions are short. What is older than this does not
# change any more and is counted once; what came later is counted anew with every scrape.
SETTLED_AFTER = "2 minutes"

Labels = tuple[str, ...]


@dataclass(slots=True)
class Counted:
    """How many rows there are by labels and bucket, and what their values add up to by labels."""

    numbers: Counter[tuple[Labels, int]] = field(default_factory=Counter)
    sums: Counter[Labels] = field(default_factory=Counter)

    def add(self, labels: Labels, bucket: int, number: int, value: float) -> None:
        self.numbers[labels, bucket] += number
        self.sums[labels] += value  # type: ignore[assignment]

    def __add__(self, other: Counted) -> Counted:
        both = Counted(Counter(self.numbers), Counter(self.sums))
        both.numbers.update(other.numbers)
        both.sums.update(other.sums)
        return both

    def total(self, labels: Labels) -> int:
        return sum(number for (found, _), number in self.numbers.items() if found == labels)

    def up_to_each(self, labels: Labels, buckets: int) -> list[int]:
        """The cumulative numbers of `buckets` buckets and of the one above them all."""
        return list(accumulate(self.numbers[labels, bucket] for bucket in range(buckets + 1)))


class Fold:
    """The count of the rows that a SELECT gives: `key`, `at`, `labels` (text[]) and `value` (float8).

    `key` grows from row to row and has an index; `at` is when the row was written. The SELECT gives every row of its
    table, those that do not count with no labels: else it would look at them again with every scrape. `bounds`, in
    the unit of the value, are the upper bounds of a histogram's buckets; none for a counter. Safe for concurrent
    scrapes.
    """

    def __init__(self, rows: str, *, start: str = "0", bounds: Sequence[float] = ()) -> None:
        self._sql = _SQL.format(rows=rows)
        self._bounds = list(bounds)
        self._lock = threading.Lock()
        self._settled = Counted()
        self._settled_until: Any = start

    def count(self, connection: psycopg.Connection, give_up_at: float) -> Counted:
        """All rows there are now. The first call reads them all, the later ones the newest only.

        Raises `TimeoutError` at `give_up_at` (of `time.monotonic`); the next call goes on from there.
        """
        with self._lock:
            while time.monotonic() < give_up_at:
                recent, read = self._read_on(connection)
                if read < MOST:
                    return self._settled + recent
        raise TimeoutError("There are more rows than could be counted in time.")

    def _read_on(self, connection: psycopg.Connection) -> tuple[Counted, int]:
        recent, read, until = Counted(), 0, None
        parameters = {"after": self._settled_until, "bounds": self._bounds}
        for labels, bucket, is_settled, number, value, settled_until in connection.execute(
            self._sql, parameters
        ):
            read += number
            until = settled_until
            if labels is None:
                continue
            counted = self._settled if is_settled else recent
            counted.add(tuple(labels), bucket, number, value)
        if until is None:
            return recent, 0  # nothing to go on with
        self._settled_until = until
        return recent, read


_SQL = f"""
    WITH news AS (
        SELECT * FROM ({{rows}}) AS row WHERE key > %(after)s ORDER BY key FETCH FIRST {MOST} ROWS WITH TIES
    ), settled AS (
        SELECT max(key) AS until FROM news WHERE at < now() - interval '{SETTLED_AFTER}'
    )
    SELECT labels, width_bucket(value, %(bounds)s::float8[]), coalesce(key <= until, false), count(*), sum(value), until
    FROM news, settled
    GROUP BY 1, 2, 3, until
"""
