"""What commands show on a terminal: how far they are, and tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence


class Bar:
    """How far something is, on a terminal's last line; nothing where there is no terminal."""

    WIDTH = 30

    def __init__(self, name: str) -> None:
        self._name = name
        self._on = sys.stderr.isatty()
        self._started = time.monotonic()

    def show(self, done: int, total: int) -> None:
        if self._on and total:
            filled = self.WIDTH * done // total
            rate = done / max(0.001, time.monotonic() - self._started)
            bar = "█" * filled + "·" * (self.WIDTH - filled)
            sys.stderr.write(f"\r{self._name}  {bar}  {done:,} of {total:,}  {rate:,.0f}/s\x1b[K")
            sys.stderr.flush()

    def clear(self) -> None:
        if self._on:
            sys.stderr.write("\r\x1b[K")


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines of a table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
