"""The first page of the staff site: what waits for a person."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import Settings

from payments.models import OutgoingTransfer
from payments.services import transfers
from payments.services.transfers import Payee
from shop.kernel.money import Money
from shop.work_queue import tasks
from tests.payments.paper_bank import ADA, SETTINGS

pytestmark = pytest.mark.django_db


def clerk() -> User:
    user = User.objects.create_user("grace", is_staff=True)
    user.groups.set(Group.objects.filter(name="payments"))
    return user


def test_money_to_be_sent_back_is_on_it_until_it_is_in_a_file(settings: Settings) -> None:
    settings.BANK_IBAN, settings.BANK_ACCOUNT_HOLDER = SETTINGS["BANK_IBAN"], "Shop"
    transfers.pay_back(Money(500, "EUR"), "one", "grace", payee=Payee("Ada", ADA))
    transfers.pay_back(Money(700, "EUR"), "two", "grace")
    user = clerk()

    def waiting() -> dict[str, int]:
        return {
            str(task.label).rpartition(": ")[2]: task.count
            for task in tasks(user)
            if "Refunds to send" in str(task.label)
        }

    assert waiting() == {"ready for a file": 1, "account missing": 1}
    transfers.set_account(OutgoingTransfer.objects.get(amount=700), "Bob", ADA, "grace")
    assert waiting() == {"ready for a file": 2, "account missing": 0}
    transfers.make_batch(OutgoingTransfer.objects.all(), "grace")
    assert waiting() == {"ready for a file": 0, "account missing": 0}


def test_each_line_leads_to_a_list_that_knows_its_filter() -> None:
    user = clerk()
    client = Client()
    client.force_login(user)
    for task in tasks(user):
        answer = client.get(task.url)  # a filter that is unknown is answered with a redirect
        assert answer.status_code == 200, task.label
        for name in parse_qs(urlsplit(task.url).query):
            assert name in answer.content.decode(), task.label


def test_everyone_sees_only_lists_that_they_may_open() -> None:
    client = Client()
    client.force_login(clerk())
    page = client.get(reverse("admin:index")).content.decode()
    for url in set(re.findall(r'href="(/admin/[^"]*)"', page)):
        assert client.get(url).status_code in (200, 302), url
