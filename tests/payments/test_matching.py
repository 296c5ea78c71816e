"""Where the money of a bank statement goes: to its order, or to a person with the reason."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from orders.services import lifecycle
from orders.services.audit import StepRef
from orders.services.steps import capture_payment
from orders.workflows.types import Status
from payments.models import Allocation, BankTransaction, OutgoingTransfer, Payment, ReviewItem
from shop.kernel.money import Money
from tests import factories
from tests.payments.paper_bank import (
    ADA,
    BOB,
    Entry,
    PaperBank,
    confirmations,
    end,
    item,
    load,
    nothing_in_review,
    payment,
    pays,
    received,
    rf,
    wait,
    waiting,
    where,
)

pytestmark = pytest.mark.django_db

TOTAL = 3998


# --- money that fits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        lambda order: {"creditor_reference": rf(order)},
        lambda order: {"creditor_reference": "", "text": f"Bestellung {order.number} vielen Dank"},
        lambda order: {"creditor_reference": "", "end_to_end_id": rf(order)},
        lambda order: {"creditor_reference": "", "text": rf(order).lower()[:9] + " " + rf(order).lower()[9:]},
    ],
    ids=["structured", "order number", "end-to-end id", "spaced lower case"],
)
def test_money_with_its_reference_confirms_the_order(bank: PaperBank, how: Any) -> None:
    order = waiting()
    report = load(bank.statement(pays(order, **how(order))))
    assert received(order) == TOTAL
    assert confirmations(order) == 1
    assert nothing_in_review()
    assert {word: tally.count for word, tally in report.outcomes.items()} == {"matched": 1}
    event = payment(order).events.get(type="receipt")
    assert event.source == "statement"
    assert event.psp_reference == BankTransaction.objects.get().key


def test_parts_add_up_and_the_item_about_them_closes_itself(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, 1000)))
    assert confirmations(order) == 0
    assert (item().reason, item().amount, item().merchant_reference) == ("too_little", 2998, order.number)
    load(bank.statement(pays(order, 500)))
    assert (item().amount, received(order)) == (2498, 1500)
    load(bank.statement(pays(order, 2498)))
    assert confirmations(order) == 1
    assert nothing_in_review()
    assert ReviewItem.objects.latest("id").resolution == "The rest has come."
    assert where() == {"matched": TOTAL}


def test_parts_on_one_statement_add_up(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, 1000), pays(order, 2998)))
    assert confirmations(order) == 1
    assert nothing_in_review()


# --- money that does not fit -----------------------------------------------------------------------------


def test_too_much_pays_the_order_and_the_rest_is_reviewed(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, TOTAL + 150)))
    assert received(order) == TOTAL
    assert confirmations(order) == 1
    assert (item().reason, item().amount) == ("too_much", 150)
    assert where() == {"matched": TOTAL, "review": 150}


def test_money_without_a_reference_is_reviewed_with_what_it_may_be(bank: PaperBank) -> None:
    order = waiting()
    waiting(customer_name="Grace Hopper")
    load(bank.statement(Entry(TOTAL, "Vielen Dank", name="LOVELACE, ADA")))
    assert (item().reason, item().amount) == ("no_reference", TOTAL)
    assert [p["merchant_reference"] for p in item().proposals] == [order.number]
    assert "name of its customer" in item().proposals[0]["why"]
    assert received(order) == 0


def test_a_rest_without_a_reference_is_proposed_by_the_account_it_came_from(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, 1000)))
    load(bank.statement(Entry(2998, "der Rest", name="A. King")))
    found = ReviewItem.objects.get(reason="no_reference")
    assert [p["merchant_reference"] for p in found.proposals] == [order.number]
    assert received(order) == 1000


def test_an_unknown_reference_is_reviewed(bank: PaperBank) -> None:
    load(bank.statement(Entry(500, "ORD-999999")))
    assert (item().reason, item().amount) == ("unknown_reference", 500)
    assert "ORD-999999" in item().detail


def test_several_references_are_not_guessed(bank: PaperBank) -> None:
    first, second = waiting(), waiting()
    load(bank.statement(Entry(2 * TOTAL, f"{first.number} und {second.number}")))
    assert item().reason == "ambiguous"
    assert [p["merchant_reference"] for p in item().proposals] == [first.number, second.number]
    assert received(first) == received(second) == 0


def test_a_mangled_reference_is_proposed(bank: PaperBank) -> None:
    order = waiting()
    wrong = rf(order)[:2] + ("11" if rf(order)[2:4] != "11" else "12") + rf(order)[4:]
    load(bank.statement(Entry(TOTAL, creditor_reference=wrong)))
    assert item().reason == "ambiguous"
    assert item().proposals[0]["merchant_reference"] == order.number
    assert received(order) == 0


def test_another_currency_is_not_counted(bank: PaperBank) -> None:
    order = waiting()
    dollars = PaperBank(currency="USD")
    load(dollars.statement(pays(order)))
    assert (item().reason, item().currency, item().payment) == ("wrong_currency", "USD", payment(order))
    assert received(order) == 0


def test_an_order_that_is_paid_otherwise_takes_no_transfer(bank: PaperBank) -> None:
    order = factories.place()
    other = Payment.objects.create(
        gateway="sandbox", merchant_reference=order.number, idempotency_key="k", amount=TOTAL, currency="EUR"
    )
    load(bank.statement(Entry(TOTAL, order.number)))
    assert (item().reason, item().proposals[0]["merchant_reference"]) == ("ambiguous", order.number)
    assert "by sandbox" in item().detail
    assert other.totals().received == 0


def test_money_for_a_cancelled_order_is_late(bank: PaperBank) -> None:
    order = waiting()
    end(order, Status.CANCELLED)
    load(bank.statement(pays(order)))
    assert (item().reason, item().amount, item().payment) == ("late", TOTAL, payment(order))
    assert "cancelled" in item().detail
    assert received(order) == 0
    assert confirmations(order) == 0


def test_money_for_a_cancelled_order_goes_back_by_itself_where_the_setting_says_so(
    bank: PaperBank, settings: Settings
) -> None:
    settings.REFUND_LATE_MONEY = True
    order = waiting()
    load(bank.statement(pays(order, 1000)))
    end(order, Status.CANCELLED)
    load(bank.statement(pays(order, 2998, iban=BOB, name="Bob")))
    assert nothing_in_review()
    transfers = list(OutgoingTransfer.objects.order_by("id").values_list("amount", "payee_iban", "state"))
    assert transfers == [(1000, ADA, "ready"), (2998, BOB, "ready")]
    assert where() == {"refunded": TOTAL}


def test_a_part_of_a_cancelled_order_comes_back_into_review(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, 1000)))
    end(order, Status.CANCELLED)
    assert (item().reason, item().amount) == ("late", 1000)
    assert received(order) == 0
    assert where() == {"review": 1000}


def test_late_money_names_the_attempt_that_waits_now(bank: PaperBank) -> None:
    order = waiting()
    end(order, Status.CANCELLED)
    lifecycle.start(order.number, "grace")
    wait(order)
    load(bank.statement(pays(order)))
    assert item().reason == "late"
    assert "started again" in item().detail
    assert received(order) == 0
    load(bank.statement(Entry(TOTAL, order.number, iban=BOB)))
    assert received(order) == TOTAL


def test_the_same_money_again_is_a_possible_duplicate(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order)))
    load(bank.statement(pays(order)))
    assert (item().reason, item().amount) == ("duplicate", TOTAL)
    assert received(order) == TOTAL
    load(bank.statement(pays(order, iban=BOB)))
    assert sorted(ReviewItem.objects.filter(state="open").values_list("reason", flat=True)) == [
        "duplicate",
        "too_much",
    ]


def test_money_confirmed_by_hand_counts_once(bank: PaperBank) -> None:
    by_reference, by_form = waiting(), waiting()
    for order, reference in ((by_reference, "BK00000001"), (by_form, "")):
        lifecycle.confirm_payment(
            order.number,
            "grace",
            "seen",
            amount=Money(TOTAL, "EUR"),
            received_on=date(2026, 3, 1),
            bank_reference=reference,
            form_id="f",
        )
    load(bank.statement(pays(by_reference), pays(by_form)))
    assert received(by_reference) == received(by_form) == TOTAL
    assert (item().reason, item().payment) == ("duplicate", payment(by_form))
    assert "by hand" in item().detail
    assert where() == {"matched": TOTAL, "review": TOTAL}


# --- money out -------------------------------------------------------------------------------------------


def test_fees_are_kept_visible(bank: PaperBank) -> None:
    load(bank.statement(Entry(-350, "Entgelt", name="Bank", iban="")))
    assert where("debit") == {"foreign": 350}
    assert nothing_in_review()


def test_our_transfer_is_closed_by_its_booking_and_comes_back_into_review(bank: PaperBank) -> None:
    from payments.services import reviewing, transfers

    load(bank.statement(Entry(500, "?")))
    reviewing.pay_back(item().pk, "grace", "not ours")
    transfer = OutgoingTransfer.objects.get()
    transfers.make_batch([transfer], "grace")
    load(bank.statement(Entry(-500, end_to_end_id=transfer.end_to_end_id)))
    transfer.refresh_from_db()
    assert transfer.state == "booked"
    assert where("debit") == {"outgoing": 500}
    load(bank.statement(Entry(500, end_to_end_id=transfer.end_to_end_id, is_reversal=True, reason="AC04")))
    transfer.refresh_from_db()
    assert transfer.state == "returned"
    assert (item().reason, item().amount) == ("refund_failed", 500)
    assert where() == {"refunded": 500, "review": 500}
    reviewing.pay_back(item().pk, "grace", "again", name="Ada", iban=BOB)
    assert OutgoingTransfer.objects.latest("id").payee_iban == BOB
    assert nothing_in_review()


def test_a_file_that_the_bank_books_as_one_sum_closes_its_transfers(bank: PaperBank) -> None:
    from payments.services import reviewing, transfers

    load(bank.statement(Entry(500, "?"), Entry(700, "?", iban=BOB)))
    for found in ReviewItem.objects.all():
        reviewing.pay_back(found.pk, "grace", "not ours")
    batch = transfers.make_batch(OutgoingTransfer.objects.all(), "grace")
    text = bank.statement(Entry(-1200, "Sammler")).replace(
        b"<EndToEndId>NOTPROVIDED", f"<MsgId>{batch.message_id}</MsgId><EndToEndId>NOTPROVIDED".encode()
    )
    load(text)
    assert set(OutgoingTransfer.objects.values_list("state", flat=True)) == {"booked"}
    assert where("debit") == {"outgoing": 1200}


def test_money_taken_back_is_missing_again_and_a_person_is_told(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, 1000, end_to_end_id="E1"), pays(order, 1000, end_to_end_id="E2")))
    load(bank.statement(Entry(-1000, is_reversal=True, end_to_end_id="E1", reason="FRAD")))
    found = ReviewItem.objects.get(reason="chargeback")
    assert (found.payment, found.amount, found.state) == (payment(order), 1000, "open")
    load(bank.statement(pays(order, 1998)))
    assert confirmations(order) == 0
    load(bank.statement(pays(order, 1000)))
    assert confirmations(order) == 1
    assert where("debit") == {"matched": 1000}


def test_money_taken_back_after_the_shipment_is_a_loss(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, end_to_end_id="E1")))
    capture_payment(StepRef(order.number, 1, "payment_captured"))
    load(bank.statement(Entry(-TOTAL, is_reversal=True, end_to_end_id="E1", reason="FRAD")))
    totals = payment(order).totals()
    assert (totals.received, totals.captured, totals.refunded, totals.kept) == (TOTAL, TOTAL, TOTAL, 0)
    assert item().reason == "chargeback"
    load(bank.statement(Entry(-TOTAL, is_reversal=True, end_to_end_id="E1", reason="FRAD")))
    assert payment(order).totals().refunded == TOTAL  # no second receipt of it was there to take back
    assert where("debit") == {"matched": TOTAL, "foreign": TOTAL}


def test_money_taken_back_out_of_the_review_is_settled(bank: PaperBank) -> None:
    load(bank.statement(Entry(500, "?", end_to_end_id="E1")))
    load(bank.statement(Entry(-500, is_reversal=True, end_to_end_id="E1")))
    assert nothing_in_review()
    assert where() == where("debit") == {"refunded": 500}


def test_a_booking_and_its_reversal_on_one_statement(bank: PaperBank) -> None:
    order = waiting()
    load(
        bank.statement(
            pays(order, 1000, end_to_end_id="E1"), Entry(-1000, is_reversal=True, end_to_end_id="E1")
        )
    )
    assert received(order) == 0
    assert where() == where("debit") == {"matched": 1000}


def test_what_was_taken_back_is_not_left_over_at_the_end(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, 1000, end_to_end_id="E1"), pays(order, 500, end_to_end_id="E2")))
    load(bank.statement(Entry(-1000, is_reversal=True, end_to_end_id="E1")))
    end(order, Status.CANCELLED)
    assert ReviewItem.objects.get(state="open", reason="late").amount == 500


def test_an_unknown_reversal_is_told(bank: PaperBank) -> None:
    load(bank.statement(Entry(-500, is_reversal=True, end_to_end_id="E9")))
    assert (item().reason, where("debit")) == ("chargeback", {"foreign": 500})


def test_a_return_that_names_an_order_is_no_payment(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(Entry(TOTAL, f"Return {order.number}", is_reversal=True)))
    assert item().reason == "no_reference"
    assert received(order) == 0


def test_every_cent_is_allocated_once(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, TOTAL + 1), Entry(5, "?"), Entry(-7, "fee")))
    assert Allocation.objects.count() == 4
    assert where() == {"matched": TOTAL, "review": 6}
