"""What a file is, told by its content: names lie. What cannot be read is refused with what it seems to be."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO, NoReturn
from xml.parsers import expat

from payments.statements.types import StatementError

_HEAD = 64 * 1024
EXPORT = "In the bank's portal, export the statement as camt.053 (XML) or MT940."

CAMT_VERSIONS = range(1, 13)
"""Versions of camt.053.001 and camt.054.001 in the ISO 20022 catalogue."""

_MESSAGES = {
    "camt.052": "an intraday report (camt.052), whose bookings are not final. Import the day's camt.053 instead.",
    "pain.001": "a payment order for the bank (pain.001), not a statement. Upload it in the bank's portal.",
    "pain.002": "a status report on payment orders (pain.002), not a statement.",
    "pain.008": "a direct debit order for the bank (pain.008), not a statement. Upload it in the bank's portal.",
}
_SIGNATURES = {
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"7z\xbc\xaf": "a 7-Zip archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}


class Form(Enum):
    CAMT = "camt"
    MT940 = "MT940"
    ZIP = "zip"


@dataclass(frozen=True, slots=True)
class Content:
    form: Form
    kind: str = ""
    """`camt.053.001.08`, for camt."""
    namespace: str = ""
    encoding: str | None = None
    """Of the text; for camt only where it overrules what the file says of itself."""


def recognise(name: str, file: BinaryIO) -> Content:
    """What `file`, at its start, holds. Raises `StatementError` when it is nothing that can be imported."""
    head = file.read(_HEAD)
    if not head.strip(b"\0 \t\r\n"):
        raise StatementError(name, "", f"the file is empty. {EXPORT}")
    if head.startswith(b"PK"):
        return Content(Form.ZIP)
    for signature, what in _SIGNATURES.items():
        if head.startswith(signature):
            raise StatementError(name, "", f"this is {what}, not a bank statement. {EXPORT}")
    text = _peek(head)
    if re.match(r"<!doctype\s+html|<html", text, re.IGNORECASE):
        raise StatementError(
            name,
            "",
            "this is a web page, not a bank statement; perhaps the bank's session had ended. "
            "Log in to the bank's portal and download the statement again.",
        )
    if text.startswith("<"):
        encoding = _xml_encoding(head, file)
        return _xml(name, head, encoding)
    if re.search(r"^\s*(\{4:\s*)?:20:", text, re.MULTILINE):
        return Content(Form.MT940, "MT940", encoding=_text_encoding(head, file))
    first = text.partition("\n")[0]
    if max(first.count(mark) for mark in ",;\t") >= 2:
        raise StatementError(name, "", f"this is a table (CSV), not a bank statement. {EXPORT}")
    raise StatementError(name, "", f"this is not a bank statement. {EXPORT}")


# --- text encodings --------------------------------------------------------------------------------------

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def _marked(head: bytes) -> str | None:
    """The encoding that the file's first bytes give away: a byte order mark, or a `<` in two bytes."""
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    return {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}.get(head[:2])


def _peek(head: bytes) -> str:
    return head.decode(_marked(head) or "latin-1", errors="replace").lstrip("\ufeff \t\r\n")


def _is(encoding: str, file: BinaryIO) -> bool:
    """Whether all of the file is text in this encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    file.seek(0)
    try:
        while data := file.read(1024 * 1024):
            decoder.decode(data)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _text_encoding(head: bytes, file: BinaryIO) -> str:
    """MT940 does not name its encoding. Where cp1252 has holes, German DOS programs (cp850) have umlauts."""
    marked = _marked(head)
    return marked or next(encoding for encoding in ("utf-8", "cp1252", "cp850") if _is(encoding, file))


def _xml_encoding(head: bytes, file: BinaryIO) -> str | None:
    """None where the file may be trusted. Some programs declare UTF-8 and write Latin-1, or UTF-16 for UTF-8."""
    if _marked(head):
        return None
    declared = re.match(rb"<\?xml[^>]*?encoding=[\"']([\w.-]+)", head.lstrip())
    if declared and not declared[1].lower().startswith((b"utf", b"us-ascii")):
        return None
    return "utf-8" if _is("utf-8", file) else "windows-1252"


# --- XML -------------------------------------------------------------------------------------------------


class _Found(Exception):
    """Enough is known."""


def _xml(name: str, head: bytes, encoding: str | None) -> Content:
    """Reads up to the element Document. A document type is refused at its first word: no entity is ever read."""
    parser = expat.ParserCreate(encoding, namespace_separator=" ")
    root: list[str] = []
    document: list[str] = []

    def refuse(*_: object) -> NoReturn:
        raise StatementError(
            name,
            f"line {parser.CurrentLineNumber}",
            "the file declares a document type or entities, as attacks on readers of XML do and no bank does. "
            "It was not read. Download the statement from the bank itself.",
        )

    def start(element: str, _attributes: object) -> None:
        root.append(element)
        if element.rpartition(" ")[2] == "Document":
            document.append(element.rpartition(" ")[0])
            raise _Found

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    try:
        parser.Parse(head, False)
    except _Found:
        return _message(name, document[0], encoding)
    except (expat.ExpatError, ValueError, LookupError) as error:
        if isinstance(error, StatementError):
            raise
        raise StatementError(
            name,
            f"line {parser.ErrorLineNumber}",
            "the XML is broken there. Download the file from the bank again.",
        ) from None
    if not root:
        raise StatementError(name, "", "the XML is cut off. Download the file from the bank again.")
    raise StatementError(name, "", f"this XML is not a bank statement. {EXPORT}")


def _message(name: str, namespace: str, encoding: str | None) -> Content:
    # Some banks put their own namespace round the ISO name, such as ISO:camt.053.001.02:APC:STUZZA.
    match = re.search(r"\b([a-z]{4}\.\d{3})\.(\d{3})\.(\d{2})\b", namespace)
    if match is None:
        raise StatementError(name, "", f"this XML is not a bank statement. {EXPORT}")
    message, variant, version = match.groups()
    if message not in ("camt.053", "camt.054"):
        what = _MESSAGES.get(message, f"a message of the kind {message}, not a statement. {EXPORT}")
        raise StatementError(name, "", f"this is {what}")
    if variant != "001" or int(version) not in CAMT_VERSIONS:
        raise StatementError(
            name,
            "",
            f"the version {match[0]} is not known here. Ask the bank for {message}.001.08, or for any from "
            f"{message}.001.01 to {message}.001.12.",
        )
    return Content(Form.CAMT, match[0], namespace, encoding)
