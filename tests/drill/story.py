"""The drill as it is told: each step with the time it began, how long it took, and what came of it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[str], None]


class StepFailed(Exception):
    """A step did not come out as it should, and has been told."""


class Story:
    """Prints what happens. Times are since the first step."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def heading(self, text: str) -> None:
        print(f"\n{text}", flush=True)

    @contextmanager
    def step(self, what: str) -> Iterator[Tell]:
        """A step; give what came of it to what this gives. Raises `StepFailed` for whatever goes wrong in it."""
        began = time.monotonic()
        print(f"{began - self._began:6.1f} s  {what}", flush=True)
        try:
            yield lambda result: print(f"{'':10}{result}", flush=True)
        except Exception as error:
            print(f"{'':10}FAILED after {time.monotonic() - began:.1f} s: {error}\n", flush=True)
            traceback.print_exc()
            raise StepFailed(what) from error
        print(f"{'':10}ok, {time.monotonic() - began:.1f} s", flush=True)

    def lasted(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began
