"""Codes and stored sentences in the language of who reads, while the books keep what was written."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.test import Client
from django.utils.translation import gettext as _
from django.utils.translation import override

from orders.models import DeadLetter, Saga
from orders.services import dead_letter_facts, notes
from orders.words import by, named, said
from orders.workflows.types import NO_PAYMENT, Step
from payments.gateways.base import EventOutcome, EventType, RemoteStatus
from tests import factories
from tests.orders.test_admin import admin, login, page, shop, waiting

__all__ = ["admin", "login", "shop"]  # fixtures

CODES = [*Step, *EventType, *EventOutcome, *RemoteStatus, "pending", "partially_paid", "partially_refunded"]


@pytest.mark.parametrize("code", [*map(str, CODES), "bank_transfer", *sorted(settings.CARRIERS)])
def test_every_code_has_a_name_in_german(code: str) -> None:
    with override("en"):
        assert named(code) == code.replace("_", " ")
    with override("de"):
        assert named(code) != code.replace("_", " ")


def test_people_keep_their_names_and_what_they_typed() -> None:
    with override("de"):
        assert (by("saga"), by("anna_k")) == ("Ablauf", "anna_k")
        assert (said("Anna asked for it"), said("")) == ("Anna asked for it", "")


@pytest.mark.django_db
def test_the_order_page_says_in_german_what_the_worker_stored_in_english(admin: Client) -> None:
    factories.product()
    order = waiting()
    Saga.objects.update(status="cancelled", reason=NO_PAYMENT)
    assert f"Cancelled: {NO_PAYMENT}" in page(admin, order)
    admin.cookies[settings.LANGUAGE_COOKIE_NAME] = "de"
    text = page(admin, order)
    assert "Storniert: Bis zum Ende der Zahlungsfrist kam keine Zahlung" in text
    assert Saga.objects.get().reason == NO_PAYMENT


@pytest.mark.django_db
def test_a_sentence_of_the_shop_is_stored_as_it_always_was() -> None:
    factories.product()
    order = waiting(notes="ring twice")
    with override("de"):
        notes.change_notes(order.number, "ada", "")
    assert order.events.get(kind="note").reason == "The notes were emptied."


def test_the_providers_view_is_in_the_language_of_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for in another thread."""
    monkeypatch.setattr(
        dead_letter_facts,
        "_payment_view",
        lambda letter: dead_letter_facts.View(sentence=_("No payment was ever opened.")),
    )
    with override("de"):
        view = dead_letter_facts.provider_view(DeadLetter(step=Step.PAYMENT_HOLD))
    assert view.sentence == "Es wurde nie eine Zahlung eröffnet."
