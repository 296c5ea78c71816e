"""No page shows a text that nobody has marked for translation.

The whole site is rendered with each translated text wrapped (`tests.unmarked`), with data of all kinds in it, and each
of its forms is sent, empty and filled in. What stands outside has to be data: a value of the database, a number, a
code, or said the same in every language.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import islice
from typing import Any

import pytest
from django import forms
from django.apps import apps
from django.conf import settings
from django.contrib.admin import site
from django.contrib.auth.models import Group, User
from django.db import models
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from shop import demo_orders, probing
from shop.kernel.forms import AmountField
from shop.management.commands.seed_demo import Command
from tests import unmarked
from tests.orders.test_admin import waiting
from tests.payments.our_bank import our_bank
from tests.shop.test_who_may_what import doors, everything, person, quiet, undone, urls

__all__ = ["everything", "quiet"]  # fixtures
pytestmark = pytest.mark.django_db

KEY = re.compile(r"\b(?:\d+-)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
AREAS = ("orders", "payments", "ops", "")  # the last is the rest
# Said the same in every language, and what programs say among themselves.
SAME = [
    r"https?://\S+|(?<!\w)/[\w/.-]+|[\w.+-]+@[\w.-]+|[\w-]*\.(?:xml|csv|pdf|sta)\b|^\{.*\}$",
    r"\b(?:Vorkasse|Temporal|Stripe|UTC|EUR|IBAN|BIC|SKU|CSV|XLSX|SEPA|GiroCode|JSON|XML|HTML|English|Deutsch)\b",
    r"\b\d+(?:[.,:]\d+)* ?(?:d|h|min|s|ms|k|M|kB|MB|%)(?!\w)",
    r"\b\w+Workflow\b|\b(?:order-saga|fulfillment|payment-monitor|order-mail)-(?:ORD-)?[\w/-]*",
    r"\b(?:hourly-payment-batch|hourly-bulk-fulfillment|daily-reconcile)\b|“0 0 0 29 2 \* 2096”",
    r"\b(?:[A-Z2-7]{4} ){7}[A-Z2-7]{4}\b|\bvk_[\w-]+|\bRF\d\d(?: \w{1,4})+|\bDE\d\d(?: \w{1,4})+",
    r"\b(?:sandbox|bank_transfer|stripe)\b",  # what a gateway is called in the settings
    r"^(?:True|False)$",  # what Django's icons say
    r"\(erased\)",  # stands in the books where a name stood
    r"^\s*does not answer\.$",  # Temporal, by a fixture
    # Django's, and that of others, which they do not translate themselves.
    r"pbkdf2_sha256|[\w+/]+\*{9,}|^Group-permission relationship.*",
    r"^Whether the user will be able to authenticate.*|^If disabled, the current password.*",
    r"(?:Access Log for|Attempted Access:) .*",
]


def rows(model: type[models.Model]) -> Iterator[models.Model]:
    """One row of each kind: for every combination of the model's choices."""
    kinds = [field.name for field in model._meta.fields if field.choices]
    found = model._default_manager.order_by(*kinds, "pk")
    yield from found.distinct(*kinds) if kinds else found[:3]


def pages(area: str) -> list[str]:
    """Every address of the area, and those of every kind of row; what is done to rows, for some of them."""
    found: dict[str, None] = {}
    shown = {f"/admin/{m._meta.app_label}/{m._meta.model_name}/": m for m in site._registry}
    for door in doors():
        of_model = re.match(r"/admin/\w+/\w+/", door.route)
        if area_of(door.route) != area or door.name == "orders_mail_html":  # mails are the customer's
            continue
        found |= dict.fromkeys(urls(door))
        if door.route.count("<") == 1 and of_model and of_model[0] in shown:
            kinds = islice(rows(shown[of_model[0]]), 3 if door.act else None)
            found |= {re.sub("<.*>", str(row.pk), door.route): None for row in kinds}
    return list(found)


def area_of(route: str) -> str:
    return next((area for area in AREAS if route.startswith(f"/admin/{area}/")), "")


def values() -> re.Pattern[str]:
    """What the database holds of people, goods and providers. Its lower-case words are codes that have names."""
    found = {
        "typed",
        "demo",
        "shop",
        "test",
        *(str(getattr(settings, f"BANK_{part}")) for part in ("BIC", "ACCOUNT_HOLDER", "NAME")),
        *User.objects.values_list("username", flat=True),
        *Group.objects.values_list("name", flat=True),
    }
    kinds = (models.CharField, models.TextField, models.UUIDField)
    for model in apps.get_models():
        names = [f.name for f in model._meta.fields if isinstance(f, kinds) and not f.choices]
        for row in model._default_manager.values_list(*names):
            lines = {" ".join(line.split()) for value in row if value for line in str(value).splitlines()}
            found |= {line for line in lines if not re.fullmatch("[a-z]*|[0-9]*|.", line)}
    longest_first = sorted(found, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")


def filled_in(form: forms.BaseForm) -> dict[str, Any]:
    """What somebody may type who means well."""
    typed: dict[str, Any] = {}
    for name, field in form.fields.items():
        value = form.get_initial_for_field(field, name)
        choices: Any = getattr(field, "choices", None)
        if choices is not None:
            value = next((key for key, _words in reversed(list(choices)) if key), "")
        elif isinstance(field, forms.DateTimeField):
            value = (timezone.now() + timedelta(days=20)).strftime("%Y-%m-%dT%H:%M")
        elif isinstance(field, forms.DateField):
            value = date(2026, 3, 1).isoformat()
        elif isinstance(field, AmountField):
            value = form[name].value() or "1"
        typed[form.add_prefix(name)] = value if value not in (None, "") else "typed"
    return typed


@pytest.fixture
def rich(everything: None, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(demo_orders, "_MODELS", ())  # VACUUM does not run inside of a test's transaction
    Command()._products()
    demo_orders.make(300)
    waiting(paid=100)
    # In this thread, which has the transaction.
    monkeypatch.setattr(probing, "_ask_all", lambda probes: [probed(probe) for probe in probes])
    with our_bank(settings):
        yield


def probed(probe: Any) -> probing.Health:
    try:
        outcome = probe.ask()
        if asyncio.iscoroutine(outcome):
            outcome.close()
            outcome = probing.Down("Temporal")
    except Exception as error:
        outcome = error
    return probing._judged(probe, outcome, 0)


@pytest.mark.parametrize("area", AREAS)
def test_every_text_of_every_page_is_marked(area: str, rich: None) -> None:
    found: dict[str, str] = {}
    with unmarked.marked():
        admin = person("admin")
        for url in pages(area):
            for answer in answers(admin, url):
                if answer.status_code == 200 and answer["Content-Type"].startswith("text/html"):
                    for text in unmarked.outside(answer.content.decode()):
                        found.setdefault(text, url)
    data = values()
    left = {words: f"{text}  ({url})" for text, url in found.items() if (words := unsaid(text, data))}
    assert not left, f"{len(left)} texts are not marked for translation:\n" + "\n".join(sorted(left.values()))


def answers(admin: Client, url: str) -> Iterator[HttpResponse | Any]:
    page = admin.get(url)
    yield page
    if page.status_code != 200 or not page.context or b'method="post"' not in page.content:
        return
    form = page.context.get("form")
    with undone():
        yield admin.post(url, filled_in(form) if isinstance(form, forms.BaseForm) else {}, follow=True)


def unsaid(text: str, data: re.Pattern[str]) -> str:
    """What of the text is neither data nor the same in every language; empty if that has no word."""
    text = data.sub(" ", KEY.sub(" ", text))
    for same in SAME:
        text = re.sub(same, " ", text)
    return " ".join(text.split()).strip(" :›|") if re.search(r"[^\W\d_]{2,}", text) else ""
