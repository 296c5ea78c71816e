"""The supervisor: starts parts as soon as what they need is ready, watches them, stops them newest first.

It is one thread and one loop. A part that dies takes the shop down: it is named, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from shop.up.processes import exit_words, last_lines

Process = subprocess.Popen[bytes]
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Part:
    """A process of the shop. `needs` names the parts that must be ready before it is started.

    A part with `is_ready` runs on; its end is a failure. One without is a task: ready once it has ended well.
    A part that is not `awaited` may be late, or fail, without keeping the others from being ready.
    """

    name: str
    launch: Callable[[IO[bytes]], Process]
    is_ready: Callable[[], bool] | None = None
    needs: tuple[str, ...] = ()
    awaited: bool = True
    when_done: Callable[[], None] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    kill_signal: signal.Signals = signal.SIGKILL
    alone: bool = False  # Signals go to the process only, because it stops its own children.


class PartDied(Exception):
    """A part ended that should not have; the message names it and quotes its last lines."""


@dataclass
class _Running:
    part: Part
    process: Process
    since: float
    ready: bool = False


def say(line: str = "") -> None:
    """Print a line; where the terminal is gone already, nobody misses it."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


class Supervisor:
    """Runs the parts until a signal asks it to stop (exit code 0) or one of them dies (1)."""

    def __init__(self, parts: list[Part], logs: Path, *, grace: float = 30) -> None:
        """`grace` is how long, in seconds, a part that was told to stop may take."""
        self._parts = parts
        self._logs = logs
        self._grace = grace
        self._running: dict[str, _Running] = {}  # In the order of their start.
        self._stop_asked_at: float | None = None
        self._kill_asked = False

    def run(self, *, when_ready: Callable[[], None], before_stop: Callable[[], None]) -> int:
        """Start everything and stay until the end; returns the exit code."""
        with self._signals():
            try:
                self._watch(when_ready)
                code = 0
                say("\nStopping.")
            except PartDied as died:
                say(f"\n{died}\n\nStopping the others.")
                code = 1
            finally:
                before_stop()
                self._stop_all()
        say("Stopped.")
        return code

    def _watch(self, when_ready: Callable[[], None]) -> None:
        announced = False
        reminder = time.monotonic() + 30
        terminal = os.isatty(0)
        while self._stop_asked_at is None:
            if terminal and not os.isatty(0):
                return  # It was closed. The kernel tells its first process only, and that may be `make`.
            self._start_due()
            self._look()
            waiting = [part.name for part in self._parts if part.awaited and not self._is_ready(part.name)]
            if not waiting and not announced:
                announced = True
                when_ready()
            if waiting and time.monotonic() > reminder:
                reminder += 30
                say(f"  still waiting for {', '.join(waiting)}; see {self._logs}")
            time.sleep(0.05 if waiting else 0.2)

    def _start_due(self) -> None:
        names = {part.name for part in self._parts}
        for part in self._parts:
            due = all(self._is_ready(need) for need in part.needs if need in names)
            if due and part.name not in self._running and self._stop_asked_at is None:
                since = time.monotonic()
                with self._fresh_log(part.name) as log:
                    self._running[part.name] = _Running(part, part.launch(log), since)

    def _look(self) -> None:
        """Note who has become ready, and who has ended."""
        for running in self._running.values():
            part, code = running.part, running.process.poll()
            if code is not None and not (running.ready and part.is_ready is None):
                self._ended(running, code)
            elif not running.ready and part.is_ready is not None and part.is_ready():
                self._became_ready(running, "ready")

    def _ended(self, running: _Running, code: int) -> None:
        part = running.part
        if part.is_ready is None and code == 0:
            self._became_ready(running, "done")
            if part.when_done is not None:
                part.when_done()
        elif part.is_ready is None and not part.awaited:
            running.ready = True
            say(f"  {part.name} failed ({exit_words(code)}); see {self._log(part.name)}")
        else:
            lines = last_lines(self._log(part.name)) or ["(it said nothing)"]
            quoted = "\n".join(f"  | {line}" for line in lines)
            raise PartDied(
                f"{part.name} ended ({exit_words(code)}). Its last lines, from {self._log(part.name)}:\n"
                f"{quoted}"
            )

    def _became_ready(self, running: _Running, word: str) -> None:
        running.ready = True
        say(f"  {running.part.name:<18} {word} after {time.monotonic() - running.since:.1f} s")

    def _is_ready(self, name: str) -> bool:
        return name in self._running and self._running[name].ready

    def _log(self, name: str) -> Path:
        return self._logs / f"{name.replace(' ', '-')}.log"

    def _fresh_log(self, name: str) -> IO[bytes]:
        """A new log file; the one of the run before stays beside it."""
        path = self._log(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")

    # --- the end -----------------------------------------------------------------------------------------

    def _stop_all(self) -> None:
        for running in reversed(self._running.values()):
            self._stop(running)

    def _stop(self, running: _Running) -> None:
        """Ask, wait, insist; then sweep up what it may have left in its process group."""
        part, process = running.part, running.process
        deadline = time.monotonic() + self._grace
        if process.poll() is None:
            self._signal(running, part.stop_signal)
        while process.poll() is None:
            if self._kill_asked or time.monotonic() > deadline:
                say(f"  {part.name} is made to stop")
                self._signal(running, part.kill_signal)
                process.wait()
            time.sleep(0.02)
        if not part.alone:
            self._signal(running, part.kill_signal)

    @staticmethod
    def _signal(running: _Running, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if running.part.alone:
                os.kill(running.process.pid, number)
            else:
                os.killpg(running.process.pid, number)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._on_signal) for number in _STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._stop_asked_at is None:
            self._stop_asked_at = now
        elif number == signal.SIGINT and now - self._stop_asked_at > 0.3:
            # Not sooner: `make` may pass on a signal that its whole process group has got anyway.
            self._kill_asked = True
