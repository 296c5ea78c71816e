"""Money is an integer in minor units and an ISO 4217 code; a float never holds an amount."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from babel.numbers import format_currency, get_currency_precision, list_currencies
from django.conf import settings
from django.utils.translation import get_language


class CurrencyMismatch(ValueError):
    """Two amounts in different currencies were added, subtracted or compared."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of money.

    `amount` is in minor units of `currency`: cents for EUR, whole yen for JPY, fils (1/1000) for KWD.
    """

    amount: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.amount) is not int:
            raise TypeError(f"Money takes an integer in minor units, not {self.amount!r}.")
        if not (len(self.currency) == 3 and self.currency.isascii() and self.currency.isupper()):
            raise ValueError(f"{self.currency!r} is not an ISO 4217 currency code such as EUR.")

    def __add__(self, other: Money) -> Money:
        return Money(self.amount + self._same(other), self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.amount - self._same(other), self.currency)

    def __lt__(self, other: Money) -> bool:
        return self.amount < self._same(other)

    def __le__(self, other: Money) -> bool:
        return self.amount <= self._same(other)

    def __neg__(self) -> Money:
        return Money(-self.amount, self.currency)

    def __bool__(self) -> bool:
        return self.amount != 0

    def _same(self, other: Money) -> int:
        if self.currency != other.currency:
            raise CurrencyMismatch(f"{self} and {other} are in different currencies.")
        return other.amount

    @property
    def decimal(self) -> Decimal:
        """The amount in major units, with the currency's own number of decimals."""
        return Decimal(self.amount).scaleb(-decimals(self.currency))

    def format(self) -> str:
        """The amount as people of the active language write it, such as `€12.50` or `12,50 €`."""
        # The practice provider runs without Django, and speaks English.
        language = get_language() if settings.configured else None
        return format_currency(self.decimal, self.currency, locale=(language or "en").replace("-", "_"))

    def __str__(self) -> str:
        return self.format()


def decimals(currency: str) -> int:
    """How many decimals a currency has (ISO 4217 minor unit): 2 for EUR, 0 for JPY, 3 for KWD."""
    return int(get_currency_precision(currency))


def is_currency(code: str) -> bool:
    """Whether `code` is a currency code that Unicode CLDR knows."""
    return code in list_currencies()
