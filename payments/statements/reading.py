"""From a file to its statements. The one way in: it bounds the size, tells the format and picks the reader."""

from __future__ import annotations

from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from payments.statements import archive, camt, mt940
from payments.statements.content import Form, recognise
from payments.statements.types import Statement, StatementError

LARGEST = 100 * 1024 * 1024
"""Bytes."""


def read(name: str, file: BinaryIO) -> Iterator[Statement]:
    """The statements in `file`, one after the other; each has been judged whole before it is given.

    `name` is for messages only. An archive gives the statements of all its files. Raises `StatementError`,
    and nothing else for a bad file, when it gets to what is wrong: statements before that have been given,
    so whoever imports a file whole does so in one database transaction.
    """
    with SpooledTemporaryFile(max_size=1024 * 1024) as copy:
        source = file if file.seekable() else _copied(name, file, cast(BinaryIO, copy))
        if source.seek(0, 2) > LARGEST:
            raise too_large(name)
        source.seek(0)
        content = recognise(name, source)
        if content.form is Form.ZIP:
            for member, unpacked in archive.members(name, source):
                yield from _statements(member, unpacked)
        else:
            yield from _statements(name, source)


def too_large(name: str) -> StatementError:
    return StatementError(
        name, "", f"the file is over {LARGEST // 1024**2} MB. Export a shorter period, one file per month."
    )


def _statements(name: str, file: BinaryIO) -> Iterator[Statement]:
    file.seek(0)
    content = recognise(name, file)
    file.seek(0)
    if content.form is Form.CAMT:
        yield from camt.read(name, file, content.kind, content.namespace, content.encoding)
    else:
        yield from mt940.read(name, file, content.encoding or "utf-8")


def _copied(name: str, file: BinaryIO, copy: BinaryIO) -> BinaryIO:
    """A file to move about in; one byte more than is allowed is enough to know."""
    while copy.tell() <= LARGEST and (data := file.read(64 * 1024)):
        copy.write(data)
    return copy
