"""Amounts and days as people type them, and as a field shows them again."""

from __future__ import annotations

import random
from datetime import date, timedelta

import pytest
from django import forms
from django.utils.translation import override

from shop.kernel.amounts import AmountInvalid, parse_amount, written
from shop.kernel.forms import AmountField, DayField, latest_today


@pytest.mark.parametrize("language", ["en", "de", "fr", "de-ch"])
@pytest.mark.parametrize(
    ("typed", "currency", "amount"),
    [
        ("39.98", "EUR", 3998), ("39,98", "EUR", 3998), ("39.9", "EUR", 3990), ("12", "EUR", 1200),
        ("12.", "EUR", 1200), (" 0 ", "EUR", 0), ("1299,99", "EUR", 129999), ("1299.99", "EUR", 129999),
        ("1,299.99", "EUR", 129999), ("1.299,99", "EUR", 129999), ("1'299.99", "EUR", 129999),
        ("1’299.99", "EUR", 129999), ("1 299,99", "EUR", 129999), ("1\u00a0299,99", "EUR", 129999),
        ("1\u202f299,99", "EUR", 129999), ("1 299", "EUR", 129900), ("1,299,000", "EUR", 129900000),
        ("1.299.000,5", "EUR", 129900050), ("€ 12", "EUR", 1200), ("€12", "EUR", 1200), ("12 €", "EUR", 1200),
        ("12 eur", "EUR", 1200), ("EUR 1.299,99", "EUR", 129999), ("12 Euro", "EUR", 1200), ("12,-", "EUR", 1200),
        ("12.--", "EUR", 1200), ("12,– €", "EUR", 1200), ("1.299,-", "EUR", 129900), ("1,299.—", "EUR", 129900),
        ("1299", "JPY", 1299), ("¥1299", "JPY", 1299), ("1'299", "JPY", 1299), ("1,299,000", "JPY", 1299000),
        ("1.2", "KWD", 1200), ("1,29", "KWD", 1290), ("0.299", "KWD", 299), ("0,299", "KWD", 299),
        ("1299.125", "KWD", 1299125), ("1,299.125", "KWD", 1299125), ("1.299,125", "KWD", 1299125),
        ("1 299,125", "KWD", 1299125),
    ],
)  # fmt: skip
def test_what_can_mean_one_thing_only_is_read_in_any_language(
    language: str, typed: str, currency: str, amount: int
) -> None:
    with override(language):
        assert parse_amount(typed, currency) == amount


@pytest.mark.parametrize(
    ("language", "typed", "currency", "amount"),
    [
        ("en", "1,299", "EUR", 129900), ("de", "1.299", "EUR", 129900), ("de-ch", "1’299", "EUR", 129900),
        ("en", "1,299", "JPY", 1299), ("de", "1.299", "JPY", 1299), ("en", "€1,299", "EUR", 129900),
        ("en", "1.299", "KWD", 1299), ("de", "1,299", "KWD", 1299), ("en", "1,299", "KWD", 1299000),
        ("de", "1.299", "KWD", 1299000), ("de", "1.299,-", "EUR", 129900),
    ],
)  # fmt: skip
def test_what_could_be_thousands_or_decimals_is_read_by_the_language(
    language: str, typed: str, currency: str, amount: int
) -> None:
    with override(language):
        assert parse_amount(typed, currency) == amount


@pytest.mark.parametrize(
    ("language", "typed", "currency", "says"),
    [
        ("en", "1.299", "EUR", "“1.299” can be read in two ways. Write 1,299.00 or 1.30."),
        ("de", "1,299", "EUR", "“1,299” can be read in two ways. Write 1.299,00 or 1,30."),
        ("fr", "1.299", "EUR", "can be read in two ways"),
        ("de-ch", "1,299", "EUR", "can be read in two ways"),
        ("en", "1.299", "JPY", "“1.299” can be read in two ways. Write 1,299 or 1."),
        ("fr", "1.299", "KWD", "can be read in two ways"),
    ],
)
def test_what_the_language_does_not_decide_is_refused_with_both_readings(
    language: str, typed: str, currency: str, says: str
) -> None:
    with override(language):
        # The sentence is English wherever it is not translated yet.
        with pytest.raises(AmountInvalid) as refused, override(language):
            parse_amount(typed, currency)
        if language == "en":
            assert str(refused.value) == says
        else:
            assert "1" in str(refused.value)


@pytest.mark.parametrize(
    ("typed", "currency"),
    [
        ("", "EUR"), ("abc", "EUR"), ("-5", "EUR"), ("−5", "EUR"), ("- 5", "EUR"), ("€ -5", "EUR"), ("5-", "EUR"),
        ("+5", "EUR"), ("1,2,3", "EUR"), ("1.2.34", "EUR"), ("12.5", "JPY"), ("12.345,678", "EUR"), ("1e3", "EUR"),
        (".5", "EUR"), ("9" * 20, "EUR"), ("٣٩", "EUR"), ("$5", "EUR"), ("5 USD", "EUR"), ("5 €", "USD"),
        ("12,34,567", "EUR"), ("0.299", "EUR"), ("01.299", "EUR"), ("1299.999", "EUR"), ("1,299,99", "EUR"),
        ("1.299 000", "EUR"), ("€", "EUR"), ("1 2", "EUR"), ("12 34", "EUR"), ("12 pieces", "EUR"),
        ("1.2345", "KWD"), ("1\n2", "EUR"), ("12,-5", "EUR"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("language", ["en", "de"])
def test_what_is_no_amount_is_refused_with_a_sentence(language: str, typed: str, currency: str) -> None:
    with override(language), pytest.raises(AmountInvalid, match=r"\.$"):
        parse_amount(typed, currency)


def test_another_currency_than_the_field_has_is_not_taken_for_it() -> None:
    with pytest.raises(AmountInvalid, match=r"“\$” is not understood. The amount is in EUR; write 1,234.00."):
        parse_amount("$5", "EUR")


@pytest.mark.parametrize("language", ["en", "de", "de-ch", "fr", "pl", "xx"])
@pytest.mark.parametrize("currency", ["EUR", "JPY", "KWD"])
def test_an_amount_that_is_shown_is_read_back_as_the_same(language: str, currency: str) -> None:
    chance = random.Random(7)
    amounts = [0, 1, 9, 10, 99, 100, 999, 1000, 1299, 129999, 1000000, 999_999_999_999]
    amounts += [chance.randrange(10 ** chance.randint(1, 14)) for _ in range(200)]
    with override(language):
        for amount in amounts:
            assert parse_amount(written(amount, currency), currency) == amount


class _Form(forms.Form):
    amount = AmountField(label="Amount")


def test_a_field_shows_its_amount_as_the_language_writes_it() -> None:
    for language, shown in (("en", "1,299.90"), ("de", "1.299,90")):
        with override(language):
            html = str(_Form(initial={"amount": 129990})["amount"])
            assert f'value="{shown}"' in html
            assert 'inputmode="decimal"' in html


def test_an_amount_typed_in_another_way_is_not_a_change() -> None:
    for typed, changed in (
        ("1299.9", False),
        ("1.299,90", False),
        ("1299.91", True),
        ("1.299", True),
        ("", True),
    ):
        assert _Form({"amount": typed}, initial={"amount": 129990}).has_changed() is changed


def test_an_amount_that_was_understood_is_taken_in_any_language() -> None:
    with override("de"):
        form = _Form({"amount": 1299})
        assert form.is_valid()
        assert form.cleaned_data["amount"] == 1299


# --- days ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", ["2026-11-03", "03.11.2026", "3.11.2026", " 3. 11. 2026 "])
@pytest.mark.parametrize("language", ["en", "de"])
def test_a_day_is_read_as_people_type_it(typed: str, language: str) -> None:
    with override(language):
        assert DayField().clean(typed) == date(2026, 11, 3)


@pytest.mark.parametrize("typed", ["03/11/2026", "11-03-2026", "31.02.2026", "tomorrow", "3.11.26"])
@pytest.mark.parametrize("language", ["en", "de"])
def test_a_day_that_could_be_another_is_refused(typed: str, language: str) -> None:
    with override(language), pytest.raises(forms.ValidationError):
        DayField().clean(typed)


def test_the_future_is_refused_where_it_makes_no_sense() -> None:
    field = DayField(no_later_than_today=True)
    assert field.clean(latest_today().isoformat()) == latest_today()
    with pytest.raises(forms.ValidationError, match="yet to come"):
        field.clean((latest_today() + timedelta(days=1)).isoformat())
    assert DayField().clean("2999-01-01") == date(2999, 1, 1)
