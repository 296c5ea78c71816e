"""A customer gets mails in the language of the order, whoever causes them and in whatever language they work."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import translation
from pytest_django.fixtures import Settings

from orders.models import Mail, Order, Saga
from orders.services import lifecycle, mails
from orders.services.packing import packing_slip
from orders.services.placing import OrderInvalid
from payments.gateways import gateway
from payments.services.recording import absorb, open_payment
from shop.kernel.money import Money
from tests import factories
from tests.orders.test_admin import admin, login, shop, waiting
from tests.orders.test_api import ORDER, Api, key
from tests.payments.our_bank import our_bank

__all__ = ["admin", "key", "login", "shop"]  # fixtures
pytestmark = pytest.mark.django_db
KINDS = Mail.Kind.values


def plain(text: str) -> str:
    """On one line, with breaking spaces."""
    return " ".join(text.replace("\xa0", " ").split())


def by_bank(language: str | None, settings: Settings) -> Saga:
    """An order of 1,299.00 euros that is to be paid by bank transfer until the 7th of December."""
    factories.product(price=129900)
    with our_bank(settings):
        order = factories.place(("TEA", 1), payment_method="bank_transfer", language=language)
        saga = order.saga
        assert saga is not None
        payment = open_payment("bank_transfer", order.number, order.total_money, "k")
        answer = gateway("bank_transfer").authorize(order.number, order.total_money, "k")
        saga.payment = absorb(payment, answer.payment, "call")
        saga.deadline = datetime(2026, 12, 7, 13, 35, tzinfo=UTC)
        saga.save()
    return saga


def written(saga: Saga, kind: str, settings: Settings) -> Mail:
    with our_bank(settings):
        return mails.write(saga, kind, refunded=Money(129900, "EUR") if kind == "refunded" else None)


# --- mails -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_staff", ["en", "de", None])
def test_german_customer_gets_a_german_mail_whatever_staff_read(
    of_staff: str | None, settings: Settings
) -> None:
    saga = by_bank("de", settings)
    with translation.override(of_staff):
        mail = written(saga, "received", settings)
        assert translation.get_language() == of_staff
    assert mail.subject.startswith("Ihre Bestellung")
    assert '<html lang="de">' in mail.html
    for text in (plain(mail.text), plain(re.sub(r"<[^>]+>", "", mail.html))):
        assert "1.299,00 €" in text
        assert "7. Dezember 2026" in text
        assert "Bitte überweisen Sie" in text
        assert "DE89 3704 0044 0532 0130 00" in text
        assert "€1,299.00" not in text
        assert "December" not in text


@pytest.mark.parametrize("of_staff", ["en", "de"])
def test_english_customer_gets_an_english_mail_whatever_staff_read(of_staff: str, settings: Settings) -> None:
    saga = by_bank("en", settings)
    with translation.override(of_staff):
        mail = written(saga, "received", settings)
    assert mail.subject.startswith("Your order")
    assert '<html lang="en">' in mail.html
    assert "€1,299.00" in mail.text
    assert "7 December 2026, 13:35 UTC" in plain(mail.text)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_mail_is_in_both_languages(kind: str, settings: Settings) -> None:
    saga = by_bank("de", settings)
    german = written(saga, kind, settings)
    Mail.objects.all().delete()
    Order.objects.update(language="en")
    english = written(Saga.objects.get(), kind, settings)
    for part in ("subject", "text", "html"):
        assert getattr(german, part) != getattr(english, part)
    english_words = r"\b(?:the|your|you|we|please|order|payment|of|is|and)\b"
    assert re.search(english_words, plain(english.text), re.IGNORECASE)
    assert re.findall(english_words, plain(german.text), re.IGNORECASE) == []
    shown = re.sub(r"<style.*?</style>|<[^>]+>", " ", german.html)
    assert re.findall(english_words, shown, re.IGNORECASE) == []


def test_mail_goes_out_in_the_language_in_which_it_was_written(
    settings: Settings, mailoutbox: list[Any]
) -> None:
    """What waits for the mail server is not written anew: its text is what staff were shown."""
    saga = by_bank("en", settings)
    queued = written(saga, "cancelled", settings)
    Order.objects.update(language="de")
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    mails.send(saga.order.number, 1, "cancelled")
    mails.send(saga.order.number, 1, "reminder")
    first, second = mailoutbox
    assert (first.subject, first.body) == (queued.subject, queued.text)
    assert "Ihrer Bestellung" in second.subject
    assert "1.299,00 €" in second.alternatives[0][0].replace("\xa0", " ")


def test_customer_of_whom_nothing_is_known_gets_the_shops_language(settings: Settings) -> None:
    settings.LANGUAGE_CODE = "de"
    assert by_bank(None, settings).order.language == "de"


def test_packing_slip_is_in_the_customers_language(settings: Settings) -> None:
    order = by_bank("de", settings).order
    with translation.override("de"):
        german = packing_slip(order, "Shop")
    assert german != packing_slip(order, "Shop")


def test_slip_that_staff_print_is_the_customers(
    admin: Client, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    order = by_bank("de", settings).order
    Order.objects.update(status="paid")
    languages: list[str | None] = []

    def slip(_order: Order, _shop: str) -> bytes:
        languages.append(translation.get_language())
        return b"%PDF"

    monkeypatch.setattr("orders.admin.orders.packing_slip", slip)
    assert admin.get(f"/admin/orders/order/{order.pk}/packing-slip/").status_code == 200
    assert languages == ["de"]


# --- taking an order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("de", "de"),
        ("de-AT", "de"),
        ("DE-de", "de"),
        ("de-Latn-CH-1996", "de"),
        ("en-GB", "en"),
        (None, "en"),
    ],
)
def test_the_frontend_says_which_language_the_customer_reads(key: str, asked: str | None, got: str) -> None:
    factories.product()
    api = Api(key)
    placed = api.client.post("/api/orders/", ORDER | {"language": asked}, content_type="application/json")
    assert (placed.status_code, placed.json()["language"]) == (201, got)
    assert Order.objects.get().language == got
    assert api.client.get(placed["Location"]).json()["language"] == got


@pytest.mark.parametrize("asked", ["fr", "deutsch", "de_DE", "de-", "", "d", "de;q=1"])
def test_language_that_the_shop_does_not_have_is_refused_by_name(key: str, asked: str) -> None:
    factories.product()
    refused = Api(key).client.post(
        "/api/orders/", ORDER | {"language": asked}, content_type="application/json"
    )
    assert refused.status_code == 422
    (error,) = refused.json()["errors"]
    assert error == {
        "field": "language",
        "message": f"{asked!r} is not a language of this shop; it has en, de.",
    }
    assert not Order.objects.exists()


def test_an_import_takes_the_language_too() -> None:
    from orders.api.incoming import BulkOrder

    body = ORDER | {"idempotency_key": "k", "language": "de-CH"}
    factories.product()
    assert factories.place(language=BulkOrder.model_validate(body).draft().language).language == "de"
    with pytest.raises(OrderInvalid, match="not a language of this shop"):
        factories.place(language="xx")


def test_staff_say_which_language_the_customer_reads(admin: Client) -> None:
    factories.product()
    form = admin.get("/admin/orders/order/add/").content.decode()
    choice = form.partition('name="language"')[2].partition("</select>")[0]
    assert '<option value="en" selected>English</option>' in choice
    assert '<option value="de">Deutsch</option>' in choice
    sent = {
        "customer_name": "Konrad Zuse", "customer_email": "konrad@example.com", "language": "de", "currency": "EUR",
        "payment_method": "sandbox", "carrier": "manual", "shipping_cost": "0", "discount": "0", "notes": "",
        "form_id": "7a0cbe4f-6d5c-4c4c-9d7e-1f2a3b4c5d6e", "shipping_name": "Konrad Zuse",
        "shipping_street": "Lindenallee 13", "shipping_postal_code": "36088", "shipping_city": "Hünfeld",
        "shipping_country": "DE", "form-TOTAL_FORMS": "1", "form-INITIAL_FORMS": "0", "form-0-sku": "TEA",
        "form-0-quantity": "1",
    }  # fmt: skip
    placed = admin.post("/admin/orders/order/add/", sent, follow=True)
    order = Order.objects.get()
    assert order.language == "de"
    assert "Language: Deutsch" in plain(re.sub(r"<[^>]+>", "", placed.content.decode()))


def test_no_order_has_a_language_that_the_shop_does_not_have() -> None:
    factories.product()
    waiting()
    with pytest.raises(IntegrityError, match="order_language_is_ours"), transaction.atomic():
        Order.objects.update(language="fr")


def test_a_saga_that_starts_anew_keeps_the_language(settings: Settings) -> None:
    saga = by_bank("de", settings)
    Saga.objects.update(status="cancelled")
    Order.objects.update(status="cancelled")
    with our_bank(settings):
        lifecycle.start(saga.order.number, "staff")
    assert Order.objects.get().language == "de"
