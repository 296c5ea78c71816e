"""Above an amount one person asks and another approves: nothing before, once and exactly what was asked for after."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import Error, IntegrityError, connection, transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from orders.models import DeadLetter, Order, OrderEvent, Saga
from orders.services import dead_letters
from orders.services.timeline import timeline
from orders.workflows.types import FailedUndo, RetryInput
from payments.models import Allocation, OutgoingTransfer, PaymentEvent, ReviewItem
from payments.services import reviewing
from shop.kernel.models import ActRequest
from tests.payments.conftest import bank, our_account
from tests.payments.paper_bank import Entry, PaperBank, end, item, load, payment, pays, received, waiting

__all__ = ["bank", "our_account"]  # fixtures

pytestmark = pytest.mark.django_db

TOTAL = 3998
Login = Callable[[str], Client]


@pytest.fixture(autouse=True)
def two_people(settings: Settings, bank: PaperBank) -> None:
    settings.SECOND_PERSON_ABOVE = 1000


@pytest.fixture
def login() -> Login:
    """A browser of somebody of the payments' and ops' roles; `admin` is a superuser."""

    def log_in(name: str) -> Client:
        user, _new = User.objects.get_or_create(
            username=name, defaults={"is_staff": True, "is_superuser": name == "admin"}
        )
        user.groups.set(Group.objects.filter(name__in=["payments", "ops"]))
        browser = Client()
        browser.force_login(user)
        return browser

    return log_in


def address(row: Any, act: str) -> str:
    if isinstance(row, DeadLetter):
        return reverse("admin:dead_letter_act", args=[row.pk, act])
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_{act}", args=[row.pk])


def filled(client: Client, url: str, **typed: Any) -> dict[str, Any]:
    page = client.get(url).content.decode()
    tags = re.findall(r"<input[^>]*>", page)
    fields = [dict(re.findall(r'(\w[\w-]*)="([^"]*)"', tag)) for tag in tags]
    return {f["name"]: f.get("value", "") for f in fields if "name" in f} | typed


def send(client: Client, row: Any, act: str, **typed: Any) -> str:
    url = address(row, act)
    return text(client.post(url, filled(client, url, **typed), follow=True))


def text(response: HttpResponse | Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


def the_request() -> ActRequest:
    return ActRequest.objects.get(state="open")


# --- each act that takes two ---------------------------------------------------------------------------------


def confirm(bank: PaperBank, client: Client) -> tuple[Any, str, Callable[[], bool]]:
    order = waiting()
    told = send(client, order, "confirm-payment", reason="Seen.", bank_reference="B1")
    return order, told, lambda: received(order) == TOTAL


def accept(bank: PaperBank, client: Client) -> tuple[Any, str, Callable[[], bool]]:
    order = waiting()
    load(bank.statement(pays(order, TOTAL - 2000)))
    accepting = Permission.objects.get(codename="accept_difference")
    Group.objects.get(name="payments").permissions.add(accepting)
    told = send(client, item(), "accept-any", reason="A good customer.")
    return order, told, lambda: payment(order).totals().authorized == TOTAL - 2000


def discard(bank: PaperBank, client: Client) -> tuple[Any, str, Callable[[], bool]]:
    load(bank.statement(Entry(5000, "Interest")))
    told = send(client, item(), "discard", reason="Interest.")
    return item(), told, lambda: Allocation.objects.filter(purpose="discarded").exists()


def pay_back(bank: PaperBank, client: Client) -> tuple[Any, str, Callable[[], bool]]:
    load(bank.statement(Entry(5000, "For whom?")))
    told = send(client, item(), "pay-back", reason="Not ours.")
    return item(), told, lambda: OutgoingTransfer.objects.filter(amount=5000).exists()


def pay_back_received(bank: PaperBank, client: Client) -> tuple[Any, str, Callable[[], bool]]:
    order = waiting()
    load(bank.statement(pays(order, TOTAL - 1)))
    told = send(client, payment(order), "pay-back", reason="They asked.")
    return order, told, lambda: OutgoingTransfer.objects.filter(amount=TOTAL - 1).exists()


def refund(bank: PaperBank, client: Client) -> tuple[Any, str, Callable[[], bool]]:
    order = captured(bank)
    told = send(client, order, "refund", reason="Broken.")
    return order, told, lambda: PaymentEvent.objects.filter(type="refund", outcome="requested").count() == 1


def close(bank: PaperBank, client: Client) -> tuple[Any, str, Callable[[], bool]]:
    row = ReviewItem.objects.create(
        key="c", reason="chargeback", amount=5000, currency="EUR", detail="Taken back."
    )
    told = send(client, row, "close", resolution="We give it up.")
    return row, told, lambda: ReviewItem.objects.get(pk=row.pk).state == "closed"


def resolve(bank: PaperBank, client: Client) -> tuple[Any, str, Callable[[], bool]]:
    letter = a_letter()
    told = send(client, letter, "resolve", done="Refunded by hand.", evidence="B-1")
    return letter, told, lambda: DeadLetter.objects.get(pk=letter.pk).state == "resolved"


def captured(bank: PaperBank) -> Order:
    from orders.services import steps
    from orders.services.audit import StepRef

    order = waiting()
    load(bank.statement(pays(order)))
    steps.capture_payment(StepRef(order.number, 1, "payment_captured"))
    end(order, "completed")
    order.refresh_from_db()
    return order


def a_letter() -> DeadLetter:
    order = waiting()
    Saga.objects.filter(order=order).update(status="compensation_failed", reason="no parcel")
    Order.objects.filter(pk=order.pk).update(status="compensation_failed")
    failed = FailedUndo(
        order.number, 1, "payment_captured", "run", "The bank is closed.", "GatewayUnavailable"
    )
    return dead_letters.write(failed)


def retry_of(letter: DeadLetter) -> RetryInput:
    failed = FailedUndo(letter.saga.order.number, 1, letter.step, "run", "", "", retry=1)
    return RetryInput(dead_letter=letter.pk, actor="carla", undo=failed, remote=False)


ACTS = [confirm, accept, discard, pay_back, pay_back_received, refund, close, resolve]


@pytest.mark.parametrize("act", ACTS)
def test_nothing_is_done_before_another_person_approves_and_it_once_then(
    act: Callable[..., Any], bank: PaperBank, login: Login
) -> None:
    _row, told, done = act(bank, login("anna"))
    assert "a second person has to approve it" in told
    assert not done()
    asked = the_request()
    assert asked.asked_by.get_username() == "anna"
    ben = login("ben")
    url = address(asked, "approve")
    form = filled(ben, url)
    ben.post(url, form)
    asked.refresh_from_db()
    assert (asked.state, str(asked.decided_by)) == ("approved", "ben"), asked.outcome
    assert done()
    events, transfers = PaymentEvent.objects.count(), OutgoingTransfer.objects.count()
    assert "It was processed in the meantime by you" in text(ben.post(url, form, follow=True))
    assert (PaymentEvent.objects.count(), OutgoingTransfer.objects.count()) == (events, transfers)


@pytest.mark.parametrize("limit", [0, 5000])
@pytest.mark.parametrize("act", [confirm, accept, pay_back_received, refund, close, resolve])
def test_up_to_the_amount_and_without_one_a_single_person_is_enough(
    act: Callable[..., Any], limit: int, bank: PaperBank, login: Login, settings: Settings
) -> None:
    settings.SECOND_PERSON_ABOVE = limit
    _row, _told, done = act(bank, login("anna"))
    assert done()
    assert not ActRequest.objects.exists()


# --- who may approve -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["anna", "admin"])
def test_nobody_approves_or_declines_what_they_have_asked_for(
    name: str, bank: PaperBank, login: Login
) -> None:
    one = login(name)
    _order, _told, done = confirm(bank, one)
    asked = the_request()
    for act in ("approve", "decline"):
        assert one.get(address(asked, act)).status_code == 403
        assert one.post(address(asked, act), {"ids": asked.pk, "reason": "x"}).status_code == 403
        page = one.get(reverse("admin:kernel_actrequest_change", args=[asked.pk])).content.decode()
        assert address(asked, act) not in page
    assert not done()
    assert the_request() == asked


def test_the_database_itself_refuses_one_person_for_both(bank: PaperBank, login: Login) -> None:
    confirm(bank, login("anna"))
    asked = the_request()
    with pytest.raises(IntegrityError), transaction.atomic():
        ActRequest.objects.filter(pk=asked.pk).update(
            state="approved", decided_by=asked.asked_by, decided_at=timezone.now()
        )
    changes: list[dict[str, Any]] = [{"data": {}}, {"amount": 1}, {"asked_by": None}]
    for change in changes:
        with pytest.raises(Error), transaction.atomic():
            ActRequest.objects.filter(pk=asked.pk).update(**change)
    with pytest.raises(Error), transaction.atomic():
        asked.delete()


def test_without_the_permission_of_the_act_nobody_approves_it(bank: PaperBank, login: Login) -> None:
    confirm(bank, login("anna"))
    viewer = User.objects.create_user("vera", is_staff=True)
    viewer.groups.set(Group.objects.filter(name="viewer"))
    browser = Client()
    browser.force_login(viewer)
    assert browser.get(reverse("admin:kernel_actrequest_change", args=[the_request().pk])).status_code == 200
    assert browser.post(address(the_request(), "approve"), {"ids": the_request().pk}).status_code == 403


def test_what_somebody_asked_who_may_not_any_more_lapses(bank: PaperBank, login: Login) -> None:
    _order, _told, done = confirm(bank, login("anna"))
    User.objects.filter(username="anna").update(is_active=False)
    asked = the_request()
    assert "anna may not do this any more" in send(login("ben"), asked, "approve")
    asked.refresh_from_db()
    assert asked.state == "lapsed"
    assert not done()


# --- asked for once, declined, withdrawn ---------------------------------------------------------------------


def test_a_form_sent_twice_and_a_second_person_who_asks_the_same_make_one_request(
    bank: PaperBank, login: Login
) -> None:
    anna, order = login("anna"), waiting()
    url = address(order, "confirm-payment")
    form = filled(anna, url, reason="Seen.")
    anna.post(url, form)
    assert "You have asked for it already" in text(anna.post(url, form, follow=True))
    assert "nna has asked for it already" in send(login("ben"), order, "confirm-payment", reason="Seen too.")
    assert ActRequest.objects.count() == 1


def test_a_declined_request_does_nothing_and_can_be_asked_for_anew(bank: PaperBank, login: Login) -> None:
    order, _told, done = confirm(bank, login("anna"))
    asked = the_request()
    assert "This field is required" in send(login("ben"), asked, "decline", reason=" ")
    assert "It is declined" in send(login("ben"), asked, "decline", reason="Not on the statement.")
    assert not done()
    titles = [(entry.title, entry.actor) for entry in timeline(order) if entry.kind == "request"]
    assert titles == [("A second person is asked", "anna"), ("Request: declined", "ben")]
    send(login("anna"), order, "confirm-payment", reason="Look again.")
    assert the_request() != asked


def test_who_asked_can_withdraw_it_and_nobody_else(bank: PaperBank, login: Login) -> None:
    confirm(bank, login("anna"))
    asked = the_request()
    assert login("ben").post(address(asked, "withdraw"), {"ids": asked.pk}).status_code == 403
    assert "It is withdrawn" in send(login("anna"), asked, "withdraw")
    assert not ActRequest.objects.filter(state="open").exists()


# --- the state has moved -------------------------------------------------------------------------------------


def test_a_request_lapses_when_other_money_has_come_meanwhile(bank: PaperBank, login: Login) -> None:
    order, _told, _done = confirm(bank, login("anna"))
    load(bank.statement(pays(order, 500)))
    asked = the_request()
    assert "processed in the meantime" in send(login("ben"), asked, "approve")
    asked.refresh_from_db()
    assert asked.state == "lapsed"
    assert received(order) == 500


def test_requests_lapse_with_the_end_of_what_they_are_about(bank: PaperBank, login: Login) -> None:
    order, _told, _done = confirm(bank, login("anna"))
    end(order, "cancelled")
    discard(bank, login("anna"))
    other = waiting(("TEA", 3))
    reviewing.assign(item().pk, "carla", [reviewing.Share(other.number)])
    letter = a_letter()
    send(login("anna"), letter, "resolve", done="By hand.", evidence="B-1")
    dead_letters.retry(letter.pk, "carla", "Again.", key="r")
    dead_letters.close_after_retry(retry_of(letter))
    told = {row.act: (row.state, row.outcome) for row in ActRequest.objects.all()}
    assert told["confirm-payment"] == ("lapsed", "The order is rolling back.")
    assert told["discard"] == ("lapsed", f"Processed by carla: €50.00 are assigned to {other.number}.")
    assert told["resolve"] == ("lapsed", "It was resolved by carla: The retried undo succeeded.")


def test_what_was_done_meanwhile_is_not_approved_as_if_it_were_done_now(
    bank: PaperBank, login: Login, settings: Settings
) -> None:
    order, _told, _done = confirm(bank, login("anna"))
    settings.SECOND_PERSON_ABOVE = 0
    send(login("carla"), order, "confirm-payment", reason="Seen.", bank_reference="B1")
    asked = the_request()
    assert "was confirmed before; nothing was done again" in send(login("ben"), asked, "approve")
    asked.refresh_from_db()
    assert (asked.state, received(order)) == ("lapsed", TOTAL)


def test_a_write_off_lapses_when_the_rest_comes_after_all(bank: PaperBank, login: Login) -> None:
    order, _told, _done = accept(bank, login("anna"))
    load(bank.statement(pays(order, 2000)))
    assert (ActRequest.objects.get().state, ActRequest.objects.get().outcome) == (
        "lapsed", "Processed by shop: The rest has come.",
    )  # fmt: skip


def test_a_comment_on_a_letter_does_not_void_what_was_asked(bank: PaperBank, login: Login) -> None:
    letter, _told, done = resolve(bank, login("anna"))
    dead_letters.comment(letter.pk, "carla", "I have seen the transfer.", key="c")
    send(login("ben"), the_request(), "approve")
    assert done()


# --- both names, and where it is shown -----------------------------------------------------------------------


def test_the_books_and_the_timeline_name_both(bank: PaperBank, login: Login) -> None:
    order, _told, _done = confirm(bank, login("anna"))
    send(login("ben"), the_request(), "approve")
    assert PaymentEvent.objects.get(type="receipt").actor == "anna and ben"
    assert OrderEvent.objects.get(kind="confirm").actor == "anna and ben"
    entries = [(entry.title, entry.actor) for entry in timeline(order) if entry.kind == "request"]
    assert entries == [("A second person is asked", "anna"), ("Request: approved and done", "ben")]


def test_order_review_item_letter_and_index_show_what_waits(bank: PaperBank, login: Login) -> None:
    anna, ben = login("anna"), login("ben")
    order = confirm(bank, anna)[0]
    row = discard(bank, anna)[0]
    letter = resolve(bank, anna)[0]
    for url in (
        reverse("admin:orders_order_change", args=[order.pk]),
        reverse("admin:payments_reviewitem_change", args=[row.pk]),
        reverse("admin:dead_letter", args=[letter.pk]),
    ):
        assert "anna asks:" in text(ben.get(url))
    index = text(ben.get(reverse("admin:index")))
    assert "3 Requests that wait for you as a second person" in index
    index = text(anna.get(reverse("admin:index")))
    assert "Requests that wait for you as a second person 3 for others to decide." in index
    listed = text(ben.get(reverse("admin:kernel_actrequest_changelist") + "?state__exact=open&decision=mine"))
    assert "Discard" in listed


def test_of_several_at_once_those_above_the_amount_are_left_to_their_own_page(
    bank: PaperBank, login: Login
) -> None:
    small, large = waiting(), waiting(("TEA", 3))
    load(bank.statement(pays(small, TOTAL - 900)))
    anna = login("anna")
    url = reverse("admin:orders_order_confirm-payment_many") + f"?ids={small.pk},{large.pk}"
    form = filled(anna, url, reason="Seen.", ids=[small.pk, large.pk], do=[small.pk, large.pk])
    told = text(anna.post(url, form))
    assert "a second person has to approve it. Do it from its own page" in told
    assert (received(small), received(large)) == (TOTAL, 0)
    assert not ActRequest.objects.exists()


# --- at once -------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_two_who_approve_at_once_have_it_done_once(bank: PaperBank, login: Login) -> None:
    order, _told, _done = confirm(bank, login("anna"))
    asked = the_request()
    people = [login("ben"), login("carla"), login("dora")]
    url = address(asked, "approve")
    forms = [filled(one, url) for one in people]

    def press(one: Client, form: dict[str, Any]) -> str:
        try:
            return text(one.post(url, form, follow=True))
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as pool:
        told = list(pool.map(press, people, forms))
    assert sum("processed in the meantime" in page for page in told) == 2
    assert received(order) == TOTAL
    assert PaymentEvent.objects.filter(type="receipt").count() == 1
    assert ActRequest.objects.get().state == "approved"
