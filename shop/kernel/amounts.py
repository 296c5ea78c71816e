"""Amounts as people type them: 1299,99 and 1.299,99 and 1,299.99, with spaces, with a currency, as “12,-”.

Where the last sign could part thousands or decimals (“1.299”), the reader's language decides; what it does not
allow is refused with a sentence that says how it was read. So no amount is ever off by a factor of a thousand.
"""

from __future__ import annotations

import re

from babel import Locale, UnknownLocaleError
from babel.numbers import format_decimal, get_currency_symbol, get_decimal_symbol, get_group_symbol
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from shop.kernel.money import Money, decimals

MAX_DIGITS = 15
_SPACES = re.compile(r"[\s\u00a0\u2007\u2009\u202f]+")
_ALIKE = str.maketrans(dict.fromkeys("’‘ʼ´`", "'") | dict.fromkeys("–—−", "-"))
_WITH_CURRENCY = re.compile(r"([^\d\s.,'+-]*)\s*(\d.*?)\s*([^\d\s.,'+-]*)", re.ASCII)
_NOTHING_AFTER = re.compile(r"([.,]) ?--?$")  # 12,- and 12.--
_PLAIN = re.compile(r"(\d+)(?:([.,])(\d*))?", re.ASCII)
_GROUPED = re.compile(r"([1-9]\d{0,2}(?:([.,' ])\d{3})(?:\2\d{3})*)(?:(?!\2)[.,](\d*))?", re.ASCII)


class AmountInvalid(ValueError):
    """Not an amount; the message says how it was read and what to write."""


def parse_amount(text: str, currency: str) -> int:
    """The minor units that somebody means who reads the active language. Raises `AmountInvalid`."""
    places = decimals(currency)
    typed = _NOTHING_AFTER.sub(r"\1", _number(text, currency))
    plain, grouped = _PLAIN.fullmatch(typed), _GROUPED.fullmatch(typed)
    if plain and grouped:  # “1.299” is both; “1299” and “0.299” are plain alone
        whole, fraction = _as_read_here(text, plain, currency) if plain[2] else (plain[1], "")
    elif plain:
        whole, fraction = plain[1], plain[3] or ""
    elif grouped:
        whole, fraction = re.sub(r"\D", "", grouped[1]), grouped[3] or ""
    else:
        raise AmountInvalid(
            _("“%(typed)s” is not an amount. Write it like %(example)s.")
            % {"typed": _shortened(text), "example": _example(currency)}
        )
    if len(fraction) > places:
        raise AmountInvalid(_decimals_of(currency))
    if len(whole) > MAX_DIGITS:
        raise AmountInvalid(_("The amount is too large."))
    return int(whole + fraction.ljust(places, "0"))


def written(amount: int, currency: str) -> str:
    """Minor units as people write them in the active language, without the currency: “1,299.99”, “1.299,99”.

    `parse_amount` reads it back as the same amount.
    """
    places = decimals(currency)
    shown = "#,##0" + ("." + "0" * places if places else "")
    value = Money(amount, currency).decimal
    return str(format_decimal(value, format=shown, locale=_locale(), decimal_quantization=False))


# --- pieces ----------------------------------------------------------------------------------------------


def _number(text: str, currency: str) -> str:
    """What was typed without the currency around it. Another currency than the field's is refused."""
    typed = _SPACES.sub(" ", text).strip().translate(_ALIKE)
    parts = _WITH_CURRENCY.fullmatch(typed)
    if parts is None:
        return typed
    before, number, after = parts.groups()
    for word in filter(None, (before, after)):
        if word.upper() not in _names(currency):
            raise AmountInvalid(
                _(
                    "“%(typed)s”: “%(word)s” is not understood. The amount is in %(currency)s; write %(example)s."
                )
                % {
                    "typed": _shortened(text),
                    "word": _shortened(word),
                    "currency": currency,
                    "example": _example(currency),
                }
            )
    return str(number)


def _names(currency: str) -> set[str]:
    """What people may write for the currency, in upper case: its code, its sign, and “Euro”."""
    signs = {get_currency_symbol(currency, locale=locale).upper() for locale in ("en", _locale())}
    return {currency, *signs} | ({"EURO"} if currency == "EUR" else set())


def _as_read_here(text: str, found: re.Match[str], currency: str) -> tuple[str, str]:
    """Whole and fraction of digits, one sign and three digits, by the signs of the active language."""
    whole, sign, last = found.groups()
    locale, places = _locale(), decimals(currency)
    if sign == get_group_symbol(locale):
        return whole + last, ""
    if sign == get_decimal_symbol(locale) and places >= len(last):
        return whole, last
    thousandths = int(whole + last)
    thousands = written(thousandths * 10**places, currency)
    smaller = written((thousandths * 10**places + 500) // 1000, currency)
    raise AmountInvalid(
        _("“%(typed)s” can be read in two ways. Write %(thousands)s or %(smaller)s.")
        % {"typed": _shortened(text), "thousands": thousands, "smaller": smaller}
    )


def _decimals_of(currency: str) -> str:
    places, example = decimals(currency), _example(currency)
    if not places:
        return _("%(currency)s has no decimals. Write the amount like %(example)s.") % {
            "currency": currency,
            "example": example,
        }
    return _("%(currency)s has %(places)d decimals. Write the amount like %(example)s.") % {
        "currency": currency,
        "places": places,
        "example": example,
    }


def _locale() -> str:
    """The active language, as far as Babel knows it."""
    language = (get_language() or "en").replace("-", "_")
    try:
        return str(Locale.parse(language))
    except (ValueError, UnknownLocaleError):
        return "en"


def _example(currency: str) -> str:
    return written(1234 * 10 ** decimals(currency), currency)


def _shortened(text: str) -> str:
    return text if len(text) <= 30 else text[:29] + "…"
