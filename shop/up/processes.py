"""Child processes: each in a process group of its own, its output in a log file, gone when we are gone."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
# Looked up here, because between fork and exec nothing should be imported or loaded.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def spawn(
    argv: Sequence[str],
    log: IO[bytes],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    account: pwd.struct_passwd | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start a child whose output goes to `log`; `stdin` is fed to it and then closed.
    It runs as `account`, or as ourselves.

    On Linux the kernel sends it `death_signal` when we die, however we die. The kernel takes the end of the
    *thread* that called for that, so call this from the main thread.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=env,
        cwd=cwd,
        user=None if account is None else account.pw_uid,
        group=None if account is None else account.pw_gid,
        extra_groups=None if account is None else [],
        process_group=0,
        preexec_fn=_tie_to_parent(death_signal),
    )
    if stdin is not None:
        assert process.stdin is not None
        try:
            process.stdin.write(stdin.encode())
            process.stdin.close()
        except BrokenPipeError:
            pass  # It died before it read anything; its exit code tells.
    return process


def _tie_to_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    if _prctl is None:
        return None
    parent = os.getpid()

    def tie() -> None:
        _prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # It died between the fork and this line.
            os._exit(1)

    return tie


def exit_words(code: int) -> str:
    """An exit code as `subprocess` gives it, in words: `exit code 3`, `killed by SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def last_lines(log: Path, count: int = 15) -> list[str]:
    """The last lines of a log file; none when there is no such file."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 16_384))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []
