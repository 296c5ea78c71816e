"""The staff's order screens: who may do what, what a page does and does not do, and what a list costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from orders.models import Order, OrderEvent, Saga
from orders.services import lifecycle, steps
from orders.services.audit import StepRef
from orders.services.status import move_order, move_saga
from payments.gateways.base import EventOutcome, EventType, GatewayEvent
from payments.models import PaymentEvent
from payments.services.recording import open_payment, record
from shop.kernel.models import OutboxMessage
from shop.kernel.money import Money
from tests import factories

pytestmark = pytest.mark.django_db

ACTS = {
    "start": "Start saga",
    "cancel": "Cancel order",
    "confirm-payment": "Confirm payment",
    "extend-deadline": "Extend deadline",
}
MAY = {
    "viewer": set(),
    "orders": {"start", "cancel", "extend-deadline"},
    "payments": {"confirm-payment"},
    "ops": set(),
}
TODAY = timezone.now().date().isoformat()


@pytest.fixture(autouse=True)
def shop(settings: Settings) -> Iterator[None]:
    from payments.gateways import gateway

    settings.PAYMENT_GATEWAYS = {"sandbox": "payments.gateways.sandbox.SandboxGateway"}
    gateway.cache_clear()
    yield
    gateway.cache_clear()


@pytest.fixture
def login() -> Callable[[str], Client]:
    """A browser in which somebody of this role is logged in; `admin` is a superuser."""

    def logged_in(role: str) -> Client:
        user = User.objects.create_user(role, is_staff=True, is_superuser=role == "admin")
        user.groups.set(Group.objects.filter(name=role))
        client = Client()
        client.force_login(user)
        return client

    return logged_in


@pytest.fixture
def admin(login: Callable[[str], Client]) -> Client:
    return login("admin")


def waiting(*lines: tuple[str, int], paid: int = 0, **changes: Any) -> Order:
    """An order that waits for its money, with `paid` (minor units) received."""
    order = factories.place(*lines, **changes)
    key = f"{order.number}/1/payment_hold"
    steps.reserve_inventory(StepRef(order.number, 1, "inventory"))
    saga = Saga.objects.get(order=order)
    payment = open_payment("sandbox", order.number, order.total_money, key)
    payment.reference = f"pay_{order.number}"
    payment.save()
    move_saga(saga, "waiting", payment=payment, deadline=timezone.now() + timedelta(days=14))
    move_order(saga.order, "awaiting_payment")
    if paid:
        receipt = GatewayEvent(
            type=EventType.RECEIPT,
            outcome=EventOutcome.SUCCEEDED,
            psp_reference=f"rcv_{order.number}",
            payment_reference=payment.reference,
            merchant_reference=order.number,
            money=Money(paid, order.currency),
            occurred_at=datetime.now(UTC),
        )
        record(payment, [receipt], "webhook")
    order.refresh_from_db()
    return order


def address(act: str, order: Order) -> str:
    return reverse(f"admin:orders_order_{act}", args=[order.pk])


def page(client: Client, order: Order) -> str:
    return client.get(reverse("admin:orders_order_change", args=[order.pk])).content.decode()


def form_of(response: HttpResponse) -> dict[str, Any]:
    """What a browser would send back: every named field of the page's form, with what is in it."""
    text = response.content.decode()
    text = text[text.index('<form method="post" novalidate') :]
    text = text[: text.index("</form>")]
    fields: dict[str, Any] = {}
    for tag in re.findall(r"<input[^>]*>", text):
        found = dict(re.findall(r'(name|value)="([^"]*)"', tag))
        if "name" in found:
            fields.setdefault(found["name"], []).append(found.get("value", ""))
    for name in re.findall(r'<textarea[^>]*name="([^"]*)"', text):
        fields[name] = [""]
    return fields


# --- who may do what -------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", MAY)
@pytest.mark.parametrize("act", ACTS)
def test_an_act_without_its_permission_has_no_button_and_no_page(
    role: str, act: str, login: Callable[[str], Client]
) -> None:
    factories.product()
    order = waiting()
    client = login(role)
    allowed = act in MAY[role]

    assert (ACTS[act] in page(client, order)) is allowed
    assert (
        f'value="{act}"' in client.get(reverse("admin:orders_order_changelist")).content.decode()
    ) is allowed
    for url in (address(act, order), f"{reverse(f'admin:orders_order_{act}_many')}?ids={order.pk}"):
        assert client.get(url).status_code == (200 if allowed else 403)
        if not allowed:
            assert client.post(url, {"reason": "because", "ids": order.pk, "do": order.pk}).status_code == 403
    assert OrderEvent.objects.exclude(kind__in=["placed", "start"]).count() == 0


def test_strangers_are_sent_to_the_login() -> None:
    factories.product()
    order = waiting()
    for act in ACTS:
        assert "/login/" in Client().get(address(act, order)).headers["Location"]
    live = Client().get(reverse("admin:orders_order_live", args=[order.pk]))
    assert live.headers["HX-Refresh"] == "true"
    assert order.number not in live.content.decode()


def test_only_the_engine_people_see_the_way_into_temporal(
    login: Callable[[str], Client], settings: Settings
) -> None:
    settings.TEMPORAL_UI_URL = "https://temporal.example"
    factories.product()
    order = waiting()
    link = f"https://temporal.example/namespaces/default/workflows/order-saga-{order.number}"
    assert link in page(login("ops"), order)
    assert link not in page(login("payments"), order)


# --- what a page does ------------------------------------------------------------------------------------


def test_get_acts_on_nothing(admin: Client) -> None:
    factories.product()
    order = waiting()
    before = (OrderEvent.objects.count(), OutboxMessage.objects.count(), PaymentEvent.objects.count())
    for act in ACTS:
        admin.get(address(act, order))
        admin.get(f"{reverse(f'admin:orders_order_{act}_many')}?ids={order.pk}&reason=because")
    page(admin, order)
    assert before == (OrderEvent.objects.count(), OutboxMessage.objects.count(), PaymentEvent.objects.count())


def test_what_is_not_possible_is_greyed_and_says_why(admin: Client) -> None:
    factories.product()
    text = page(admin, waiting())
    assert "Its saga is under way (waiting for payment)." in text
    assert "There is no shipment yet." in text


def test_confirming_writes_down_who_how_much_and_why(admin: Client) -> None:
    factories.product()
    order = waiting(paid=1000)
    form = form_of(admin.get(address("confirm-payment", order)))  # type: ignore[arg-type]
    assert form["amount"] == ["29.98"]  # of 39.98, 10.00 is there
    form |= {"reason": "seen on the statement", "bank_reference": "B-7"}
    answer = admin.post(address("confirm-payment", order), form, follow=True)

    assert "The payment is confirmed" in answer.content.decode()
    event = OrderEvent.objects.get(kind="confirm")
    assert (event.actor, event.reason, event.data["amount"]) == ("admin", "seen on the statement", 2998)
    assert order.received.amount == 3998
    assert OutboxMessage.objects.get(name="confirm_payment").state == "queued"
    text = page(admin, order)
    assert "queued" in text
    assert "B-7" in text


def test_a_form_sent_twice_counts_once(admin: Client) -> None:
    factories.product()
    order = waiting()
    url = address("confirm-payment", order)
    form = form_of(admin.get(url)) | {"amount": "10,00", "reason": "seen"}  # type: ignore[arg-type]
    admin.post(url, form)
    again = admin.post(url, form, follow=True)
    assert "was confirmed before; nothing was done again" in again.content.decode()
    assert order.received.amount == 1000
    assert OrderEvent.objects.filter(kind="confirm").count() == 1


def test_a_stale_page_gets_the_reason(admin: Client) -> None:
    factories.product()
    order = waiting()
    url = address("cancel", order)
    form = form_of(admin.get(url)) | {"reason": "changed their mind"}  # type: ignore[arg-type]
    Saga.objects.update(status="completed")
    assert "The order is completed: paid and shipped." in admin.post(url, form).content.decode()
    assert not OrderEvent.objects.filter(kind="cancel").exists()


def test_a_page_of_an_earlier_attempt_does_not_touch_the_later_one(admin: Client) -> None:
    factories.product()
    order = waiting()
    form = form_of(admin.get(address("cancel", order))) | {"reason": "no"}  # type: ignore[arg-type]
    Saga.objects.update(status="cancelled")
    Order.objects.update(status="cancelled")
    lifecycle.start(order.number, "someone else")
    assert (
        "started again meanwhile (attempt 2)" in admin.post(address("cancel", order), form).content.decode()
    )
    assert not OrderEvent.objects.filter(kind="cancel").exists()


def test_a_receipt_of_an_earlier_attempt_is_not_counted_silently(admin: Client) -> None:
    factories.product()
    order = waiting()
    form = {"amount": "10", "received_on": TODAY, "bank_reference": "B-1", "reason": "seen"}
    form["form_id"] = "0d5e2c1c-9d4f-4b57-9d4e-3c6d1f1f3c11"
    admin.post(address("confirm-payment", order), form)
    first = Saga.objects.get()
    Saga.objects.update(status="cancelled")
    Order.objects.update(status="cancelled")
    lifecycle.start(order.number, "ada")
    later = Saga.objects.get(attempt=2)
    assert first.payment
    payment = open_payment("sandbox", order.number, order.total_money, f"{order.number}/2/payment_hold")
    move_saga(later, "running")
    move_saga(later, "waiting", payment=payment, deadline=first.deadline)
    answer = admin.post(address("confirm-payment", order), form).content.decode()
    assert "booked for an earlier attempt" in answer
    assert OrderEvent.objects.filter(kind="confirm").count() == 1


@pytest.mark.parametrize("amount", ["abc", "-1", "1.005", "", "0"])
def test_a_wrong_amount_is_said_at_its_field(amount: str, admin: Client) -> None:
    factories.product()
    order = waiting()
    url = address("confirm-payment", order)
    form = form_of(admin.get(url)) | {"amount": amount, "reason": "seen"}  # type: ignore[arg-type]
    answer = admin.post(url, form)
    assert answer.status_code == 200
    assert "errorlist" in answer.content.decode()
    assert order.received.amount == 0


def test_the_deadline_is_extended_once(admin: Client) -> None:
    factories.product()
    order = waiting()
    url = address("extend-deadline", order)
    form = form_of(admin.get(url)) | {"reason": "asked on the phone"}  # type: ignore[arg-type]
    before = Saga.objects.get().deadline
    admin.post(url, form)
    assert "The deadline is that one already." in admin.post(url, form, follow=True).content.decode()
    after = Saga.objects.get().deadline
    assert before
    assert after
    assert timedelta(days=6) < after - before <= timedelta(days=7)


# --- several at once -------------------------------------------------------------------------------------


def test_the_bulk_page_tells_per_order_what_will_happen_and_what_did(admin: Client) -> None:
    factories.product(on_hand=50)
    first, second = waiting(), waiting(paid=1000)
    left_out = factories.place()
    orders = [first, second, left_out]
    listing = reverse("admin:orders_order_changelist")
    chosen = {"action": "confirm-payment", "_selected_action": [order.pk for order in orders]}
    asked = admin.post(listing, chosen, follow=True)
    text = asked.content.decode()
    assert "€39.98 of €39.98 are open." in text
    assert "€29.98 of €39.98 are open." in text
    assert "No payment has been opened yet." in text
    assert OrderEvent.objects.filter(kind="confirm").count() == 0

    lifecycle.cancel(first.number, "someone else", "meanwhile")
    Saga.objects.filter(order=first).update(status="compensating")
    form = form_of(asked) | {"reason": "on the statement"}  # type: ignore[arg-type]
    done = admin.post(reverse("admin:orders_order_confirm-payment_many"), form).content.decode()
    assert [first.received.amount, second.received.amount] == [0, 3998]
    for outcome in ("refused", "done", "left out"):
        assert re.search(rf'vk-label vk-\w+">{outcome}<', done), outcome

    again = admin.post(reverse("admin:orders_order_confirm-payment_many"), form).content.decode()
    assert "done before" in again
    assert second.received.amount == 3998


# --- the list --------------------------------------------------------------------------------------------


def test_the_list_costs_the_same_for_few_and_many(admin: Client) -> None:
    factories.product(on_hand=500)
    listing = reverse("admin:orders_order_changelist")

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert admin.get(listing).status_code == 200
        return len(captured)

    waiting(paid=1000)
    few = queries()
    for _ in range(12):
        waiting(paid=500)
    assert queries() == few
    assert few <= 8


def test_the_order_page_costs_the_same_for_short_and_long_stories(admin: Client) -> None:
    factories.product()
    order = waiting()

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            page(admin, order)
        return len(captured)

    short = queries()
    for day in range(1, 9):
        deadline = timezone.now() + timedelta(days=20 + day)
        lifecycle.extend_deadline(order.number, "ada", "again", deadline)
    assert queries() == short


def test_the_list_shows_money_of_the_attempt_that_counts(admin: Client) -> None:
    factories.product()
    order = waiting(paid=1000)
    assert "€10.00" in admin.get(reverse("admin:orders_order_changelist")).content.decode()
    Saga.objects.update(status="cancelled")
    Order.objects.update(status="cancelled")
    lifecycle.start(order.number, "ada")
    assert "€10.00" not in admin.get(reverse("admin:orders_order_changelist")).content.decode()


@pytest.mark.parametrize("text", ["number", "Grace", "grace@", "COFFEE"])
def test_orders_are_found_by_number_customer_mail_and_sku(text: str, admin: Client) -> None:
    factories.product("TEA", on_hand=50)
    factories.product("COFFEE", on_hand=50)
    other = factories.place(("TEA", 1))
    wanted = factories.place(
        ("TEA", 1), ("COFFEE", 1), customer_name="Grace Hopper", customer_email="grace@example.com"
    )
    query = wanted.number if text == "number" else text
    found = admin.get(reverse("admin:orders_order_changelist"), {"q": query}).content.decode()
    assert found.count(f">{wanted.number}<") == 1
    assert other.number not in found


def test_the_deadline_filter_shows_what_is_due_within_two_days(admin: Client) -> None:
    factories.product(on_hand=50)
    soon, later = waiting(), waiting()
    Saga.objects.filter(order=soon).update(deadline=timezone.now() + timedelta(hours=40))
    found = admin.get(reverse("admin:orders_order_changelist"), {"deadline": "soon"}).content.decode()
    assert soon.number in found
    assert later.number not in found
    index = admin.get(reverse("admin:index")).content.decode()
    assert re.search(r"<strong>1</strong> <span>Unpaid orders", index)


# --- an order's page -------------------------------------------------------------------------------------


def test_the_page_asks_again_while_the_saga_runs_and_stops_when_it_ends(admin: Client) -> None:
    factories.product()
    order = waiting()
    live = reverse("admin:orders_order_live", args=[order.pk])
    OutboxMessage.objects.update(state="delivered")
    found = re.search(r'hx-get="([^"]*)" hx-trigger="every 1s"', page(admin, order))
    assert found
    assert admin.get(found.group(1)).status_code == 204  # nothing has changed, nothing moves

    saga = Saga.objects.get()
    move_saga(saga, "compensating", reason="no money")
    changed = admin.get(found.group(1))
    assert "Rolling back: no money" in changed.content.decode()
    assert "hx-swap-oob" in changed.content.decode()
    move_saga(saga, "cancelled")
    Order.objects.update(status="cancelled")
    assert "hx-trigger" not in admin.get(live).content.decode()


def test_notes_are_the_only_thing_that_can_be_written_over(admin: Client) -> None:
    factories.product()
    order = waiting()
    url = reverse("admin:orders_order_change", args=[order.pk])
    admin.post(url, {"notes": "fragile", "total": 1, "status": "completed", "customer_name": "x"})
    order.refresh_from_db()
    assert (order.notes, order.total, order.status) == ("fragile", 3998, "awaiting_payment")
    assert OrderEvent.objects.get(kind="note").actor == "admin"
    assert (
        admin.post(reverse("admin:orders_order_delete", args=[order.pk]), {"post": "yes"}).status_code == 403
    )


def test_the_packing_slip_is_a_pdf_without_prices(admin: Client) -> None:
    factories.product(name="Größe Łódź 你")
    order = factories.place()
    url = reverse("admin:orders_order_slip", args=[order.pk])
    page = reverse("admin:orders_order_change", args=[order.pk])
    assert url not in admin.get(page).content.decode()
    assert "Nothing is packed before it is paid" in admin.get(url, follow=True).content.decode()
    Order.objects.update(status="paid")
    assert url in admin.get(page).content.decode()
    answer = admin.get(url)
    assert answer.headers["Content-Type"] == "application/pdf"
    assert answer.content.startswith(b"%PDF")


def test_staff_enter_the_tracking_number(admin: Client) -> None:
    factories.product()
    order = waiting()
    saga = Saga.objects.get()
    move_saga(saga, "running")
    order = saga.order
    move_order(order, "paid")
    steps.schedule_shipping(StepRef(order.number, 1, "shipping"))
    admin.post(address("tracking", order), {"tracking_number": "JJD0001"})
    assert "JJD0001" in page(admin, order)
    assert OrderEvent.objects.get(kind="tracking").actor == "admin"


# --- taking an order -------------------------------------------------------------------------------------


def filled_in(client: Client, **changes: Any) -> dict[str, Any]:
    response = client.get(reverse("admin:orders_order_add"))
    text = response.content.decode()
    found = re.search(r'name="form_id" value="([^"]*)"', text)
    assert found
    return {
        "form_id": found.group(1),
        "form-TOTAL_FORMS": "3",
        "form-INITIAL_FORMS": "0",
        "form-0-sku": "TEA",
        "form-0-quantity": "2",
        "form-1-sku": "",
        "form-1-quantity": "1",
        "form-2-sku": "",
        "form-2-quantity": "1",
        "customer_name": "Ada Lovelace",
        "customer_email": "ada@example.com",
        "language": "en",
        "shipping_name": "Ada Lovelace",
        "shipping_street": "Analytical Row 1",
        "shipping_postal_code": "10115",
        "shipping_city": "Berlin",
        "shipping_country": "DE",
        "currency": "EUR",
        "payment_method": "sandbox",
        "carrier": "manual",
        "shipping_cost": "4,90",
        "discount": "1.00",
        **changes,
    }


def test_staff_take_an_order_once_however_often_they_click(admin: Client) -> None:
    factories.product()
    form = filled_in(admin)
    url = reverse("admin:orders_order_add")
    for _ in range(2):
        answer = admin.post(url, form)
        order = Order.objects.get()
        assert answer.headers["Location"] == reverse("admin:orders_order_change", args=[order.pk])
    assert (order.placed_by, order.total) == ("admin", 2 * 1999 + 490 - 100)
    assert [line.quantity for line in order.lines.all()] == [2]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"form-0-sku": "NO-SUCH"}, "There is no product &#x27;NO-SUCH&#x27; for sale."),
        ({"form-0-quantity": "0"}, "greater than or equal to 1"),
        ({"form-0-quantity": "11"}, "Not in stock: 10 available."),
        ({"form-0-sku": ""}, "This field is required"),
        ({"customer_email": "nobody"}, "Enter a valid email address."),
        ({"shipping_country": "X1"}, "is not an ISO 3166 code"),
        ({"billing_name": "Only a name"}, "This is needed."),
        ({"discount": "1000"}, "The discount is below zero or above the whole order."),
        ({"shipping_cost": "four"}, "is not an amount"),
        ({"currency": "USD"}, "is sold in EUR"),
        ({"currency": "€"}, "is not an ISO 4217 currency code"),
    ],
)
def test_what_is_wrong_with_an_order_is_said_at_its_field(
    changes: dict[str, str], sentence: str, admin: Client
) -> None:
    factories.product()
    form = filled_in(admin, **changes)
    if changes.get("form-0-sku") == "":
        form["form-0-quantity"] = "5"
    answer = admin.post(reverse("admin:orders_order_add"), form)
    assert answer.status_code == 200
    assert sentence in answer.content.decode()
    assert not Order.objects.exists()


def test_an_order_without_lines_is_refused(admin: Client) -> None:
    form = filled_in(admin, **{"form-0-sku": "", "form-0-quantity": "1"})
    assert "1 to 200 lines" in admin.post(reverse("admin:orders_order_add"), form).content.decode()
    more = admin.post(reverse("admin:orders_order_add"), form | {"more": "1"}).content.decode()
    assert 'name="form-5-sku"' in more
    assert "errornote" not in more
