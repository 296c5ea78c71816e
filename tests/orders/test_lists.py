"""The staff's lists: what the search finds, tabs, what was looked at last, days from and to, and the list as a file."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.translation import gettext, gettext_lazy, override
from pytest_django import DjangoDbBlocker
from pytest_django.fixtures import Settings

from orders.models import Order, Saga, Shipment
from orders.services.reconciling import messages, money, sagas, stock
from orders.services.reconciling.finding import Look
from payments.models import Allocation, BankTransaction, OutgoingTransfer, Payment, ReviewItem
from payments.references import creditor_reference
from shop import demo_orders
from shop.kernel.admin import exporting, lists
from shop.management.commands.seed_demo import Command
from shop.work_queue import tasks
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db
ORDERS = "/admin/orders/order/"
LISTS = {
    ORDERS: Order,
    "/admin/payments/payment/": Payment,
    "/admin/payments/banktransaction/": BankTransaction,
    "/admin/payments/reviewitem/": ReviewItem,
    "/admin/payments/outgoingtransfer/": OutgoingTransfer,
}


@pytest.fixture
def admin() -> Client:
    client = Client()
    client.force_login(User.objects.create_user("grace", is_staff=True, is_superuser=True))
    return client


@pytest.fixture(scope="module")
def _written(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """600 orders of two years, with their payments, bookings and troubles; once for all tests here."""
    with django_db_blocker.unblock():
        Command()._products()
        demo_orders.make(600)
        yield
        with connection.cursor() as cursor:
            cursor.execute(
                "TRUNCATE orders_order, orders_product, payments_payment, payments_bankstatement,"
                " payments_receivable, payments_banktransaction CASCADE"
            )


@pytest.fixture
def years(_written: None, db: None, settings: Settings) -> None:
    settings.DEBUG = True
    settings.PAYMENT_GATEWAYS = {"bank_transfer": "payments.gateways.bank_transfer.BankTransferGateway"}


def shown(client: Client, url: str) -> list[Any]:
    answer = client.get(url)
    assert answer.status_code == 200, url
    return list(answer.context["cl"].result_list)


def numbers(client: Client, query: str) -> list[str]:
    return [order.number for order in shown(client, f"{ORDERS}?{query}")]


def found(client: Client, words: str) -> list[str]:
    answer = client.get(ORDERS, {"q": words})
    return [order.number for order in answer.context["cl"].result_list]


# --- years of orders -------------------------------------------------------------------------------------


def test_the_books_of_demo_orders_agree_with_each_other(years: None) -> None:
    with asyncio.Runner() as runner:
        look = Look(runner)
        for check in (
            stock.reservations, stock.shipments, money.orders, money.statements, messages.webhooks, sagas.orders
        ):  # fmt: skip
            assert list(check(look)) == []
    assert Order.objects.count() == 600
    statuses = set(Order.objects.values_list("status", flat=True))
    assert {"completed", "cancelled", "awaiting_payment"} <= statuses
    assert not Order.objects.filter(status="awaiting_payment", way="saga").exists()
    for payment in Payment.objects.all():
        assert payment.reference == creditor_reference(payment.merchant_reference, 1)
        assert not payment.created_at > timezone.now()
    for order in Order.objects.prefetch_related("lines"):
        assert order.total == sum(line.amount for line in order.lines.all()) + order.shipping_cost


# --- search ----------------------------------------------------------------------------------------------


def test_an_order_is_found_by_each_of_its_keys(years: None, admin: Client) -> None:
    shipment = Shipment.objects.order_by("pk")[40]
    order = shipment.saga.order
    payment = shipment.saga.payment
    assert payment
    booking = BankTransaction.objects.get(allocations__payment=payment)
    spaced = " ".join(booking.counterparty_iban[i : i + 4] for i in range(0, 22, 4))
    rf = " ".join(payment.reference[i : i + 4] for i in range(0, len(payment.reference), 4))
    first, *_, last = order.customer_name.split()
    for words in (
        order.number,
        order.number.lower(),
        order.number.replace("-", " "),
        order.number[4:],
        payment.reference,
        rf.lower(),
        order.customer_name,
        f"{last.upper()} {first.lower()}",
        order.customer_email,
        order.customer_email.upper(),
        order.customer_email.partition("@")[0],
        booking.counterparty_iban,
        spaced.lower(),
        str(order.total_money.decimal),
        f"€{order.total_money.decimal}".replace(".", ","),
        shipment.tracking_number,
        f"{shipment.tracking_number[:10]} {shipment.tracking_number[10:]}",
        f"  {order.number} ",
    ):
        assert order.number in found(admin, words), words
    for words in (order.number, payment.reference, rf, shipment.tracking_number):
        assert found(admin, words) == [order.number], words


def test_the_payer_is_found_where_the_customer_has_another_name(years: None, admin: Client) -> None:
    booking = BankTransaction.objects.filter(allocations__payment__isnull=False).order_by("pk")[5]
    twin = BankTransaction(**{f.attname: getattr(booking, f.attname) for f in booking._meta.concrete_fields})
    twin.pk, twin.key, twin.counterparty_name = None, "another", "Rosalind Example-Payer"
    twin.save()
    payment = Allocation.objects.get(transaction=booking).payment
    Allocation.objects.create(
        transaction=twin, purpose="matched", amount=1, payment=payment, key="another", actor="test"
    )
    assert payment
    assert found(admin, "example rosalind") == [payment.merchant_reference]
    for url, words in (
        ("/admin/payments/payment/", "Rosalind"),
        ("/admin/payments/banktransaction/", "Rosalind"),
    ):
        assert len(shown(admin, f"{url}?q={words}")) == 1


def test_words_shorter_than_an_index_knows_are_looked_for_where_names_begin(
    years: None, admin: Client
) -> None:
    Order.objects.filter(pk=Order.objects.first().pk).update(customer_name="Bo Qx")  # type: ignore[union-attr]
    assert len(found(admin, "Qx")) == len(found(admin, "bo qx")) == 1
    assert found(admin, "x") == []


def test_a_search_keeps_to_the_filter(years: None, admin: Client) -> None:
    waiting = Order.objects.filter(status="awaiting_payment").order_by("pk")[0]
    word = waiting.customer_name.split()[0]
    everywhere = set(found(admin, word))
    among = set(numbers(admin, f"status__exact=awaiting_payment&q={word}"))
    assert waiting.number in among
    assert among == {
        order.number
        for order in Order.objects.filter(number__in=everywhere)
        if order.status == "awaiting_payment"
    }


def test_what_very_many_have_is_found_newest_first_and_said_so(
    years: None, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "MOST_FOUND", 5)
    answer = admin.get(ORDERS, {"q": "@example.com"})
    newest = list(Order.objects.order_by("-created_at")[:5])
    assert list(answer.context["cl"].result_list) == newest
    assert "the newest 5 are listed" in answer.content.decode()
    exported = admin.get(f"{ORDERS}export.csv", {"q": "@example.com"})
    assert len(b"".join(exported).splitlines()) == 601


@pytest.mark.parametrize(
    "words", ["%", "_", "\\", "'", "ORD-", "RF", "@", "  ", "0", "-", "ß", "\x00", "(" * 300]
)
def test_odd_words_break_nothing(words: str, years: None, admin: Client) -> None:
    for url in LISTS:
        assert admin.get(url, {"q": words}).status_code in (200, 302)


# --- tabs and days ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", LISTS)
def test_a_tab_counts_what_its_list_shows(url: str, years: None, admin: Client) -> None:
    tabs = admin.get(url).context["tabs"]
    assert tabs[0].chosen
    assert any(tab.count not in ("", "0") for tab in tabs)
    for tab in tabs[1:]:
        answer = admin.get(f"{url}{tab.url}")
        assert answer.context["cl"].result_count == int(tab.count), tab.label
        assert [other.label for other in answer.context["tabs"] if other.url == tab.url and other.chosen]


def test_a_tab_counts_to_a_thousand(years: None, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MOST_ON_A_TAB", 100)
    counts = {str(tab.label): tab.count for tab in admin.get(ORDERS).context["tabs"]}
    assert counts["Completed"] == "100+"
    assert counts["Cancelled"] == str(Order.objects.filter(status="cancelled").count())


def test_the_work_queue_leads_to_what_it_counted(years: None, admin: Client) -> None:
    for task in tasks(User.objects.get()):
        if "/order/" in task.url or "/reviewitem/" in task.url:
            assert admin.get(task.url).context["cl"].result_count == task.count


def test_a_range_of_days_has_both_its_ends(years: None, admin: Client) -> None:
    Order.objects.update(created_at=datetime(2020, 1, 1, tzinfo=UTC))
    first, inside, last, after = Order.objects.order_by("pk")[:4]
    for order, moment in (
        (first, datetime(2026, 3, 1, tzinfo=UTC)),
        (inside, datetime(2026, 3, 2, 12, tzinfo=UTC)),
        (last, datetime(2026, 3, 3, 23, 59, 59, tzinfo=UTC)),
        (after, datetime(2026, 3, 4, tzinfo=UTC)),
    ):
        Order.objects.filter(pk=order.pk).update(created_at=moment)
    both = numbers(admin, "placed_from=2026-03-01&placed_to=2026-03-03")
    assert both == [last.number, inside.number, first.number]
    assert len(numbers(admin, "placed_from=2026-03-03")) == 2
    assert first.number in numbers(admin, "placed_to=2026-03-01&q=" + first.number)
    assert numbers(admin, "placed_from=2026-03-01&placed_to=&q=" + after.number) == [after.number]
    wrong = admin.get(f"{ORDERS}?placed_from=yesterday")
    assert wrong.context["cl"].result_count == 0
    assert "This is not a day." in wrong.content.decode()


def test_a_deadline_is_that_of_an_order_that_waits(years: None, admin: Client) -> None:
    saga = Saga.objects.filter(status="waiting").order_by("pk")[0]
    Saga.objects.filter(pk=saga.pk).update(deadline=datetime(2031, 5, 5, 12, tzinfo=UTC))
    Saga.objects.filter(status="completed").update(deadline=datetime(2031, 5, 5, 12, tzinfo=UTC))
    assert numbers(admin, "deadline_from=2031-05-05&deadline_to=2031-05-05") == [saga.order.number]


# --- what was looked at last -----------------------------------------------------------------------------


def test_a_list_is_found_again_as_it_was_left_until_it_is_reset(years: None, admin: Client) -> None:
    kept = "status__exact=cancelled&placed_from=2020-01-01&q=example"
    assert "until you reset it" in admin.get(f"{ORDERS}?{kept}&p=1").content.decode()
    back = admin.get(ORDERS)
    assert back.status_code == 302
    assert back["Location"].startswith(f"{ORDERS}?")
    assert set(back["Location"].partition("?")[2].split("&")) == set(kept.split("&"))
    assert admin.get("/admin/payments/payment/").status_code == 200  # every list has its own
    assert admin.get(f"{ORDERS}?reset=1")["Location"] == ORDERS
    assert admin.get(ORDERS).status_code == 200

    other = Client()
    other.force_login(User.objects.create_user("ada", is_staff=True, is_superuser=True))
    admin.get(f"{ORDERS}?{kept}")
    assert other.get(ORDERS).status_code == 200


def test_nothing_chosen_is_remembered_too(years: None, admin: Client) -> None:
    admin.get(f"{ORDERS}?status__exact=cancelled")
    page = admin.get(f"{ORDERS}?status__exact=cancelled").content.decode()
    assert 'href="?"' not in page  # it would lead back to what was chosen
    admin.get(f"{ORDERS}?q=")
    assert admin.get(ORDERS).status_code == 200


def test_a_filter_that_is_refused_is_not_remembered(years: None, admin: Client) -> None:
    assert admin.get(f"{ORDERS}?nonsense=1")["Location"].endswith("e=1")
    admin.get(f"{ORDERS}?e=1")
    assert admin.get(ORDERS).status_code == 200


# --- what it costs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", LISTS)
def test_a_list_costs_the_same_for_few_and_many(
    url: str, years: None, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = ("", "q=Müller", "q=39.98", "status__exact=completed", "placed_from=2020-01-01", "p=2")

    def costs() -> list[int]:
        return [cost(query) for query in queries]

    def cost(query: str) -> int:
        admin.get(f"{url}?reset=1")
        with CaptureQueriesContext(connection) as captured:
            assert admin.get(f"{url}?{query}").status_code in (200, 302)
        return sum("django_session" not in sql["sql"] for sql in captured.captured_queries)

    few = costs()
    monkeypatch.setattr(demo_orders, "_MODELS", ())  # no VACUUM inside a transaction
    call_command("seed_demo", orders=300)
    assert costs() == few
    assert max(few) <= 12


# --- the list as a file ----------------------------------------------------------------------------------


def rows_of(answer: Any) -> list[list[str]]:
    text = b"".join(answer).decode("utf-8-sig")
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize("url", LISTS)
def test_a_csv_file_has_what_the_list_shows_in_its_order(url: str, years: None, admin: Client) -> None:
    heading, *rows = rows_of(admin.get(f"{url}export.csv"))
    assert len(rows) == LISTS[url]._default_manager.count()
    assert len({len(row) for row in (heading, *rows)}) == 1


def test_a_file_has_exactly_what_is_filtered(years: None, admin: Client) -> None:
    wanted = "status__exact=cancelled&placed_from=2020-01-01&q=example&o=1"
    answer = admin.get(f"{ORDERS}export.csv?{wanted}")
    assert answer.streaming
    assert "attachment" in answer["Content-Disposition"]
    heading, *rows = rows_of(answer)
    expected = Order.objects.filter(status="cancelled").order_by("number")
    assert [row[0] for row in rows] == [order.number for order in expected]
    first = dict(zip(heading, rows[0], strict=True))
    order = expected[0]
    assert first["total"] == str(order.total_money.decimal)
    assert first["customer"] == order.customer_name
    assert first["placed (UTC)"] == f"{order.created_at:%Y-%m-%d %H:%M:%S}"


@pytest.mark.parametrize("name", ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(name: str, years: None, admin: Client) -> None:
    order = Order.objects.order_by("pk")[0]
    Order.objects.filter(pk=order.pk).update(customer_name=name)
    url = f"{ORDERS}export.{{}}?q={order.number}"
    heading, row = rows_of(admin.get(url.format("csv")))
    assert row[heading.index("customer")] == f"'{name}"
    book = zipfile.ZipFile(io.BytesIO(b"".join(admin.get(url.format("xlsx")))))
    sheet = book.read("xl/worksheets/sheet1.xml").decode()
    assert "<f>" not in sheet
    assert 't="inlineStr"' in sheet


def test_an_amount_below_zero_is_a_number() -> None:
    from decimal import Decimal

    assert exporting._plain(Decimal("-5.00")) == "-5.00"


def test_a_workbook_has_numbers_and_dates(years: None, admin: Client) -> None:
    answer = admin.get(f"{ORDERS}export.xlsx?status__exact=cancelled")
    book = zipfile.ZipFile(io.BytesIO(b"".join(answer)))
    sheet = book.read("xl/worksheets/sheet1.xml").decode()
    cancelled = Order.objects.filter(status="cancelled")
    assert sheet.count("<row ") == cancelled.count() + 1
    order = cancelled[0]
    assert order.number in sheet
    assert re.search(rf"<v>{float(order.total_money.decimal):g}0?</v>", sheet)


def test_more_rows_than_a_workbook_takes_are_refused_with_a_sentence(
    years: None, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "MOST_IN_XLSX", 10)
    answer = admin.get(f"{ORDERS}export.xlsx?status__exact=completed", follow=True)
    assert "More than 10 rows: take CSV" in answer.content.decode()
    assert answer.redirect_chain[0][0].endswith("status__exact=completed")


def test_a_file_is_read_while_it_is_sent(years: None, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "AT_A_TIME", 50)
    read = 0
    number = exporting.Column("number", lambda order: order.number)

    def counted(order: Any) -> str:
        nonlocal read
        read += 1
        return str(order.number)

    columns = (exporting.Column("number", counted), number)
    chunks = exporting._csv(columns, Order.objects.order_by("pk"), "en")
    next(chunks)
    assert read == 0
    next(chunks)
    assert read == 500
    with CaptureQueriesContext(connection) as captured:
        list(chunks)
    assert read == 600
    sent = [query for query in captured.captured_queries if "SAVEPOINT" not in query["sql"]]
    assert not sent  # all of it comes by one cursor


def test_a_file_is_in_the_language_of_who_asked_for_it_whoever_sends_it(years: None) -> None:
    columns = (
        exporting.Column(gettext_lazy("Order"), lambda order: order.number),
        exporting.Column("in words", lambda order: gettext("order")),
    )
    rows, request = Order.objects.order_by("pk"), RequestFactory().get(ORDERS)
    with override("de"):
        answer = exporting.response(request, "csv", "Rückläufer", columns, rows)
    assert answer["Content-Disposition"].startswith("attachment; filename*=utf-8''R%C3%BCckl%C3%A4ufer-")
    heading, first, *_others = answer.getvalue().decode("utf-8-sig").splitlines()
    assert heading == "Bestellung,in words"
    assert first.endswith(",Bestellung")


def test_under_asgi_a_reader_who_leaves_leaves_nothing_open() -> None:
    steps: list[str] = []

    def chunks() -> Iterator[bytes]:
        try:
            while True:
                steps.append("made")
                yield b"x"
        finally:
            steps.append("ended")

    async def read_a_little() -> list[str]:
        sent = exporting._for_asgi(chunks())
        assert await anext(sent) == b"x"
        made = list(steps)
        await sent.aclose()
        return made

    assert asyncio.run(read_a_little()) == ["made"]
    wait_until(lambda: steps[-1] == "ended")


def test_who_may_not_see_the_list_gets_no_file(years: None) -> None:
    client = Client()
    client.force_login(User.objects.create_user("nobody", is_staff=True))
    for url in LISTS:
        for kind in ("csv", "xlsx"):
            assert client.get(f"{url}export.{kind}").status_code == 403
    admin = Client()
    admin.force_login(User.objects.create_user("root", is_staff=True, is_superuser=True))
    assert admin.get(f"{ORDERS}export.pdf").status_code == 404
    assert Client().get(f"{ORDERS}export.csv").status_code == 302
