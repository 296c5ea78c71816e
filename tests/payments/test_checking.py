"""Checks of many payments: whatever a provider tells, and however often, the books say it once and lose nothing."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django.fixtures import Settings

from orders.models import Saga
from payments.gateways import gateway, manners
from payments.gateways.base import (
    Gateway,
    GatewayMisconfigured,
    GatewayRefused,
    GatewayUnavailable,
    RemotePayment,
    RemoteStatus,
    one_by_one,
)
from payments.gateways.sandbox import OVERLAP, SandboxGateway, _event
from payments.models import BatchRun, ChangeCursor, Payment, PaymentEvent, ReviewItem, WebhookDelivery
from payments.services import batch_runs, checking, reprocessing, reviewing
from payments.services.recording import absorb, open_payment
from payments.workflows.types import BatchEnd, BatchStart, PageChecked, Tally
from shop.kernel import outbox
from shop.kernel.models import OutboxMessage
from shop.kernel.money import Money
from tests.payments.odd_feed import Event, OddFeed, happened, page
from tests.payments.sandbox_process import SandboxProcess, sandbox
from tests.payments.waiting_orders import PRICE, waiting_orders

pytestmark = pytest.mark.django_db


def waiting(count: int, first: int = 1) -> list[Payment]:
    return waiting_orders([f"pay_{first + i}" for i in range(count)], first=first)


def check_all(most: int = 1000) -> Tally:
    """One run, without the engine."""
    tally, overlap = Tally(), True
    for _ in range(most):
        checked = checking.check_changes_page("sandbox", overlap=overlap)
        tally += checked.tally
        overlap = False
        if not checked.more:
            return tally
    raise AssertionError("The changes never end.")


def books() -> set[tuple[Any, ...]]:
    """What was told of payments since they were opened, and to whom it was passed on."""
    events = PaymentEvent.objects.exclude(source="call")
    messages = OutboxMessage.objects.values_list("message_id", "name", "payload__amount", "payload__detail")
    items = ReviewItem.objects.values_list("key", "reason", "amount")
    return {
        *events.values_list("payment__reference", "type", "psp_reference", "amount", "outcome"),
        *messages,
        *items,
    }


def confirmed() -> list[str]:
    found = OutboxMessage.objects.filter(name="confirm_payment").order_by("workflow_id")
    return list(found.values_list("workflow_id", flat=True))


def cursor() -> str:
    return ChangeCursor.objects.get(gateway="sandbox").cursor


# --- the change feed -------------------------------------------------------------------------------------


def test_all_that_paid_are_told_once_however_often_it_is_checked(feed: OddFeed) -> None:
    payments = waiting(30)
    feed.events = [happened(payment) for payment in payments[:25]]
    assert check_all() == Tally(total_checked=25, paid=25, provider_calls=1)
    assert len(confirmed()) == 25
    before = books()
    assert check_all() == Tally(provider_calls=1)
    assert (books(), cursor()) == (before, "25")
    assert feed.asked == ["", str(25 - OVERLAP)]


def test_what_is_found_is_counted_by_what_it_means(feed: OddFeed) -> None:
    paid, part, declined, voided, lapsed = waiting(5)
    Payment.objects.filter(pk=lapsed.pk).update(authorized_until=timezone.now() - timedelta(days=1))
    feed.events = [
        happened(paid),
        happened(part, amount=100),
        happened(declined, type="authorization", outcome="failed", psp_reference="dec_1", detail="No."),
        happened(voided, type="void", psp_reference="vod_1"),
        happened(lapsed, type="void", psp_reference="vod_2"),
    ]
    assert check_all() == Tally(total_checked=5, paid=1, pending=1, failed=2, timeout=1, provider_calls=1)
    assert confirmed() == ["order-saga-ORD-1"]
    failed = OutboxMessage.objects.filter(name="payment_failed").order_by("workflow_id")
    assert list(failed.values_list("workflow_id", "payload__detail")) == [
        ("order-saga-ORD-3", "No."),
        ("order-saga-ORD-4", "The provider released the authorization."),
        ("order-saga-ORD-5", "The provider released the authorization."),
    ]


def test_an_event_that_becomes_visible_late_is_found_by_the_next_run(feed: OddFeed) -> None:
    late, *others = waiting(6)
    feed.events = [happened(payment) for payment in others]
    check_all()
    feed.events.insert(2, happened(late))
    assert check_all().paid == 1
    assert len(confirmed()) == 6


def test_nothing_of_a_page_is_written_without_its_cursor(
    feed: OddFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed.events = [happened(payment) for payment in waiting(3)]

    def fails(*_: Any) -> None:
        raise RuntimeError("the outbox is full")

    with monkeypatch.context() as broken:
        broken.setattr(outbox, "signal_workflows", fails)
        with pytest.raises(RuntimeError):
            checking.check_changes_page("sandbox")
    assert (books(), cursor()) == (set(), "")
    assert check_all().paid == 3


def odd_pages(how: str, events: list[Event]) -> Callable[[str], dict[str, Any]]:
    """The same events by a provider that has its own idea of pages."""

    def answer(cursor: str) -> dict[str, Any]:
        start = int(cursor or 0)
        match how:
            case "repeats":
                end = min(start + 4, len(events))
                return page(events[max(0, start - 7) : end] * 2, str(end), more=end < len(events))
            case "reorders":
                end = min(start + 8, len(events))
                return page(events[start:end][::-1], str(end), more=end < len(events))
            case _:  # goes back once
                end = min(start + 8, len(events))
                again = end == 16 and not went_back
                went_back.append(end) if again else None
                return page(events[start:end], "4" if again else str(end), more=end < len(events))

    went_back: list[int] = []
    return answer


@pytest.mark.parametrize("how", ["repeats", "reorders", "goes back"])
def test_an_odd_provider_makes_the_same_books(feed: OddFeed, how: str) -> None:
    payments = waiting(40)
    events = [happened(payment, amount=PRICE // 2, psp_reference=f"a_{payment.pk}") for payment in payments]
    events += [happened(payment, amount=PRICE // 2, psp_reference=f"b_{payment.pk}") for payment in payments]
    feed.answer = odd_pages(how, events)
    check_all()
    assert len(confirmed()) == 40
    assert PaymentEvent.objects.filter(type="receipt").count() == 80
    assert not ReviewItem.objects.exists()


def test_a_short_or_empty_page_is_not_the_end(feed: OddFeed) -> None:
    payments = waiting(3)
    pages = {
        "": page([happened(payments[0])], "1", more=True),
        "1": page([], "2", more=True),
        "2": page([happened(payments[1]), happened(payments[2])], "3", more=False),
    }
    feed.answer = pages.__getitem__
    assert check_all() == Tally(total_checked=3, paid=3, provider_calls=3)


def test_half_an_answer_writes_nothing_and_is_asked_for_again(feed: OddFeed) -> None:
    payments = waiting(2)
    whole = page([happened(payment) for payment in payments], "2", more=False)
    cut = {"events": [whole["events"][0], {"id": "evt"}], "cursor": "2", "more": False}
    feed.answer = lambda _: cut
    with pytest.raises(GatewayUnavailable):
        checking.check_changes_page("sandbox")
    assert (books(), cursor()) == (set(), "")
    feed.answer = lambda _: whole
    assert check_all().paid == 2


def test_a_provider_that_gives_the_same_page_for_ever_is_left_with_its_page_in_the_books(
    feed: OddFeed,
) -> None:
    payments = waiting(2)
    pages = {
        "": page([happened(payments[0])], "1", more=True),
        "1": page([happened(payments[1])], "1", more=True),
        "0": page([happened(payments[0])], "1", more=True),
    }
    feed.answer = pages.__getitem__
    with pytest.raises(checking.FeedStands, match="again and again"):
        check_all()
    assert (len(confirmed()), cursor()) == (2, "1")


def test_a_provider_that_was_begun_anew_is_read_from_its_beginning(
    settings: Settings, tmp_path: Path
) -> None:
    ChangeCursor.objects.create(gateway="sandbox", cursor="1000")
    with sandbox(tmp_path / "books.sqlite3") as provider:
        connect(settings, provider)
        payment = opened()
        pay(provider, payment)
        assert check_all().paid == 1
        assert cursor() == "2"


# --- payments that are not in the books ------------------------------------------------------------------


def test_money_of_an_unknown_payment_is_for_a_person_once(feed: OddFeed) -> None:
    stranger = Payment(reference="pay_stranger", merchant_reference="ORD-77")
    feed.events = [
        happened(stranger, type="authorization", psp_reference="pay_stranger"),
        happened(Payment(reference="pay_unpaid", merchant_reference="ORD-78"), type="authorization"),
        happened(stranger),
        happened(stranger, type="capture", psp_reference="cap_1"),
        happened(*waiting(1)),
    ]
    assert check_all() == Tally(total_checked=1, paid=1, provider_calls=1)
    check_all()
    item = ReviewItem.objects.get()
    assert (item.reason, item.merchant_reference, item.amount) == ("unknown_reference", "ORD-77", PRICE)
    assert "sandbox tells of payment pay_stranger for ORD-77, which was not opened here" in item.detail
    assert cursor() == "5"


def test_money_of_a_payment_that_is_being_opened_waits_for_it_and_raises_no_alarm(
    settings: Settings, tmp_path: Path
) -> None:
    with sandbox(tmp_path / "books.sqlite3") as provider:
        connect(settings, provider)
        money = Money(PRICE, "EUR")
        payment = open_payment("sandbox", "ORD-1", money, "ORD-1/1/payment_hold")
        answer = SandboxGateway().authorize("ORD-1", money, "ORD-1/1/payment_hold")
        pay(provider, Payment(reference=answer.reference))  # before the answer is in our books
        check_all()
        check_all()
        assert not ReviewItem.objects.exists()
        payment = absorb(payment, answer.payment, "call")
        assert payment.totals().received == PRICE
        assert set(WebhookDelivery.objects.values_list("state", flat=True)) == {"processed"}


def test_money_in_another_currency_is_for_a_person(feed: OddFeed) -> None:
    feed.events = [happened(payment, currency="USD") for payment in waiting(2)]
    check_all()
    check_all()
    assert set(ReviewItem.objects.values_list("reason", "amount")) == {("wrong_currency", PRICE)}
    assert ReviewItem.objects.count() == 2
    assert not confirmed()


LONG = "r" * 161


@pytest.mark.parametrize(
    ("unfit", "says"),
    [
        ({"psp_reference": LONG}, "too long"),
        ({"payment_reference": LONG}, "too long"),
        ({"amount": 2**63}, "out of range"),
        ({"detail": "a\0b"}, "NUL"),
        ({"payment_reference": ""}, "it names no payment."),
        ({"amount": -1}, "it names an amount below zero."),
    ],
)
def test_what_cannot_be_stored_is_for_a_person_once_and_keeps_no_other_from_the_books(
    feed: OddFeed, unfit: dict[str, Any], says: str
) -> None:
    payments = waiting(30)
    feed.events = [happened(payment, **(unfit if n == 17 else {})) for n, payment in enumerate(payments)]
    assert check_all() == Tally(total_checked=29, paid=29, provider_calls=1)
    before = books()
    assert check_all() == Tally(provider_calls=1)
    assert (books(), cursor()) == (before, "30")
    item, kept = ReviewItem.objects.get(), WebhookDelivery.objects.get()
    assert (item.reason, item.webhook, kept.state) == ("unfit", kept, "rejected")
    assert says in item.detail
    assert says in kept.error
    assert "sandbox tells of payment" in item.detail


def test_kept_event_is_processed_again_by_a_person_once_there_is_room(feed: OddFeed) -> None:
    (payment,) = waiting(1)
    feed.events = [happened(payment, psp_reference=LONG)]
    check_all()
    item = ReviewItem.objects.get()
    assert (item.payment, item.merchant_reference) == (payment, "ORD-1")
    assert reviewing.why_not_close(item) == ""
    kept = WebhookDelivery.objects.get()
    with pytest.raises(reprocessing.NotProcessed, match="cannot be stored: value too long"):
        reprocessing.reprocess(kept.pk, "ada")
    with connection.cursor() as sql:
        sql.execute("SET CONSTRAINTS ALL IMMEDIATE")
        sql.execute("ALTER TABLE payments_paymentevent ALTER psp_reference TYPE varchar(200)")
    assert not reprocessing.reprocess(kept.pk, "ada").repeated
    assert confirmed() == ["order-saga-ORD-1"]
    item.refresh_from_db()
    assert (item.state, item.resolved_by) == ("closed", "ada")


def test_one_waiting_payment_with_an_event_that_cannot_be_stored_stops_no_other(
    feed: OddFeed, settings: Settings
) -> None:
    payments = waiting(5)

    def view(payment: Payment, *events: Event) -> RemotePayment:
        return RemotePayment(
            payment_reference=payment.reference,
            merchant_reference=payment.merchant_reference,
            currency="EUR",
            status=RemoteStatus.PAID,
            authorized=PRICE,
            received=PRICE,
            captured=0,
            refunded=0,
            voided=0,
            authorized_until=None,
            events=tuple(_event(event) for event in events),
        )

    odd = happened(payments[2], type="authorization_adjustment", psp_reference=LONG, amount=0)
    answers = {
        payment.reference: view(payment, *([odd] if n == 2 else []), happened(payment))
        for n, payment in enumerate(payments)
    }
    absorbed = checking._absorb(payments, answers)
    assert len(absorbed) == 4
    assert len(confirmed()) == 5  # of the odd one the money counts too
    assert ReviewItem.objects.get().payment == payments[2]


def test_too_much_and_too_late_money_of_a_page_is_for_a_person(feed: OddFeed) -> None:
    over, late = waiting(2)
    Saga.objects.filter(payment=late).update(status="cancelled")
    feed.events = [happened(over, amount=PRICE + 100), happened(late)]
    check_all()
    assert confirmed() == ["order-saga-ORD-1"]
    found = ReviewItem.objects.values_list("reason", "amount")
    assert set(found) == {("too_much", 100), ("late", PRICE)}


# --- many ------------------------------------------------------------------------------------------------


def queries(check: Callable[[], Any]) -> int:
    with CaptureQueriesContext(connection) as captured:
        check()
    # What is noted about the provider after a call depends on how it has answered before.
    return len([query for query in captured if "payments_gateway" not in query["sql"]])


def everything(payments: Sequence[Payment]) -> list[Event]:
    """Of each sort of news, the same share: enough, too little, too much, declined, wrong currency."""
    kinds: list[dict[str, Any]] = [
        {},
        {"amount": 100},
        {"amount": PRICE + 1},
        {"type": "authorization", "outcome": "failed"},
        {"currency": "USD"},
    ]
    return [happened(payment, **kinds[n % len(kinds)]) for n, payment in enumerate(payments)]


def test_a_page_takes_the_same_number_of_queries_however_many_it_tells_of(feed: OddFeed) -> None:
    ChangeCursor.objects.create(gateway="sandbox")
    few, many = waiting(5), waiting(300, first=1000)
    feed.events = everything(few)
    first = queries(check_all)
    feed.events += everything(many)
    second = queries(lambda: checking.check_changes_page("sandbox"))
    assert len(confirmed()) == 2 * (1 + 60)
    assert first == second, "and no more than that"
    assert second < 30


# --- two at once -----------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_two_runs_at_once_lose_nothing_and_repeat_nothing(feed: OddFeed) -> None:
    payments = waiting(120)
    feed.events, feed.size = [happened(payment) for payment in payments], 10
    meet = threading.Barrier(2)

    def answer(cursor: str) -> dict[str, Any]:
        with contextlib.suppress(threading.BrokenBarrierError):  # one of them is done
            meet.wait(2)  # both have read the cursor before either writes
        return feed.page(cursor)

    feed.answer = answer
    tallies: list[Tally] = []

    def run() -> None:
        try:
            tallies.append(check_all())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(tallies) == 2
    assert (tallies[0] + tallies[1]).paid == 120
    assert (len(confirmed()), cursor()) == (120, "120")
    assert PaymentEvent.objects.filter(type="receipt").count() == 120


@pytest.mark.django_db(transaction=True)
def test_a_page_that_another_run_has_overtaken_is_dropped(feed: OddFeed) -> None:
    payments = waiting(30)
    feed.events, feed.size = [happened(payment) for payment in payments], 5
    asked = []

    def answer(cursor: str) -> dict[str, Any]:
        asked.append(cursor)
        if len(asked) == 1:  # while this page is on its way, the other run goes on to the end
            try:
                check_all()
            finally:
                connections.close_all()
        return feed.page(cursor)

    feed.answer = answer
    slow = checking.check_changes_page("sandbox")
    assert slow == PageChecked(Tally(provider_calls=1), more=True)
    assert (cursor(), len(confirmed())) == ("30", 30)
    assert checking.check_changes_page("sandbox") == PageChecked(Tally(provider_calls=1), more=False)


# --- however it is told ----------------------------------------------------------------------------------

KINDS: list[dict[str, Any]] = [
    {"amount": PRICE},
    {"amount": PRICE // 2},
    {"type": "void"},
    {"type": "authorization", "outcome": "failed", "detail": "No."},
    {"type": "capture", "amount": PRICE},
    {"type": "refund", "amount": 100},
]


@st.composite
def feeds(draw: st.DrawFn) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """News (of which payment, of which kind), and pages of it: each at least once, in any order, some again."""
    news = draw(
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=12, unique=True)
    )
    places = st.integers(0, len(news) - 1)
    told = draw(st.permutations([*range(len(news)), *draw(st.lists(places, max_size=12))]))
    pages: list[list[int]] = [[]]
    for place in told:
        pages[-1].append(place)
        if draw(st.booleans()):
            pages.append([])
    return news, pages


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(told=feeds())
def test_any_splitting_and_overlap_of_pages_gives_the_same_ledger(
    feed: OddFeed, told: tuple[list[tuple[int, int]], list[list[int]]]
) -> None:
    news, pages = told
    first = Payment.objects.count() + 1
    payments = waiting(5, first)
    events = [
        happened(payments[n], **{"psp_reference": f"{kind}_{payments[n].reference}", **KINDS[kind]})
        for n, kind in news
    ]
    ChangeCursor.objects.update_or_create(gateway="sandbox", defaults={"cursor": ""})
    feed.answer = lambda cursor: page(
        [events[place] for place in pages[int(cursor or 0)]],
        str(int(cursor or 0) + 1),
        more=int(cursor or 0) + 1 < len(pages),
    )
    check_all()
    for payment, number in zip(payments, range(5), strict=True):
        booked = payment.events.exclude(source="call").values_list("type", "amount", "outcome")
        expected = [e for e, (n, _) in zip(events, news, strict=True) if n == number]
        assert Counter(booked) == Counter((e["type"], e["amount"], e["outcome"]) for e in expected)
        receipts = sum(e["amount"] for e in expected if e["type"] == "receipt")
        said = OutboxMessage.objects.filter(workflow_id=f"order-saga-{payment.merchant_reference}")
        assert said.filter(name="confirm_payment").count() == (receipts >= PRICE)
        assert said.filter(name="payment_failed").count() == any(
            e["outcome"] == "failed" or e["type"] == "void" for e in expected
        )


# --- gateways without a change feed ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with sandbox(tmp_path_factory.mktemp("provider") / "provider.sqlite3") as process:
        yield process


@pytest.fixture(params=["Feedless", "OneAtATime"])
def provider(
    request: pytest.FixtureRequest, shared_provider: SandboxProcess, settings: Settings
) -> Iterator[SandboxProcess]:
    connect(settings, shared_provider, f"tests.payments.feedless.{request.param}")
    yield shared_provider
    shared_provider.faults()
    gateway.cache_clear()


def connect(
    settings: Settings, provider: SandboxProcess, path: str = "payments.gateways.sandbox.SandboxGateway"
) -> None:
    settings.SANDBOX_URL, settings.SANDBOX_API_KEY = provider.url, provider.api_key
    settings.PAYMENT_GATEWAYS = {"sandbox": path}
    gateway.cache_clear()


def opened(number: str = "ORD-1") -> Payment:
    """A payment at the practice provider, in the books."""
    money, key = Money(PRICE, "EUR"), f"{number}/{Payment.objects.count()}/{timezone.now().timestamp()}"
    payment = open_payment("sandbox", number, money, key)
    return absorb(payment, SandboxGateway().authorize(number, money, key).payment, "call")


def pay(provider: SandboxProcess, payment: Payment, verb: str = "pay") -> None:
    with provider.client() as customer:
        customer.post(f"/customer/{payment.reference}/{verb}", json={}).raise_for_status()


def calls() -> float:
    """Answered questions about payments, one by one or together."""
    (metric,) = manners.CALLS.collect()
    return float(
        sum(
            sample.value
            for sample in metric.samples
            if sample.name.endswith("_total")
            and sample.labels["method"] in ("status", "statuses")
            and sample.labels["outcome"] == "answered"
        )
    )


def test_orders_are_checked_by_number_in_one_call_where_the_provider_has_one(
    provider: SandboxProcess,
) -> None:
    numbers = [f"ORD-{n}" for n in range(1, 9)]
    paid, part, declined, lapsed, foreign, again, closed, opening = numbers
    payments = {number: opened(number) for number in (paid, part, declined, lapsed, again, closed)}
    pay(provider, payments[paid])
    pay(provider, payments[declined], "decline")
    Payment.objects.filter(pk=payments[lapsed].pk).update(authorized_until=timezone.now() - timedelta(1))
    money = Money(PRICE, "EUR")
    Payment.objects.filter(pk=open_payment("sandbox", foreign, money, "f").pk).update(
        reference="pay_of_others"
    )
    pay(provider, opened(again))  # its second attempt
    pay(provider, payments[closed])
    SandboxGateway().capture(payments[closed].reference, money, f"capture {payments[closed].reference}")
    absorb(payments[closed], SandboxGateway().status(payments[closed].reference), "call")
    Payment.objects.filter(pk=payments[closed].pk).update(closed_at=timezone.now())
    open_payment("sandbox", opening, money, "o")
    before = calls()
    assert checking.check_orders([*numbers, "ORD-nobody"]) == {
        paid: "paid",
        part: "pending",
        declined: "failed",
        lapsed: "pending",  # the provider says that it lasts longer
        foreign: "pending",
        again: "paid",
        closed: "paid",
        opening: "pending",
        "ORD-nobody": "pending",
    }
    assert calls() - before == 1


def test_order_of_a_gateway_that_is_not_set_up_any_more_keeps_no_other_from_its_answer(
    feed: OddFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, here = waiting(2)
    Payment.objects.filter(pk=gone.pk).update(gateway="klarna")
    asked: list[Payment] = []

    def statuses(_: object, payments: list[Payment]) -> dict[str, RemotePayment | None]:
        asked.extend(payments)
        return {}

    monkeypatch.setattr(checking, "_statuses", statuses)
    with pytest.raises(GatewayMisconfigured, match="“klarna” is not set up here; set up are: sandbox"):
        checking.check_orders([gone.merchant_reference, here.merchant_reference])
    assert asked == [here]


def test_more_than_a_hundred_orders_at_once_are_refused_with_a_sentence() -> None:
    with pytest.raises(checking.TooManyOrders, match="At most 100 orders can be checked at once; 101"):
        checking.check_orders([f"ORD-{n}" for n in range(101)])


def test_a_payment_that_lapsed_unpaid_has_failed_and_counts_as_timed_out(
    settings: Settings, shared_provider: SandboxProcess
) -> None:
    connect(settings, shared_provider, "tests.payments.feedless.Feedless")
    key = f"lapsed-{timezone.now().timestamp()}"
    with shared_provider.client() as shop:
        body = {"merchant_reference": "ORD-9", "amount": PRICE, "currency": "EUR", "authorized_for_s": 0.001}
        answer = shop.post("/payments", json=body, headers={"Idempotency-Key": key}).json()
    payment = open_payment("sandbox", "ORD-9", Money(PRICE, "EUR"), key)
    absorb(payment, SandboxGateway().status(answer["psp_reference"]), "call")
    assert checking.check_pending_page("sandbox").tally == Tally(total_checked=1, timeout=1, provider_calls=1)
    assert checking.check_orders(["ORD-9"]) == {"ORD-9": "failed"}


def test_waiting_orders_are_asked_for_page_by_page_each_once(
    provider: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "MOST_ORDERS", 4)
    payments = [opened(f"ORD-{n}") for n in range(1, 11)]
    for payment in payments[::3]:
        pay(provider, payment)
    Payment.objects.filter(pk=payments[1].pk).update(closed_at=timezone.now())
    Payment.objects.filter(pk=payments[2].pk).update(reference="pay_of_others")
    sizes, tally, after = [], Tally(), 0
    while (checked := checking.check_pending_page("sandbox", after)).more:
        sizes.append(checked.tally.total_checked)
        tally, after = tally + checked.tally, checked.after
    tally += checked.tally
    assert (sizes, tally.total_checked, tally.paid, tally.pending) == ([4, 4], 9, 4, 5)
    assert checking.pending_orders("sandbox", 0, 4).order_numbers == ["ORD-1", "ORD-3", "ORD-4", "ORD-5"]
    assert checking.pending_orders("sandbox", payments[7].pk, 4).after == 0


def test_a_page_of_waiting_orders_takes_the_same_number_of_queries_however_many_they_are(
    settings: Settings, shared_provider: SandboxProcess
) -> None:
    connect(settings, shared_provider, "tests.payments.feedless.Feedless")
    pay(shared_provider, opened("ORD-1"))
    first = queries(partial(checking.check_pending_page, "sandbox"))
    for n in range(2, 30):
        pay(shared_provider, opened(f"ORD-{n}"))
    assert queries(partial(checking.check_pending_page, "sandbox")) == first


# --- one by one ------------------------------------------------------------------------------------------


class Slow:
    """Only `status`: an answer or an error for each reference; `asked` are those it was asked for."""

    def __init__(self, **answers: object) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def status(self, reference: str) -> object:
        self.asked.append(reference)
        answer = self.answers[reference]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def all(self) -> Mapping[str, object]:
        gateway: Any = self
        return one_by_one(gateway, list(self.answers))


DOWN = GatewayUnavailable("no answer", "timeout")
BUSY = GatewayUnavailable("too many", "rate_limited", retry_after=3)
NO = GatewayRefused("unknown", "not_found")


def test_one_payment_without_an_answer_keeps_nobody_from_the_others() -> None:
    slow = Slow(a=1, b=NO, c=DOWN, d=DOWN, e=2, f=DOWN, g=3)
    assert slow.all() == {"a": 1, "b": None, "c": None, "d": None, "e": 2, "f": None, "g": 3}


def test_a_provider_that_is_down_or_wants_us_to_wait_is_not_asked_further() -> None:
    down = Slow(a=1, b=DOWN, c=DOWN, d=DOWN, e=2)
    assert (down.all(), down.asked) == ({"a": 1}, ["a", "b", "c", "d"])
    busy = Slow(a=1, b=BUSY, c=2)
    assert (busy.all(), busy.asked) == ({"a": 1}, ["a", "b"])
    for nothing in (Slow(a=DOWN), Slow(a=DOWN, b=BUSY, c=2), Slow(a=DOWN, b=DOWN, c=DOWN, d=1)):
        with pytest.raises(GatewayUnavailable):
            nothing.all()
    with pytest.raises(GatewayMisconfigured):
        Slow(a=1, b=GatewayMisconfigured("wrong key")).all()


def test_a_page_that_stops_short_goes_on_where_it_stopped(
    settings: Settings, shared_provider: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(settings, shared_provider, "tests.payments.feedless.OneAtATime")
    payments = [opened(f"ORD-{n}") for n in range(1, 6)]
    asked: list[str] = []
    status = SandboxGateway.status

    def busy_at_the_fourth(self: Gateway, reference: str) -> RemotePayment:
        asked.append(reference)
        if len(asked) == 4:
            raise BUSY
        return status(self, reference)  # type: ignore[arg-type]

    monkeypatch.setattr(SandboxGateway, "status", busy_at_the_fourth)
    first = checking.check_pending_page("sandbox")
    assert (first.tally.total_checked, first.more, first.after) == (3, True, payments[2].pk)
    rest = checking.check_pending_page("sandbox", first.after)
    assert rest == PageChecked(Tally(2, pending=2, provider_calls=2), more=False, after=payments[4].pk)
    assert asked == [p.reference for p in (*payments[:4], *payments[3:])]


# --- the runs --------------------------------------------------------------------------------------------

START = BatchStart("payment-batch-1", "run", "2026-01-02T03:00:00+00:00", [])
END = BatchEnd("payment-batch-1", "run", "2026-01-02T03:00:05+00:00", Tally(10, paid=3, provider_calls=2), {})


def test_only_gateways_that_have_news_of_their_own_are_checked(settings: Settings) -> None:
    settings.PAYMENT_GATEWAYS = {
        "sandbox": "payments.gateways.sandbox.SandboxGateway",
        "other": "tests.payments.feedless.Feedless",
        "bank_transfer": "payments.gateways.bank_transfer.BankTransferGateway",
    }
    gateway.cache_clear()
    todo = batch_runs.start(START)
    assert [(check.gateway, check.changes) for check in todo] == [("other", False), ("sandbox", True)]
    with pytest.raises(GatewayMisconfigured, match="“nowhere” is not set up"):
        batch_runs.start(replace(START, gateways=["nowhere"]))


def test_a_run_is_one_row_however_often_its_activities_are_repeated(settings: Settings) -> None:
    settings.PAYMENT_GATEWAYS = {}
    for _ in range(2):
        batch_runs.start(START)
    assert BatchRun.objects.get().state == "running"
    batch_runs.finish(END)
    batch_runs.finish(replace(END, tally=Tally(), finished_at="2026-01-02T05:00:00+00:00"))
    run = BatchRun.objects.get()
    assert (run.state, run.total_checked, run.paid, run.provider_calls) == ("finished", 10, 3, 2)
    assert run.duration == timedelta(seconds=5)


def test_a_run_that_died_is_told_from_one_that_is_under_way(settings: Settings) -> None:
    settings.PAYMENT_GATEWAYS = {}
    batch_runs.start(START)
    BatchRun.objects.update(seen_at=timezone.now() - BatchRun.SILENT_FOR - timedelta(seconds=1))
    assert BatchRun.objects.get().state == "died"
    batch_runs.start(START)  # it was only slow
    assert BatchRun.objects.get().state == "running"
    batch_runs.finish(replace(END, unavailable={"sandbox": "It is down."}))
    assert BatchRun.objects.get().state == "incomplete"


def test_runs_that_died_or_left_a_gateway_out_are_open_until_one_has_made_up_for_them(
    settings: Settings,
) -> None:
    settings.PAYMENT_GATEWAYS = {"sandbox": "payments.gateways.sandbox.SandboxGateway"}
    now = timezone.now().isoformat()

    def run(number: int, *, ends: bool, **away: str) -> None:
        batch_runs.start(BatchStart(f"w{number}", "r", now, []))
        if ends:
            batch_runs.finish(BatchEnd(f"w{number}", "r", now, Tally(), away))

    def still_open() -> list[str]:
        return list(BatchRun.not_made_up_for().order_by("id").values_list("workflow_id", flat=True))

    run(1, ends=True, sandbox="It is down.")
    assert still_open() == ["w1"]
    run(2, ends=True)
    run(3, ends=False)
    assert still_open() == []
    BatchRun.objects.filter(workflow_id="w3").update(seen_at=timezone.now() - timedelta(days=1))
    run(4, ends=True, sandbox="It is down.")
    assert still_open() == ["w3", "w4"]
    run(5, ends=True)
    assert still_open() == []
