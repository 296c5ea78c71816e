"""Statement files on their way into the books. However they come, they are stored first and then taken one by one.

Each worker takes the oldest file that no other is at. A worker that is killed gives its file back at once, and
the next one goes on where it stopped: see `importing`.
"""

from __future__ import annotations

import hashlib
import logging
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Case, F, IntegerField, QuerySet, When
from django.db.models.functions import Greatest
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.translation import gettext as _

from payments.models import StatementFile, StatementFilePart
from payments.services.importing import Progress, Report, import_file
from payments.statements import StatementError
from payments.statements.reading import LARGEST, too_large
from shop.kernel.turns import taken, turn

log = logging.getLogger(__name__)

CHANNEL = "statement_files"
PART = 1024 * 1024
"""Bytes."""
ATTEMPTS = 5
"""Without getting any further. A file that is too much for every worker must not hold up the others."""
LONG = timedelta(seconds=10)
"""After which a file that nobody takes up is a sign that no worker runs."""

State = StatementFile.State


class Stopped(Exception):
    """The worker is to end; another goes on with the file."""


class NotFailed(Exception):
    """Only what has failed is imported again."""


# --- in --------------------------------------------------------------------------------------------------


def receive(name: str, content: BinaryIO, received_from: str, origin: str | None = None) -> StatementFile:
    """Store a file and queue its import. With `origin`, one that was received before is returned as it is.

    Raises `StatementError` for a file that is too large to be kept.
    """
    if content.seekable():
        return _receive(name, content, received_from, origin)
    with SpooledTemporaryFile(max_size=PART) as copy:  # a pipe
        while copy.tell() <= LARGEST and (data := content.read(PART)):
            copy.write(data)
        return _receive(name, cast(BinaryIO, copy), received_from, origin)


@transaction.atomic
def _receive(name: str, content: BinaryIO, received_from: str, origin: str | None) -> StatementFile:
    digest, size = _measured(name, content)
    name = name.encode(errors="surrogateescape").decode(errors="replace")  # file systems allow any bytes
    first = StatementFile.objects.filter(digest=digest, same_as=None).order_by("id").first()
    new = {
        "name": name[:200],
        "size": size,
        "digest": digest,
        "same_as": first,
        "received_from": received_from[:150],
    }
    if origin is None:
        file, made = StatementFile.objects.create(**new), True
    else:
        file, made = StatementFile.objects.get_or_create(origin=origin, defaults=new)
    if made and first is None:
        _store(file, content)
    if made:
        _wake()
    return file


def _measured(name: str, content: BinaryIO) -> tuple[str, int]:
    """SHA-256 and length."""
    digest, size = hashlib.sha256(), 0
    content.seek(0)
    while data := content.read(PART):
        size += len(data)
        if size > LARGEST:
            raise too_large(name)
        digest.update(data)
    return digest.hexdigest(), size


def _store(file: StatementFile, content: BinaryIO) -> None:
    content.seek(0)
    table = StatementFilePart._meta.db_table
    # COPY: an INSERT would have to spell the bytes out, and DEBUG would keep its text.
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {table} (file_id, place, data) FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.set_types(["int8", "int4", "bytea"])
        place = 0
        while data := content.read(PART):
            copy.write_row((file.pk, place, data))
            place += 1


def _wake() -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"NOTIFY {CHANNEL}")  # delivered to listeners at commit


def import_again(file: StatementFile) -> StatementFile:
    """Queue a file whose import has failed. Raises `NotFailed`."""
    failed = StatementFile.objects.filter(pk=file.pk, state=State.FAILED)
    if not failed.update(state=State.QUEUED, attempts=0, error="", finished_at=None):
        raise NotFailed(_("It has not failed, or somebody else has just queued it again."))
    _wake()
    file.refresh_from_db()
    return file


@contextmanager
def content_of(file: StatementFile) -> Iterator[BinaryIO]:
    """The file's content, at its start; gone at the end of the block."""
    parts = StatementFilePart.objects.filter(file_id=file.same_as_id or file.pk).order_by("place")
    with SpooledTemporaryFile(max_size=PART) as whole:
        for data in parts.values_list("data", flat=True).iterator(chunk_size=4):
            whole.write(data)
        whole.seek(0)
        yield cast(BinaryIO, whole)


# --- the queue -------------------------------------------------------------------------------------------


def import_next(progress: Progress | None = None) -> StatementFile | None:
    """Import the oldest file that no other worker is at; None if there is none.

    `progress` may raise `Stopped`. That and an outage of the database leave the file to whoever comes next.
    """
    for pk in list(_unfinished().order_by("id").values_list("pk", flat=True)[:100]):
        with turn(_turn(pk)) as ours:
            file = _unfinished().filter(pk=pk).first() if ours else None
            if file is None:
                continue
            if file.attempts >= ATTEMPTS:
                _fail(
                    file,
                    _(
                        "%(name)s: its import was broken off %(attempts)s times without getting any further. "
                        "%(kept)s"
                    )
                    % {"name": file.name, "attempts": ATTEMPTS, "kept": _kept()},
                )
            else:
                try:
                    _import(file, progress)
                except (OperationalError, InterfaceError, OSError, Stopped):
                    raise
                except Exception:  # written down with the file
                    pass
            file.refresh_from_db()
            if file.state == State.FAILED:
                log.warning("Statement file %d has failed; its page says why.", file.pk)
            else:
                log.info("Statement file %d is imported: transactions: %d.", file.pk, file.total)
            return file
    return None


def import_now(name: str, content: BinaryIO, received_from: str, progress: Progress | None = None) -> Report:
    """Store a file and import it here, past the queue. If this is killed a worker goes on with it.

    Raises `StatementError`; the file is kept all the same.
    """
    with ExitStack() as until_done:
        with transaction.atomic():
            file = receive(name, content, received_from)
            until_done.enter_context(turn(_turn(file.pk)))
        return _import(file, progress)


def _kept() -> str:
    return _(
        "The file is kept and nothing is lost: tell whoever runs the shop (the worker's log says more), then import "
        "it again."
    )


def _unfinished() -> QuerySet[StatementFile]:
    return StatementFile.objects.filter(state__in=StatementFile.UNFINISHED)


def _turn(pk: int) -> str:
    return f"statement file: {pk}"


def _import(file: StatementFile, progress: Progress | None) -> Report:
    rows = StatementFile.objects.filter(pk=file.pk)

    def show(done: int, total: int) -> None:
        rows.update(
            state=State.IMPORTING,
            total=total,
            done=Greatest("done", done),
            attempts=Case(When(done__lt=done, then=0), default=F("attempts"), output_field=IntegerField()),
        )
        if progress is not None:
            progress(done, total)

    rows.update(state=State.READING, attempts=F("attempts") + 1)
    try:
        with content_of(file) as content:
            report = import_file(file.name, content, file.received_from, show, file)
    except StatementError as error:
        _fail(file, str(error))
        raise
    except (OperationalError, InterfaceError, OSError, Stopped):
        raise
    except Exception as error:
        # Not the message: it may tell what the file says.
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error("Statement file %d could not be imported: %s\n%s", file.pk, type(error).__name__, where)
        _fail(
            file,
            _("%(name)s: the shop could not import it because of a fault of its own (%(error)s). %(kept)s")
            % {"name": file.name, "error": type(error).__name__, "kept": _kept()},
        )
        raise
    rows.update(state=State.IMPORTED, finished_at=timezone.now())
    return report


def _fail(file: StatementFile, error: str) -> None:
    StatementFile.objects.filter(pk=file.pk).update(
        state=State.FAILED, error=error, finished_at=timezone.now()
    )


# --- how far it is ---------------------------------------------------------------------------------------


def outlook(file: StatementFile) -> str:
    """What an unfinished file waits for, or how far it is: a sentence."""
    before = list(_unfinished().filter(pk__lt=file.pk).order_by("id").values_list("pk", flat=True)[:1000])
    at_work = taken([_turn(pk) for pk in (*before, file.pk)])
    if file.state == State.QUEUED:
        if not at_work and timezone.now() - file.received_at > LONG:
            return _(
                "No worker has taken it up so far. The file is stored, and is imported as soon as one "
                "runs (manage.py runworker)."
            )
        if before:
            return _("It waits for the worker; files before it: %s.") % len(before)
        return _("It waits for the worker.")
    if _turn(file.pk) not in at_work:
        return _("The worker that had it is gone. The next one goes on where it stopped.")
    if file.state == State.READING:
        return _("It is being read. Nothing is written before all of it is understood.")
    return _("%(done)s of %(total)s transactions are imported.") % {
        "done": number_format(file.done, force_grouping=True),
        "total": number_format(file.total, force_grouping=True),
    }


def summary(file: StatementFile) -> str:
    """What came of a finished file, in one line."""
    if file.state == State.FAILED:
        return file.error
    told = sum(statement.transactions_in_file for statement in file.statements.all())
    new = sum(statement.transactions_new for statement in file.statements.all())
    known = f" {told - new:,} were known before." if told > new else ""
    return f"{file.name}: {new:,} new bookings.{known}"
