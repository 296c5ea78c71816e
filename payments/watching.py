"""A folder into which a bank's program puts statement files: they are imported, and moved to done/ or failed/.

Beside each moved file lies a text file that says what came of it. Several workers may watch one folder: one at
a time looks into it. A file is taken once its size has not changed between two looks, so a program may write it
slowly; one that ends in .part, .tmp or the like is never taken.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from django.db import DatabaseError, InterfaceError, close_old_connections, connection

from payments.services.importing import Report, import_file
from payments.statements import StatementError

log = logging.getLogger(__name__)

POLL = 5.0
"""Seconds between two looks."""
UNFINISHED = (".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".download", ".lock")
ACTOR = "statement folder"


class Watcher(threading.Thread):
    """Looks into the folder until stopped. `stable_for`: seconds since a file was last written, at least."""

    def __init__(self, folder: Path, *, stable_for: float = 2.0) -> None:
        super().__init__(name="statement-folder", daemon=True)
        self._folder = folder
        self._stable_for = stable_for
        self._sizes: dict[str, tuple[int, int]] = {}
        self._stop_asked = threading.Event()

    def stop(self) -> None:
        """Ask it to stop after the file in hand; `join` it afterwards."""
        self._stop_asked.set()

    def run(self) -> None:
        log.info("Statement files in %s are imported.", self._folder)
        said = ""
        while not self._stop_asked.is_set():
            close_old_connections()
            try:
                self.look()
            except (DatabaseError, InterfaceError) as error:
                log.warning("The statement folder waits for the database: %s", str(error).strip())
            except OSError as error:
                if said != str(error):
                    said = str(error)
                    log.warning("The statement folder cannot be used: %s", error)
            finally:
                connection.close()
            self._stop_asked.wait(POLL)

    def look(self) -> int:
        """Import the files that are finished; how many there were."""
        finished = self._finished()
        if not finished:
            return 0
        with _alone(str(self._folder.resolve())) as alone:
            if not alone:
                return 0
            taken = 0
            for path in finished:
                if self._stop_asked.is_set():
                    break
                if path.exists():  # another worker may have had it before
                    self._take(path)
                    taken += 1
            return taken

    def _finished(self) -> list[Path]:
        """Files that look as they did at the last look, oldest first."""
        sizes: dict[str, tuple[int, int]] = {}
        finished: list[tuple[int, Path]] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower().endswith(UNFINISHED):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if not entry.is_file(follow_symlinks=False):
                        continue
                    found = entry.stat()
                    sizes[entry.name] = look = (found.st_size, found.st_mtime_ns)
                    settled = time.time() - found.st_mtime >= self._stable_for
                    if settled and self._sizes.get(entry.name) == look:
                        finished.append((found.st_mtime_ns, Path(entry.path)))
        self._sizes = sizes
        return [path for _written, path in sorted(finished)]

    def _take(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                report = import_file(path.name, file, ACTOR)
        except StatementError as error:
            self._move(path, "failed", str(error))
        except (DatabaseError, InterfaceError):
            raise  # the file is not to blame: it stays, and is tried again
        except OSError as error:
            log.warning("%s cannot be read and stays where it is: %s", path, error)
        except Exception as error:
            log.exception("The statement file %s could not be imported", path)
            self._move(
                path, "failed", f"{path.name}: it could not be imported ({error!r}). See the worker's log."
            )
        else:
            self._move(path, "done", summary(report))

    def _move(self, path: Path, to: str, text: str) -> None:
        folder = self._folder / to
        folder.mkdir(exist_ok=True)
        target = _free(folder, path.name)
        target.with_name(f"{target.name}.txt").write_text(f"{text}\n", encoding="utf-8")
        path.rename(target)
        log.info("%s: %s", to, text)


def summary(report: Report) -> str:
    """What came of a file, in one line."""
    outcomes = ", ".join(f"{word.replace('_', ' ')} {tally.count}" for word, tally in report.outcomes.items())
    known = f" {report.known} were known before." if report.known else ""
    return f"{report.file}: {report.new} new bookings{f' ({outcomes})' if outcomes else ''}.{known}"


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


@contextlib.contextmanager
def _alone(what: str) -> Iterator[bool]:
    """Whether no other worker is at it; until the end of the block none will be."""
    key = f"statement folder: {what}"
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [key])
        alone = bool(cursor.fetchone()[0])
    try:
        yield alone
    finally:
        if alone:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [key])
