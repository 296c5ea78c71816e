"""Which language a page is in, and how staff change it; amounts and dates as people of that language write them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import translation
from pytest_django.fixtures import Settings

from orders.models import Order, Saga
from orders.services import api_keys
from payments.models import BankStatement, BankTransaction
from shop.kernel.durations import in_words
from tests import factories
from tests.orders.test_admin import admin, login, shop, waiting
from tests.shop.test_settings import check

__all__ = ["admin", "login", "shop"]  # fixtures
pytestmark = pytest.mark.django_db

GERMAN = {"accept-language": "de-AT,de;q=0.9,en;q=0.8"}


def language_of(page: bytes) -> str:
    found = re.search(r'<html lang="([^"]+)"', page.decode())
    assert found
    return found[1]


# --- which it is -------------------------------------------------------------------------------------------


def test_the_browser_says_which_language_until_one_is_chosen() -> None:
    stranger = Client()
    for asked, got in (("de-AT,de;q=0.9", "de"), ("fr", "en"), ("", "en")):
        page = stranger.get("/admin/login/", headers={"accept-language": asked})
        assert (language_of(page.content), page["Content-Language"]) == (got, got)
        assert {"Accept-Language", "Cookie"} <= {part.strip() for part in page["Vary"].split(",")}


def test_language_is_chosen_before_log_in_and_kept() -> None:
    stranger = Client(enforce_csrf_checks=True)
    page = stranger.get("/admin/login/?next=/admin/orders/order/").content.decode()
    form = page.partition('class="vk-languages"')[2].partition("</form>")[0]
    assert 'action="/language/"' in form
    assert 'value="/admin/login/?next=/admin/orders/order/"' in form
    # A button of a form: it works without a script, and by keyboard. It is named in its own language.
    assert '<button name="language" value="de" lang="de">Deutsch</button>' in form
    assert 'value="en"' not in form
    assert stranger.post("/language/", {"language": "de"}).status_code == 403
    token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', form)
    assert token
    sent = {"language": "de", "next": "/admin/login/", "csrfmiddlewaretoken": token[1]}
    answer = stranger.post("/language/", sent)
    assert (answer.status_code, answer["Location"]) == (302, "/admin/login/")
    german = stranger.get("/admin/login/", headers={"accept-language": "en"}).content
    assert language_of(german) == "de"
    assert b"Passwort" in german
    assert b">English</button>" in german


def test_the_cookie_is_as_the_sites_others_are(settings: Settings) -> None:
    answer = Client().post("/language/", {"language": "de", "next": "/admin/"})
    (name,) = answer.cookies
    cookie = answer.cookies[name]
    assert (name, cookie["httponly"], cookie["samesite"], cookie["path"]) == ("language", True, "Lax", "/")
    over_tls = check(
        "from django.conf import settings as s; assert s.LANGUAGE_COOKIE_NAME == '__Host-language';"
        "assert s.LANGUAGE_COOKIE_SECURE",
        DEBUG="on",
        SITE_URL="https://shop.example",
    )
    assert over_tls.returncode == 0, over_tls.stderr


def test_changing_it_leads_nowhere_else_and_takes_no_other_language() -> None:
    stranger = Client()
    for elsewhere in ("//evil.example/", "https://evil.example/", ""):
        answer = stranger.post("/language/", {"language": "de", "next": elsewhere})
        assert answer["Location"] == "/"
    stranger = Client()
    stranger.get("/language/", {"language": "de"})
    assert stranger.cookies == {}
    stranger.post("/language/", {"language": "fr", "next": "/admin/"})
    assert language_of(stranger.get("/admin/login/").content) == "en"


def test_every_page_says_its_language(login: Callable[[str], Client]) -> None:
    factories.product()
    order = waiting()
    german = login("admin")
    german.post("/language/", {"language": "de"})
    order_page = f"/admin/orders/order/{order.pk}"
    for url in ("/admin/", f"{order_page}/change/", f"{order_page}/cancel/", "/admin/orders/order/",
                "/admin/ops/dead-letters/", "/admin/second-factor/", "/admin/no/such/page/"):  # fmt: skip
        page = german.get(url)
        if page.status_code == 200:
            assert language_of(page.content) == "de", url
        assert page["Content-Language"] == "de"


def test_programs_get_the_shops_language_whatever_they_ask_for(settings: Settings) -> None:
    """What they do leaves sentences in the books, and those are read by staff."""
    key = {"authorization": f"Bearer {api_keys.create('frontend')}"}
    for language, needed in (("en", "This is needed."), ("de", "Das wird benötigt.")):
        settings.LANGUAGE_CODE = language
        with translation.override(language):
            needed = translation.gettext("This is needed.")
        refused = Client(headers=key | GERMAN).post("/api/orders/", {}, content_type="application/json")
        assert refused.json()["errors"][0]["message"] == needed
        assert "Accept-Language" not in refused.get("Vary", "")
    webhook = Client(headers=GERMAN).post(
        "/webhooks/payments/sandbox/", b"{}", content_type="application/json"
    )
    assert "Content-Language" not in webhook


def test_the_shops_language_is_one_that_it_has() -> None:
    assert check(DEBUG="on", LANGUAGE_CODE="de").returncode == 0
    refused = check(DEBUG="on", LANGUAGE_CODE="fr")
    assert refused.returncode != 0
    assert "LANGUAGE_CODE is 'fr'; it must be en or de." in refused.stderr


# --- amounts and dates -------------------------------------------------------------------------------------


@pytest.fixture
def german(admin: Client) -> Client:
    admin.post("/language/", {"language": "de"})
    return admin


def plain(page: bytes) -> str:
    return page.decode().replace("\xa0", " ").replace("&nbsp;", " ")


def test_staff_read_amounts_and_dates_in_their_language(german: Client) -> None:
    factories.product(price=129900)
    order = waiting(("TEA", 1))
    deadline = datetime(2026, 11, 23, 13, 35, tzinfo=UTC)
    Saga.objects.update(deadline=deadline)
    Order.objects.update(created_at=datetime(2026, 11, 22, 9, 5, tzinfo=UTC))
    for url in ("/admin/orders/order/", f"/admin/orders/order/{order.pk}/change/"):
        shown = plain(german.get(url).content)
        assert "1.299,00 €" in shown
        assert "23.11.2026 13:35" in shown
        assert "22.11.2026 09:05" in shown
    german.post("/language/", {"language": "en"})
    for url in ("/admin/orders/order/", f"/admin/orders/order/{order.pk}/change/"):
        english = plain(german.get(url).content)
        assert "€1,299.00" in english
        assert "2026-11-23 13:35" in english


def test_a_booking_shows_its_day(german: Client) -> None:
    statement = BankStatement.objects.create(
        kind="camt.053", account_iban="DE89370400440532013000", file_name="march.xml", currency="EUR",
        imported_by="payments", opening=129900, closing=129901,
    )  # fmt: skip
    booking = BankTransaction.objects.create(
        key="k", statement=statement, position="1", direction="credit", amount=1, currency="EUR",
        booking_date=date(2026, 11, 23),
    )  # fmt: skip
    assert "23.11.2026" in plain(german.get(f"/admin/payments/banktransaction/{booking.pk}/change/").content)
    assert "1.299,00 €" in plain(german.get(f"/admin/payments/bankstatement/{statement.pk}/change/").content)


def test_what_is_kept_for_all_readers_is_kept_by_language(german: Client) -> None:
    factories.product(price=129900)
    waiting(("TEA", 1))
    cache.clear()
    assert "1.299,00 €" in plain(german.get("/admin/ops/charts/").content)
    german.post("/language/", {"language": "en"})
    shown = plain(german.get("/admin/ops/charts/").content)
    assert "€1,299.00" in shown
    assert "1.299,00" not in shown
    german.post("/language/", {"language": "de"})
    assert "1.299,00 €" in plain(german.get("/admin/ops/charts/").content)


def test_a_file_has_headings_in_the_readers_language_and_numbers_for_programs(german: Client) -> None:
    factories.product(price=129900)
    order = waiting(("TEA", 1))
    content = b"".join(german.get(f"/admin/orders/order/export.csv?q={order.number}")).decode("utf-8-sig")
    heading, row, *_rest = content.splitlines()
    with translation.override("de"):
        assert translation.gettext("customer") in heading
    assert "customer" not in heading
    assert "1299.00" in row


def test_durations_are_told_in_the_language() -> None:
    from datetime import timedelta

    with translation.override("de"):
        assert in_words(timedelta(seconds=2.5)) == "2,5 s"
