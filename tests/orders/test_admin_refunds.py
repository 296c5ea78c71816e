"""Refunds by staff, and how a customer pays by bank transfer, as the order's and the payment's page show them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import zxingcpp
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from PIL import Image, ImageDraw
from pytest_django.fixtures import Settings

from orders.models import Order, Saga
from orders.services import steps
from orders.services.audit import StepRef
from orders.services.status import move_order, move_saga
from orders.services.timeline import timeline
from payments.gateways import gateway
from payments.models import OutgoingTransfer, Payment, PaymentEvent, ReviewItem
from payments.services import refunding
from payments.services.recording import absorb
from shop.kernel.models import OutboxMessage
from tests import factories
from tests.orders.test_admin import admin, form_of, login, page, waiting
from tests.payments.our_bank import arrives, opened, our_bank

__all__ = ["admin", "login"]  # fixtures

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def shop(settings: Settings) -> Iterator[None]:
    settings.PAYMENT_GATEWAYS = {"sandbox": "payments.gateways.sandbox.SandboxGateway"}
    with our_bank(settings):
        yield


def awaiting() -> Order:
    """An order of €39.98 that waits for a bank transfer."""
    factories.product()
    order = factories.place(payment_method="bank_transfer")
    steps.reserve_inventory(StepRef(order.number, 1, "inventory"))
    saga = Saga.objects.get(order=order)
    payment = opened(order.number, order.total, key=f"{order.number}/1/payment_hold")
    move_saga(saga, "waiting", payment=payment, deadline=timezone.now() + timedelta(days=14))
    move_order(saga.order, "awaiting_payment")
    order.refresh_from_db()
    return order


def shipped() -> tuple[Order, Payment]:
    """The same, paid and shipped."""
    order = awaiting()
    payment, saga = Payment.objects.get(), Saga.objects.get()
    arrives(payment, order.total)
    answer = gateway("bank_transfer").capture(payment.reference, order.total_money, "capture")
    absorb(payment, answer.payment, "call")
    move_saga(saga, "running")
    move_saga(saga, "completed")
    for status in ("paid", "shipped", "completed"):
        move_order(order, status)
    return order, payment


def places(order: Order, payment: Payment) -> dict[str, str]:
    """The two addresses where a refund is made."""
    return {
        "order": reverse("admin:orders_order_refund", args=[order.pk]),
        "payment": reverse("admin:payments_payment_refund", args=[payment.pk]),
    }


def payment_page(client: Client, payment: Payment) -> str:
    return client.get(reverse("admin:payments_payment_change", args=[payment.pk])).content.decode()


def filled(client: Client, url: str, **typed: Any) -> dict[str, Any]:
    return form_of(client.get(url)) | {"reason": ["A dent"]} | typed  # type: ignore[arg-type]


def asked() -> list[int]:
    return list(
        PaymentEvent.objects.filter(type="refund", outcome="requested").values_list("amount", flat=True)
    )


WHERE = pytest.mark.parametrize("where", ["order", "payment"])


# --- who may ---------------------------------------------------------------------------------------------


@WHERE
@pytest.mark.parametrize(
    ("role", "allowed"),
    [("viewer", False), ("orders", False), ("ops", False), ("payments", True), ("admin", True)],
)
def test_without_the_permission_there_is_no_button_and_no_page(
    role: str, allowed: bool, where: str, login: Callable[[str], Client]
) -> None:
    order, payment = shipped()
    url, client = places(order, payment)[where], login(role)
    shown = page(client, order) if where == "order" else payment_page(client, payment)
    assert (f'href="{url}"' in shown) is allowed
    assert client.get(url).status_code == (200 if allowed else 403)
    if not allowed:
        assert client.post(url, {"amount": "1", "reason": "because"}).status_code == 403
        again = reverse("admin:payments_payment_refund-again", args=[payment.pk])
        assert client.post(again, {"refund": "x"}).status_code == 403
    assert asked() == []


@WHERE
def test_above_the_limit_takes_a_further_permission(
    where: str, login: Callable[[str], Client], settings: Settings
) -> None:
    settings.REFUND_LIMIT = 1000
    order, payment = shipped()
    url, client = places(order, payment)[where], login("payments")
    assert "You may send back up to €10.00 at once." in client.get(url).content.decode()
    answer = client.post(url, filled(client, url, amount="10.01")).content.decode()
    assert re.search(r'<ul class="errorlist" id="id_amount_error"><li>You may send back up to €10.00', answer)
    assert asked() == []
    client.post(url, filled(client, url, amount="10.00"))
    User.objects.get().user_permissions.set(Permission.objects.filter(codename="refund_beyond_limit"))
    client.post(url, filled(client, url, amount="10.01"))
    assert asked() == [1000, 1001]


def test_the_further_permission_alone_is_not_enough(login: Callable[[str], Client]) -> None:
    order, payment = shipped()
    client = login("viewer")
    User.objects.get().user_permissions.set(Permission.objects.filter(codename="refund_beyond_limit"))
    assert [client.get(url).status_code for url in places(order, payment).values()] == [403, 403]


# --- what the page does ----------------------------------------------------------------------------------


def test_get_acts_on_nothing(admin: Client) -> None:
    order, payment = shipped()
    before = (PaymentEvent.objects.count(), OutboxMessage.objects.count())
    for url in places(order, payment).values():
        admin.get(url, {"amount": "5", "reason": "because"})
    admin.get(reverse("admin:payments_payment_refund-again", args=[payment.pk]))
    page(admin, order)
    payment_page(admin, payment)
    assert before == (PaymentEvent.objects.count(), OutboxMessage.objects.count())


@WHERE
def test_refund_is_prefilled_asked_for_and_shown_until_it_is_done(where: str, admin: Client) -> None:
    order, payment = shipped()
    url = places(order, payment)[where]
    form = filled(admin, url)
    assert form["amount"] == ["39.98"]
    answer = admin.post(url, form | {"amount": "5,00"}, follow=True).content.decode()
    assert "€5.00 are being refunded." in answer
    event = PaymentEvent.objects.get(type="refund")
    assert (event.amount, event.actor, event.detail) == (500, "admin", "A dent")
    assert "€5.00 <span" in re.sub(r"\s+", " ", page(admin, order))
    assert "Refund on its way" in page(admin, order)
    assert re.search(r"Refund asked for, not done yet:.*?€5\.00", payment_page(admin, payment), re.DOTALL)
    assert filled(admin, url)["amount"] == ["34.98"]

    refunding.perform(event.psp_reference)
    transfer = OutgoingTransfer.objects.get()
    assert reverse("admin:payments_outgoingtransfer_change", args=[transfer.pk]) in payment_page(
        admin, payment
    )
    PaymentEvent.objects.create(
        payment=payment, gateway=payment.gateway, type="refund", outcome="succeeded", psp_reference="booked",
        amount=500, currency="EUR", occurred_at=event.occurred_at, source="statement",
    )  # fmt: skip
    shown = page(admin, order)
    assert "Refund on its way" not in shown
    assert "partially refunded" in shown
    assert "Refunded" in shown


@WHERE
def test_a_form_sent_twice_refunds_once(where: str, admin: Client) -> None:
    order, payment = shipped()
    url = places(order, payment)[where]
    form = filled(admin, url)
    admin.post(url, form)
    again = admin.post(url, form, follow=True).content.decode()
    assert "This refund was asked for before; nothing was done again." in again
    assert asked() == [3998]
    assert OutboxMessage.objects.filter(name="RefundWorkflow").count() == 1


@WHERE
@pytest.mark.parametrize(
    ("amount", "why"),
    [
        ("39.99", "€39.99 are more than the €39.98 that can be refunded."),
        ("0", "The amount must be more than zero."),
        ("1.005", "can be read in two ways."),
        ("-5", "is not an amount"),
        ("", "This field is required."),
    ],
)
def test_a_wrong_amount_is_said_beside_its_field(amount: str, why: str, where: str, admin: Client) -> None:
    order, payment = shipped()
    url = places(order, payment)[where]
    answer = admin.post(url, filled(admin, url, amount=amount)).content.decode()
    (errors,) = re.findall(r'<ul class="errorlist" id="id_amount_error">(.*?)</ul>', answer)
    assert why in errors
    assert f'value="{amount}"' in answer or not amount
    assert asked() == []


def test_a_reason_is_asked_for(admin: Client) -> None:
    order, payment = shipped()
    url = places(order, payment)["order"]
    assert 'id="id_reason_error"' in admin.post(url, filled(admin, url, reason=" ")).content.decode()
    assert asked() == []


def test_two_people_at_once_do_not_refund_the_same_twice(admin: Client) -> None:
    order, payment = shipped()
    urls = places(order, payment)
    form = filled(admin, urls["order"], amount="5")
    admin.post(urls["payment"], filled(admin, urls["payment"], amount="5"))
    answer = admin.post(urls["order"], form)
    assert "Something was refunded meanwhile: €34.98 can be refunded now." in answer.content.decode()
    assert asked() == [500]
    admin.post(urls["order"], form_of(answer) | {"amount": "5", "reason": "Another dent"})  # type: ignore[arg-type]
    assert asked() == [500, 500]


def test_what_cannot_be_refunded_says_why(admin: Client) -> None:
    order = awaiting()
    assert "Nothing has been captured, so there is nothing to refund." in page(admin, order)
    form = {"amount": "5", "reason": "x", "form_id": "0d5e2c1c-9d4f-4b57-9d4e-3c6d1f1f3c11"}
    url = reverse("admin:orders_order_refund", args=[order.pk])
    assert "Nothing has been captured" in admin.post(url, form).content.decode()
    Saga.objects.update(status="compensating")
    assert "its money with it" in page(admin, order)
    assert "its money with it" in admin.post(url, form).content.decode()
    assert asked() == []


def test_an_order_without_a_payment_has_a_page_that_says_so(admin: Client) -> None:
    factories.product()
    url = reverse("admin:orders_order_refund", args=[factories.place().pk])
    assert "No payment has been opened yet." in admin.get(url).content.decode()


# --- what failed -----------------------------------------------------------------------------------------


def test_a_refund_of_unknown_outcome_is_tried_again_once(login: Callable[[str], Client]) -> None:
    order, payment = shipped()
    client = login("payments")
    again = reverse("admin:payments_payment_refund-again", args=[payment.pk])
    assert again not in payment_page(client, payment)
    key = refunding.refund(payment.pk, 500, "grace", "A dent", "f1").key
    refunding.give_up(key, "The bank does not answer.", refused=False)
    assert "Nobody knows whether €5.00 were refunded" in page(client, order)
    assert again in payment_page(client, payment)

    form = {"refund": key, "ids": payment.pk, "do": payment.pk}
    assert key in client.get(again).content.decode()
    assert "The refund is tried again." in client.post(again, form, follow=True).content.decode()
    client.post(again, form)
    assert OutboxMessage.objects.filter(name="RefundWorkflow").count() == 2
    assert ReviewItem.objects.get().resolved_by == "payments"
    assert page(client, order).count("Nobody knows") == 1  # only as history, in the timeline
    assert asked() == [500]


def test_a_refused_refund_is_told_and_can_be_asked_for_anew_only(admin: Client) -> None:
    order, payment = shipped()
    key = refunding.refund(payment.pk, 500, "grace", "A dent", "f1").key
    refunding.give_up(key, "Too late.", refused=True)
    shown = payment_page(admin, payment)
    assert "€5.00 could not be refunded: Too late." in shown
    assert "Try refund again" not in shown
    assert filled(admin, places(order, payment)["payment"])["amount"] == ["39.98"]
    assert "€5.00 could not be refunded: Too late." in page(admin, order)


def test_the_timeline_names_what_became_of_a_refund() -> None:
    order, payment = shipped()
    key = refunding.refund(payment.pk, 500, "grace", "A dent", "f1").key
    refunding.give_up(key, "Too late.", refused=True)
    for n, (type_, outcome) in enumerate([("refund", "succeeded"), ("refund_reversal", "succeeded")]):
        PaymentEvent.objects.create(
            payment=payment, gateway=payment.gateway, type=type_, outcome=outcome, psp_reference=f"r{n}",
            amount=200, currency="EUR", occurred_at=payment.created_at, source="statement",
        )  # fmt: skip
    told = [
        (entry.title, entry.state, entry.actor)
        for entry in timeline(order)
        if entry.kind == "payment" and "efund" in entry.title
    ]
    assert told == [
        ("Refund of €5.00 asked for", "requested", "grace"),
        ("Refund of €5.00 failed", "failed", "call"),
        ("€2.00 refunded", "succeeded", "statement"),
        ("Refund of €2.00 came back", "succeeded", "statement"),
    ]


def test_pages_cost_the_same_for_one_refund_and_many(admin: Client) -> None:
    order, payment = shipped()

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured_queries:
            page(admin, order)
            payment_page(admin, payment)
        return len(captured_queries)

    def fail(form_id: str) -> None:
        key = refunding.refund(payment.pk, 100, "grace", "A dent", form_id).key
        refunding.give_up(key, "No answer.", refused=False)

    fail("f0")
    few = queries()
    for n in range(1, 6):
        fail(f"f{n}")
    assert queries() == few


# --- how the customer pays -------------------------------------------------------------------------------


def decoded(svg: str) -> str:
    """What a banking app reads from the code: segno draws it as horizontal strokes of one module."""
    size = int(re.findall(r'width="(\d+)"', svg)[0])
    image = Image.new("L", (size, size), 255)
    draw = ImageDraw.Draw(image)
    (path,) = re.findall(r' d="([^"]+)"', svg)
    x, y = 0.0, 0.0
    for command, numbers in re.findall(r"([Mmh])([^Mmh]*)", path):
        given = [float(number) for number in re.findall(r"-?\d*\.?\d+", numbers)]
        if command == "h":
            draw.rectangle((x * 4, (y - 0.5) * 4, (x + given[0]) * 4 - 1, (y + 0.5) * 4 - 1), fill=0)
            x += given[0]
        else:
            x, y = (given[0], given[1]) if command == "M" else (x + given[0], y + given[1])
    (found,) = zxingcpp.read_barcodes(image)
    return str(found.text)


def test_an_order_that_awaits_a_transfer_shows_how_to_pay(admin: Client) -> None:
    order = awaiting()
    reference = Payment.objects.get(gateway="bank_transfer").reference
    text = page(admin, order)
    grouped = " ".join(reference[i : i + 4] for i in range(0, len(reference), 4))
    for shown in (
        "DE89 3704 0044 0532 0130 00",
        grouped,
        "Tee &amp; Kännchen GmbH",
        'data-copy="DE89370400440532013000"',
    ):
        assert shown in text, shown
    (svg,) = re.findall(r'<svg[^>]*class="segno".*?</svg>', text, re.DOTALL)
    assert "style" not in svg
    assert decoded(svg).splitlines()[5:10] == [
        "Tee & Kännchen GmbH", "DE89370400440532013000", "EUR39.98", "", reference,
    ]  # fmt: skip


def test_only_money_that_is_awaited_by_transfer_has_a_code(admin: Client) -> None:
    order, _payment = shipped()
    assert "segno" not in page(admin, order)
    sandbox = waiting()
    assert sandbox.payment_method == "sandbox"
    assert "segno" not in page(admin, sandbox)
    assert "How the customer pays" not in page(admin, sandbox)


def test_an_order_that_rolls_back_asks_for_no_money(admin: Client) -> None:
    order = awaiting()
    Saga.objects.update(status="compensating")
    assert "How the customer pays" not in page(admin, order)


def test_a_currency_without_girocode_and_a_shop_without_account_still_have_their_page(
    admin: Client, settings: Settings
) -> None:
    order = awaiting()
    Payment.objects.update(currency="CHF")
    text = page(admin, order)
    assert "DE89 3704 0044 0532 0130 00" in text
    assert "segno" not in text
    settings.BANK_IBAN, settings.PAYMENT_GATEWAYS = "", {}
    gateway.cache_clear()
    assert "How the customer pays" not in page(admin, order)
