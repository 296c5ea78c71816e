"""MT940 as German banks write it: signs, subfields, umlauts, several statements in a file."""

from __future__ import annotations

from datetime import date

import pytest
from bankfile.mt940_adapter import read_mt940
from hypothesis import given
from hypothesis import strategies as st

from payments.references import creditor_reference, find
from payments.statements import Direction, StatementError
from shop.kernel.money import Money
from tests.payments.statements.bank import OUR_IBAN, PAYER_IBAN, details, mt940, statements
from tests.payments.statements.bank import transactions as transactions_of

PAID = ":61:2603020302CR49,90N166NONREF//2026030200001"


def test_a_credit_with_all_its_fields() -> None:
    text = mt940(
        PAID,
        details("EREF+E2E-1".ljust(27) + "SVWZ+RF89 ORD1 0000 1 vielen Dank für die schnelle Lieferung"),
        closing="C260302EUR149,90",
    )
    (statement,) = statements(text)
    assert (statement.kind, statement.statement_id, statement.sequence) == ("MT940", "STARTUMS", "00042/001")
    assert (statement.account, statement.account_iban) == ("12030000/0000202051", OUR_IBAN)
    assert (str(statement.opening), str(statement.closing)) == ("€100.00", "€149.90")
    (paid,) = statement.transactions
    assert (paid.money, paid.direction, paid.is_reversal) == (Money(4990, "EUR"), Direction.CREDIT, False)
    assert (paid.bank_reference, paid.position, paid.transaction_code) == ("2026030200001", "entry 1", "166")
    assert (paid.booking_date, paid.value_date) == (date(2026, 3, 2), date(2026, 3, 2))
    assert paid.end_to_end_id.strip() == "E2E-1"
    assert paid.remittance_information == "RF89 ORD1 0000 1 vielen Dank für die schnelle Lieferung"
    assert paid.remittance_lines[0] == "RF89 ORD1 0000 1 viele"
    assert (paid.counterparty_name, paid.counterparty_iban) == ("Erika Müller", PAYER_IBAN)
    assert find(paid.reference_texts).certain == {("ORD-100001", 1)}


@pytest.mark.parametrize(
    ("mark", "direction", "is_reversal"),
    [("C", "credit", False), ("D", "debit", False), ("RC", "debit", True), ("RD", "credit", True)],
)
def test_a_reversal_goes_the_other_way(mark: str, direction: str, is_reversal: bool) -> None:
    closing = "C260302EUR107,00" if direction == "credit" else "C260302EUR93,00"
    (transaction,) = transactions_of(mt940(f":61:2603020302{mark}R7,00NTRFNONREF", closing=closing))
    assert (transaction.direction, transaction.is_reversal) == (direction, is_reversal)


@pytest.mark.parametrize(
    ("code", "remittance", "reason"),
    [
        ("159", "EREF+REFUND-7".ljust(27) + "SVWZ+RETOURE AC04 KONTO AUFGELOEST", "AC04"),
        ("109", "EREF+REFUND-7", ""),
    ],
)
def test_a_return_names_the_payment_that_goes_back_and_why(code: str, remittance: str, reason: str) -> None:
    text = mt940(
        ":61:2603020302CR18,90NRTINONREF//B1", details(remittance, code=code), closing="C260302EUR118,90"
    )
    (transaction,) = transactions_of(text)
    assert transaction.is_reversal
    assert (transaction.original_end_to_end_id.strip(), transaction.return_reason) == ("REFUND-7", reason)


def test_the_return_reason_may_be_the_bank_s_own_number() -> None:
    text = mt940(
        ":61:2603020302RCR5,00NRTINONREF",
        ":86:109?00RUECKLASTSCHRIFT?20EREF+X?34914",
        closing="C260302EUR95,00",
    )
    (transaction,) = transactions_of(text)
    assert transaction.return_reason == "914"


@given(
    st.integers(100_001, 10**9),
    st.integers(1, 5),
    st.text("abc def", max_size=200).map(lambda text: " ".join(text.split())),
)
def test_a_reference_cut_by_subfield_and_line_is_found(number: int, attempt: int, before: str) -> None:
    reference = creditor_reference(f"ORD-{number}", attempt)
    text = mt940(PAID, details(f"SVWZ+{before} {reference} danke"), closing="C260302EUR149,90")
    (transaction,) = transactions_of(text)
    assert find(transaction.reference_texts).certain == {(f"ORD-{number}", attempt)}


def test_names_of_fields_behind_a_space_and_question_marks_in_the_text_are_understood() -> None:
    text = mt940(
        PAID, ":86:166?20EREF+E1 SVWZ+Warum so teuer??21Frage? ORD-100001?32Anna", closing="C260302EUR149,90"
    )
    (transaction,) = transactions_of(text)
    assert transaction.end_to_end_id == "E1"
    assert transaction.remittance_information == "Warum so teuer? Frage? ORD-100001"
    assert transaction.counterparty_name == "Anna"


def test_an_unstructured_field_is_remittance_text() -> None:
    text = mt940(PAID, ":86:Zahlung ORD-100001\r\nErika Müller\r\n:12:30 Uhr", closing="C260302EUR149,90")
    (transaction,) = transactions_of(text)
    assert transaction.remittance_lines == ("Zahlung ORD-100001", "Erika Müller", ":12:30 Uhr")


def test_our_own_collected_refunds_are_recognised_by_their_order() -> None:
    text = mt940(
        ":61:2603020302DR30,00N191KREF+//B7",
        ":86:191?00SAMMELUEBERWEISUNG?20KREF+VK-REFUNDS-1",
        closing="C260302EUR70,00",
    )
    (transaction,) = transactions_of(text)
    assert (transaction.message_id, transaction.payment_information_id) == ("VK-REFUNDS-1", "VK-REFUNDS-1")
    assert (transaction.direction, transaction.bank_reference) == ("debit", "B7")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "cp850", "utf-16"])
def test_umlauts_survive_every_encoding(encoding: str) -> None:
    text = mt940(PAID, details("SVWZ+Grüße, schöne Öfen", name="Jürgen Groß"), closing="C260302EUR149,90")
    (transaction,) = transactions_of(text.encode(encoding))
    assert (transaction.counterparty_name, transaction.remittance_information) == (
        "Jürgen Groß",
        "Grüße, schöne Öfen",
    )


def test_a_file_of_several_accounts_gives_a_statement_for_each() -> None:
    text = mt940(PAID, closing="C260302EUR149,90") + mt940(
        ":61:2603020302DR1,00NMSCNONREF",
        closing="D260302USD3,00",
        opening="D260301USD2,00",
        account="DE75512108001245126199",
    )
    one, two = statements(text)
    assert (one.account_iban, str(one.closing)) == (OUR_IBAN, "€149.90")
    assert (two.account_iban, str(two.opening), str(two.closing)) == (
        "DE75512108001245126199",
        "-$2.00",
        "-$3.00",
    )


def test_a_booking_without_a_transaction_type_is_not_lost() -> None:
    # mt-940 lets the next booking overwrite it.
    text = mt940(":61:2603020302CR5,00", PAID, closing="C260302EUR154,90")
    assert [str(each.money) for each in transactions_of(text)] == ["€5.00", "€49.90"]


def test_a_swift_envelope_and_unix_line_ends_are_no_obstacle() -> None:
    text = "{1:F01BYLADEM1AXXX0000000000}{2:I940X}{4:\n" + mt940(PAID, closing="C260302EUR149,90").replace(
        "\r", ""
    )
    assert len(transactions_of(text.replace("\n-\n", "\n-}{5:{CHK:1}}\n"))) == 1


@pytest.mark.parametrize(
    ("value", "entry", "booked", "valued"),
    [
        ("251231", "0102", date(2026, 1, 2), date(2025, 12, 31)),
        ("260102", "1231", date(2025, 12, 31), date(2026, 1, 2)),
        ("260302", "", date(2026, 3, 2), date(2026, 3, 2)),
        ("260302", "    ", date(2026, 3, 2), date(2026, 3, 2)),
        ("260230", "0302", date(2026, 3, 2), date(2026, 2, 28)),
        ("240229", "0229", date(2024, 2, 29), date(2024, 2, 29)),
    ],
)
def test_dates_at_the_turn_of_the_year_and_in_february(
    value: str, entry: str, booked: date, valued: date
) -> None:
    (transaction,) = transactions_of(mt940(f":61:{value}{entry}CR1,00NMSCNONREF", closing="C260302EUR101,00"))
    assert (transaction.booking_date, transaction.value_date) == (booked, valued)


@pytest.mark.parametrize("separated", [True, False])
def test_control_characters_do_not_reach_the_database(separated: bool) -> None:
    text = mt940(
        PAID, ":86:166?20SVWZ+A\x00B\x07" + ("\x85" if separated else ""), closing="C260302EUR149,90"
    )
    (transaction,) = transactions_of(text)
    assert transaction.remittance_information.isprintable()


def test_equal_bookings_with_one_reference_stay_two() -> None:
    text = mt940(PAID, PAID, closing="C260302EUR199,80")
    assert [each.bank_reference for each in transactions_of(text)] == ["2026030200001", "2026030200001#2"]


def test_the_amounts_are_those_that_an_independent_reader_finds() -> None:
    text = mt940(
        PAID,
        details("SVWZ+ORD-100001"),
        ":61:2603020302DR1,5NMSCNONREF",
        ":61:2603020302RCR2,00NMSCNONREF",
        ":61:2603020302RDR1234,NMSCNONREF",
        closing="C260302EUR1380,40",
    )
    theirs = read_mt940(text.encode())
    assert not [warning for warning in theirs.warnings if "balance" in warning.message]
    assert [each.signed.decimal for each in transactions_of(text)] == [
        each.amount for each in theirs.transactions
    ]


# --- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (mt940(":61:2603020302CR12.50NMSCNONREF", closing="C1"), r"entry 1 \(line 5\): the amount '12.50' is not"),
        (mt940(":61:2603020302CR1,2,3NMSC", closing="C1"), r"entry 1 \(line 5\): the amount '1,2,3' is not a number"),
        (mt940(":61:2613020302CR1,00NMSC", closing="C1"), r"entry 1 \(line 5\): '261302' is not a date"),
        (mt940(":61:nonsense", closing="C1"), r"entry 1 \(line 5\): the booking 'nonsense' cannot be read"),
        (mt940(PAID, closing="C260302EUR149,91"), r"movements of €49.90 give €149.90.* says €149.91"),
        (mt940(PAID, closing="C260302EUR149"), "is not a number|does not add up"),
        (mt940(PAID, closing="X"), r"line 6: 'X' is not a balance"),
        (mt940(PAID, closing="C260302QQQ1,00"), r"line 6: 'QQQ' is not a currency"),
        (mt940(PAID, closing="").split(":62F:")[0], r"the closing balance \(:62F:\) is missing"),
        (":20:X\r\n:25:1/2\r\n" + PAID, r"entry 1 \(line 3\): the opening balance \(:60F:\) before it is missing"),
        (":20:X\r\n:34F:EUR0,00\r\n" + PAID, "interim report"),
        (":20:X\r\n:86:" + "x\r\n" * 5000, "far too long"),
        (":20:" + "x" * 100_000, "far too long"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_entry_and_line(text: str, message: str) -> None:
    with pytest.raises(StatementError, match=message) as caught:
        statements(text, "march.sta")
    assert str(caught.value).startswith("march.sta, ")
