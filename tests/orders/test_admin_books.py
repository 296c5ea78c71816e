"""The other screens: books that nobody can change, review items, products, keys, roles."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin import site
from django.contrib.auth.models import Group
from django.db.models import Model
from django.test import Client
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from orders.models import (
    ApiKey,
    DeadLetter,
    DeadLetterAct,
    Mail,
    OpsAlert,
    OpsAlertNotice,
    OrderEvent,
    Product,
    Saga,
    SagaStep,
)
from orders.services import api_keys, mails
from payments.models import BatchRun, Payment, PaymentEvent, ReviewItem, WebhookDelivery
from shop.kernel.models import OutboxMessage
from shop.roles import ROLES
from tests import factories
from tests.orders.test_admin import admin, login, shop, waiting

__all__ = ["admin", "login", "shop"]  # fixtures
pytestmark = pytest.mark.django_db


def dead_letter() -> DeadLetter:
    factories.product()
    waiting()
    saga = Saga.objects.get()
    Saga.objects.update(status="compensation_failed", reason="no parcel")
    return DeadLetter.objects.create(
        saga=saga,
        step="payment_captured",
        idempotency_key="k",
        rollback_run="r",
        error="The bank is closed.",
        amount=3998,
        currency="EUR",
    )


def review_item() -> ReviewItem:
    return ReviewItem.objects.create(
        key="k",
        reason="too_much",
        merchant_reference="ORD-1",
        amount=150,
        currency="EUR",
        detail="1.50 too much",
    )


def books() -> list[Model]:
    """One row of everything that is only looked at."""
    letter = dead_letter()
    payment = Payment.objects.get()
    PaymentEvent.objects.create(
        payment=payment,
        gateway="sandbox",
        type="receipt",
        outcome="succeeded",
        psp_reference="rcv_1",
        amount=3998,
        currency="EUR",
        occurred_at=timezone.now(),
        source="webhook",
    )
    mails.write(letter.saga, "received")
    webhook = WebhookDelivery.objects.create(gateway="sandbox", body=b'{"id": "evt_1"}')
    alert = OpsAlert.objects.create(topic="rollback")
    return [
        OpsAlertNotice.objects.create(alert=alert, part="first", told=1, subject="Rollback failed", text="t"),
        payment,
        review_item(),
        webhook,
        BatchRun.objects.create(workflow_id="w", run_id="r", started_at=timezone.now(), gateways=["sandbox"]),
        Mail.objects.get(),
        OutboxMessage.objects.get(),
    ]


def test_nobody_adds_changes_or_deletes_financial_and_audit_rows(admin: Client) -> None:
    for row in books():
        name = f"admin:{row._meta.app_label}_{row._meta.model_name}"
        before = type(row)._default_manager.filter(pk=row.pk).values().get()
        shown = admin.get(reverse(f"{name}_change", args=[row.pk]))
        assert shown.status_code == 200
        assert 'name="_save"' not in shown.content.decode()
        assert admin.get(reverse(f"{name}_changelist")).status_code == 200
        fields = {field.name: "changed" for field in row._meta.fields}
        assert admin.post(reverse(f"{name}_change", args=[row.pk]), fields).status_code == 403
        assert admin.post(reverse(f"{name}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
        assert admin.get(reverse(f"{name}_add")).status_code == 403
        sent = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
        admin.post(reverse(f"{name}_changelist"), sent)
        assert type(row)._default_manager.filter(pk=row.pk).values().get() == before


@pytest.mark.parametrize("model", [Saga, SagaStep, OrderEvent, PaymentEvent, DeadLetter, DeadLetterAct])
def test_sagas_and_events_have_no_pages_of_their_own(model: type[Model]) -> None:
    assert not site.is_registered(model)
    with pytest.raises(NoReverseMatch):
        reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


# --- review items ------------------------------------------------------------------------------------


def test_a_review_item_is_closed_with_what_was_decided(login: Callable[[str], Client]) -> None:
    item = review_item()
    url = reverse("admin:payments_reviewitem_close", args=[item.pk])
    assert login("viewer").post(url, {"resolution": "x"}).status_code == 403
    payments = login("payments")
    payments.post(url, {"resolution": "paid back by transfer 7"})
    payments.post(url, {"resolution": "something else"})
    item.refresh_from_db()
    assert (item.state, item.resolution) == ("closed", "paid back by transfer 7")
    assert item.resolved_by == "payments"


# --- the index -------------------------------------------------------------------------------------------


def test_the_index_counts_what_waits_for_a_person(login: Callable[[str], Client]) -> None:
    dead_letter()
    review_item()
    OutboxMessage.objects.update(created_at=timezone.now() - timedelta(minutes=2))
    index = login("ops").get(reverse("admin:index")).content.decode()
    for task in ("Dead letters", "Messages to Temporal"):
        assert f"<strong>1</strong> <span>{task}" in index
    assert (
        "<strong>1</strong> <span>Overpaid" in login("payments").get(reverse("admin:index")).content.decode()
    )
    assert "Messages to Temporal" not in login("viewer").get(reverse("admin:index")).content.decode()


# --- products and keys -----------------------------------------------------------------------------------


def test_a_price_is_typed_as_people_write_it(login: Callable[[str], Client]) -> None:
    product = factories.product(price=1999, on_hand=5)
    product.reserved = 2
    product.save()
    orders = login("orders")
    url = reverse("admin:orders_product_change", args=[product.pk])
    assert 'value="19.99"' in orders.get(url).content.decode()
    form: dict[str, Any] = {
        "sku": "TEA", "name": "Tea", "price": "1.299,50", "currency": "EUR", "tax_rate": "1900",
        "on_hand": "7", "initial-on_hand": "5", "active": "on", "reserved": "0",
    }  # fmt: skip
    orders.post(url, form)
    product.refresh_from_db()
    assert (product.price, product.on_hand, product.reserved) == (129950, 7, 2)


def test_a_count_below_what_is_reserved_or_against_another_stock_is_refused(admin: Client) -> None:
    product = factories.product(on_hand=5)
    url = reverse("admin:orders_product_change", args=[product.pk])
    form = {"sku": "TEA", "name": "Tea", "price": "19.99", "currency": "EUR", "tax_rate": "1900"}
    assert 'name="initial-on_hand" value="5"' in admin.get(url).content.decode()
    Product.objects.update(reserved=2)
    low = admin.post(url, form | {"on_hand": "1", "initial-on_hand": "5"}).content.decode()
    assert "Open orders have reserved 2 of it." in low
    Product.objects.update(on_hand=3, reserved=0)  # a parcel has left meanwhile
    stale = admin.post(url, form | {"on_hand": "9", "initial-on_hand": "5"}).content.decode()
    assert "Orders have changed it to 3" in stale
    admin.post(url, form | {"on_hand": "5", "initial-on_hand": "5", "name": "Green tea"})
    product.refresh_from_db()
    assert (product.name, product.on_hand, product.reserved) == ("Green tea", 3, 0)


def test_yen_have_no_decimals(admin: Client) -> None:
    form = {"sku": "T", "name": "T", "price": "12.50", "currency": "JPY", "tax_rate": "1900", "on_hand": "1"}
    assert "JPY has no decimals." in admin.post(reverse("admin:orders_product_add"), form).content.decode()
    admin.post(reverse("admin:orders_product_add"), form | {"price": "1250"})
    assert Product.objects.get().price == 1250


def test_a_key_is_shown_once_and_can_be_revoked(admin: Client, login: Callable[[str], Client]) -> None:
    shown = admin.post(reverse("admin:orders_apikey_add"), {"name": "web shop"}).content.decode()
    key = shown.partition('id="new-key">')[2].partition("<")[0]
    row = ApiKey.objects.get()
    assert api_keys.find(key) == row
    page = reverse("admin:orders_apikey_change", args=[row.pk])
    assert key not in admin.get(page).content.decode()
    admin.get(reverse("admin:orders_apikey_revoke", args=[row.pk]))
    assert api_keys.find(key)
    admin.post(reverse("admin:orders_apikey_revoke", args=[row.pk]))
    assert api_keys.find(key) is None
    assert login("ops").get(reverse("admin:orders_apikey_changelist")).status_code == 403


# --- roles -----------------------------------------------------------------------------------------------


def test_the_roles_are_there_after_migrate() -> None:
    for role, names in ROLES.items():
        granted = Group.objects.get(name=role).permissions
        found = {f"{p.content_type.app_label}.{p.codename}" for p in granted.select_related("content_type")}
        assert set(names) <= found
        assert "orders.view_order" in found
        assert not any(".delete_" in name for name in found)
