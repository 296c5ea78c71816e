"""The first page beyond the queue: charts, the guided start, mentions; and the health of all parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from pytest_django.fixtures import Settings

from orders.models import DeadLetter, Mention, Order, OrderEvent, Saga, SagaStep
from orders.services import notes
from payments.models import GatewayState, OutgoingTransfer, ReviewItem
from shop import charts, figures, first_steps, probing
from shop.figures import Figure, Series
from shop.work_queue import Task, tasks
from tests import factories
from tests.orders.test_admin import login, shop, waiting

__all__ = ["login", "shop"]  # fixtures
pytestmark = pytest.mark.django_db
Login = Callable[[str], Client]


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def somebody(role: str, name: str = "") -> User:
    user = User.objects.create_user(name or role, is_staff=True)
    user.groups.set(Group.objects.filter(name=role))
    return user


def lines(role: str) -> dict[str, Task]:
    return {str(task.label): task for task in tasks(somebody(role, uuid4().hex))}


def review(reason: str, amount: int | None, currency: str = "EUR", **changes: str) -> ReviewItem:
    return ReviewItem.objects.create(
        key=uuid4().hex, reason=reason, amount=amount, currency=currency, detail="why", **changes
    )


# --- the queue -------------------------------------------------------------------------------------------


def test_each_line_tells_how_much_is_at_stake_and_how_old_the_oldest_is() -> None:
    old = review("unknown_reference", 1000)
    ReviewItem.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=3))
    review("no_reference", 250)
    review("ambiguous", 500, "CHF")
    review("too_much", 99)
    review("late", 4000)
    review("late", 4000, state="closed")
    review("undeliverable", None, "")
    queue = lines("payments")
    unmatched = queue["Unmatched money"]
    assert (unmatched.count, [(money.amount, money.currency) for money in unmatched.at_stake]) == (
        3,
        [(500, "CHF"), (1250, "EUR")],
    )
    assert unmatched.notes == ("The oldest is 3 d old.",)
    assert (queue["Overpaid"].count, queue["Paid, but cancelled or finished"].count) == (1, 1)
    assert queue["Other news about money to review"].at_stake == ()


def test_deadlines_tell_when_the_next_one_ends() -> None:
    factories.product(on_hand=10)
    waiting()
    soon, over = waiting(), waiting()
    Saga.objects.filter(order=soon).update(deadline=timezone.now() + timedelta(hours=5, minutes=1))
    line = lines("orders")["Unpaid orders with a deadline within 48 hours"]
    assert (line.count, line.notes) == (1, ("The next one ends in 5 h.",))
    assert [money.amount for money in line.at_stake] == [soon.total]
    Saga.objects.filter(order=over).update(deadline=timezone.now() - timedelta(minutes=2, seconds=1))
    line = lines("orders")["Unpaid orders with a deadline within 48 hours"]
    assert (line.count, line.notes) == (2, ("The first one ended 2 min ago.",))


def test_an_authorization_that_ends_is_counted_once_however_many_attempts_there_were() -> None:
    factories.product(on_hand=10)
    order = waiting()
    saga = Saga.objects.get()
    assert saga.payment
    saga.payment.authorized_until = timezone.now() + timedelta(hours=3, minutes=1)
    saga.payment.save()
    Saga.objects.create(order=order, attempt=7, status="cancelled", ended_at=timezone.now())
    line = lines("orders")["Authorizations about to expire"]
    assert (line.count, line.notes) == (1, ("The next one ends in 3 h.",))


def test_everybody_has_only_the_lines_on_which_they_may_act() -> None:
    assert lines("viewer") == {}
    money = set(lines("payments"))
    assert {"Overpaid", "Refunds to send: ready for a file"} <= money
    assert (
        not {"Dead letters: rollbacks that failed", "Schedules that have not run for two intervals"} & money
    )
    ops = set(lines("ops"))
    assert {"Dead letters: rollbacks that failed", "Payment providers that cannot be asked"} <= ops
    assert "Overpaid" not in ops
    assert "Unpaid orders with a deadline within 48 hours" in lines("orders")


def test_a_provider_that_is_down_is_a_line_for_those_who_may_have_it_asked() -> None:
    since = timezone.now() - timedelta(minutes=7, seconds=1)
    GatewayState.objects.create(gateway="stripe", open_until=timezone.now(), failing_since=since)
    line = lines("ops")["Payment providers that cannot be asked"]
    assert (line.count, line.notes) == (1, ("The oldest is 7 min old.",))


def test_the_first_page_takes_the_same_number_of_queries_however_much_waits(login: Login) -> None:
    client = login("admin")
    factories.product(on_hand=100)

    def one_more() -> None:
        order = waiting()
        Saga.objects.filter(order=order).update(deadline=timezone.now() + timedelta(hours=5))
        review("late", 100)
        OutgoingTransfer.objects.create(
            idempotency_key=uuid4().hex, end_to_end_id=uuid4().hex[:30], amount=100, currency="EUR",
            state="ready", remittance_information="back",
        )  # fmt: skip
        DeadLetter.objects.create(
            saga=Saga.objects.get(order=order), step="inventory", idempotency_key="k", rollback_run="r",
            error="no", currency="EUR", assignee="admin",
        )  # fmt: skip
        notes.comment(order.number, "ada", "@admin look", uuid4())

    def cost() -> int:
        cache.clear()
        with CaptureQueriesContext(connection) as queries:
            assert client.get(reverse("admin:index")).status_code == 200
            assert client.get(reverse("admin:charts")).status_code == 200
        return len(queries)

    one_more()
    client.get(reverse("admin:index"))
    few = cost()
    for _ in range(5):
        one_more()
    assert cost() == few < 60


# --- charts ----------------------------------------------------------------------------------------------


def shown(name: str) -> Figure:
    return next(figure for figure in figures.figures() if figure.name == name)


def test_an_empty_shop_says_that_there_is_nothing_to_draw() -> None:
    assert [figure.says for figure in figures.figures()] == [
        "0 orders in 30 days.", "No order waits for money.", "No order was paid in 30 days.",
        "No saga has ended in 12 weeks.",
    ]  # fmt: skip
    assert not any(charts.drawn(figure) for figure in figures.figures())


def test_orders_are_counted_on_their_day_in_their_state() -> None:
    for number, (status, days) in enumerate(
        [("placed", 0), ("awaiting_payment", 0), ("completed", 2), ("paid", 31)]
    ):
        (order,) = factories.many_waiting([number], total=100, payment_method="sandbox")
        Order.objects.filter(pk=order.pk).update(
            status=status, created_at=timezone.now() - timedelta(days=days)
        )
    figure = shown("states")
    assert figure.says == "3 orders in 30 days."
    numbers = {series.name: (sum(filter(None, series.values)), series.values[-1]) for series in figure.series}
    assert numbers["waiting for money"] == (2, 2)
    assert numbers["completed"] == (1, 0)
    assert numbers["paid, on its way"] == (0, 0)
    assert len(figure.columns) == 30


def test_days_from_order_to_money_are_those_of_the_capture() -> None:
    factories.product(on_hand=10)
    for days in (0, 2, 2, 40):
        order = waiting()
        Order.objects.filter(pk=order.pk).update(created_at=timezone.now() - timedelta(days=days, minutes=1))
        SagaStep.objects.create(
            saga=Saga.objects.get(order=order), step="payment_captured", kind="action", outcome="succeeded",
            attempt=1, idempotency_key="k", actor="saga", started_at=timezone.now(),
        )  # fmt: skip
    figure = shown("until-paid")
    assert figure.says == "Half of those paid in 30 days were paid within 3 days."
    assert {name: word for name, (word,) in charts.table(figure) if word != "0"} == {
        "<1": "1",
        "2": "2",
        "14+": "1",
    }


def test_timeouts_and_rollbacks_are_shares_of_their_week() -> None:
    factories.product(on_hand=10)
    for status, reason, letter in [
        ("completed", "", False), ("completed", "", False),
        ("cancelled", "No payment arrived before the deadline", False),
        ("cancelled", "The authorization lapsed on 2026-01-01 00:00 UTC before the payment arrived", False),
        ("compensation_failed", "The customer does not want it.", True),
    ]:  # fmt: skip
        saga = Saga.objects.get(order=waiting())
        Saga.objects.filter(pk=saga.pk).update(status=status, reason=reason, ended_at=timezone.now())
        if letter:
            DeadLetter.objects.create(
                saga=saga, step="inventory", idempotency_key="k", rollback_run="r", error="no", currency="EUR"
            )
    figure = shown("outcomes")
    assert (
        figure.says
        == "In 12 weeks 40 % (2/5) of the sagas timed out, and 67 % (2/3) of the rollbacks succeeded."
    )
    assert [series.words[-1] for series in figure.series] == ["40 % (2/5)", "67 % (2/3)"]
    assert figure.series[0].values[0] is None


def test_the_value_that_waits_is_told_by_the_days_that_are_left() -> None:
    factories.product(on_hand=10)
    orders = [waiting() for _ in range(3)]
    Saga.objects.filter(order=orders[0]).update(deadline=timezone.now() - timedelta(hours=1))
    Saga.objects.filter(order=orders[1]).update(deadline=timezone.now() + timedelta(days=3, hours=1))
    Saga.objects.filter(order=orders[2]).update(deadline=timezone.now() + timedelta(days=13, hours=1))
    figure = shown("waiting")
    assert figure.says == "3 orders wait for €119.94."
    told = {name: word for name, (word,) in charts.table(figure) if word != "€0.00"}
    assert told == {"over": "€39.98", "3": "€39.98", "13": "€39.98"}


def test_a_figure_that_takes_too_long_says_so_and_the_others_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = figures._rows

    def slow(sql: str, parameters: dict[str, object]) -> list[object]:
        return real("SELECT pg_sleep(5)", {}) if "payment_captured" in sql else real(sql, parameters)

    monkeypatch.setattr(figures, "_rows", slow)
    monkeypatch.setattr(figures, "TIMEOUT_S", 0.05)
    says = {figure.name: figure.says for figure in figures.figures()}
    assert says["until-paid"].startswith("It took too long")
    assert says["waiting"] == "No order waits for money."
    connection.cursor().execute("SET statement_timeout = 0")


def test_a_chart_has_its_numbers_as_a_table_and_no_style_of_its_own(login: Login) -> None:
    factories.product()
    waiting()
    page = login("viewer").get(reverse("admin:charts")).content.decode()
    assert page.count('<svg class="vk-chart"') == 2
    assert page.count("<table") == 2
    assert "style=" not in page
    assert "<script" not in page
    assert re.search(r'role="img" aria-label="Value waiting[^"]*1 order waits for', page)


@pytest.mark.parametrize(
    ("highest", "end"), [(0, 4), (3, 4), (5, 8), (9, 20), (37, 40), (41, 80), (1234, 2000)]
)
def test_the_axis_ends_above_the_highest_and_its_quarters_are_plain(highest: int, end: int) -> None:
    assert charts._round_up(highest) == end


def test_bars_stand_on_each_other_and_names_stay_inside() -> None:
    series = [Series("a", "good", [1, 2], ["1", "2"]), Series("b", "bad", [3, 0], ["3", "0"])]
    drawn = charts.drawn(Figure("f", "Title", "Says.", "X", ["<one>", "two"], series))
    bars = re.findall(
        r'<rect class="vk-tone-(\w+)" x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', drawn
    )
    (_, a_top, _), (_, b_top, b_height), _ = bars
    assert float(b_top) + float(b_height) == pytest.approx(float(a_top))
    assert len(bars) == 3
    assert "&lt;one&gt;" in drawn


# --- the guided start ------------------------------------------------------------------------------------


def test_an_empty_installation_says_what_to_do_next_and_checks_turn_green(
    login: Login, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = {"engine": [probing.Health("Temporal", "down", "Start a worker.")]}
    monkeypatch.setattr(probing, "engine", lambda: health["engine"])
    monkeypatch.setattr(probing, "mail", lambda: probing.Health("Mail", "working", "It answers."))
    settings.PAYMENT_GATEWAYS = {}
    client = login("admin")
    assert 'id="first-steps"' in client.get(reverse("admin:index")).content.decode()

    def done() -> list[bool]:
        return [step.is_done for step in first_steps.first_steps(User.objects.get())]

    assert done() == [False, False, False, False, True, False]
    page = client.get(reverse("admin:first_steps")).content.decode()
    assert "Start a worker." in page
    assert reverse("admin:orders_product_add") in page
    assert "every 5s" in page
    factories.product()
    settings.PAYMENT_GATEWAYS = {"sandbox": "payments.gateways.sandbox.SandboxGateway"}
    health["engine"] = []
    factories.place()
    assert done() == [True, False, True, True, True, True]
    page = client.get(reverse("admin:first_steps")).content.decode()
    assert "Your shop is ready" in page  # the bank account is for whoever likes
    assert "every 5s" not in page
    assert 'id="first-steps"' not in client.get(reverse("admin:index")).content.decode()


# --- mentions --------------------------------------------------------------------------------------------


def test_a_colleague_who_is_named_sees_it_until_they_say_so(login: Login) -> None:
    factories.product()
    order = factories.place()
    ada, bob = login("orders"), login("payments")
    form = {
        "text": "@payments can you see the money? Cc @orders, @nobody and x@payments.",
        "form_id": uuid4(),
    }
    address = reverse("admin:orders_order_comment", args=[order.pk])
    page = ada.post(address, form, follow=True).content.decode()
    ada.post(address, form)  # the button pressed twice
    assert OrderEvent.objects.filter(kind="comment").count() == 1
    assert sorted(Mention.objects.values_list("person__username", flat=True)) == ["orders", "payments"]
    assert "called @nobody, so nobody is told" in page
    assert "can you see the money?" in page
    index = bob.get(reverse("admin:index")).content.decode()
    assert "You are mentioned" in index
    assert order.number in index
    mention = Mention.objects.get(person__username="payments")
    address = reverse("admin:orders_mention_seen", args=[mention.pk])
    ada.post(address)  # not hers
    assert bob.get(address).status_code == 405
    assert "You are mentioned" in bob.get(reverse("admin:index")).content.decode()
    assert bob.post(address, {"next": "https://elsewhere.example/"})["Location"] == reverse("admin:index")
    assert "You are mentioned" not in bob.get(reverse("admin:index")).content.decode()


def test_notes_tell_only_those_who_were_not_named_before() -> None:
    factories.product()
    order = factories.place()
    somebody("payments", "bob"), somebody("ops", "eve")
    notes.change_notes(order.number, "ada", "Ask @bob.")
    notes.change_notes(order.number, "ada", "Ask @bob, or @eve.")
    assert [mention.person.username for mention in Mention.objects.order_by("pk")] == ["bob", "eve"]


def test_nobody_is_told_who_may_not_see_orders(login: Login) -> None:
    factories.product()
    order = factories.place()
    User.objects.create_user("outsider")
    User.objects.create_user("bookkeeper", is_staff=True)
    written = notes.comment(order.number, "ada", "@outsider @bookkeeper", uuid4())
    assert (written.told, written.unknown) == ([], ["bookkeeper", "outsider"])
    viewer = login("viewer")
    answer = viewer.post(
        reverse("admin:orders_order_comment", args=[order.pk]), {"text": "x", "form_id": uuid4()}
    )
    assert answer.status_code == 403
    assert (
        'id="comment"'
        not in viewer.get(reverse("admin:orders_order_change", args=[order.pk])).content.decode()
    )


# --- health ----------------------------------------------------------------------------------------------


def test_pages_that_ask_are_for_those_who_may_and_send_others_to_the_login(login: Login) -> None:
    User.objects.create_user("bookkeeper", is_staff=True)
    client = Client()
    for name in ("health_live", "health_notice", "charts", "first_steps"):
        assert client.get(reverse(f"admin:{name}"))["HX-Refresh"] == "true"
    client.force_login(User.objects.get())
    for name in ("health", "health_live", "health_notice", "charts", "first_steps"):
        assert client.get(reverse(f"admin:{name}")).status_code == 403


def test_what_does_not_work_is_told_to_each_in_their_language(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> list[probing.Health]:
        return [probing.Health("Temporal", "down", gettext("Temporal answers at %s.") % "the moon")]

    monkeypatch.setattr(probing, "engine", away)
    viewer, notice = login("viewer"), reverse("admin:health_notice")
    for language, sentence in (("de", "antwortet unter"), ("en", "answers at"), ("de", "antwortet unter")):
        answer = viewer.get(notice, headers={"Accept-Language": language})
        assert f"Temporal {sentence} the moon." in answer.content.decode()


def test_a_part_that_fails_in_an_unforeseen_way_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> str:
        raise OperationalError("no more connections")

    def doubtful() -> str:
        raise probing.Doubtful("Look here.")

    probes = [
        probing._Probe("a", broken),
        probing._Probe("b", doubtful),
        probing._Probe("c", lambda: "Fine."),
    ]
    found = [(part.name, part.state, part.says) for part in probing._ask_all(probes)]
    assert found == [
        ("a", "down", "OperationalError: no more connections"),
        ("b", "failing", "Look here."),
        ("c", "working", "Fine."),
    ]
