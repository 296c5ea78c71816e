"""What `reconcile` finds in the orders' books, and the rows that it keeps of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings
from temporalio.service import RPCError, RPCStatusCode

from orders.models import (
    DeadLetter,
    Difference,
    OpsAlertEntry,
    Order,
    Product,
    ReconcileRun,
    Reservation,
    Saga,
    Shipment,
)
from orders.services.lifecycle import ActionRefused
from orders.services.reconciling import fixing, messages, money, running, sagas, stock
from orders.services.reconciling.finding import Check, Finding, Kind, Look, Weight
from payments.models import Payment, PaymentEvent
from shop.kernel import temporal
from shop.kernel.models import OutboxMessage
from shop.work_queue import tasks
from tests import factories
from tests.orders.practice_shop import PracticeShop
from tests.orders.reconciling import found
from tests.orders.test_admin import admin, login

__all__ = ["admin", "login"]  # fixtures
T = TypeVar("T")


# --- stock, parcels and money, in the books of a shop that runs ------------------------------------------


def sentences(check: Callable[[Look], Any]) -> list[tuple[str, str]]:
    return [(finding.subject, finding.sentence) for finding in found(check)]


def test_books_of_orders_that_ended_well_and_badly_agree(shop: PracticeShop) -> None:
    shop.end(shop.paid(), skip=False)
    shop.cancel(cancelled := shop.waiting())
    shop.end(cancelled, skip=False)
    assert [found(c) for c in (stock.reservations, stock.shipments, money.orders, sagas.orders)] == [[]] * 4


def test_pieces_without_a_parcel_and_parcels_without_their_pieces_are_told(shop: PracticeShop) -> None:
    order = shop.completed()
    Shipment.objects.update(state="cancelled")
    assert sentences(stock.shipments) == [
        (order.number, "Its pieces have left the shelf, but there is no parcel that was not called back."),
        (order.number, "The order is completed, but no parcel is on its way."),
    ]
    Shipment.objects.update(state="created")
    Reservation.objects.update(state="reserved")
    assert sentences(stock.shipments) == [
        (order.number, "Its parcel is on its way, but not all of its pieces have left the shelf.")
    ]
    assert sentences(stock.reservations) == [
        ("TEA", "0 pieces are reserved, but open orders hold 2."),
        (order.number, "The order has ended and still holds 2 pieces."),
    ]


def test_a_parcel_of_a_cancelled_order_is_told_unless_people_have_called_it_back(shop: PracticeShop) -> None:
    order = shop.completed()
    Saga.objects.update(status="cancelled")
    Order.objects.update(status="cancelled")
    expected = [(order.number, "The order is cancelled, but its parcel was not called back.")]
    assert sentences(stock.shipments) == expected
    assert sentences(money.orders)[0][1].startswith("The order is cancelled: €0.00 should have been kept")
    letter = {"saga": Saga.objects.get(), "state": "resolved", "resolution": "By phone"}
    DeadLetter.objects.create(step="shipping", **letter)
    assert sentences(stock.shipments) == expected, "a retry leaves no evidence, and calls the parcel back"
    DeadLetter.objects.update(evidence="Ticket 7")
    assert sentences(stock.shipments) == []
    DeadLetter.objects.create(step="payment_captured", evidence="Transfer 8", **letter)
    assert sentences(money.orders) == []


def test_money_that_was_captured_short_is_told(shop: PracticeShop) -> None:
    order = shop.waiting()
    Saga.objects.update(status="completed")
    ((subject, sentence),) = sentences(money.orders)
    assert (subject, sentence) == (
        order.number,
        "The order is completed: €39.98 should have been captured, and €0.00 were.",
    )


@pytest.mark.usefixtures("provider")
@pytest.mark.django_db
def test_an_authorization_that_outlives_its_order_is_told() -> None:
    factories.product()
    order = factories.place()
    payment = Payment.objects.create(
        gateway="sandbox", merchant_reference=order.number, idempotency_key="k", reference="p", amount=3998,
        currency="EUR",
    )  # fmt: skip
    PaymentEvent.objects.create(
        payment=payment, gateway="sandbox", type="authorization", outcome="succeeded", psp_reference="p",
        amount=3998, currency="EUR", occurred_at=timezone.now(), source="call",
    )  # fmt: skip
    Saga.objects.update(status="cancelled", payment=payment)
    assert sentences(money.orders) == [
        (order.number, "The order is cancelled, but its authorization is still open.")
    ]


# --- orders and sagas ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("provider")
@pytest.mark.django_db
def test_an_order_that_nobody_carries_out_is_told(settings: Settings) -> None:
    factories.product()
    settings.AUTO_START_SAGAS = False
    order = factories.place()
    Order.objects.update(created_at=timezone.now() - timedelta(hours=2))
    assert sentences(sagas.orders) == [], "staff start it"
    settings.AUTO_START_SAGAS = True
    assert sentences(sagas.orders) == [
        (order.number, "It was placed and has no saga: nobody carries it out.")
    ]
    Order.objects.update(created_at=timezone.now())
    assert sentences(sagas.orders) == [], "its import may be under way"


@pytest.mark.usefixtures("provider")
@pytest.mark.django_db
@pytest.mark.parametrize(("order_is", "saga_is"), [("paid", "completed"), ("completed", "running")])
def test_an_order_and_a_saga_that_came_to_different_ends_are_told(order_is: str, saga_is: str) -> None:
    factories.product()
    order = factories.place()
    Order.objects.update(status=order_is)
    Saga.objects.update(status=saga_is)
    assert sentences(sagas.orders) == [(order.number, f"The order is {order_is}, but its saga is {saga_is}.")]


def test_a_saga_whose_start_is_in_the_outbox_is_not_missed(shop: PracticeShop) -> None:
    order = shop.place()
    assert found(sagas.in_temporal, shop.engine.client) == []
    OutboxMessage.objects.update(state="delivered")
    (finding,) = found(sagas.in_temporal, shop.engine.client)
    assert (finding.about, finding.sentence) == (
        order.number,
        "Its workflow in Temporal was deleted in the middle",
    )
    assert found(sagas.in_temporal, shop.engine.client, only="ORD-1") == []


# --- messages --------------------------------------------------------------------------------------------


def test_a_message_that_was_left_behind_is_told_and_delivered(shop: PracticeShop) -> None:
    order = shop.place()
    assert found(messages.outgoing, shop.engine.client) == []
    an_hour_ago = timezone.now() - timedelta(hours=2)
    later = timezone.now() + timedelta(days=1)
    OutboxMessage.objects.update(created_at=an_hour_ago, available_at=later, last_error="UNAVAILABLE: away.")
    with asyncio.Runner() as runner:
        (finding,) = messages.outgoing(Look(runner, client=shop.engine.client))
        row, _ = running.see(Kind.OUTBOX, finding)
        assert finding.fix()
    assert (row.order, row.weight) == (order, Weight.WORK)
    assert row.sentence.endswith("The last try: UNAVAILABLE: away.")
    shop.until_waiting(order)


# --- rows ------------------------------------------------------------------------------------------------


def only(monkeypatch: pytest.MonkeyPatch, *checks: Check) -> None:
    monkeypatch.setattr(running, "checks", lambda: list(checks))


def that_finds(*findings: Finding, name: str = "stock", kind: Difference.Kind = Kind.STOCK) -> Check:
    return Check(name, kind, lambda look: iter(findings))


def noting(done: list[T], what: T) -> Callable[[], bool]:
    """A remedy that is written down."""

    def mend() -> bool:
        done.append(what)
        return True

    return mend


def look(**options: Any) -> ReconcileRun:
    return running.reconcile(f"look-{ReconcileRun.objects.count()}", "test", **{"fix": False, **options})


def rows() -> list[tuple[str, str]]:
    return [(row.subject, row.state) for row in Difference.objects.order_by("id")]


@pytest.mark.django_db
def test_a_difference_is_one_row_from_the_first_look_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, that_finds(Finding("TEA", "Two are missing")))
    run = look()
    assert (run.found, run.new, run.closed) == (1, 1, 0)
    first = Difference.objects.get()
    assert first.sentence == "Two are missing."
    only(monkeypatch, that_finds(Finding("TEA", "Three are missing")))
    run = look()
    assert (run.found, run.new, run.closed) == (1, 0, 0)
    again = Difference.objects.get()
    assert (again.sentence, again.first_seen_at) == ("Three are missing.", first.first_seen_at)
    assert again.last_seen_at > first.last_seen_at
    only(monkeypatch, that_finds())
    assert look().closed == 1
    only(monkeypatch, that_finds(Finding("TEA", "Two are missing")))
    look()
    assert rows() == [("TEA", "closed"), ("TEA", "open")]


@pytest.mark.django_db
def test_what_could_not_be_looked_at_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: Look) -> Any:
        yield Finding("one", "It differs")
        raise RPCError("no connection", RPCStatusCode.UNAVAILABLE, b"")

    def broken(_: Look) -> Any:
        raise ValueError("a bug")

    only(monkeypatch, that_finds(Finding("one", "It differs"), Finding("two", "It differs"), kind=Kind.SAGA))
    look()
    only(monkeypatch, Check("sagas", Kind.SAGA, away), Check("money", Kind.MONEY, broken), that_finds())
    run = look()
    assert run.left_out == {"sagas": "no connection", "money": "It failed: ValueError('a bug')"}
    assert (run.finished_at is not None, run.state) == (True, "incomplete")
    assert rows() == [("one", "open"), ("two", "open")]


@pytest.mark.django_db
def test_checks_that_share_a_kind_close_their_own_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(name: str, *findings: Finding) -> Check:
        return Check(name, Kind.PROVIDER, lambda look: iter(findings), scope=f"{name} ")

    only(monkeypatch, of("a", Finding("a 1", "It differs")), of("b", Finding("b 1", "It differs")))
    look()
    only(monkeypatch, of("a"))
    look()
    assert rows() == [("a 1", "closed"), ("b 1", "open")]


@pytest.mark.django_db
def test_mending_is_noted_and_undone_when_the_difference_is_seen_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[tuple[str, bool]] = []
    willing = Finding("one", "It differs", remedy="it is mended", mend=lambda: True)
    refused = Finding("two", "It differs", remedy="it is mended", mend=lambda: False)
    only(monkeypatch, that_finds(willing, refused, Finding("three", "It differs")))
    run = look(fix=True, tell=lambda row, mended: said.append((row.subject, mended)))
    assert said == [("one", True), ("two", False), ("three", False)]
    assert (run.found, run.mended) == (3, 1)
    assert rows() == [("one", "mended"), ("two", "open"), ("three", "open")]
    look()
    assert rows()[0] == ("one", "open")


@pytest.mark.django_db
def test_by_itself_it_mends_no_mass_of_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were all workflows gone, Temporal is what is wrong, and not the orders."""
    mended: list[int] = []

    def lost(number: int) -> list[Finding]:
        return [
            Finding(f"ORD-{n}", "Lost", remedy="it is rolled back", mend=noting(mended, n))
            for n in range(number)
        ]

    def daily(key: str) -> ReconcileRun:
        return running.reconcile_by_itself(key, fix=True, beat=lambda: None)

    only(monkeypatch, that_finds(*lost(running.BY_ITSELF + 1)))
    run = daily("1")
    assert (run.found, run.mended, mended) == (running.BY_ITSELF + 1, 0, [])
    assert OpsAlertEntry.objects.count() == running.BY_ITSELF + 1
    only(monkeypatch, that_finds(*lost(running.BY_ITSELF)))
    assert daily("2").mended == len(mended) == running.BY_ITSELF
    assert OpsAlertEntry.objects.count() == running.BY_ITSELF + 1, "each was told once"


@pytest.mark.django_db(transaction=True)
def test_two_runs_at_once_keep_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, that_finds(*(Finding(str(n), "It differs") for n in range(20))))
    begin = threading.Barrier(4)

    def run(key: str) -> None:
        begin.wait()
        running.reconcile(key, "test", fix=False)
        connections.close_all()

    threads = [threading.Thread(target=run, args=[str(n)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(rows()) == sorted((str(n), "open") for n in range(20))
    assert sum(ReconcileRun.objects.values_list("new", flat=True)) == 20


@pytest.mark.django_db
def test_a_slow_run_does_not_make_unseen_what_a_later_one_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding("one", "It differs")
    later = timezone.now() + timedelta(seconds=10)
    monkeypatch.setattr(timezone, "now", lambda: later)
    running.see("stock", finding)
    monkeypatch.setattr(timezone, "now", lambda: later - timedelta(seconds=5))
    running.see("stock", finding)
    assert Difference.objects.get().last_seen_at == later


# --- mending one -----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_one_is_looked_at_again_before_it_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    finding = Finding("one", "It differs", remedy="it is mended", mend=noting(done, "one"))
    only(monkeypatch, that_finds(finding))
    look()
    row = Difference.objects.get()
    assert fixing.fix(row.pk, "grace").message.startswith("Done: it is mended.")
    row.refresh_from_db()
    assert (row.state, row.mended_by, done) == ("mended", "grace", ["one"])
    only(monkeypatch, that_finds())
    assert fixing.fix(row.pk, "grace").message == "It agrees by now; nothing was done."
    assert fixing.fix(row.pk, "grace").message == "It was gone in the meantime; nothing was done."
    assert done == ["one"]


@pytest.mark.django_db
def test_what_takes_a_person_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, that_finds(Finding("one", "It differs")))
    look()
    with pytest.raises(ActionRefused, match="It takes a person"):
        fixing.fix(Difference.objects.get().pk, "grace")


def test_the_button_rolls_a_lost_saga_back_once(shop: PracticeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporal, "_client", shop.engine.client)
    order = shop.waiting()
    shop.engine.wait(shop.engine.handle(order.workflow_id).terminate("by mistake"))
    assert look().found == 1
    row = Difference.objects.get()
    assert (row.kind, row.order, row.payment) == ("saga", order, shop.saga(order).payment)
    assert fixing.fix(row.pk, "grace").message == (
        "Done: its rollback starts. The next run looks whether it agrees then."
    )
    assert fixing.fix(row.pk, "grace").message == "It agrees by now; nothing was done."
    shop.engine.deliver()
    shop.assert_rolled_back(order, shop.end(order), undone=["payment_hold", "inventory"])


# --- the pages -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("provider")
@pytest.mark.django_db
@pytest.mark.parametrize(("role", "allowed"), [("viewer", False), ("payments", False), ("ops", True)])
def test_everyone_sees_differences_and_ops_mend_them(
    role: str, allowed: bool, login: Callable[[str], Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    factories.product()
    order = factories.place()
    finding = Finding(
        "one", "It differs", "Do this.", order_number=order.number, remedy="it is mended", mend=lambda: True
    )
    only(monkeypatch, that_finds(finding))
    look()
    client, row = login(role), Difference.objects.get()
    shown = client.get(reverse("admin:orders_difference_changelist"), {"state": "open"}).content.decode()
    assert "It differs." in shown
    assert reverse("admin:orders_order_change", args=[order.pk]) in shown
    page = client.get(reverse("admin:orders_difference_change", args=[row.pk])).content.decode()
    url = reverse("admin:orders_difference_fix", args=[row.pk])
    assert (f'href="{url}"' in page) is allowed
    assert client.get(url).status_code == (200 if allowed else 403)
    assert client.post(url).status_code == (302 if allowed else 403)
    row.refresh_from_db()
    assert row.state == ("mended" if allowed else "open")
    assert client.get(reverse("admin:orders_reconcilerun_changelist")).status_code == 200
    run = ReconcileRun.objects.get()
    assert client.get(reverse("admin:orders_reconcilerun_change", args=[run.pk])).status_code == 200


@pytest.mark.django_db
def test_they_are_on_the_work_queue_until_they_are_gone(
    admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, that_finds(Finding("one", "It differs")))
    look()

    def count() -> int:
        return next(
            t.count for t in tasks(User.objects.get(username="admin")) if "Differences" in str(t.label)
        )

    assert count() == 1
    only(monkeypatch, that_finds())
    look()
    assert count() == 0


@pytest.mark.django_db
def test_stock_that_disagrees_is_told_with_what_to_do() -> None:
    product = factories.product(on_hand=5)
    Product.objects.filter(pk=product.pk).update(reserved=3)
    (finding,) = found(stock.reservations)
    assert (finding.subject, finding.weight, finding.mend) == ("TEA", Weight.STOCK, None)
    assert finding.sentence == "3 pieces are reserved, but open orders hold 0."
    assert finding.to_do.startswith("Count the shelf")
