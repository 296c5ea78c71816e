"""A folder into which a bank's program puts statement files. They are queued, and moved to done/ or failed/ after it.

Beside each moved file lies a text file that says what came of it. Several workers may watch one folder. A file
is taken once its size has not changed between two looks, so a program may write it slowly; one that ends in
.part, .tmp or the like is never taken.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from pathlib import Path

from payments.models import StatementFile
from payments.services.statement_files import receive, summary
from payments.statements import StatementError
from shop.kernel.turns import turn

log = logging.getLogger(__name__)

UNFINISHED = (".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".download", ".lock")
ACTOR = "statement folder"
Look = tuple[int, int]
"""A file's size and when it was last written: the same at two looks, it is the same file."""


class StatementFolder:
    """`stable_for`: seconds since a file was last written, at least."""

    def __init__(self, path: Path, *, stable_for: float = 2.0) -> None:
        self._path = path
        self._stable_for = stable_for
        self._turn = f"statement folder: {path.resolve()}"
        self._looks: dict[str, Look] = {}
        self._received: dict[str, tuple[Look, int]] = {}

    def look(self) -> None:
        """Queue the files that are finished. One that was queued before, by anybody, is not queued again."""
        for path, look in self._finished():
            if self._received.get(path.name, (None, 0))[0] == look:
                continue
            try:
                self._take(path, look)
            except FileNotFoundError:  # another worker has put it away
                continue
            except OSError as error:
                log.warning("%s cannot be read and stays where it is: %s", path, error.strerror)

    def _take(self, path: Path, look: Look) -> None:
        try:
            with path.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
                told = f"{path.resolve()}\n{look[1]}\n{digest}"
                origin = hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()
                file = receive(path.name, content, ACTOR, origin)
        except StatementError as error:  # too large to be kept
            with turn(self._turn):
                self._move(path, look, "failed", str(error))
        else:
            self._received[path.name] = (look, file.pk)

    def put_away(self) -> None:
        """Move the files whose import has ended, well or not."""
        if not self._received:
            return
        with turn(self._turn) as ours:
            if not ours:
                return
            files = StatementFile.objects.in_bulk([pk for _look, pk in self._received.values()])
            for name, (look, pk) in list(self._received.items()):
                file = files[pk]
                if file.is_finished:
                    to = "done" if file.state == StatementFile.State.IMPORTED else "failed"
                    self._move(self._path / name, look, to, summary(file))
                    del self._received[name]

    def _finished(self) -> list[tuple[Path, Look]]:
        """Files that look as they did at the last look, oldest first."""
        looks: dict[str, Look] = {}
        finished: list[tuple[int, Path, Look]] = []
        with os.scandir(self._path) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower().endswith(UNFINISHED):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if not entry.is_file(follow_symlinks=False):
                        continue
                    found = entry.stat()
                    looks[entry.name] = look = (found.st_size, found.st_mtime_ns)
                    settled = time.time() - found.st_mtime >= self._stable_for
                    if settled and self._looks.get(entry.name) == look:
                        finished.append((found.st_mtime_ns, Path(entry.path), look))
        self._looks = looks
        return [(path, look) for _written, path, look in sorted(finished)]

    def _move(self, path: Path, look: Look, to: str, text: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # another worker has put it away
            found = path.stat()
            if (found.st_size, found.st_mtime_ns) != look:
                return  # a new file of that name
            folder = self._path / to
            folder.mkdir(exist_ok=True)
            target = _free(folder, path.name)
            target.with_name(f"{target.name}.txt").write_text(f"{text}\n", encoding="utf-8")
            path.rename(target)


def _free(folder: Path, name: str) -> Path:
    """A path in the folder that no file has yet."""
    if not (folder / name).exists():
        return folder / name
    stem, dot, suffix = name.rpartition(".")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for n in range(1, 1000):
        path = folder / (f"{stem}.{stamp}-{n}.{suffix}" if dot else f"{name}.{stamp}-{n}")
        if not path.exists():
            return path
    raise FileExistsError(f"There are too many files called {name} in {folder}.")
