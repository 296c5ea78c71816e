"""camt.053 and camt.054: every version reads alike, batches are split, and what goes back is told apart."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from xsdata.formats.dataclass.parsers import XmlParser

from payments.references import find
from payments.statements import Direction, StatementError, read
from shop.kernel.money import Money
from tests.payments.statements.bank import (
    OUR_IBAN,
    PAYER_IBAN,
    Entry,
    Part,
    camt,
    document,
    statement,
    statements,
)
from tests.payments.statements.bank import transactions as transactions_of

SAMPLES = Path(__file__).parent / "statements"
VERSIONS = range(1, 13)


def euro(amount: int) -> Money:
    return Money(amount, "EUR")


# --- versions --------------------------------------------------------------------------------------------

EVERYTHING = (
    Entry(
        amount="49.90",
        reference="BANK-1",
        parts=[Part(lines=("RF89 ORD1 0000 1", "danke"), structured="RF89ORD100001", end_to_end_id="E2E-1")],
    ),
    Entry(
        amount="30.00",
        reference="BANK-2",
        parts=[Part(amount="10.00"), Part(amount="20.00", debtor=("Jörg Groß", ""))],
    ),
    Entry(amount="5.00", status="PDNG"),
    Entry(
        amount="20.00",
        side="DBIT",
        reference="BANK-3",
        code="PMNT/ICDT/ESCT",
        batch=("VK-MSG-1", "VK-BATCH-1"),
        parts=[
            Part(
                end_to_end_id="REFUND-7",
                instruction_id="INSTR-7",
                debtor=("Vorkasse GmbH", OUR_IBAN),
                creditor=("Erika Müller", PAYER_IBAN),
            )
        ],
    ),
    Entry(
        amount="20.00",
        reference="BANK-4",
        code="PMNT/ICDT/RRTN",
        parts=[
            Part(
                end_to_end_id="REFUND-7",
                returned="AC04",
                debtor=("Vorkasse GmbH", OUR_IBAN),
                creditor=("Erika Müller", PAYER_IBAN),
            )
        ],
    ),
    Entry(amount="7.00", side="DBIT", reversal=True, reference="BANK-5", parts=[Part(end_to_end_id="E2E-0")]),
)


@pytest.mark.parametrize("message", ["camt.053", "camt.054"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_gives_the_same_transactions(version: int, message: str) -> None:
    booked_only = version == 1  # which knows no other status
    entries = [entry for entry in EVERYTHING if entry.status == "BOOK" or not booked_only]
    text = camt(entries, version=version, message=message)
    name = f"{message.replace('.', '_')}_001_{version:02d}"
    judge = importlib.import_module(f"pyiso20022.camt.{name}")
    XmlParser().from_string(text, judge.Document)  # the schema's own classes refuse what the version lacks

    (read_statement,) = statements(text)
    assert read_statement.kind == f"{message}.001.{version:02d}"
    assert (read_statement.statement_id, read_statement.sequence) == ("2026-03-02/1", "42")
    assert (read_statement.account_iban, read_statement.account_currency) == (OUR_IBAN, "EUR")
    balances = (euro(10000), euro(17290)) if message == "camt.053" else (None, None)
    assert (read_statement.opening, read_statement.closing) == balances
    assert read_statement.skipped == (0 if booked_only else 1)

    paid, first, second, refund, returned, reversed_ = read_statement.transactions
    assert (paid.money, paid.direction, paid.bank_reference) == (euro(4990), Direction.CREDIT, "BANK-1")
    assert (paid.creditor_reference, paid.end_to_end_id) == ("RF89ORD100001", "E2E-1")
    assert (paid.remittance_lines, paid.remittance_information) == (
        ("RF89 ORD1 0000 1", "danke"),
        "RF89 ORD1 0000 1 danke",
    )
    assert (paid.counterparty_name, paid.counterparty_iban) == ("Erika Müller", PAYER_IBAN)
    assert (paid.transaction_code, paid.is_reversal) == ("PMNT/RCDT/ESCT", False)
    assert (paid.booking_date, paid.value_date) == (date(2026, 3, 2), date(2026, 3, 2))

    assert [(each.money, each.bank_reference) for each in (first, second)] == [
        (euro(1000), "BANK-2/1"),
        (euro(2000), "BANK-2/2"),
    ]
    assert (first.position, second.position) == ("entry 2, transaction 1", "entry 2, transaction 2")
    assert (second.counterparty_name, second.end_to_end_id) == ("Jörg Groß", "")

    assert (refund.direction, refund.end_to_end_id, refund.message_id) == (
        Direction.DEBIT,
        "REFUND-7",
        "VK-MSG-1",
    )
    assert (refund.payment_information_id, refund.instruction_id) == ("VK-BATCH-1", "INSTR-7")
    assert refund.counterparty_name == "Erika Müller"

    assert (returned.direction, returned.is_reversal, returned.return_reason) == (
        Direction.CREDIT,
        True,
        "AC04",
    )
    assert (returned.original_end_to_end_id, returned.counterparty_name) == ("REFUND-7", "Erika Müller")

    assert (reversed_.direction, reversed_.is_reversal) == (Direction.DEBIT, True)
    assert reversed_.original_end_to_end_id == "E2E-0"
    assert reversed_.signed == euro(-700)


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("UTF-8", "UTF-16").encode("utf-16"),
        lambda text: text.replace("UTF-8", "UTF-16").encode("utf-16-be"),
        lambda text: text.replace("UTF-8", "ISO-8859-1").encode("latin-1"),
        lambda text: text.replace("UTF-8", "windows-1252").encode("cp1252"),
        lambda text: text.encode("latin-1"),
        lambda text: text.replace("UTF-8", "utf-16").encode(),
        lambda text: "\r\n " + text.split("\n", 1)[1],
    ],
    ids=[
        "utf-8",
        "bom",
        "utf-16",
        "utf-16-be",
        "latin-1",
        "cp1252",
        "latin-1-as-utf-8",
        "utf-8-as-utf-16",
        "bare",
    ],
)
def test_umlauts_survive_every_encoding(encode: Callable[[str], str | bytes]) -> None:
    (transaction,) = transactions_of(encode(camt([Entry(parts=[Part(debtor=("Jörg Groß", ""))])])))
    assert transaction.counterparty_name == "Jörg Groß"


# --- batches ---------------------------------------------------------------------------------------------


def test_a_batch_of_many_transactions_is_split_and_adds_up() -> None:
    parts = [Part(amount=f"{number}.00", lines=(f"ORD-{100000 + number}",)) for number in range(1, 501)]
    entry = Entry(amount=f"{sum(range(1, 501))}.00", reference="BATCH", parts=parts)
    split = transactions_of(camt([entry]))
    assert len(split) == 500
    assert len({each.bank_reference for each in split}) == 500
    assert sum(each.money.amount for each in split) == 12525000
    assert split[499].remittance_information == "ORD-100500"


def test_a_batch_with_money_both_ways_is_split_by_each_side() -> None:
    entry = Entry(amount="8.00", parts=[Part(amount="10.00"), Part(amount="2.00", side="DBIT")])
    assert [str(each.signed) for each in transactions_of(camt([entry]))] == ["€10.00", "-€2.00"]


def test_a_batch_without_details_is_one_transaction() -> None:
    (transaction,) = transactions_of(camt([Entry(amount="30.00", reference="B", parts=())]))
    assert (transaction.money, transaction.bank_reference, transaction.position) == (
        euro(3000),
        "B",
        "entry 1",
    )


@pytest.mark.parametrize("amounts", [("10.00", "19.00"), ("", "20.00")])
def test_a_batch_that_does_not_add_up_stays_one_transaction_with_all_its_references(
    amounts: tuple[str, str],
) -> None:
    parts = [
        Part(amount=amount, lines=(f"7 Stück meine Bestellung ORD-10000{number}",), message_id="ORDER-1")
        for number, amount in enumerate(amounts)
    ]
    (transaction,) = transactions_of(camt([Entry(amount="30.00", parts=parts)], version=2))
    assert transaction.money == euro(3000)
    assert transaction.message_id == "ORDER-1"
    assert {each for each, _ in find(transaction.reference_texts).certain} == {"ORD-100000", "ORD-100001"}


def test_what_was_booked_counts_not_what_was_instructed() -> None:
    (transaction,) = transactions_of(camt([Entry(amount="95.00", parts=[Part(amount="100.00")])]))
    assert transaction.money == euro(9500)


# --- references of the bank --------------------------------------------------------------------------------


def test_two_equal_transfers_with_one_bank_reference_stay_two() -> None:
    entry = Entry(amount="10.00", reference="SAME")
    content = camt([entry, entry, entry])
    assert [each.bank_reference for each in transactions_of(content)] == ["SAME", "SAME#2", "SAME#3"]
    assert transactions_of(content) == transactions_of(content)


def test_transactions_of_a_batch_that_repeat_its_reference_are_told_apart() -> None:
    parts = [Part(amount="5.00", reference="SAME"), Part(amount="5.00", reference="SAME")]
    split = transactions_of(camt([Entry(amount="10.00", reference="SAME", parts=parts)]))
    assert [each.bank_reference for each in split] == ["SAME/1", "SAME/2"]


def test_the_reference_of_the_transaction_comes_before_that_of_the_entry() -> None:
    (transaction,) = transactions_of(camt([Entry(reference="ENTRY", parts=[Part(reference="OWN")])]))
    assert transaction.bank_reference == "OWN"


def test_a_number_that_is_unique_in_the_statement_only_is_no_bank_reference() -> None:
    (transaction,) = transactions_of(camt([Entry(number="1", reference="NONREF")]))
    assert (transaction.bank_reference, transaction.entry_reference) == ("", "1")


# --- texts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [35, 70, 140])
def test_a_reference_that_the_bank_cut_in_two_is_whole_again(width: int) -> None:
    text = f"{'x' * (width - 6)} ORD-100001 vielen Dank"
    lines = (text[:width], text[width:])
    (transaction,) = transactions_of(camt([Entry(parts=[Part(lines=lines)])]))
    assert transaction.remittance_lines == lines
    assert transaction.remittance_information == text
    assert find(transaction.reference_texts).certain == {("ORD-100001", None)}


def test_lines_that_end_by_themselves_are_kept_apart() -> None:
    (transaction,) = transactions_of(camt([Entry(parts=[Part(lines=("ORD-100001", "77 Stück"))])]))
    assert transaction.remittance_information == "ORD-100001 77 Stück"


def test_the_counterparty_is_never_the_shop_itself() -> None:
    swapped = Part(debtor=("Vorkasse GmbH", OUR_IBAN), creditor=("Erika Müller", PAYER_IBAN))
    (transaction,) = transactions_of(camt([Entry(parts=[swapped])]))
    assert transaction.counterparty_iban == PAYER_IBAN


@pytest.mark.parametrize(
    ("side", "reversal"), [("CRDT", False), ("DBIT", True), ("DBIT", False), ("CRDT", True)]
)
def test_the_counterparty_is_known_by_its_part_where_the_bank_leaves_our_account_out(
    side: str, reversal: bool
) -> None:
    customer, us = ("Erika Müller", ""), ("Vorkasse GmbH", "")
    received = (side == "CRDT") != reversal
    part = Part(debtor=customer if received else us, creditor=us if received else customer)
    (transaction,) = transactions_of(camt([Entry(side=side, reversal=reversal, parts=[part])]))
    assert transaction.counterparty_name == "Erika Müller"


@pytest.mark.parametrize(
    ("booked", "valued", "expected"),
    [
        ("2026-03-01", "2026-02-28", (date(2026, 3, 1), date(2026, 2, 28))),
        ("2026-03-01", "", (date(2026, 3, 1), date(2026, 3, 1))),
        ("", "2026-02-28", (date(2026, 2, 28), date(2026, 2, 28))),
        ("", "", (date(2026, 3, 2), date(2026, 3, 2))),
    ],
)
def test_a_missing_date_is_taken_from_the_next_best(
    booked: str, valued: str, expected: tuple[date, date]
) -> None:
    (transaction,) = transactions_of(camt([Entry(booked=booked, valued=valued)]))
    assert (transaction.booking_date, transaction.value_date) == expected


def test_a_date_with_a_time_keeps_the_bank_s_day() -> None:
    text = camt([Entry()]).replace(
        "<BookgDt><Dt>2026-03-02</Dt>", "<BookgDt><DtTm>2026-03-02T23:59:59.123+01:00</DtTm>"
    )
    (transaction,) = transactions_of(text)
    assert transaction.booking_date == date(2026, 3, 2)


def test_currencies_without_and_with_three_decimals_are_exact() -> None:
    text = camt([Entry(amount="1234"), Entry(amount="0.50")]).replace("EUR", "JPY")
    with pytest.raises(StatementError, match="more decimals than JPY has"):
        statements(text)
    (transaction,) = transactions_of(camt([Entry(amount="1.005", currency="KWD")], message="camt.054"))
    assert transaction.money == Money(1005, "KWD")


# --- statements ------------------------------------------------------------------------------------------


def test_a_file_of_several_statements_gives_each_with_its_own_account_and_sum() -> None:
    other = "DE75512108001245126199"
    text = document(
        [statement([Entry(amount="1.00")], identifier="A"), statement([], identifier="B", iban=other),
         statement([Entry(amount="3.00"), Entry(amount="4.00")], identifier="C")]
    )  # fmt: skip
    assert [(each.statement_id, each.account_iban, len(each.transactions)) for each in statements(text)] == [
        ("A", OUR_IBAN, 1),
        ("B", other, 0),
        ("C", OUR_IBAN, 2),
    ]
    assert [each.position for each in statements(text)[2].transactions] == ["entry 1", "entry 2"]


def test_an_overdrawn_account_adds_up() -> None:
    text = camt([Entry(amount="30.00", side="DBIT")], opening="10.00", closing="-20.00")
    (read_statement,) = statements(text)
    assert (read_statement.opening, read_statement.closing) == (euro(1000), euro(-2000))


def test_a_balance_that_does_not_add_up_names_both_sums() -> None:
    with pytest.raises(StatementError, match=r"opening €100\.00 and movements of €10\.00 give €110\.00") as e:
        statements(camt([Entry(amount="10.00")], closing="111.00"))
    assert e.value.position == "statement 2026-03-02/1"


def test_the_statements_before_a_wrong_one_have_been_given() -> None:
    text = document(
        [statement([Entry()], identifier="A"), statement([Entry()], closing="1.00", identifier="B")]
    )
    given = read("may.xml", io.BytesIO(text.encode()))
    assert next(given).statement_id == "A"
    with pytest.raises(StatementError, match="statement B: the balance does not add up"):
        next(given)


def test_the_pages_of_a_statement_are_checked_by_their_interim_balances() -> None:
    first = statement([Entry(amount="10.00")]).replace("CLBD", "ITBD")
    last = statement([Entry(amount="10.00")], opening="110.00").replace("OPBD", "ITBD")
    assert [str(each.closing) for each in statements(document([first, last]))] == ["€110.00", "€120.00"]
    with pytest.raises(StatementError, match="does not add up"):
        statements(document([first.replace("110.00", "110.01")]))


def test_amounts_in_another_currency_than_the_balance_are_refused() -> None:
    with pytest.raises(StatementError, match=r"the opening balance is in EUR, but .* USD"):
        statements(camt([Entry(amount="10.00", currency="USD")]))


def test_transactions_can_be_gone_through_again_and_side_by_side() -> None:
    (long,) = statements(camt([replace(Entry(), reference=f"R{number}") for number in range(1203)]))
    assert len(long.transactions) == len(list(long.transactions)) == 1203
    assert all(one == other for one, other in zip(long.transactions, long.transactions, strict=True))


# --- samples as banks send them ----------------------------------------------------------------------------


def test_a_german_statement_of_version_2() -> None:
    (read_statement,) = statements((SAMPLES / "camt053_v02.xml").read_bytes())
    assert (read_statement.opening, read_statement.closing, read_statement.skipped) == (
        euro(150000),
        euro(151231),
        1,
    )
    batch_1, batch_2, paid, unpaid, back, fee = read_statement.transactions
    assert (batch_1.payment_information_id, batch_1.end_to_end_id) == ("VK-REFUNDS-20260227", "REFUND-1001")
    assert [each.counterparty_name for each in (batch_1, batch_2)] == ["Jürgen Weiß", "Cécile Dupont"]
    assert find(paid.reference_texts).certain == {("ORD-100042", 1)}
    assert (unpaid.is_reversal, unpaid.return_reason, unpaid.signed) == (True, "MS03", euro(-2500))
    assert (back.is_reversal, back.return_reason, back.original_end_to_end_id) == (
        True,
        "AC04",
        "REFUND-0999",
    )
    assert (back.signed, back.counterparty_name) == (euro(1890), "Max Mustermann")
    assert (fee.transaction_code, fee.counterparty_name, fee.signed) == ("NCHG+805+9200", "", euro(-149))


def test_a_german_notification_of_version_8() -> None:
    (notification,) = statements((SAMPLES / "camt054_v08.xml").read_bytes())
    assert (notification.kind, notification.opening, notification.closing) == ("camt.054.001.08", None, None)
    assert [(each.bank_reference, str(each.signed)) for each in notification.transactions] == [
        ("2026030400017-001", "€19.90"),
        ("2026030400017-002", "€49.90"),
        ("2026030400017-003", "€49.90"),
    ]
    one, two, three = (find(each.reference_texts) for each in notification.transactions)
    assert one.certain == {("ORD-100007", 1)}
    assert two.certain == {("ORD-100008", None)}
    assert not three.certain
    assert [reference for reference, _ in three.proposals] == ["ORD-100009"]
