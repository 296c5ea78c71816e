"""A file of credit transfers for the bank: ISO 20022 pain.001.001.09, in euros, as SEPA wants it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from sepaxml import SepaTransfer  # type: ignore[import-untyped]
from sepaxml.validation import ValidationError  # type: ignore[import-untyped]

from payments.banking.account import NAME_LENGTH, Account
from shop.kernel.money import Money

# The ISO 20022 version of 2019, which the SEPA rulebooks have asked for since 2023.
VERSION = "pain.001.001.09"

# What every bank takes in names and texts (EPC217-08, chapter 6).
_TAKEN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/-?:().,'+ ")
_SPELT = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss", "ẞ": "SS", "&": "+"}
    | {"ø": "oe", "Ø": "Oe", "æ": "ae", "Æ": "Ae", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "’": "'", "–": "-"}
)


class FileInvalid(ValueError):
    """The transfers cannot be put into a file; the message says why."""


@dataclass(frozen=True, slots=True)
class Credit:
    """One transfer of the file."""

    end_to_end_id: str
    name: str
    iban: str
    money: Money
    text: str


def sepa_text(text: str) -> str:
    """`text` in the letters that every bank takes: ü becomes ue, é becomes e, what is unknown a full stop."""
    plain = unicodedata.normalize("NFKD", text.translate(_SPELT))
    kept = "".join(c for c in plain if not unicodedata.combining(c))
    return " ".join("".join(c if c in _TAKEN else "." if not c.isspace() else " " for c in kept).split())


def pain001(ours: Account, credits: Sequence[Credit], execute_on: date) -> tuple[str, str]:
    """The file's message id (`MsgId`, 35 characters at most) and its XML, checked against the XSD."""
    config = {
        "name": sepa_text(ours.holder)[:NAME_LENGTH],
        "IBAN": ours.iban,
        "BIC": ours.bic,
        # Each transfer is booked by itself: of a sum of several, a statement need not name the parts.
        "batch": False,
        "currency": "EUR",
    }
    # The letters are ours to choose (`sepa_text`), so the library need not.
    file = SepaTransfer(config, schema=VERSION, clean=False)
    for credit in credits:
        file.add_payment(
            {
                "name": sepa_text(credit.name)[:NAME_LENGTH],
                "IBAN": credit.iban,
                "amount": credit.money.amount,
                "currency": credit.money.currency,
                "execution_date": execute_on,
                "description": sepa_text(credit.text)[:140],
                "endtoend_id": credit.end_to_end_id,
            }
        )
    try:
        xml: bytes = file.export(validate=True)
    except ValidationError as error:
        raise FileInvalid(
            f"The transfers do not make a valid {VERSION}: {error.__cause__ or error}"
        ) from error
    return file.msg_id, xml.decode()
