"""An IBAN as people paste it."""

from __future__ import annotations

import pytest
from django import forms

from payments.admin.iban import IbanField

IBAN = "DE89370400440532013000"


class _Form(forms.Form):
    iban = IbanField(label="IBAN", required=False)


@pytest.mark.parametrize(
    "pasted",
    [
        IBAN, "DE89 3704 0044 0532 0130 00", "de89 3704 0044 0532 0130 00", " IBAN: DE89 3704 0044 0532 0130 00\n",
        "IBAN DE89370400440532013000", "iban:de89-3704-0044-0532-0130-00", "DE89\u00a03704\u20090044 0532 0130 00",
        "IBANDE89370400440532013000", "(IBAN) DE89 3704 0044 0532 0130 00",
    ],
)  # fmt: skip
def test_an_iban_is_taken_as_it_is_pasted(pasted: str) -> None:
    form = _Form({"iban": pasted})
    assert form.is_valid(), form.errors
    assert form.cleaned_data["iban"] == IBAN
    assert 'value="DE89 3704 0044 0532 0130 00"' in str(form["iban"])


def test_an_iban_is_shown_in_groups_of_four() -> None:
    assert 'value="DE89 3704 0044 0532 0130 00"' in str(_Form(initial={"iban": IBAN})["iban"])
    assert "value" not in str(_Form(initial={"iban": ""})["iban"])


def test_a_wrong_digit_is_told_beside_the_field_and_what_was_typed_stays() -> None:
    form = _Form({"iban": "IBAN DE88 3704 0044 0532 0130 00"})
    assert "is not an IBAN" in form.errors["iban"][0]
    html = str(form["iban"])
    assert 'value="DE88 3704 0044 0532 0130 00"' in html
    assert 'aria-invalid="true"' in html
    assert 'aria-describedby="id_iban_error"' in html


def test_no_iban_is_none() -> None:
    form = _Form({"iban": "  "})
    assert form.is_valid()
    assert form.cleaned_data["iban"] == ""
