"""References as payers write them: found when they prove something, proposed when they only suggest it."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count, pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from stdnum import iso11649
from stdnum.iso7064 import mod_97_10

from payments.references import (
    PREFIX,
    creditor_reference,
    find,
    format_creditor_reference,
    parse_creditor_reference,
)
from payments.statements.values import joined

numbers = st.integers(1, 10**9)
orders = st.integers(100_001, 10**9)
attempts = st.one_of(st.just(1), st.integers(2, 99))
gaps = st.sampled_from([" ", "  ", "-", "/", ".", "\n", " - ", "\u00a0", "–"])
words = st.sampled_from(["", "Zahlung ", "Danke für alles! ", "Müller, ", "Kd-Nr. 77; "])
endings = st.sampled_from(["", " vielen Dank", " Erika Müller", ", Danke", "; Otto"])


@st.composite
def spread(draw: st.DrawFn, text: str) -> str:
    """`text` with gaps at any places."""
    places = draw(st.sets(st.integers(1, len(text) - 1), max_size=8))
    cuts = [0, *sorted(places), len(text)]
    return draw(gaps).join(text[start:end] for start, end in pairwise(cuts))


def cut(text: str, width: int) -> tuple[str, ...]:
    return tuple(text[start : start + width] for start in range(0, len(text), width))


# --- the reference itself --------------------------------------------------------------------------------


def test_the_reference_is_the_order_number_with_check_digits() -> None:
    assert creditor_reference("ORD-100001", 1) == "RF89ORD100001"
    assert creditor_reference("ORD-100003", 2) == "RF21ORD100003X2"
    assert format_creditor_reference("RF21ORD100003X2") == "RF21 ORD1 0000 3X2"


@given(numbers, st.integers(1, 9999))
@example(449503659682936, 2)  # 97, which "fits" as 00 as well
def test_every_reference_is_valid_and_leads_back(number: int, attempt: int) -> None:
    reference = creditor_reference(f"ORD-{number}", attempt)
    assert iso11649.is_valid(reference)
    assert reference[2:4] == mod_97_10.calc_check_digits(f"{reference[4:]}RF")
    assert len(reference) <= 25
    assert parse_creditor_reference(format_creditor_reference(reference).lower()) == (
        f"ORD-{number}",
        attempt,
    )


def test_leading_zeros_of_an_order_number_survive() -> None:
    assert parse_creditor_reference(creditor_reference("ORD-000123", 3)) == ("ORD-000123", 3)


@pytest.mark.parametrize(
    ("merchant_reference", "attempt"),
    [
        ("100001", 1),
        ("ord-100001", 1),
        ("ORD-", 1),
        ("ORD-1", 0),
        ("ORD-1", 10_000),
        ("ABCDEFGH-123456789012345", 1),
    ],
)
def test_what_cannot_be_a_reference_is_refused_in_words(merchant_reference: str, attempt: int) -> None:
    with pytest.raises(ValueError, match="creditor reference"):
        creditor_reference(merchant_reference, attempt)


@pytest.mark.parametrize(
    "text", ["", "RF", "RF18539007547034", "RF90ORD100001", "RF89ORD100001X1", "nothing"]
)
def test_foreign_and_wrong_references_are_not_ours(text: str) -> None:
    assert parse_creditor_reference(text) is None


@given(st.integers(100_001, 999_999_999), attempts, words, endings)
def test_a_reference_as_printed_is_certain(number: int, attempt: int, before: str, after: str) -> None:
    printed = format_creditor_reference(creditor_reference(f"ORD-{number}", attempt))
    assert find([before + printed + after]).certain == {(f"ORD-{number}", attempt)}


# --- what proves ------------------------------------------------------------------------------------------


@given(st.data(), numbers, attempts, words, endings, st.booleans())
def test_a_reference_is_found_however_it_is_spaced_and_written(
    data: st.DataObject, number: int, attempt: int, before: str, after: str, lower: bool
) -> None:
    text = before + data.draw(spread(creditor_reference(f"ORD-{number}", attempt))) + after
    meant = f"ORD-{number}"
    text = text.lower() if lower else text
    assert {reference for reference, _ in find([text], known=lambda each: each == meant).certain} == {meant}
    # One in a hundred numbers of over six digits, with a gap behind the sixth, has a part that fits as well.
    found = find([text])
    assert {reference for reference, _ in found.certain} == {meant} or (
        not found.certain and meant in {reference for reference, _ in found.proposals}
    )


@given(numbers, attempts, st.text("abc xyz", max_size=150), st.sampled_from([27, 35, 70, 140]))
@example(100001, 1, "x" * 30, 35)
def test_a_reference_cut_by_the_bank_is_found(number: int, attempt: int, before: str, width: int) -> None:
    lines = cut(f"{before} {creditor_reference(f'ORD-{number}', attempt)} danke", width)
    assert find([joined(lines)]).certain == {(f"ORD-{number}", attempt)}
    assert find(["\n".join(lines)], known=lambda each: each == f"ORD-{number}").certain == {
        (f"ORD-{number}", attempt)
    }


@given(orders, attempts, st.integers(0, 99999), st.sampled_from([" ", "/", " . "]))
def test_digits_behind_a_reference_never_lead_to_another_order(
    number: int, attempt: int, more: int, gap: str
) -> None:
    found = find([f"{creditor_reference(f'ORD-{number}', attempt)}{gap}{more}"])
    meant = f"ORD-{number}"
    assert {reference for reference, _ in found.certain} <= {meant}
    assert meant in {reference for reference, _ in (*found.certain, *found.proposals)}


def with_a_zero_to_lose(number: int) -> int:
    """The next number whose check digits begin with a zero."""
    return next(n for n in count(number) if creditor_reference(f"ORD-{n}", 1)[2] == "0")


@given(numbers.map(with_a_zero_to_lose))
def test_a_lost_zero_of_the_check_digits_is_no_loss(number: int) -> None:
    reference = creditor_reference(f"ORD-{number}", 1)
    assert find([f"RF{reference[3:]}"]).certain == {(f"ORD-{number}", 1)}


@given(st.data(), orders)
def test_an_order_number_is_found_however_it_is_spaced_and_never_taken_for_another(
    data: st.DataObject, number: int
) -> None:
    text = data.draw(spread(f"ORD-{number}"))
    found = find([text.lower()])
    assert {reference for reference, _ in found.certain} <= {f"ORD-{number}"}
    assert f"ORD-{number}" in {reference for reference, _ in (*found.certain, *found.proposals)}
    assert (f"ORD-{number}", None) in find([text], known=lambda each: each == f"ORD-{number}").certain


@pytest.mark.parametrize(
    "text",
    ["ORD-100001", "ord100001", "ORD 100001", "Ord. 100001", "ORD#100001", "ORD: 100001", "O.R.D. 100 001",
     "ord–100001", "Zahlung ORD-100001, danke", "ORD-100001 Otto", "5 ORD-100001", "ORD-100001X2"],
)  # fmt: skip
def test_an_order_number_with_its_prefix_is_certain(text: str) -> None:
    assert find([text]).certain == {("ORD-100001", None)}


@given(numbers, numbers, st.sampled_from([" ", ", ", " und ", "\n", "/"]), st.booleans())
def test_two_references_in_one_text_are_both_found(
    first: int, second: int, between: str, separate: bool
) -> None:
    assume(first != second)
    references = [creditor_reference(f"ORD-{number}", 1) for number in (first, second)]
    found = find(references if separate else [between.join(references)])
    assert found.certain == {(f"ORD-{first}", 1), (f"ORD-{second}", 1)}


def test_a_reference_beside_its_order_number_is_one_finding() -> None:
    assert find(["RF89ORD100001", "Order 100001, ORD-100001"]).certain == {("ORD-100001", 1)}
    assert find(["RF89ORD100001", "Order 100001, ORD-100001"]).proposals == ()


# --- what only suggests -----------------------------------------------------------------------------------


@given(orders, attempts, st.data())
def test_a_reference_with_a_wrong_digit_is_never_certain(
    number: int, attempt: int, data: st.DataObject
) -> None:
    reference = creditor_reference(f"ORD-{number}", attempt)
    place = data.draw(st.sampled_from([i for i, c in enumerate(reference) if c.isdigit()]))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != reference[place]]))
    wrong = reference[:place] + digit + reference[place + 1 :]
    found = find([f"Zahlung {wrong} danke"])
    assert not found.certain
    assert found.proposals


@given(orders.map(str).filter(lambda number: "0" in number), st.data())
def test_a_letter_o_for_a_zero_is_proposed_and_never_certain(number: str, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from([i for i, c in enumerate(number) if c == "0"]))
    confused = number[:place] + "O" + number[place + 1 :]
    valid = creditor_reference(f"ORD-{number}", 1)
    for text in (f"ORD-{confused}", f"{valid[:7]}{confused}", f"0RD-{number}", valid.replace("ORD", "0RD")):
        found = find([text])
        assert not found.certain, text
        assert f"ORD-{number}" in {reference for reference, why in found.proposals if "letter O" in why}


@pytest.mark.parametrize(
    ("text", "proposed", "reason"),
    [
        ("Order 100001", ["ORD-100001"], "Order"),
        ("Bestellung Nr. 100001", ["ORD-100001"], "Bestell"),
        ("Bestellnummer: 100 001", ["ORD-100001"], "Bestell"),
        ("100001", ["ORD-100001"], "nothing but"),
        ("RF99ORD100001", ["ORD-100001"], "check digits"),
        ("RF89ORD1000015", ["ORD-100001"], "touch"),
        ("FJORD 123456", ["ORD-123456"], "touches the word"),
        ("ORD-100001 5", ["ORD-100001", "ORD-1000015"], "not clear"),
        ("ORD-100001/100002", ["ORD-100001", "ORD-100001100002", "ORD-100002"], "not clear"),
    ],
)
def test_what_only_suggests_an_order_is_proposed_with_the_reason(
    text: str, proposed: list[str], reason: str
) -> None:
    found = find([text])
    assert not found.certain
    assert [reference for reference, _ in found.proposals] == proposed
    assert reason in found.proposals[0][1]


@pytest.mark.parametrize(
    ("known", "certain"),
    [
        (lambda reference: reference == "ORD-100001", {("ORD-100001", None)}),
        (lambda reference: True, set()),
        (lambda reference: False, set()),
    ],
)
def test_where_a_number_may_end_twice_the_only_existing_order_is_meant(
    known: Callable[[str], bool], certain: set[tuple[str, None]]
) -> None:
    assert find(["ORD-100001 5"], known=known).certain == certain


@given(
    st.lists(
        st.one_of(st.text(), st.from_regex(r"(RF|R F)[0-9 ]{0,9}(OR|RD|0RD|XYZ)?[0-9 .-]{0,12}")), max_size=5
    )
)
def test_a_text_without_a_reference_proves_nothing(texts: list[str]) -> None:
    assume(all(PREFIX not in re.sub(r"[^A-Z0-9]", "", text.upper()) for text in texts))
    assert not find(texts).certain


@given(st.text("RFORD0158 X-.:", max_size=200))
def test_any_jumble_is_read_without_an_error(text: str) -> None:
    find([text])


@pytest.mark.parametrize(
    "piece", ["ORD", "RF5", "ORD1 ", "ORD1O", "O", "1 ", "RF89ORD1 0", "ORDER1 ", "BESTELLUNG"]
)
def test_a_long_text_takes_no_long_time(piece: str) -> None:
    find([piece * 20_000])
