"""Webhooks processed again by staff: what it does in each state, who may, what is written down, two at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from orders.services.reconciling import messages
from payments.models import PaymentEvent, ReviewItem, WebhookDelivery, WebhookReprocessing
from payments.sandbox.signing import new_secret
from payments.services import reprocessing, reviewing
from payments.services.recording import absorb, open_payment
from payments.services.reprocessing import NotProcessed
from shop.kernel.money import Money
from tests.orders.reconciling import found
from tests.orders.test_admin import admin, form_of, login
from tests.orders.test_api import at_once
from tests.orders.test_webhooks import (
    STALE,
    TOTAL,
    WRONG,
    State,
    assert_rejected,
    assert_taken,
    authorized,
    deliver,
    remote,
    shop,
    signals,
    totals,
    webhook,
)
from tests.payments.stripe_server import StripeServer
from tests.payments.test_stripe_gateway import captured, stripe

__all__ = ["admin", "login", "shop", "stripe"]  # fixtures
pytestmark = pytest.mark.django_db


def kept_out(settings: Settings, age_s: int = 0) -> WebhookDelivery:
    """A genuine webhook, rejected because its secret was missing; `age_s` ago, and not stale then."""
    secrets, settings.SANDBOX_WEBHOOK_SECRETS = settings.SANDBOX_WEBHOOK_SECRETS, [new_secret()]
    delivery = assert_rejected(webhook(age_s=age_s))
    settings.SANDBOX_WEBHOOK_SECRETS = secrets
    came(delivery, timezone.now() - timedelta(seconds=age_s))
    return delivery


def came(delivery: WebhookDelivery, at: datetime) -> None:
    WebhookDelivery.objects.filter(pk=delivery.pk).update(received_at=at)


def look(delivery: WebhookDelivery) -> tuple[str, str]:
    delivery.refresh_from_db()
    return delivery.state, delivery.error


def written_down() -> list[tuple[str, str, str]]:
    return list(WebhookReprocessing.objects.values_list("actor", "state", "result"))


# --- rejected --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age_s", [0, 5 * 86_400])
def test_one_that_a_missing_secret_kept_out_is_booked(settings: Settings, age_s: int) -> None:
    _, payment = authorized()
    delivery = kept_out(settings, age_s)
    done = reprocessing.reprocess(delivery.pk, "grace")
    assert done.message == f"In the books of {payment.merchant_reference} now: receipt €39.98 succeeded."
    assert not done.repeated
    assert look(delivery) == (State.PROCESSED, "")
    assert (totals(payment).received, signals()) == (TOTAL, ["confirm_payment"])
    assert written_down() == [("grace", "processed", done.message)]


def test_one_whose_secret_is_still_missing_is_rejected_again(settings: Settings) -> None:
    _, payment = authorized()
    delivery = assert_rejected(webhook(secret=new_secret()))
    with pytest.raises(NotProcessed, match=WRONG):
        reprocessing.reprocess(delivery.pk, "grace")
    assert look(delivery) == (State.REJECTED, WRONG)
    assert delivery.events == []
    assert totals(payment).received == 0
    assert written_down() == [("grace", "rejected", WRONG)]


def test_a_stale_one_stays_stale_by_when_it_came_in() -> None:
    authorized()
    delivery = assert_rejected(webhook(age_s=400))
    for received in (timezone.now(), timezone.now() + timedelta(days=1)):
        came(delivery, received)
        with pytest.raises(NotProcessed, match=STALE):
            reprocessing.reprocess(delivery.pk, "grace")
    assert look(delivery) == (State.REJECTED, STALE)
    assert not PaymentEvent.objects.filter(type="receipt").exists()


def test_one_that_came_again_meanwhile_is_not_booked_twice(settings: Settings) -> None:
    _, payment = authorized()
    delivery = kept_out(settings)
    assert_taken(webhook())
    done = reprocessing.reprocess(delivery.pk, "grace")
    assert (done.message, done.repeated) == ("Seen before as evt_1; nothing was done again.", True)
    assert look(delivery) == (State.PROCESSED, done.message)
    assert reprocessing.reprocess(delivery.pk, "grace").repeated
    assert totals(payment).received == TOTAL


def test_one_that_its_provider_sends_again_later_is_seen_before(settings: Settings) -> None:
    _, payment = authorized()
    reprocessing.reprocess(kept_out(settings).pk, "grace")
    assert "Seen before" in assert_taken(webhook()).error
    assert totals(payment).received == TOTAL


def test_stripes_rotation_that_came_too_late_is_mended(stripe: StripeServer, settings: Settings) -> None:
    settings.PAYMENT_GATEWAYS = {"stripe": "payments.gateways.stripe.StripeGateway"}
    reference = captured(stripe)
    payment = open_payment("stripe", "VK-1", Money(1000, "EUR"), "VK-1/1/payment_hold")
    payment.reference = reference
    payment.save()
    old, settings.STRIPE_WEBHOOK_SECRETS = settings.STRIPE_WEBHOOK_SECRETS, [new_secret()]
    for sent in stripe.webhooks(reference):
        late = stripe.signed(sent.body, age_s=86_400)
        deliver_to_stripe(late.headers, late.body, 400)
    settings.STRIPE_WEBHOOK_SECRETS = [new_secret(), *old]
    stale = WebhookDelivery.objects.latest("id")
    with pytest.raises(NotProcessed, match="older than five minutes"):
        reprocessing.reprocess(stale.pk, "grace")
    WebhookDelivery.objects.update(received_at=timezone.now() - timedelta(days=1))
    for delivery in WebhookDelivery.objects.order_by("id"):
        reprocessing.reprocess(delivery.pk, "grace")
    assert set(WebhookDelivery.objects.values_list("state", flat=True)) == {State.PROCESSED}
    assert (totals(payment).received, totals(payment).captured) == (1000, 1000)


def deliver_to_stripe(headers: dict[str, str], body: bytes, status: int) -> None:
    path = "/webhooks/payments/stripe/"
    answer = Client().post(path, body, content_type="application/json", headers=headers)
    assert answer.status_code == status, answer.content


def test_a_gateway_that_is_not_set_up_any_more_is_said(settings: Settings) -> None:
    from payments.gateways import gateway

    delivery = kept_out(settings)
    settings.PAYMENT_GATEWAYS = {}
    gateway.cache_clear()
    with pytest.raises(NotProcessed, match="“sandbox” is not set up here"):
        reprocessing.reprocess(delivery.pk, "grace")
    assert look(delivery) == (State.REJECTED, WRONG)


# --- the other states ------------------------------------------------------------------------------------


def test_a_processed_one_books_nothing_new() -> None:
    _, payment = authorized()
    delivery = assert_taken(webhook())
    processed_at = delivery.processed_at
    done = reprocessing.reprocess(delivery.pk, "grace")
    assert (done.message, done.repeated) == ("Nothing new: it was in the books already.", True)
    assert look(delivery) == (State.PROCESSED, "")
    assert delivery.processed_at == processed_at
    assert (totals(payment).received, signals()) == (TOTAL, ["confirm_payment"])
    assert written_down() == [("grace", "processed", done.message)]


def test_a_processed_one_stays_so_when_its_secret_is_gone(settings: Settings) -> None:
    authorized()
    delivery = assert_taken(webhook())
    settings.SANDBOX_WEBHOOK_SECRETS = [new_secret()]
    assert reprocessing.reprocess(delivery.pk, "grace").repeated
    assert look(delivery) == (State.PROCESSED, "")


def test_one_that_failed_here_is_processed(monkeypatch: pytest.MonkeyPatch) -> None:
    _, payment = authorized()
    with monkeypatch.context() as patched:
        patched.setattr("payments.services.webhooks.record", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            deliver(webhook())
    (delivery,) = WebhookDelivery.objects.filter(state=State.RECEIVED)
    assert not reprocessing.reprocess(delivery.pk, "grace").repeated
    assert look(delivery) == (State.PROCESSED, "")
    assert totals(payment).received == TOTAL


def test_a_waiting_one_looks_for_its_payment_again() -> None:
    delivery = assert_taken(webhook(merchant_reference="ORD-1"), State.WAITING)
    with pytest.raises(NotProcessed, match="No payment here has the PSP reference pay_1 yet"):
        reprocessing.reprocess(delivery.pk, "grace")
    payment = open_payment("sandbox", "ORD-1", Money(TOTAL, "EUR"), "ORD-1/1/payment_hold")
    payment.reference = "pay_1"  # as a repair by hand may leave it
    payment.save()
    done = reprocessing.reprocess(delivery.pk, "grace")
    assert done.message == "In the books of ORD-1 now: receipt €39.98 succeeded."
    assert look(delivery) == (State.PROCESSED, "")
    assert ReviewItem.objects.get().state == "closed"
    assert [state for _, state, _ in written_down()] == ["waiting", "processed"]


def test_what_was_done_again_cannot_be_changed() -> None:
    authorized()
    reprocessing.reprocess(assert_taken(webhook()).pk, "grace")
    for change in (
        lambda: WebhookReprocessing.objects.update(actor="mallory"),
        lambda: WebhookReprocessing.objects.all().delete(),
    ):
        with pytest.raises(DatabaseError, match="append_only"), transaction.atomic():
            change()


@pytest.mark.django_db(transaction=True)
def test_two_people_at_once_book_it_once(settings: Settings) -> None:
    _, payment = authorized()
    delivery = kept_out(settings)
    at_once(*[partial[object](reprocessing.reprocess, delivery.pk, who) for who in ("ada", "grace")])
    assert (totals(payment).received, signals()) == (TOTAL, ["confirm_payment"])
    assert sorted(result.split()[0] for _, _, result in written_down()) == ["In", "Nothing"]
    assert {state for _, state, _ in written_down()} == {"processed"}


@pytest.mark.django_db(transaction=True)
def test_reprocessing_meets_the_answer_and_the_webhook_itself() -> None:
    for number in range(10):
        payment = open_payment(
            "sandbox", f"ORD-{number}", Money(TOTAL, "EUR"), f"ORD-{number}/1/payment_hold"
        )
        message = webhook(
            f"evt_{number}", payment_reference=f"pay_{number}", merchant_reference=f"ORD-{number}"
        )
        delivery = assert_taken(message, State.WAITING)

        def again(pk: int = delivery.pk) -> None:
            with suppress(NotProcessed):
                reprocessing.reprocess(pk, "grace")

        at_once(
            again,
            partial[object](deliver, message),
            partial[object](absorb, payment, remote(payment, f"pay_{number}"), "call"),
        )
        assert totals(payment).received == TOTAL, number
    assert set(WebhookDelivery.objects.values_list("state", flat=True)) == {State.PROCESSED}
    assert not ReviewItem.objects.filter(state="open").exists()


# --- the review item -------------------------------------------------------------------------------------


def unknown(**changes: Any) -> ReviewItem:
    assert_taken(webhook(**changes), State.WAITING)
    return ReviewItem.objects.get()


def test_the_item_looks_for_the_payment_and_takes_in_all_that_waited() -> None:
    item = unknown(merchant_reference="ORD-1", amount=100)
    assert_taken(webhook("evt_2", merchant_reference="ORD-1", amount=200), State.WAITING)
    with pytest.raises(NotProcessed, match="No payment here"):
        reprocessing.retry(item.pk, "grace")
    payment = open_payment("sandbox", "ORD-1", Money(TOTAL, "EUR"), "ORD-1/1/payment_hold")
    payment.reference = "pay_1"
    payment.save()
    assert "receipt €1.00 succeeded, receipt €2.00" in reprocessing.retry(item.pk, "grace").message
    assert totals(payment).received == 300
    assert reprocessing.retry(item.pk, "grace").repeated


def test_an_item_left_open_by_a_race_closes_when_its_payment_is_looked_for() -> None:
    item = unknown(merchant_reference="ORD-1")
    payment = open_payment("sandbox", "ORD-1", Money(TOTAL, "EUR"), "ORD-1/1/payment_hold")
    absorb(payment, remote(payment), "call")
    ReviewItem.objects.update(state="open")
    assert reprocessing.retry(item.pk, "grace").repeated
    assert ReviewItem.objects.get().state == "closed"


def test_a_discarded_payment_is_off_the_list_and_booked_if_it_becomes_known() -> None:
    item = unknown()
    with pytest.raises(NotProcessed, match="Say why"):
        reprocessing.discard(item.pk, "grace", " ")
    assert "is discarded" in reprocessing.discard(item.pk, "grace", "The test shop's").message
    item.refresh_from_db()
    assert (item.state, item.resolved_by, item.resolution) == (
        "closed",
        "grace",
        "Discarded: The test shop's",
    )
    delivery = WebhookDelivery.objects.get()
    assert (delivery.state, delivery.error) == (State.DISCARDED, "Discarded by grace: The test shop's")
    again = reprocessing.discard(item.pk, "ada", "Twice")
    assert (again.message, again.repeated) == ("It was processed in the meantime by grace.", True)
    with pytest.raises(NotProcessed, match="No payment here"):
        reprocessing.reprocess(delivery.pk, "grace")
    # The same news in another message are decided already; more of them are not.
    assert_taken(webhook("evt_2", psp_reference="psp_evt_1"), State.DISCARDED)
    assert not ReviewItem.objects.filter(state="open").exists()
    assert_taken(webhook("evt_3", amount=1), State.WAITING)
    assert ReviewItem.objects.get(state="open").detail.endswith("received €0.01.")
    payment = open_payment("sandbox", "ORD-1", Money(TOTAL, "EUR"), "ORD-1/1/payment_hold")
    absorb(payment, remote(payment), "call")
    assert totals(payment).received == TOTAL + 1


def test_what_came_after_the_page_was_shown_is_not_discarded_unseen() -> None:
    item = unknown()
    assert_taken(webhook("evt_2"), State.WAITING)
    with pytest.raises(NotProcessed, match="More has come"):
        reprocessing.discard(item.pk, "grace", "The test shop's", seen=item.detail)
    assert WebhookDelivery.objects.filter(state=State.WAITING).count() == 2


def test_it_cannot_be_closed_past_its_webhooks() -> None:
    with pytest.raises(reviewing.ReviewRefused, match="Discard the webhooks"):
        reviewing.close(unknown().pk, "grace", "Done")


# --- manage.py reconcile ---------------------------------------------------------------------------------


def old() -> None:
    WebhookDelivery.objects.update(received_at=timezone.now() - timedelta(hours=2))


def test_reconcile_finds_and_mends_what_waits_in_vain() -> None:
    _, payment = authorized(reference="")
    assert_taken(webhook(merchant_reference=payment.merchant_reference), State.WAITING)
    assert found(messages.webhooks) == []
    old()
    (difference,) = found(messages.webhooks)
    assert difference.about == payment.merchant_reference
    assert "tells of payment pay_1, which is not in our books" in difference.sentence
    assert difference.fix()
    assert ReviewItem.objects.get().amount == TOTAL
    assert found(messages.webhooks) == []
    assert [actor for actor, _, _ in written_down()] == ["reconcile"]


def test_reconcile_has_old_news_without_money_decided_too() -> None:
    assert_taken(webhook(type="authorization"), State.WAITING)
    old()
    assert [d.fix() for d in found(messages.webhooks)] == [True]
    assert ReviewItem.objects.get().detail.endswith("authorized €39.98.")


def test_reconcile_mends_what_was_stored_and_never_processed(settings: Settings) -> None:
    _, payment = authorized()
    delivery = kept_out(settings, age_s=7200)
    WebhookDelivery.objects.update(state=State.RECEIVED, error="")
    (difference,) = found(messages.webhooks)
    assert difference.sentence == "A webhook of sandbox was stored and never processed."
    assert difference.fix()
    assert look(delivery) == (State.PROCESSED, "")
    assert totals(payment).received == TOTAL
    assert found(messages.webhooks) == []


# --- the screens -----------------------------------------------------------------------------------------


def address(delivery: WebhookDelivery, what: str = "reprocess") -> str:
    return reverse(f"admin:payments_webhookdelivery_{what}", args=[delivery.pk])


@pytest.mark.parametrize(
    ("role", "allowed"),
    [("viewer", False), ("orders", False), ("payments", True), ("ops", True), ("admin", True)],
)
def test_without_the_permission_there_is_no_button_and_no_page(
    role: str, allowed: bool, login: Callable[[str], Client]
) -> None:
    client, item = login(role), unknown()
    delivery = WebhookDelivery.objects.get()
    again = reverse("admin:payments_reviewitem_webhook-again", args=[item.pk])
    for page, url in (
        (address(delivery, "change"), address(delivery)),
        (reverse("admin:payments_reviewitem_change", args=[item.pk]), again),
    ):
        assert (f'href="{url}"' in client.get(page).content.decode()) is allowed
        assert client.get(url).status_code == (200 if allowed else 403)
        assert client.post(url, {"ids": delivery.pk}).status_code == (200 if allowed else 403)
    shown = client.get(reverse("admin:payments_webhookdelivery_changelist")).content.decode()
    assert ('value="reprocess"' in shown) is allowed
    assert bool(written_down()) is allowed
    discard = reverse("admin:payments_reviewitem_webhook-discard", args=[item.pk])
    assert client.get(discard).status_code == (200 if role in ("payments", "admin") else 403)


def test_the_page_says_what_will_happen_and_what_did(
    login: Callable[[str], Client], settings: Settings
) -> None:
    _, payment = authorized()
    delivery, client = kept_out(settings), login("payments")
    page = client.get(address(delivery)).content.decode()
    assert "It is verified with the secrets in force now" in page
    assert written_down() == [], "GET acts on nothing"
    answer = client.post(address(delivery), {"ids": delivery.pk, "do": delivery.pk}, follow=True)
    told = answer.content.decode()
    assert f"In the books of {payment.merchant_reference} now: receipt €39.98 succeeded." in told
    assert "payments</p>" in told, "who did it is on the webhook's page"
    again = client.post(address(delivery), {"ids": delivery.pk, "do": delivery.pk}, follow=True)
    assert "Nothing new: it was in the books already." in again.content.decode()


def test_many_at_once_are_told_one_by_one(admin: Client, settings: Settings) -> None:
    authorized()
    good = kept_out(settings)
    bad = assert_rejected(webhook("evt_2", secret=new_secret()))
    done = assert_taken(webhook("evt_3", amount=1))
    stray = assert_taken(webhook("evt_4", payment_reference="pay_x"), State.WAITING)
    pks = [good.pk, bad.pk, done.pk, stray.pk]
    chosen = admin.post(
        reverse("admin:payments_webhookdelivery_changelist"),
        {"action": "reprocess", "_selected_action": pks},
    )
    form = form_of(admin.get(chosen.headers["Location"]))  # type: ignore[arg-type]
    told = admin.post(chosen.headers["Location"], form).content.decode()
    for sentence in (
        "In the books of", "The webhook&#x27;s signature is wrong.", "Nothing new", "PSP reference pay_x yet",
    ):  # fmt: skip
        assert sentence in told
    assert len(written_down()) == 4


def test_the_review_list_shows_and_finds_the_unknown_payment(admin: Client) -> None:
    item = unknown(payment_reference="pay_x", merchant_reference="ORD-7")
    delivery = WebhookDelivery.objects.get()
    listed = admin.get(reverse("admin:payments_reviewitem_changelist"), {"q": "pay_x"}).content.decode()
    link = f'<a href="{address(delivery, "change")}">Webhook of sandbox: pay_x</a>'
    assert link in listed
    assert "€39.98" in listed
    assert "unknown reference" in listed
    url = reverse("admin:payments_reviewitem_change", args=[item.pk])
    page = admin.get(url).content.decode()
    assert link in page
    assert [label in page for label in ("Look for the payment again", "Discard the webhooks")] == [True, True]
    assert f'href="{url}close/"' not in page
    assert f'<a href="{url}">' in admin.get(address(delivery, "change")).content.decode()
    discard = reverse("admin:payments_reviewitem_webhook-discard", args=[item.pk])
    form = form_of(admin.get(discard)) | {"reason": "The test shop's"}  # type: ignore[arg-type]
    assert "is discarded." in admin.post(discard, form, follow=True).content.decode()
    assert ReviewItem.objects.get().state == "closed"


def test_the_review_list_costs_the_same_for_one_webhook_and_many(admin: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            admin.get(reverse("admin:payments_reviewitem_changelist"))
        return len(seen)

    unknown(payment_reference="pay_x")
    few = queries()
    for number in range(5):
        assert_taken(webhook(f"evt_x{number}", payment_reference=f"pay_{number}x"), State.WAITING)
    assert queries() == few
