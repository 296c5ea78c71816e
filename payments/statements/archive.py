"""Zip archives of bank files. What an archive says of itself is not believed: sizes are counted while unpacking."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from payments.statements.types import StatementError

MOST_FILES = 1000
MOST_BYTES = 100 * 1024 * 1024
"""Unpacked, all files together."""
HIGHEST_RATIO = 200
"""Unpacked to packed, beyond the first megabyte. Real statements reach 60; deflate itself 1,000."""

_CHUNK = 64 * 1024
_BROKEN = "the archive is broken or cut off. Download it from the bank again."


def members(name: str, file: BinaryIO) -> Iterator[tuple[str, BinaryIO]]:
    """Name and content of each file in the archive, in its order. Each is gone when the next is asked for."""
    with _readable(name), zipfile.ZipFile(file) as archive:
        entries = [entry for entry in archive.infolist() if not _is_furniture(entry.filename)]
    if not entries:
        raise StatementError(name, "", "the archive is empty. Download it from the bank again.")
    if len(entries) > MOST_FILES:
        raise StatementError(name, "", f"the archive holds over {MOST_FILES} files. Import it in parts.")
    if any(entry.filename == "[Content_Types].xml" for entry in entries):
        raise StatementError(
            name,
            "",
            "this is an Office document, not a bank statement. "
            "In the bank's portal, export the statement as camt.053 (XML) or MT940.",
        )
    left = MOST_BYTES
    for entry in entries:
        with SpooledTemporaryFile(max_size=1024 * 1024) as content:
            member = f"{name} › {entry.filename}"
            left -= _unpack(member, file, entry, cast(BinaryIO, content), left)
            content.seek(0)
            if content.read(2) == b"PK":
                raise StatementError(
                    member, "", "an archive in an archive is not opened. Unpack the outer one."
                )
            content.seek(0)
            yield member, cast(BinaryIO, content)


def _unpack(name: str, file: BinaryIO, entry: zipfile.ZipInfo, content: BinaryIO, left: int) -> int:
    """The number of bytes unpacked."""
    if entry.flag_bits & 0x1:
        raise StatementError(name, "", "it is protected by a password. Unpack it and import what is inside.")
    size = 0
    with _readable(name), zipfile.ZipFile(file) as archive, archive.open(entry) as packed:
        while data := packed.read(_CHUNK):
            size += len(data)
            if size > left:
                raise StatementError(
                    name, "", f"unpacked, the archive is over {MOST_BYTES // 1024**2} MB. Import it in parts."
                )
            if size > 1024 * 1024 and size > HIGHEST_RATIO * max(entry.compress_size, 1):
                raise StatementError(
                    name, "", "it unpacks to far more than a statement would (a zip bomb?). It was not read."
                )
            content.write(data)
    return size


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except NotImplementedError:
        raise StatementError(
            name, "", "its way of compression is not known here. Unpack it and import what is inside."
        ) from None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError) as error:
        if isinstance(error, StatementError):
            raise
        raise StatementError(name, "", _BROKEN) from None


def _is_furniture(filename: str) -> bool:
    """Folders, and what file managers leave behind."""
    last = filename.rpartition("/")[2]
    return not last or filename.startswith("__MACOSX/") or last in (".DS_Store", "Thumbs.db", "desktop.ini")
