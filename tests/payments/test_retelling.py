"""Banks deliver a booking in several formats: it counts once, two equal ones count twice, doubt is for a person."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django.fixtures import Settings

from orders.models import Order
from payments.gateways import gateway
from payments.models import BankTransaction, Retelling, ReviewItem
from payments.services import importing, proving, reviewing
from shop.kernel.models import OutboxMessage
from tests import factories
from tests.payments.paper_bank import ADA, BOB, IBAN, SETTINGS, load, payment, rf, waiting
from tests.payments.statements import bank
from tests.payments.statements.bank import Entry, Part, cents

HALF, TOTAL = 1999, 3998


@pytest.fixture(autouse=True)
def shop(db: None, settings: Settings) -> Iterator[None]:
    for name, value in SETTINGS.items():
        setattr(settings, name, value)
    gateway.cache_clear()
    factories.product(on_hand=1000)
    yield
    gateway.cache_clear()


# --- one day at the bank, in three formats ---------------------------------------------------------------


def transfer(
    text: str,
    amount: str = "19.99",
    *,
    iban: str = ADA,
    name: str = "Jörg Müller-Lüdenscheidt",
    structured: str = "",
    end_to_end_id: str = "NOTPROVIDED",
    **changes: Any,
) -> Entry:
    """A customer's transfer, without a reference of the bank's."""
    part = Part(
        end_to_end_id=end_to_end_id,
        lines=[text] if text else [],
        structured=structured,
        debtor=(name, iban),
        creditor=("Shop", IBAN),
    )
    return replace(Entry(amount=amount, parts=[part]), **changes)


def camt053(*entries: Entry) -> bytes:
    return bank.camt(entries, iban=IBAN).encode()


def camt053_old(*entries: Entry) -> bytes:
    return bank.camt(entries, iban=IBAN, version=2).encode()


def camt054(*entries: Entry) -> bytes:
    return bank.camt(entries, iban=IBAN, message="camt.054").encode()


def mt940(*entries: Entry) -> bytes:
    """As a German bank converts it: umlauts written out, structured references among the text."""
    fields = []
    for entry in entries:
        (part,) = entry.parts
        text = _converted("".join((part.structured and f"{part.structured} ", *part.lines)))
        given = f"EREF+{part.end_to_end_id}" if part.end_to_end_id != "NOTPROVIDED" else ""
        subfields = f"{given.ljust(27) if given else ''}SVWZ+{text}" if text else given
        day, valued = (date[2:].replace("-", "") for date in (entry.booked, entry.valued))
        reference = f"//{entry.reference}" if entry.reference else ""
        amount = entry.amount.replace(".", ",")
        mark = {"CRDT": "C", "DBIT": "D"}[entry.side]
        if entry.reversal:
            mark = {"C": "RD", "D": "RC"}[mark]
        fields.append(f":61:{valued}{day[2:]}{mark}{amount}NTRFNONREF{reference}")
        fields.append(bank.details(subfields, name=_converted(part.debtor[0])[:27], iban=part.debtor[1]))
    total = 10000 + sum(cents(e.amount) * (1 if e.side == "CRDT" else -1) for e in entries)
    closing = f"{'C' if total >= 0 else 'D'}260302EUR{abs(total) // 100},{abs(total) % 100:02}"
    return bank.mt940(*fields, closing=closing, account="37040044/0532013000").encode("cp1252")


def _converted(text: str) -> str:
    for umlaut, letters in {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "&": "+"}.items():
        text = text.replace(umlaut, letters)
    return text.upper()


FORMATS: dict[str, Callable[..., bytes]] = {
    "camt.053": camt053,
    "camt.053 of 2009": camt053_old,
    "camt.054": camt054,
    "MT940": mt940,
}
PAIRS = [*permutations(["camt.053", "camt.054", "MT940"], 2), ("camt.053 of 2009", "camt.053")]
TWO_FORMATS = pytest.mark.parametrize(
    ("first", "second"), [pytest.param(*pair, id=" then ".join(pair)) for pair in PAIRS]
)


def received(order: Order) -> int:
    return payment(order).totals().received


def books_add_up() -> bool:
    return [str(difference) for difference in proving.differences()] == []


# --- once ------------------------------------------------------------------------------------------------


@TWO_FORMATS
def test_a_booking_in_two_formats_counts_once(first: str, second: str) -> None:
    order = waiting()
    half = [
        transfer(f"{order.number} für Bücher & mehr,  Straße"),
        transfer("vielen Dank", "5.00", structured=rf(order)),
        transfer("", "6.00", end_to_end_id=order.number),
    ]
    for _ in range(2):
        load(FORMATS[first](*half))
        again = load(FORMATS[second](*half))
        assert (again.new, again.known) == (0, 3)
    assert received(order) == HALF + 1100
    assert BankTransaction.objects.count() == 3
    assert set(ReviewItem.objects.values_list("reason", flat=True)) == {"too_little"}
    assert books_add_up()


@TWO_FORMATS
def test_two_genuine_equal_transfers_count_twice_in_whatever_format(first: str, second: str) -> None:
    order = waiting()
    half = transfer(order.number)
    load(FORMATS[first](half, half))
    assert received(order) == TOTAL
    load(FORMATS[second](half, half))
    load(FORMATS[first](half, half))
    assert received(order) == TOTAL
    assert BankTransaction.objects.count() == 2
    assert OutboxMessage.objects.filter(name="confirm_payment").count() == 1


@TWO_FORMATS
def test_the_second_of_two_equal_transfers_counts_when_the_other_format_told_one(
    first: str, second: str
) -> None:
    order = waiting()
    half = transfer(order.number)
    load(FORMATS[first](half))
    report = load(FORMATS[second](half, half))
    assert (report.new, report.known) == (1, 1)
    assert received(order) == TOTAL
    again = load(FORMATS[first](half, half))
    assert (again.new, again.known) == (0, 2)
    assert not ReviewItem.objects.filter(state="open").exists()


@TWO_FORMATS
@pytest.mark.parametrize("size", [2, 500], ids=["batches of 2", "one batch"])
def test_overlapping_periods_in_turns(
    first: str, second: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", size)
    days = [f"2026-03-{day:02}" for day in range(1, 9)]
    booked = [
        transfer(f"no {i // 2} on {day}", f"{i % 2 + 1}.00", booked=day, valued=day)
        for i, day in enumerate(sorted(days * 3))
    ]
    for start in range(0, 24, 6):
        load(FORMATS[first](*booked[start : start + 9]))
        load(FORMATS[second](*booked[max(0, start - 5) : start + 6]))
    load(FORMATS[second](*booked))
    assert BankTransaction.objects.count() == len(booked)
    assert not ReviewItem.objects.filter(reason="duplicate").exists()


@pytest.mark.parametrize("reference", ["", "2026030212345678"], ids=["none", "cut"])
def test_a_booking_that_only_one_format_gives_its_whole_reference_counts_once(reference: str) -> None:
    order = waiting()
    half = transfer(order.number)
    load(camt053(replace(half, reference="2026030212345678901234567")))
    for make in (mt940, camt054):
        assert load(make(replace(half, reference=reference))).new == 0
    assert received(order) == HALF


def test_all_four_formats_tell_two_equal_transfers_in_any_order() -> None:
    for number, order_of in enumerate(permutations(FORMATS.values())):
        half = transfer(f"{number} and so on", f"{number + 1}.00")
        for make in order_of:
            load(make(half, half))
        assert BankTransaction.objects.count() == 2 * (number + 1)
    assert not ReviewItem.objects.filter(reason="duplicate").exists()


def test_a_text_that_mt940_has_cut_is_the_same_booking_from_the_same_account() -> None:
    whole = transfer("Rechnung 4711 vom Februar, Kundennummer 0815, mit vielen Grüßen")
    load(camt053(whole))
    load(mt940(transfer("Rechnung 4711 vom Februar, Kundennummer")))
    assert BankTransaction.objects.count() == 1


@TWO_FORMATS
def test_money_taken_back_is_taken_back_once(first: str, second: str) -> None:
    order = waiting()
    half = transfer(order.number)
    load(FORMATS[first](half))
    back = transfer(order.number, side="DBIT", reversal=True)
    load(FORMATS[first](half, back))
    load(FORMATS[second](half, back))
    assert received(order) == 0
    assert books_add_up()


# --- not the same ----------------------------------------------------------------------------------------


@TWO_FORMATS
def test_other_payers_days_amounts_and_orders_are_other_bookings(first: str, second: str) -> None:
    one, two, three = waiting(), waiting(), waiting()
    load(FORMATS[first](transfer(one.number)))
    load(
        FORMATS[second](
            transfer(one.number, iban=BOB),
            transfer(one.number, "0.99"),
            transfer(two.number),
            transfer(two.number, booked="2026-03-03", valued="2026-03-03"),
            transfer(three.number, iban=""),
        )
    )
    assert BankTransaction.objects.count() == 6
    assert [received(order) for order in (one, two, three)] == [TOTAL, TOTAL, HALF]
    assert not ReviewItem.objects.filter(reason="duplicate").exists()


# --- in doubt --------------------------------------------------------------------------------------------


@TWO_FORMATS
def test_other_words_for_the_same_money_are_for_a_person(first: str, second: str) -> None:
    order = waiting()
    load(FORMATS[first](transfer(f"{order.number} first")))
    file = FORMATS[second](transfer(f"second {order.number}"))
    assert (load(file).new, load(file).known) == (1, 1)
    assert received(order) == HALF
    item = ReviewItem.objects.get(reason="duplicate")
    assert (item.amount, item.merchant_reference) == (HALF, order.number)
    assert order.number in item.detail
    assert item.proposals[0]["merchant_reference"] == order.number
    assert books_add_up()
    reviewing.assign(item.pk, "grace", [reviewing.Share(order.number)])
    assert received(order) == TOTAL
    assert books_add_up()


@TWO_FORMATS
@pytest.mark.parametrize(
    "other",
    [
        {"iban": "", "text": "no words in common"},
        {"text": ""},
        {"end_to_end_id": "B2"},
        {"reference": "R2"},
        {"booked": "2026-03-04"},
    ],
    ids=str,
)
def test_what_cannot_be_decided_is_never_counted_and_never_dropped(
    first: str, second: str, other: dict[str, str]
) -> None:
    order = waiting()
    told = {"text": order.number, "end_to_end_id": "A1", "booked": "2026-03-03", "valued": "2026-03-04"}
    load(FORMATS[first](transfer(**told, reference="R1")))
    load(FORMATS[second](transfer(**{**told, **other})))
    assert received(order) == HALF
    assert BankTransaction.objects.count() == 2
    assert ReviewItem.objects.get(reason="duplicate").amount == HALF
    assert books_add_up()


def test_an_account_statement_in_free_text_is_for_a_person() -> None:
    order = waiting()
    load(camt053(transfer(order.number)))
    free = re.sub(rb":86:[^:]*", f":86:{order.number} JOERG MUELLER\r\n".encode(), mt940(transfer("x")))
    load(free)
    assert received(order) == HALF
    assert ReviewItem.objects.get(reason="duplicate").merchant_reference == order.number


@TWO_FORMATS
def test_a_reversal_in_other_words_takes_nothing_back_a_second_time(first: str, second: str) -> None:
    order = waiting()
    half = transfer(order.number)
    load(FORMATS[first](half, half))
    load(FORMATS[first](half, half, transfer("back", side="DBIT", reversal=True)))
    before = received(order)
    load(FORMATS[second](transfer("gone", side="DBIT", reversal=True)))
    assert received(order) == before
    assert ReviewItem.objects.filter(reason="chargeback").count() == 2
    assert books_add_up()


# --- whatever happens ------------------------------------------------------------------------------------

_BOOKED = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=6)
_DELIVERIES = st.lists(
    st.tuples(st.sampled_from(sorted(FORMATS)), st.integers(0, 6), st.integers(0, 6)), max_size=6
)


@given(booked=_BOOKED, deliveries=_DELIVERIES, last=st.sampled_from(sorted(FORMATS)))
@hypothesis_settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_once_a_format_is_complete_each_booking_is_there_once(
    booked: list[str], deliveries: list[tuple[str, int, int]], last: str
) -> None:
    amounts = {"a": "1.00", "b": "2.00", "c": "3.00"}  # of one amount, other words would be in doubt
    entries = [transfer(f"text {text}", amounts[text]) for text in booked]
    with transaction.atomic():
        for name, start, end in deliveries:
            load(FORMATS[name](*entries[start:end]))
        load(FORMATS[last](*entries))
        assert BankTransaction.objects.count() == len(entries)
        assert not ReviewItem.objects.filter(reason="duplicate").exists()
        transaction.set_rollback(True)


def test_what_was_told_again_is_never_changed() -> None:
    half = transfer("a")
    load(camt053(half))
    load(mt940(half))
    retelling = Retelling.objects.get()
    assert (retelling.kind, retelling.transaction.statement.kind) == ("MT940", "camt.053.001.08")
    for change in (Retelling.objects.all().delete, lambda: Retelling.objects.update(kind="x")):
        with pytest.raises(DatabaseError), transaction.atomic():
            change()
