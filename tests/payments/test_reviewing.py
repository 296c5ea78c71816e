"""What people do with money that does not fit: each action's effect, its limits, and two people at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import date

import pytest
from django.db import connections
from pytest_django.fixtures import Settings

from orders.models import Mail, Order
from orders.services import lifecycle
from orders.services.audit import StepRef
from orders.services.reconciling import money
from orders.services.steps import capture_payment, check_payment, refund_payment
from orders.workflows.types import Status
from payments.models import Allocation, OutgoingTransfer, Payment, PaymentEvent, ReviewItem
from payments.services import paying_back, refunding, reviewing
from payments.services.refunding import RefundRefused
from payments.services.reviewing import ReviewRefused, Share
from shop.kernel.models import OutboxMessage
from shop.kernel.money import Money
from tests import factories
from tests.orders.reconciling import found
from tests.payments.paper_bank import (
    ADA,
    BOB,
    IBAN,
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


def unknown(bank: PaperBank, amount: int = TOTAL) -> ReviewItem:
    load(bank.statement(Entry(amount, "Danke")))
    return ReviewItem.objects.get(reason="no_reference", state="open")


def at_once(*acts: Callable[[], object]) -> list[object]:
    """What each returns, or how it is refused, when they are done by several people at the same time."""
    ready = threading.Barrier(len(acts))
    told: list[object] = [None] * len(acts)

    def run(n: int) -> None:
        try:
            ready.wait(10)
            try:
                told[n] = acts[n]()
            except (ReviewRefused, RefundRefused) as refused:
                told[n] = refused
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[n]) for n in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return told


# --- assign and split ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [lambda o: o.number, lambda o: o.number.lower() + " ", lambda o: rf(o)])
def test_assigned_money_confirms_the_order(bank: PaperBank, how: Callable[[Order], str]) -> None:
    order = waiting()
    found = unknown(bank)
    done = reviewing.assign(found.pk, "grace", [Share(how(order))], seen=TOTAL)
    assert f"assigned to {order.number}" in done.message
    assert received(order) == TOTAL
    assert confirmations(order) == 1
    assert nothing_in_review()
    found.refresh_from_db()
    assert (found.state, found.resolved_by) == ("closed", "grace")
    assert order.number in found.resolution
    assert Allocation.objects.filter(actor="grace").count() == 2
    assert PaymentEvent.objects.get(type="receipt").actor == "grace"


def test_what_the_order_does_not_need_stays_in_review(bank: PaperBank) -> None:
    order = waiting()
    found = unknown(bank, TOTAL + 500)
    done = reviewing.assign(found.pk, "grace", [Share(order.number)])
    assert "€5.00 are left" in done.message
    assert (item().reason, item().amount) == ("too_much", 500)
    assert received(order) == TOTAL


def test_an_assigned_part_leaves_the_order_waiting_for_the_rest(bank: PaperBank) -> None:
    order = waiting()
    reviewing.assign(unknown(bank, 1000).pk, "grace", [Share(order.number)])
    assert (item().reason, item().amount) == ("too_little", 2998)
    reviewing.assign(unknown(bank, 2998).pk, "grace", [Share(order.number)])
    assert confirmations(order) == 1
    assert nothing_in_review()


def test_one_transfer_is_split_over_several_orders(bank: PaperBank) -> None:
    first, second = waiting(), waiting()
    load(bank.statement(Entry(2 * TOTAL, f"{first.number} {second.number}")))
    shares = [Share(first.number), Share(second.number, TOTAL)]
    reviewing.assign(item().pk, "grace", shares)
    assert received(first) == received(second) == TOTAL
    assert confirmations(first) == confirmations(second) == 1
    assert nothing_in_review()


def test_a_split_that_is_wrong_somewhere_moves_nothing(bank: PaperBank) -> None:
    first, second = waiting(), waiting()
    found = unknown(bank, 5000)
    for shares, complaint in [
        ([Share(first.number, 1000), Share(second.number, 4001)], "too much|more than what is left"),
        ([Share(first.number, 1000), Share(second.number, 3999)], "too much"),
        ([Share(first.number), Share("ORD-1")], "No payment"),
        ([Share(first.number, -5)], "nothing left"),
        ([], "Name the order"),
    ]:
        with pytest.raises(ReviewRefused, match=complaint):
            reviewing.assign(found.pk, "grace", shares)
    assert received(first) == 0
    assert where() == {"review": 5000}


def test_money_is_not_assigned_where_it_is_of_no_use(bank: PaperBank) -> None:
    paid, cancelled = waiting(), waiting()
    by_card = factories.place()
    Payment.objects.create(
        gateway="sandbox", merchant_reference=by_card.number, idempotency_key="k", amount=1, currency="EUR"
    )
    load(bank.statement(pays(paid)))
    end(cancelled, Status.CANCELLED)
    found = unknown(bank)
    for order, complaint in [(paid, "paid already"), (cancelled, "has ended"), (by_card, "by sandbox")]:
        with pytest.raises(ReviewRefused, match=complaint):
            reviewing.assign(found.pk, "grace", [Share(order.number)])
    load(PaperBank(currency="USD").statement(Entry(500, "dollars")))
    dollars = ReviewItem.objects.get(currency="USD")
    with pytest.raises(ReviewRefused, match="EUR; this is USD"):
        reviewing.assign(dollars.pk, "grace", [Share(waiting().number)])


def test_late_money_can_pay_the_order_that_was_started_again(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, 1000)))
    end(order, Status.CANCELLED)
    lifecycle.start(order.number, "grace")
    wait(order)
    reviewing.assign(item().pk, "grace", [Share(order.number)])
    assert received(order) == 1000
    first = order.sagas.get(attempt=1).payment
    assert first is not None
    assert first.totals().received == 0


# --- too little ------------------------------------------------------------------------------------------


def test_a_small_difference_is_accepted_and_what_came_is_captured(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, TOTAL - 100)))
    reviewing.accept(item().pk, "grace", "bank charges", seen=100)
    assert confirmations(order) == 1
    assert nothing_in_review()
    assert check_payment(order.number, 1) == "paid"
    capture_payment(StepRef(order.number, 1, "payment_captured"))
    totals = payment(order).totals()
    assert (totals.received, totals.captured) == (TOTAL - 100, TOTAL - 100)
    end(order, Status.COMPLETED)
    assert found(money.orders) == []
    adjusted = payment(order).events.get(type="authorization_adjustment")
    assert (adjusted.amount, adjusted.actor, adjusted.detail) == (-100, "grace", "bank charges")


def test_a_larger_difference_needs_a_further_permission(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, TOTAL - 101)))
    with pytest.raises(ReviewRefused, match=r"up to €1\.00"):
        reviewing.accept(item().pk, "grace", "bank charges")
    reviewing.accept(item().pk, "grace", "goodwill", beyond_limit=True)
    assert confirmations(order) == 1


def test_what_is_missing_is_decided_and_not_just_closed(bank: PaperBank) -> None:
    load(bank.statement(pays(waiting(), TOTAL - 100)))
    with pytest.raises(ReviewRefused, match="wait for the rest, or pay it back"):
        reviewing.close(item().pk, "grace", "done")


def test_the_difference_is_not_accepted_twice(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, TOTAL - 50)))
    pk = item().pk
    reviewing.accept(pk, "grace", "charges")
    assert reviewing.accept(pk, "alan", "charges").repeated
    assert payment(order).events.filter(type="authorization_adjustment").count() == 1


def test_money_after_the_acceptance_is_too_much(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, TOTAL - 50)))
    reviewing.accept(item().pk, "grace", "charges")
    load(bank.statement(pays(order, 50)))
    assert (item().reason, item().amount) == ("too_much", 50)


def test_waiting_for_the_rest_takes_it_off_the_list_until_the_end(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, 1000)))
    reviewing.wait(item().pk, "grace", "she has promised")
    assert nothing_in_review()
    end(order, Status.CANCELLED)
    assert (item().reason, item().amount) == ("late", 1000)


# --- back and away ---------------------------------------------------------------------------------------


def test_money_goes_back_to_its_payer_whole_or_in_part(bank: PaperBank) -> None:
    found = unknown(bank, 1000)
    reviewing.pay_back(found.pk, "grace", "not ours", amount=300)
    assert item().amount == 700
    reviewing.pay_back(found.pk, "grace", "the rest too", name="Bob", iban=BOB)
    assert nothing_in_review()
    sent = list(OutgoingTransfer.objects.order_by("id").values_list("amount", "payee_iban", "payee_name"))
    assert sent == [(300, ADA, "Ada Lovelace"), (700, BOB, "Bob")]
    assert where() == {"refunded": 1000}


def test_money_from_an_unknown_account_waits_for_its_account(bank: PaperBank) -> None:
    load(bank.statement(Entry(500, "?", iban="", name="")))
    assert "account is missing" in reviewing.pay_back(item().pk, "grace", "not ours").message
    assert OutgoingTransfer.objects.get().state == "needs_account"


def test_an_excess_goes_back(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, TOTAL + 200)))
    reviewing.pay_back(item().pk, "grace", "too much")
    transfer = OutgoingTransfer.objects.get()
    assert (transfer.amount, transfer.payment) == (200, payment(order))
    assert received(order) == TOTAL


@pytest.mark.parametrize("short", [True, False], ids=["what came of an order", "money of nobody"])
def test_money_above_the_limit_of_refunds_takes_a_further_permission(
    bank: PaperBank, short: bool, settings: Settings
) -> None:
    settings.REFUND_LIMIT = 1000
    if short:
        load(bank.statement(pays(waiting(), 1500)))
    else:
        unknown(bank, 1500)
    with pytest.raises(ReviewRefused, match=r"up to €10\.00 at once"):
        reviewing.pay_back(item().pk, "grace", "why not")
    reviewing.pay_back(item().pk, "grace", "a part", amount=1000)
    reviewing.pay_back(item().pk, "boss", "all the rest", beyond_limit=True)
    assert where() == {"refunded": 1500}


def test_money_is_discarded_with_a_reason(bank: PaperBank) -> None:
    found = unknown(bank, 12)
    with pytest.raises(ReviewRefused, match="Say why"):
        reviewing.discard(found.pk, "grace", " ")
    reviewing.discard(found.pk, "grace", "interest")
    assert where() == {"discarded": 12}
    assert Allocation.objects.get(purpose="discarded").reason == "interest"


def test_money_confirmed_by_hand_gets_its_booking(bank: PaperBank) -> None:
    order = waiting()
    lifecycle.confirm_payment(
        order.number, "alan", "seen", amount=Money(TOTAL, "EUR"), received_on=date(2026, 3, 1), form_id="f"
    )
    load(bank.statement(pays(order)))
    reviewing.confirmed_by_hand(item().pk, "grace")
    assert nothing_in_review()
    assert received(order) == TOTAL
    assert where() == {"matched": TOTAL}
    assert confirmations(order) == 1


def test_an_item_with_money_is_not_closed_with_words_alone(bank: PaperBank) -> None:
    found = unknown(bank, 500)
    with pytest.raises(ReviewRefused, match="still in review"):
        reviewing.close(found.pk, "grace", "done")


def test_other_items_hold_no_money_to_move(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, 1000)))
    with pytest.raises(ReviewRefused, match="None of its money"):
        reviewing.discard(item().pk, "grace", "why not")


# --- back, of what has come for an order that waits ------------------------------------------------------


def sent() -> list[tuple[int, str, str]]:
    return list(OutgoingTransfer.objects.order_by("id").values_list("amount", "payee_iban", "requested_by"))


def test_all_that_came_goes_back_and_the_order_waits_for_the_whole(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, 3000)))
    found = item()
    done = reviewing.pay_back(found.pk, "grace", "she pays by card", seen=3000)
    assert "€30.00 are paid back" in done.message
    assert "waits for €39.98 now" in done.message
    totals = payment(order).totals()
    assert (totals.received, totals.captured, totals.refunded, totals.status) == (0, 0, 0, "authorized")
    assert sent() == [(3000, ADA, "grace")]
    assert where() == {"refunded": 3000}
    assert nothing_in_review()
    found.refresh_from_db()
    assert found.resolved_by == "grace"
    assert "she pays by card" in found.resolution
    taken_out = payment(order).events.get(type="receipt", amount=-3000)
    assert (taken_out.actor, taken_out.detail) == ("grace", "she pays by card")
    load(bank.statement(pays(order)))
    assert (confirmations(order), received(order)) == (1, TOTAL)


def test_a_part_of_what_came_goes_back_and_the_item_tells_what_is_missing_now(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, 3000)))
    reviewing.pay_back(item().pk, "grace", "a part", amount=1000, seen=3000)
    assert (item().reason, item().amount, received(order)) == ("too_little", 1998, 2000)
    assert "€19.98 of the €39.98" in item().detail
    assert "a part (grace)" in item().resolution
    assert where() == {"matched": 2000, "refunded": 1000}
    load(bank.statement(pays(order, 1998)))
    assert confirmations(order) == 1
    assert nothing_in_review()


def test_each_part_goes_back_to_who_sent_it_the_newest_first(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, 1000)))
    load(bank.statement(pays(order, 500, iban=BOB, name="Bob")))
    reviewing.pay_back(item().pk, "grace", "back", amount=700)
    assert sent() == [(500, BOB, "grace"), (200, ADA, "grace")]
    assert where() == {"matched": 800, "refunded": 700}


def test_what_is_left_when_the_order_ends_comes_into_review_and_goes_back_from_there(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, 3000)))
    reviewing.pay_back(item().pk, "grace", "a part", amount=1000)
    end(order, Status.CANCELLED)
    assert (item().reason, item().amount, received(order)) == ("late", 2000, 0)
    reviewing.pay_back(item().pk, "grace", "cancelled")
    assert sent() == [(1000, ADA, "grace"), (2000, ADA, "grace")]
    assert where() == {"refunded": 3000}


def test_what_the_bank_took_back_is_not_paid_back_as_well(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, 1000, end_to_end_id="E1"), pays(order, 500, end_to_end_id="E2")))
    load(bank.statement(Entry(-1000, is_reversal=True, end_to_end_id="E1")))
    short = ReviewItem.objects.get(reason="too_little", state="open")
    assert (short.amount, reviewing.to_pay_back(short)) == (3498, Money(500, "EUR"))
    assert "€34.98 of the €39.98" in short.detail
    reviewing.pay_back(short.pk, "grace", "enough")
    assert sent() == [(500, ADA, "grace")]
    assert received(order) == 0


def test_when_the_bank_takes_all_of_it_back_nothing_is_left_to_decide(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, 1000, end_to_end_id="E1")))
    load(bank.statement(Entry(-1000, is_reversal=True, end_to_end_id="E1")))
    assert item().reason == "chargeback"
    assert ReviewItem.objects.get(reason="too_little").resolution == "The bank took €10.00 back."


def test_money_that_is_needed_or_gone_does_not_go_back(bank: PaperBank) -> None:
    paid, cancelled, empty, shipped = waiting(), waiting(), waiting(), waiting()
    load(bank.statement(pays(paid), pays(cancelled, 1000), pays(shipped)))
    short = item()
    end(cancelled, Status.CANCELLED)
    capture_payment(StepRef(shipped.number, 1, "payment_captured"))
    for order, complaint in [
        (paid, "captured next"),
        (cancelled, "has ended"),
        (empty, "No money is there"),
        (shipped, "refund it"),
    ]:
        with pytest.raises(RefundRefused, match=complaint):
            paying_back.pay_back(payment(order).pk, "grace", "x")
    assert reviewing.pay_back(short.pk, "grace", "x").repeated
    assert not OutgoingTransfer.objects.exists()


def test_more_than_came_or_a_stale_page_moves_nothing(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, 1000)))
    pk = item().pk
    for amount in (1001, 0, -5):
        with pytest.raises(ReviewRefused, match=r"not within the €10\.00 that have come"):
            reviewing.pay_back(pk, "grace", "x", amount=amount)
    reviewing.pay_back(pk, "grace", "x", amount=400, seen=1000)
    with pytest.raises(ReviewRefused, match=r"in the meantime: €6\.00 can be paid back now"):
        reviewing.pay_back(pk, "alan", "x", amount=400, seen=1000)
    assert sent() == [(400, ADA, "grace")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("where_from", ["review list", "payment's page"])
def test_the_rest_comes_while_what_came_is_paid_back(bank: PaperBank, where_from: str) -> None:
    order = waiting()
    load(bank.statement(pays(order, 3000)))
    pk, payment_pk, rest = item().pk, payment(order).pk, bank.statement(pays(order, 998))

    def pay_back() -> object:
        if where_from == "review list":
            return reviewing.pay_back(pk, "grace", "enough", seen=3000)
        return paying_back.pay_back(payment_pk, "grace", "enough", seen=3000)

    told, _report = at_once(pay_back, lambda: load(rest))
    assert told is not None
    if OutgoingTransfer.objects.exists():
        assert (received(order), confirmations(order), where()) == (
            998,
            0,
            {"matched": 998, "refunded": 3000},
        )
        assert (item().reason, item().amount) == ("too_little", 3000)
    else:
        assert (received(order), confirmations(order), where()) == (TOTAL, 1, {"matched": TOTAL})
        assert nothing_in_review()


# --- where to --------------------------------------------------------------------------------------------


def refund_mail(order: Order) -> str:
    return Mail.objects.get(saga__order=order, kind="refunded").text


def test_a_cleared_account_is_asked_for_and_never_guessed(bank: PaperBank) -> None:
    order, excess = waiting(), waiting()
    load(bank.statement(pays(order, 3000), pays(excess, TOTAL + 200)))
    for reason in ("too_little", "too_much"):
        found = ReviewItem.objects.get(reason=reason, state="open")
        done = reviewing.pay_back(found.pk, "grace", "x", name="Ada", iban=" ")
        assert "account is missing" in done.message
    assert [transfer.state for transfer in OutgoingTransfer.objects.all()] == ["needs_account"] * 2
    assert [iban for _amount, iban, _actor in sent()] == ["", ""]
    for asked, amount in ((order, "€30.00"), (excess, "€2.00")):
        assert amount in refund_mail(asked)
        assert "reply to this mail with the IBAN" in refund_mail(asked)


def test_a_known_account_is_not_asked_for(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, TOTAL + 200)))
    reviewing.pay_back(item().pk, "grace", "too much")
    assert "we are returning €2.00" in refund_mail(order)
    assert "IBAN" not in refund_mail(order)
    assert OutboxMessage.objects.filter(name="OrderMailWorkflow").count() == 1


@pytest.mark.parametrize(
    ("name", "iban", "field"),
    [("", BOB, "name"), ("Bob", "DE00", "iban"), ("Bob", IBAN, "iban")],
    ids=["nobody's", "no IBAN", "our own"],
)
def test_a_wrong_account_is_said_beside_its_field(bank: PaperBank, name: str, iban: str, field: str) -> None:
    found = unknown(bank, 500)
    with pytest.raises(ReviewRefused) as refused:
        reviewing.pay_back(found.pk, "grace", "x", name=name, iban=iban)
    assert refused.value.field == field
    assert where() == {"review": 500}


def test_the_transfer_of_a_refund_names_who_asked_for_it(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order)))
    capture_payment(StepRef(order.number, 1, "payment_captured"))
    refunding.perform(refunding.refund(payment(order).pk, 500, "grace", "a dent", "f").key)
    assert sent() == [(500, ADA, "grace")]


def test_the_mail_about_a_refund_asks_for_an_account_that_is_missing(bank: PaperBank) -> None:
    order = waiting()
    load(bank.statement(pays(order, iban="", name="")))
    capture_payment(StepRef(order.number, 1, "payment_captured"))
    key = refunding.refund(payment(order).pk, 500, "grace", "a dent", "f").key
    refunding.perform(key)
    refunding.perform(key)
    assert "€5.00" in refund_mail(order)
    assert "reply to this mail with the IBAN" in refund_mail(order)
    refund_payment(StepRef(order.number, 1, "payment_captured", rollback_run="r"))
    undone = Mail.objects.get(kind="refunded", about="")
    assert "€34.98" in undone.text
    assert undone.subject == f"Where may we return your payment for order {order.number}?"


# --- two people ------------------------------------------------------------------------------------------


def test_the_second_person_is_told_who_was_faster(bank: PaperBank) -> None:
    order = waiting()
    found = unknown(bank)
    reviewing.assign(found.pk, "grace", [Share(order.number)])
    for late in (
        reviewing.pay_back(found.pk, "alan", "not ours"),
        reviewing.discard(found.pk, "alan", "not ours"),
        reviewing.assign(found.pk, "alan", [Share(order.number)]),
        reviewing.close(found.pk, "alan", "x"),
    ):
        assert late.repeated
        assert late.message == "It was processed in the meantime by grace."
    assert not OutgoingTransfer.objects.exists()


def test_a_stale_page_does_nothing(bank: PaperBank) -> None:
    found = unknown(bank, 1000)
    reviewing.pay_back(found.pk, "grace", "a part", amount=400, seen=1000)
    with pytest.raises(ReviewRefused, match=r"in the meantime by grace: €6\.00 are left"):
        reviewing.pay_back(found.pk, "alan", "all", seen=1000)
    assert where() == {"review": 600, "refunded": 400}


@pytest.mark.django_db(transaction=True)
def test_two_people_at_once_move_the_money_once(bank: PaperBank) -> None:
    order = waiting()
    pk = unknown(bank).pk
    acts: list[Callable[[], reviewing.Closed]] = [
        lambda: reviewing.assign(pk, "a", [Share(order.number)], seen=TOTAL),
        lambda: reviewing.pay_back(pk, "b", "not ours", seen=TOTAL),
        lambda: reviewing.discard(pk, "c", "not ours", seen=TOTAL),
        lambda: reviewing.pay_back(pk, "d", "not ours", amount=TOTAL, seen=TOTAL),
    ]
    told = [
        "refused" if isinstance(result, ReviewRefused) else "repeated" if result.repeated else "done"
        for result in at_once(*acts)
        if isinstance(result, (ReviewRefused, reviewing.Closed))
    ]
    assert told.count("done") == 1
    assert len(told) == 4
    assert sum(where().values()) == TOTAL
    assert len(where()) == 1
    assert OutboxMessage.objects.filter(name="confirm_payment").count() == (where() == {"matched": TOTAL})
    assert nothing_in_review()
