"""The field :86: of an MT940 booking: subfields `?20` and so on, with SEPA's names (`EREF+`) in the remittance."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from payments.statements.values import joined, valid_iban

# Three digits, then a mark of the bank's choice before each subfield's number; nearly always a question mark.
_STRUCTURED = re.compile(r"(\d{3})([^\w\s])(?=\d\d)", re.ASCII)
_REMITTANCE = re.compile("2[0-9]|6[0-3]")
_NAMES = (
    "EREF",
    "KREF",
    "MREF",
    "CRED",
    "DEBT",
    "COAM",
    "OAMT",
    "SVWZ",
    "ABWA",
    "ABWE",
    "IBAN",
    "BIC",
    "PURP",
)
_NAMED = re.compile(rf"(?:^|\s)({'|'.join(_NAMES)})(?:\+|: )")

_RETURNS = frozenset({"009", "059", "108", "109", "159"})
"""Business transaction codes of payments that go back: direct debits (9, 108, 109), credit transfers (59, 159)."""
_REASON = re.compile(r"\b(A[CGM]\d\d|BE\d\d|CNOR|DNOR|FF\d\d|FOCR|M[DS]\d\d|NARR|R[CR]\d\d|SL\d\d|TM01)\b")
"""ISO 20022 external code set, return reasons."""


@dataclass(frozen=True, slots=True)
class Details:
    code: str = ""
    """GVC, three digits."""
    is_return: bool = False
    end_to_end_id: str = ""
    customer_reference: str = ""
    """KREF: the message id or payment information id of the shop's own order."""
    remittance_lines: tuple[str, ...] = ()
    remittance_information: str = ""
    name: str = ""
    iban: str = ""
    return_reason: str = ""


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    length: int
    """Of the whole subfield, name included: it tells whether the text was cut there."""


def read(lines: Sequence[str]) -> Details:
    """Lines of the field, which are cut anywhere. What is not structured is remittance text."""
    whole = "".join(lines)
    match = _STRUCTURED.match(whole)
    if match is None:
        unstructured = tuple(line for line in lines if line.strip())
        return Details(remittance_lines=unstructured, remittance_information=joined(unstructured))
    code, mark = match.groups()
    subfields = _subfields(whole[match.end() - len(mark) :], mark)
    named = _named([text for number, text in subfields if _REMITTANCE.fullmatch(number)])

    def of(*numbers: str) -> list[str]:
        return [text for number, text in subfields if number in numbers]

    def under(name: str) -> str:
        return "".join(piece.text for piece in named.get(name, ()))

    pieces = named.get("SVWZ") or named.get("") or []
    remittance = joined([piece.text for piece in pieces], [piece.length for piece in pieces])
    reason = _REASON.search(" ".join((*of("00"), remittance)))
    return Details(
        code=code,
        is_return=code in _RETURNS,
        end_to_end_id=under("EREF"),
        customer_reference=under("KREF"),
        remittance_lines=tuple(piece.text for piece in pieces),
        remittance_information=remittance,
        name=joined(of("32", "33")),
        iban=valid_iban("".join(of("31"))) or valid_iban(under("IBAN")),
        return_reason=reason[1] if reason else "".join(of("34")).strip(),
    )


def _subfields(text: str, mark: str) -> list[tuple[str, str]]:
    """A mark without two digits behind it is text: people do write question marks."""
    parts = re.split(f"{re.escape(mark)}(\\d\\d)", text, flags=re.ASCII)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def _named(subfields: Sequence[str]) -> dict[str, list[_Piece]]:
    """The remittance subfields under SEPA's names; text before the first name is under the empty one.

    A name begins a subfield (annex 3); some banks write the next one behind a space.
    """
    named: dict[str, list[_Piece]] = {}
    current = ""
    for subfield in subfields:
        parts = [current, *_NAMED.split(subfield)]
        for name, text in zip(parts[0::2], parts[1::2], strict=True):
            if text:
                named.setdefault(name, []).append(_Piece(text, len(subfield)))
        current = parts[-2]
    return named
