"""Secrets are settings, or hashes: planted ones turn up in no table, on no page and in no line of the log."""

from __future__ import annotations

import hashlib
import logging

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from pytest_django.fixtures import Settings

from orders.models import ApiKey, DeadLetter, OpsAlertNotice
from orders.services import alerting, api_keys
from payments.gateways import gateway
from payments.gateways.base import GatewayError
from shop.up import ports
from tests.orders.test_admin_books import books

pytestmark = pytest.mark.django_db
PLANTED = "planted0secret0of0the0test"


def anywhere() -> str:
    """All rows of all tables as text; binary columns as text too, where they are some."""
    found = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            found += [f"{table}: {row}" for (row,) in cursor.fetchall()]
    return "\n".join(found)


def in_none_of(*places: str, secret: str = PLANTED) -> None:
    for place in places:
        for form in (secret, secret.encode().hex()):
            assert form not in place


@pytest.fixture
def admin() -> Client:
    browser = Client()
    browser.force_login(User.objects.create_superuser("admin"))
    return browser


@pytest.fixture(autouse=True)
def planted(settings: Settings) -> None:
    closed = f"http://127.0.0.1:{ports.any_free()}"
    settings.SANDBOX_URL = settings.STRIPE_API_BASE = closed
    settings.SANDBOX_API_KEY, settings.STRIPE_API_KEY = PLANTED, f"sk_test_{PLANTED}"
    settings.SANDBOX_WEBHOOK_SECRETS = settings.STRIPE_WEBHOOK_SECRETS = [f"whsec_{PLANTED}AA"]
    # The address of a chat tool is a secret itself.
    settings.OPS_ALERT_WEBHOOK_URL = f"{closed}/services/{PLANTED}"
    settings.OPS_ALERT_WEBHOOK_SECRET = f"whsec_{PLANTED}AA"
    settings.PAYMENT_GATEWAYS = {
        "sandbox": "payments.gateways.sandbox.SandboxGateway",
        "stripe": "payments.gateways.stripe.StripeGateway",
    }
    gateway.cache_clear()
    books()


def test_the_search_finds_what_is_there() -> None:
    ApiKey.objects.create(name=PLANTED, digest="0" * 64)
    with pytest.raises(AssertionError):
        in_none_of(anywhere())


def test_a_provider_that_is_away_leaves_no_key_behind(
    admin: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("sandbox", "stripe"):
        with pytest.raises(GatewayError) as failed:
            gateway(name).status("pay_1")
        in_none_of(str(failed.value))
    letter = DeadLetter.objects.get()
    pages = [
        admin.get(url).content.decode()
        for url in (
            f"/admin/ops/dead-letters/{letter.pk}/provider/",
            "/admin/payments/gatewaystate/",
            "/admin/payments/gatewayincident/",
            "/admin/",
        )
    ]
    in_none_of(*pages, anywhere(), caplog.text)


def test_an_alert_that_cannot_be_posted_leaves_no_address_and_no_secret(
    admin: Client, caplog: pytest.LogCaptureFixture, settings: Settings
) -> None:
    notice = OpsAlertNotice.objects.get()
    caplog.set_level(logging.DEBUG)
    for address in (settings.OPS_ALERT_WEBHOOK_URL, f"gopher://{PLANTED}/", f"http://x:{PLANTED}/"):
        settings.OPS_ALERT_WEBHOOK_URL = address
        with pytest.raises(alerting.AlertNotTaken) as failed:
            alerting.post(notice.pk)
        page = admin.get(f"/admin/orders/opsalertnotice/{notice.pk}/change/").content.decode()
        assert "The alert webhook could not be sent" in page
        in_none_of(str(failed.value), page, anywhere(), caplog.text)


def test_of_a_webhook_no_credentials_are_kept(admin: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    Client().post(
        "/webhooks/payments/sandbox/?key=" + PLANTED,
        b"{}",
        content_type="application/json",
        headers={
            "Authorization": f"Bearer {PLANTED}",
            "Cookie": f"sessionid={PLANTED}",
            "X-Api-Key": PLANTED,
        },
    )
    in_none_of(anywhere(), caplog.text)


def test_an_api_key_is_256_random_bits_of_which_only_the_hash_is_kept(
    admin: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    page = admin.post("/admin/orders/apikey/add/", {"name": "web shop"})
    key = page.content.decode().partition('id="new-key">')[2].partition("<")[0]
    assert len(key.removeprefix(api_keys.PREFIX)) == 43  # 32 bytes in base64
    assert "no-store" in page["Cache-Control"]
    assert ApiKey.objects.get().digest == hashlib.sha256(key.encode()).hexdigest()
    assert Client().get("/api/products/", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    pk = ApiKey.objects.get().pk
    later = [admin.get(f"/admin/orders/apikey/{rest}").content.decode() for rest in ("", f"{pk}/change/")]
    in_none_of(*later, anywhere(), caplog.text, secret=key)
    in_none_of(*later, secret=ApiKey.objects.get().digest)
