"""A list as a file: CSV that is sent while it is read, or XLSX. In constant memory, whatever the number of rows.

Both read with a cursor on the server, in one transaction: the file shows one moment. Amounts are numbers in major
units, times are UTC. Texts come from customers: none is a formula to whoever opens the file.
"""

from __future__ import annotations

import asyncio
import csv
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any

from django.core.handlers.asgi import ASGIRequest
from django.db import connection, connections, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.http import content_disposition_header
from django.utils.translation import get_language, override
from django.utils.translation import gettext as _

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

    Rows = QuerySet[Any]
else:
    Rows = QuerySet

KINDS = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
MOST_IN_XLSX = 100_000
"""A workbook can be sent only once it is complete, and a browser waits so long for so many."""
AT_A_TIME = 2000
PATIENCE = "60s"
"""For a reader that has stopped reading, before its transaction is ended."""
LONGEST_CELL = 32_767  # characters, in Excel
Value = str | int | Decimal | datetime | date | None


class TooMany(Exception):
    """More rows than a workbook takes; the message is a sentence for people."""


@dataclass(frozen=True, slots=True)
class Column:
    title: StrOrPromise
    value: Callable[[Any], Value]


def response(
    request: HttpRequest, kind: str, name: str, columns: tuple[Column, ...], rows: Rows
) -> StreamingHttpResponse:
    """All rows as a download. Raises `TooMany`."""
    if kind == "xlsx":
        if rows.order_by()[: MOST_IN_XLSX + 1].count() > MOST_IN_XLSX:
            most = number_format(MOST_IN_XLSX, force_grouping=True)
            raise TooMany(_("More than %s rows: take CSV, or narrow the list first.") % most)
        chunks = _in_pieces(_workbook(columns, rows, get_language()))
    else:
        chunks = _csv(columns, rows, get_language())
    content: Any = _for_asgi(chunks) if isinstance(request, ASGIRequest) else chunks
    headers = {
        "Content-Disposition": content_disposition_header(True, f"{name}-{timezone.now():%Y-%m-%d}.{kind}"),
        "Cache-Control": "no-store",
    }
    return StreamingHttpResponse(content, content_type=KINDS[kind], headers=headers)


def _read(columns: tuple[Column, ...], rows: Rows, language: str | None) -> Iterator[list[Value]]:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{PATIENCE}'")
        for row in rows.iterator(chunk_size=AT_A_TIME):
            with override(language):  # the thread that reads on has none of its own
                values = [column.value(row) for column in columns]
            yield values


# --- CSV -------------------------------------------------------------------------------------------------


class _Line:
    """What `csv.writer` writes to."""

    def write(self, line: str) -> str:
        return line


def _csv(columns: tuple[Column, ...], rows: Rows, language: str | None) -> Iterator[bytes]:
    writer = csv.writer(_Line())
    with override(language):
        titles = [str(column.title) for column in columns]
    # The mark tells Excel that it is UTF-8.
    yield f"\ufeff{writer.writerow(titles)}".encode()
    lines: list[str] = []
    for values in _read(columns, rows, language):
        lines.append(writer.writerow([_plain(value) for value in values]))
        if len(lines) == 500:
            yield "".join(lines).encode()
            lines.clear()
    yield "".join(lines).encode()


def _plain(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, str):
        # https://owasp.org/www-community/attacks/CSV_Injection
        return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else value
    return str(value)


# --- XLSX ------------------------------------------------------------------------------------------------


def _workbook(columns: tuple[Column, ...], rows: Rows, language: str | None) -> IO[bytes]:
    import xlsxwriter

    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed once it is sent
    book = xlsxwriter.Workbook(file, {"constant_memory": True, "default_date_format": "yyyy-mm-dd"})
    sheet = book.add_worksheet()
    heading = book.add_format({"bold": True})
    moment = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
    money = book.add_format({"num_format": "#,##0.00##"})
    sheet.freeze_panes(1, 0)
    sheet.set_column(0, len(columns) - 1, 18)
    for place, column in enumerate(columns):
        sheet.write_string(0, place, str(column.title), heading)
    number = 0
    for number, values in enumerate(_read(columns, rows, language), 1):
        for place, value in enumerate(values):
            if isinstance(value, str):
                sheet.write_string(number, place, value[:LONGEST_CELL])  # never a formula, never a link
            elif isinstance(value, datetime):
                sheet.write_datetime(number, place, value.astimezone(UTC).replace(tzinfo=None), moment)
            elif isinstance(value, date):
                sheet.write_datetime(number, place, datetime(value.year, value.month, value.day))
            elif value is not None:
                sheet.write_number(number, place, value, money if isinstance(value, Decimal) else None)
    sheet.autofilter(0, 0, number, len(columns) - 1)
    book.close()
    file.seek(0)
    return file


def _in_pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(64 * 1024):
            yield piece


# --- under ASGI ------------------------------------------------------------------------------------------


async def _for_asgi(chunks: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Made in a thread of its own, which has a connection of its own, one chunk whenever one is wanted.

    Given a plain iterator, Django would collect all of it first. The thread ends what is open also when the reader
    has gone away in between.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="export")
    try:
        while (chunk := await asyncio.wrap_future(thread.submit(next, chunks, None))) is not None:
            yield chunk
    finally:
        thread.submit(_end, chunks)
        thread.shutdown(wait=False)


def _end(chunks: Any) -> None:
    chunks.close()
    connections.close_all()
