"""Bank accounts: the shop's own, from the settings, and what makes an account number one (ISO 13616).

Nothing here needs Django's apps, because the settings themselves check the shop's account with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import schwifty
from django.conf import settings
from schwifty.exceptions import SchwiftyException

NAME_LENGTH = 70
"""The longest name that pain.001 (SEPA) and the GiroCode (EPC069-12) take."""


class AccountInvalid(ValueError):
    """Not a bank account; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Account:
    """The shop's account. IBAN and BIC in upper case, without spaces."""

    iban: str
    bic: str
    holder: str
    bank: str


def valid_iban(text: str) -> str:
    """The IBAN in upper case, without spaces. Raises `AccountInvalid`."""
    compact = re.sub(r"\s", "", text).upper()
    if not compact:
        raise AccountInvalid("The IBAN is missing.")
    try:
        return str(schwifty.IBAN(compact).compact)
    except SchwiftyException as error:
        raise AccountInvalid(
            f"{shortened(text)} is not an IBAN: {_said(error)}. Compare it with the bank card or statement."
        ) from error


def valid_bic(text: str) -> str:
    """The BIC in upper case, without spaces. Raises `AccountInvalid`."""
    compact = re.sub(r"\s", "", text).upper()
    try:
        return str(schwifty.BIC(compact).compact)
    except SchwiftyException as error:
        raise AccountInvalid(f"{shortened(text)} is not a BIC: {_said(error)}.") from error


@lru_cache(maxsize=8)
def checked(iban: str, bic: str, holder: str, bank: str) -> Account:
    """The shop's account from its settings. Raises `AccountInvalid` with the setting's name.

    A missing BIC or bank name is looked up by the IBAN, where the register of its country has it.
    """
    try:
        iban = valid_iban(iban)
    except AccountInvalid as error:
        raise AccountInvalid(f"BANK_IBAN: {error}") from error
    known = schwifty.IBAN(iban)
    if bic:
        try:
            bic = valid_bic(bic)
        except AccountInvalid as error:
            raise AccountInvalid(f"BANK_BIC: {error}") from error
    elif known.bic:
        bic = str(known.bic)
    else:
        raise AccountInvalid("BANK_BIC is not set, and the bank of BANK_IBAN is not in the register of BICs.")
    holder = " ".join(holder.split())
    if not holder:
        raise AccountInvalid("BANK_ACCOUNT_HOLDER is not set: customers have to name it in their transfer.")
    if len(holder) > NAME_LENGTH:
        raise AccountInvalid(
            f"BANK_ACCOUNT_HOLDER is longer than the {NAME_LENGTH} characters that banks take."
        )
    return Account(iban, bic, holder, bank.strip() or str(known.bank_name or ""))


def our_account() -> Account:
    """The shop's account. Raises `AccountInvalid`."""
    return checked(settings.BANK_IBAN, settings.BANK_BIC, settings.BANK_ACCOUNT_HOLDER, settings.BANK_NAME)


def grouped(text: str) -> str:
    """An IBAN as people read it: in groups of four."""
    return " ".join(text[i : i + 4] for i in range(0, len(text), 4))


def shortened(text: str) -> str:
    """What someone wrote, fit to stand in a sentence."""
    return repr(text if len(text) <= 40 else text[:39] + "…")


def _said(error: SchwiftyException) -> str:
    said = str(error).rstrip(".")
    return said[:1].lower() + said[1:]
