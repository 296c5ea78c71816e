from __future__ import annotations

from decimal import Decimal

import pytest
from django.utils import translation

from shop.kernel.money import CurrencyMismatch, Money, decimals, is_currency


@pytest.mark.parametrize(
    ("money", "decimal", "english", "german"),
    [
        (Money(123456, "EUR"), "1234.56", "€1,234.56", "1.234,56 €"),
        (Money(5, "EUR"), "0.05", "€0.05", "0,05 €"),
        (Money(-5, "EUR"), "-0.05", "-€0.05", "-0,05 €"),
        (Money(1234, "JPY"), "1234", "¥1,234", "1.234 ¥"),
        (Money(1234, "KWD"), "1.234", "KWD1.234", "1,234 KWD"),
    ],
)
def test_money_is_written_with_the_decimals_of_its_currency(
    money: Money, decimal: str, english: str, german: str
) -> None:
    assert money.decimal == Decimal(decimal)
    with translation.override("en"):
        assert str(money).replace("\xa0", " ") == english
    with translation.override("de"):
        assert str(money).replace("\xa0", " ") == german


def test_currencies_have_their_own_number_of_decimals() -> None:
    assert [decimals(code) for code in ("EUR", "JPY", "KWD")] == [2, 0, 3]
    assert is_currency("EUR")
    assert not is_currency("EURO")


def test_amounts_add_and_compare_within_a_currency() -> None:
    assert Money(1, "EUR") + Money(2, "EUR") == Money(3, "EUR")
    assert Money(1, "EUR") - Money(2, "EUR") == -Money(1, "EUR")
    assert Money(1, "EUR") < Money(2, "EUR") <= Money(2, "EUR")
    assert not Money(0, "EUR")


def test_two_currencies_do_not_mix() -> None:
    euro, yen = Money(1, "EUR"), Money(1, "JPY")
    assert euro != yen
    for mix in (lambda: euro + yen, lambda: euro - yen, lambda: euro < yen, lambda: euro <= yen):
        with pytest.raises(CurrencyMismatch):
            mix()


@pytest.mark.parametrize("amount", [1.0, "1", True, Decimal(1), None])
def test_money_is_a_whole_number_of_minor_units(amount: object) -> None:
    with pytest.raises(TypeError):
        Money(amount, "EUR")  # type: ignore[arg-type]


@pytest.mark.parametrize("currency", ["", "eur", "EURO", "ÄÖÜ"])
def test_money_has_a_currency_code(currency: str) -> None:
    with pytest.raises(ValueError, match="currency code"):
        Money(1, currency)
