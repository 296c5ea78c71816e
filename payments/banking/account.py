"""Bank accounts: the shop's own, from the settings, and what makes an account number one (ISO 13616).

Nothing here needs Django's apps, because the settings themselves check the shop's account with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import schwifty
from django.apps import apps
from django.conf import settings
from django.utils.translation import gettext
from schwifty.exceptions import (
    InvalidChecksumDigits,
    InvalidCountryCode,
    InvalidLength,
    InvalidStructure,
    SchwiftyException,
)

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
        raise AccountInvalid(_("The IBAN is missing."))
    try:
        return str(schwifty.IBAN(compact).compact)
    except SchwiftyException as error:
        raise AccountInvalid(
            _("%(text)s is not an IBAN: %(why)s. Compare it with the bank card or statement.")
            % {"text": shortened(text), "why": _said(error)}
        ) from error


def valid_bic(text: str) -> str:
    """The BIC in upper case, without spaces. Raises `AccountInvalid`."""
    compact = re.sub(r"\s", "", text).upper()
    try:
        return str(schwifty.BIC(compact).compact)
    except SchwiftyException as error:
        raise AccountInvalid(
            _("%(text)s is not a BIC: %(why)s.") % {"text": shortened(text), "why": _said(error)}
        ) from error


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
        raise AccountInvalid(
            _("BANK_BIC is not set, and the bank of BANK_IBAN is not in the register of BICs.")
        )
    holder = " ".join(holder.split())
    if not holder:
        raise AccountInvalid(
            _("BANK_ACCOUNT_HOLDER is not set: customers have to name it in their transfer.")
        )
    if len(holder) > NAME_LENGTH:
        raise AccountInvalid(
            _("BANK_ACCOUNT_HOLDER is longer than the %s characters that banks take.") % NAME_LENGTH
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
    match error:
        case InvalidLength():
            return _("its length is wrong")
        case InvalidChecksumDigits():
            return _("its check digits are wrong")
        case InvalidCountryCode():
            return _("its country code is wrong")
        case InvalidStructure():
            return _("there are characters where they may not be")
    said = str(error).rstrip(".")
    return said[:1].lower() + said[1:]


def _(sentence: str) -> str:
    """In the reader's language, except while the settings are read: they know no languages yet."""
    return gettext(sentence) if apps.ready else sentence
