"""A sequence too long for memory: written once, then read as often as needed."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from typing import Generic, TypeVar

T = TypeVar("T")

_CHUNK = 500
_IN_MEMORY = 4 * 1024 * 1024
"""Bytes up to which nothing goes to disk: some 10,000 transactions."""


class Spool(Generic[T]):
    """Items in the order they were added. The temporary file has no name and ends with the object."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - lives as long as the spool
        self._offsets: list[int] = []
        self._last: list[T] = []

    def append(self, item: T) -> None:
        self._last.append(item)
        if len(self._last) == _CHUNK:
            self._offsets.append(self._file.seek(0, 2))
            pickle.dump(self._last, self._file, pickle.HIGHEST_PROTOCOL)
            self._last = []

    def __len__(self) -> int:
        return len(self._offsets) * _CHUNK + len(self._last)

    def __iter__(self) -> Iterator[T]:
        for offset in self._offsets:
            # Sought for every chunk, so that several loops may run side by side.
            self._file.seek(offset)
            yield from pickle.load(self._file)
        yield from self._last
