"""The ops' page of dead letters over HTTP: who may do what, what is shown, and honest without its neighbours."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from orders.models import DeadLetter, OrderEvent, Saga
from orders.models.dead_letter import kind_of
from orders.services import dead_letter_facts, dead_letters
from orders.workflows.types import FailedUndo
from payments.gateways import gateway
from shop.kernel.models import OutboxMessage
from shop.roles import ROLES
from shop.up import ports
from tests import factories

pytestmark = pytest.mark.django_db

LIST = "/admin/ops/dead-letters/"
HTMX = {"HX-Request": "true"}
ACTS = ("retry", "resolve", "hand-over", "snooze", "wake", "comment")
Login = Callable[[str], Client]


@pytest.fixture(autouse=True)
def provider_away(settings: Settings) -> None:
    """Neither the provider nor Temporal is there; the page has to do without."""
    settings.SANDBOX_URL = f"http://127.0.0.1:{ports.any_free()}"
    settings.SANDBOX_API_KEY = "key"
    settings.TEMPORAL_ADDRESS = f"127.0.0.1:{ports.any_free()}"
    settings.PAYMENT_GATEWAYS = {"sandbox": "payments.gateways.sandbox.SandboxGateway"}
    gateway.cache_clear()
    factories.product(on_hand=1000)


@pytest.fixture
def login() -> Login:
    def log_in(role: str) -> Client:
        user, _created = User.objects.get_or_create(
            username=role, defaults={"is_staff": True, "is_superuser": role == "admin"}
        )
        user.groups.set(Group.objects.filter(name=role))
        browser = Client()
        browser.force_login(user)
        return browser

    return log_in


def a_letter(step: str = "payment_captured", error_type: str = "GatewayUnavailable") -> DeadLetter:
    order = factories.place(carrier="manual")
    Saga.objects.filter(order=order).update(status="compensation_failed", reason="no parcel")
    type(order).objects.filter(pk=order.pk).update(status="compensation_failed")
    return dead_letters.write(FailedUndo(order.number, 1, step, "run", "The bank is closed.", error_type))


def act_url(letter: DeadLetter, verb: str) -> str:
    return f"{LIST}{letter.pk}/{verb}/"


def form_of(page: str) -> dict[str, str]:
    return dict(re.findall(r'name="(key|seen)" value="([^"]+)"', page))


def fill_in(http: Client, letter: DeadLetter, verb: str, **typed: str) -> str:
    form = form_of(http.get(act_url(letter, verb)).content.decode())
    return http.post(act_url(letter, verb), form | typed, follow=True).content.decode()


def listed(http: Client, query: str = "") -> list[str]:
    """The order numbers on the list."""
    return re.findall(
        r'id="letter-\d+-name"><a [^>]+>(ORD-\d+)', http.get(f"{LIST}?{query}").content.decode()
    )


# --- what is shown ---------------------------------------------------------------------------------------


def test_list_tells_all_that_is_needed_to_decide_without_provider_and_temporal(login: Login) -> None:
    letter = a_letter()
    DeadLetter.objects.update(created_at=timezone.now() - timedelta(hours=5), amount=3998)
    page = login("ops").get(LIST).content.decode()
    for told in (
        letter.saga.order.number, "undo of payment captured", "The bank is closed.", "€39.98", "5 h",
        "no answer", "Retry once the provider answers again", "GatewayUnavailable", "no parcel",
        f"{LIST}{letter.pk}/provider/",
    ):  # fmt: skip
        assert told in page, told
    view = login("ops").get(f"{LIST}{letter.pk}/provider/").content.decode()
    assert "No payment was ever opened." in view


def test_age_ends_with_the_letter() -> None:
    letter = a_letter()
    now = timezone.now()
    letter.created_at, letter.resolved_at = now - timedelta(days=9), now - timedelta(days=7)
    assert letter.age == timedelta(days=2)


def test_list_costs_the_same_for_many_letters(login: Login) -> None:
    ops = login("ops")

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as found:
            assert ops.get(LIST).status_code == 200
        return len(found)

    a_letter()
    queries()
    one = queries()
    for _ in range(9):
        a_letter()
    assert queries() == one


def test_letters_are_found_by_kind_step_provider_hands_and_order(login: Login) -> None:
    ops = login("ops")
    money, parcel, stock = (
        a_letter(),
        a_letter("shipping", "CarrierRefused"),
        a_letter("inventory", "KeyError"),
    )
    dead_letters.hand_over(stock.pk, "ada", "ops", "", key="k")
    numbers = [letter.saga.order.number for letter in (money, parcel, stock)]
    assert listed(ops) == numbers
    assert (
        listed(ops, "kind=bug") == listed(ops, "step=inventory") == listed(ops, "whose=mine") == numbers[2:]
    )
    assert listed(ops, "kind=refused") == listed(ops, "provider=manual") == [numbers[1]]
    assert listed(ops, "provider=sandbox") == listed(ops, f"q={numbers[0]}") == [numbers[0]]
    assert listed(ops, "whose=nobody") == numbers[:2]
    assert listed(ops, "kind=nonsense&page=99&state=x") == numbers
    assert listed(ops, "state=resolved") == []
    assert "No dead letter matches." in ops.get(f"{LIST}?q=ORD-0").content.decode()


def test_page_without_letters_says_that_there_is_nothing_to_do(login: Login) -> None:
    assert "No rollback waits for a person." in login("ops").get(LIST).content.decode()


def test_index_counts_what_waits_with_the_age_of_the_oldest_and_what_is_mine(login: Login) -> None:
    first, second, third = a_letter(), a_letter(), a_letter()
    DeadLetter.objects.filter(pk=first.pk).update(created_at=timezone.now() - timedelta(days=3, hours=2))
    dead_letters.hand_over(second.pk, "ada", "ops", "", key="k")
    dead_letters.snooze(third.pk, "ada", timezone.now() + timedelta(hours=1), "", key="k")
    index = login("ops").get(reverse("admin:index")).content.decode()
    assert "<strong>2</strong> <span>Dead letters" in index
    assert "<small>The oldest is 3 d old.</small><small>1 in your hands.</small>" in index
    assert f'href="{LIST}"' in index


# --- acts ------------------------------------------------------------------------------------------------


def test_ops_retry_a_letter_once_with_a_reason(login: Login) -> None:
    letter, ops = a_letter(), login("ops")
    page = ops.get(act_url(letter, "retry")).content.decode()
    assert "does not happen twice" in page
    assert "This field is required" in ops.post(act_url(letter, "retry"), form_of(page)).content.decode()
    form = form_of(page) | {"reason": "the bank is open again"}
    for _ in range(3):
        ops.post(act_url(letter, "retry"), form)
    letter.refresh_from_db()
    assert (letter.state, letter.retries) == ("retrying", 1)
    assert OutboxMessage.objects.filter(name="CompensationRetryWorkflow").count() == 1
    event = OrderEvent.objects.get(kind="retry")
    assert (event.actor, event.reason) == ("ops", "the bank is open again")
    shown = ops.get(f"{LIST}{letter.pk}/").content.decode()
    assert "It is queued, and goes out as soon as Temporal can be reached." in shown
    assert 'hx-trigger="every 2s"' in shown


def test_progress_is_sent_only_when_it_has_changed(login: Login) -> None:
    letter, ops = a_letter(), login("ops")
    fill_in(ops, letter, "retry", reason="now")
    page = ops.get(f"{LIST}{letter.pk}/").content.decode()
    live = re.search(r'hx-get="([^"]+live/\?stamp=\w+)"', page)
    assert live
    assert ops.get(live[1], headers=HTMX).status_code == 204
    OutboxMessage.objects.filter(name="CompensationRetryWorkflow").update(state="delivered")
    assert "no try has failed so far" in ops.get(live[1], headers=HTMX).content.decode()


def test_letter_is_resolved_with_what_was_done_and_evidence(login: Login) -> None:
    letter, ops = a_letter(), login("ops")
    for typed in ({"done": "Refunded"}, {"evidence": "re_1"}, {"done": " ", "evidence": " "}):
        assert "This field is required" in fill_in(ops, letter, "resolve", **typed)
    shown = fill_in(ops, letter, "resolve", done="Refunded in the console", evidence="re_1")
    assert "The order is cancelled, and its customer is told." in shown
    assert "Was open for</dt>" in shown
    assert "Refunded in the console <strong>Evidence:</strong> re_1 (ops," in shown
    letter.saga.order.refresh_from_db()
    assert letter.saga.order.status == "cancelled"
    assert OutboxMessage.objects.filter(name="OrderMailWorkflow").count() == 1
    timeline = login("viewer").get(f"/admin/orders/order/{letter.saga.order.pk}/change/").content.decode()
    assert "Dead letter resolved by hand" in timeline
    assert 'hx-trigger="every 1s"' in timeline  # until the customer's mail is sent


def test_letter_is_handed_to_a_colleague_snoozed_woken_and_commented(login: Login) -> None:
    letter, ops = a_letter(), login("ops")
    login("viewer")
    User.objects.create_user("ada", is_staff=True).groups.set(Group.objects.filter(name="ops"))
    form = ops.get(act_url(letter, "hand-over")).content.decode()
    assert '<option value="ada">' in form
    assert '<option value="viewer">' not in form
    assert "Select a valid choice" in fill_in(ops, letter, "hand-over", to="viewer")
    assert "It is in the hands of ada." in fill_in(ops, letter, "hand-over", to="ada")
    assert '<option value="ada" selected>' in ops.get(act_url(letter, "hand-over")).content.decode()
    until = f"{timezone.now() + timedelta(days=2):%Y-%m-%dT%H:%M}"
    assert "It comes back on" in fill_in(ops, letter, "snooze", until=until, text="The bank is closed")
    assert listed(ops) == []
    assert len(listed(ops, "state=snoozed")) == 1
    assert "It is back on the queue." in fill_in(ops, letter, "wake")
    shown = fill_in(ops, letter, "comment", text="<b>See ticket 7</b>")
    assert "&lt;b&gt;See ticket 7" in shown
    assert [act.verb for act in letter.acts.all()] == ["arrived", "hand_over", "snooze", "wake", "comment"]


def test_stale_form_is_told_who_was_first_and_keeps_what_was_typed(login: Login) -> None:
    letter, ops = a_letter(), login("ops")
    page = ops.get(act_url(letter, "resolve"), headers=HTMX).content.decode()
    dead_letters.comment(letter.pk, "ada", "I have the bank on the phone", key="c")
    form = form_of(page) | {"done": "Refunded by hand", "evidence": "re_1"}
    refused = ops.post(act_url(letter, "resolve"), form, headers=HTMX).content.decode()
    assert "It was processed in the meantime. ada: commented" in refused
    assert "I have the bank on the phone" in refused
    assert "Refunded by hand" in refused
    letter.refresh_from_db()
    assert letter.state == "open"
    again = form_of(refused) | {"done": "Refunded by hand", "evidence": "re_1"}
    done = ops.post(act_url(letter, "resolve"), again, headers=HTMX).content.decode()
    assert "It is resolved." in done
    assert "<html" not in done  # into the letter's place


# --- all that match --------------------------------------------------------------------------------------


def chosen(page: str) -> list[str]:
    return re.findall(r'name="do" value="([^"]+)"', page)


def test_all_that_match_are_retried_after_a_look_at_each(login: Login) -> None:
    ops = login("ops")
    money = [a_letter() for _ in range(3)]
    other = a_letter("shipping", "CarrierRefused")
    assert (
        f"{LIST}retry/?kind=exhausted&amp;state=waiting" in ops.get(f"{LIST}?kind=exhausted").content.decode()
    )
    page = ops.get(f"{LIST}retry/?kind=exhausted").content.decode()
    assert len(chosen(page)) == 3
    assert page.count("The undo of payment captured is tried again.") == 3
    assert not OutboxMessage.objects.filter(name="CompensationRetryWorkflow").exists()
    dead_letters.comment(money[0].pk, "ada", "Not this one!", key="c")
    form = {**form_of(page), "do": chosen(page), "reason": "The provider was down for an hour"}
    for _ in range(2):
        answer = ops.post(f"{LIST}retry/?kind=exhausted", form, follow=True)
    shown = answer.content.decode()
    assert "processed in the meantime. ada: commented" in shown
    assert "0 resolved, 2 being retried, 0 open." in shown
    assert OutboxMessage.objects.filter(name="CompensationRetryWorkflow").count() == 2
    other.refresh_from_db()
    assert other.state == "open"
    keys = set(DeadLetter.objects.filter(acts__verb="retry").values_list("acts__key", flat=True))
    assert form["key"] in keys


def test_more_than_can_be_done_at_once_says_how_many_are_left(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shop.dead_letter_pages.MOST_AT_ONCE", 2)
    for _ in range(3):
        a_letter()
    page = login("ops").get(f"{LIST}retry/").content.decode()
    assert "1 more matches." in page
    assert len(chosen(page)) == 2


def test_nothing_is_retried_without_a_choice_or_by_nonsense(login: Login) -> None:
    ops, letter = login("ops"), a_letter()
    form = form_of(ops.get(f"{LIST}retry/").content.decode()) | {"reason": "x"}
    for do in ([], ["x"], [f"{letter.pk}"], ["²:1"], ["99999999:1"]):
        ops.post(f"{LIST}retry/", {**form, "do": do})
    letter.refresh_from_db()
    assert letter.state == "open"


# --- who may ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_everyone_may_look_and_only_ops_may_act(login: Login, role: str) -> None:
    http, letter = login(role), a_letter()
    allowed = 200 if role == "ops" else 403
    page = http.get(LIST).content.decode()
    assert (act_url(letter, "retry") in page) == (f"{LIST}retry/" in page) == (role == "ops")
    for verb in ACTS:
        assert http.get(act_url(letter, verb)).status_code == allowed
        posted = http.post(act_url(letter, verb), {"key": uuid4(), "text": "x", "reason": "x"})
        assert (posted.status_code == 403) == (role != "ops")
    assert http.get(f"{LIST}retry/").status_code == allowed


def test_retry_and_resolve_are_separate_rights(login: Login) -> None:
    letter, ops = a_letter(), login("ops")
    group = Group.objects.get(name="ops")
    group.permissions.remove(group.permissions.get(codename="resolve_deadletter"))
    assert ops.get(act_url(letter, "resolve")).status_code == 403
    assert ops.get(act_url(letter, "retry")).status_code == 200


def test_strangers_see_nothing_and_a_part_sends_them_to_the_login(login: Login) -> None:
    letter = a_letter()
    User.objects.create_user("nobody", is_staff=True)
    browser = Client()
    browser.force_login(User.objects.get(username="nobody"))
    pages = (LIST, f"{LIST}{letter.pk}/", f"{LIST}{letter.pk}/live/", f"{LIST}{letter.pk}/provider/")
    assert [browser.get(url).status_code for url in pages] == [403] * 4
    assert "Dead letters" not in browser.get(reverse("admin:index")).content.decode()
    out = Client()
    assert out.get(LIST).status_code == 302
    assert out.get(f"{LIST}{letter.pk}/live/", headers=HTMX).headers["HX-Refresh"] == "true"


def test_nothing_acts_on_get_and_what_does_not_exist_is_404(login: Login) -> None:
    letter, ops = a_letter(), login("ops")
    for verb in ACTS:
        ops.get(act_url(letter, verb))
    ops.get(f"{LIST}retry/")
    assert [act.verb for act in letter.acts.all()] == ["arrived"]
    for url in (act_url(letter, "explode"), f"{LIST}0/", f"{LIST}0/retry/", f"{LIST}0/live/"):
        assert ops.get(url).status_code == 404


def test_provider_that_cannot_be_asked_says_so(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    letter = a_letter()

    def broken(letter: DeadLetter) -> dead_letter_facts.View:
        raise KeyError("x")

    monkeypatch.setattr(dead_letter_facts, "_payment_view", broken)
    shown = login("ops").get(f"{LIST}{letter.pk}/provider/").content.decode()
    assert "It could not be asked for; the log says why." in shown
    assert kind_of("KeyError") == DeadLetter.Kind.BUG
