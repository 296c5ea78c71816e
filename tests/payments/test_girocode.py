"""The GiroCode, read back by a decoder that knows nothing of how it was drawn; and the account behind it."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import zxingcpp
from PIL import Image

from payments.banking.account import AccountInvalid, checked, valid_iban
from payments.banking.girocode import NoGirocode, girocode_png, girocode_svg, why_no_girocode
from payments.banking.instructions import Instructions
from payments.references import creditor_reference
from shop.kernel.money import Money
from tests.payments.our_bank import BIC, HOLDER, IBAN

GIVEN = Instructions(
    IBAN, BIC, HOLDER, "Commerzbank", creditor_reference("ORD-100001", 1), Money(3998, "EUR")
)


def scanned(png: bytes) -> list[str]:
    (code,) = zxingcpp.read_barcodes(Image.open(io.BytesIO(png)))
    return code.text.split("\n")


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (3998, "EUR39.98"),
        (1, "EUR0.01"),
        (10, "EUR0.1"),
        (10_000, "EUR100"),
        (99_999_999_999, "EUR999999999.99"),
    ],
)
def test_a_decoder_reads_each_line_back(amount: int, written: str) -> None:
    lines = scanned(girocode_png(replace(GIVEN, money=Money(amount, "EUR"))))
    assert lines == [
        "BCD",
        "002",
        "1",
        "SCT",
        BIC,
        HOLDER,
        IBAN,
        written,
        "",
        GIVEN.creditor_reference,
    ]


def test_the_longest_name_with_umlauts_still_fits() -> None:
    name = "Ä" * 70
    assert scanned(girocode_png(replace(GIVEN, name=name)))[5] == name


def test_the_svg_is_one_element_that_a_strict_content_security_policy_lets_through() -> None:
    svg = girocode_svg(GIVEN)
    assert svg.startswith("<svg")
    assert svg.rstrip().endswith("</svg>")
    assert "style=" not in svg
    assert "<script" not in svg


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"money": Money(3998, "CHF")}, "euros"),
        ({"money": Money(0, "EUR")}, "0.01"),
        ({"money": Money(-5, "EUR")}, "0.01"),
        ({"money": Money(100_000_000_000, "EUR")}, "999,999,999.99"),
        ({"name": ""}, "70 characters"),
        ({"name": "x" * 71}, "70 characters"),
        ({"name": "two\nlines"}, "one line"),
        ({"iban": IBAN[:-1] + "1"}, "not an IBAN"),
        ({"iban": "DE89 3704 0044 0532 0130 00"}, "without spaces"),
        ({"bic": "COBADE"}, "not a BIC"),
        ({"creditor_reference": "ORD-100001"}, "ISO 11649"),
        ({"creditor_reference": "RF00ORD100001"}, "ISO 11649"),
        ({"creditor_reference": GIVEN.creditor_reference.lower()}, "upper case"),
        ({"creditor_reference": ""}, "ISO 11649"),
    ],
)
def test_instructions_that_no_bank_would_take_are_not_drawn(wrong: dict[str, Any], said: str) -> None:
    broken = replace(GIVEN, **wrong)
    assert said in why_no_girocode(broken)
    for draw in (girocode_png, girocode_svg):
        with pytest.raises(NoGirocode, match=said):
            draw(broken)


def test_instructions_are_written_in_groups_of_four() -> None:
    assert GIVEN.iban_grouped == "DE89 3704 0044 0532 0130 00"
    assert GIVEN.reference_grouped.replace(" ", "") == GIVEN.creditor_reference
    assert all(len(group) <= 4 for group in GIVEN.reference_grouped.split())


# --- the shop's account ----------------------------------------------------------------------------------


def test_the_account_is_normalized_and_its_bank_looked_up() -> None:
    ours = checked("de89 3704 0044 0532 0130 00", "", " Tee  GmbH ", "")
    assert (ours.iban, ours.bic, ours.holder, ours.bank) == (IBAN, BIC, "Tee GmbH", "Commerzbank")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ("DE89370400440532013001", "", "Tee GmbH", ""),
            "BANK_IBAN: 'DE89370400440532013001' is not an IBAN",
        ),
        (("XX12", "", "Tee GmbH", ""), "BANK_IBAN"),
        ((IBAN, "NOPE", "Tee GmbH", ""), "BANK_BIC"),
        ((IBAN, "", "", ""), "BANK_ACCOUNT_HOLDER is not set"),
        ((IBAN, "", "x" * 71, ""), "longer than the 70"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_wrong(given: tuple[str, str, str, str], said: str) -> None:
    with pytest.raises(AccountInvalid, match=said):
        checked(*given)


def test_an_iban_is_taken_however_it_is_spaced() -> None:
    assert valid_iban(" nl91 abna 0417 1643 00\n") == "NL91ABNA0417164300"
    with pytest.raises(AccountInvalid, match="missing"):
        valid_iban("  ")
