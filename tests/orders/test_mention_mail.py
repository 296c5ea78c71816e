"""The mail to a colleague who was named in what somebody wrote about an order."""

from __future__ import annotations

import smtplib
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group, User
from django.core import mail
from django.utils import timezone
from pytest_django.fixtures import Settings

from orders.models import Mention, Order
from orders.services import notes
from orders.services.mails import MailNotSent
from shop.kernel.models import OutboxMessage
from tests import factories
from tests.orders.test_admin import shop

__all__ = ["shop"]  # a fixture
pytestmark = pytest.mark.django_db


@pytest.fixture
def order() -> Order:
    factories.product()
    return factories.place()


def colleague(name: str, email: str) -> User:
    user = User.objects.create_user(name, email, is_staff=True)
    user.groups.set(Group.objects.filter(name="orders"))
    return user


def queued() -> list[str]:
    return list(
        OutboxMessage.objects.filter(name="MentionMailWorkflow").values_list("workflow_id", flat=True)
    )


def test_who_has_an_address_is_told_by_mail_once(order: Order) -> None:
    for name, email in (("bob", "bob@example.com"), ("eve", ""), ("ada", "ada@example.com")):
        colleague(name, email)
    form = uuid4()
    for _press in range(2):
        notes.comment(order.number, "ada", "@bob @eve @ada please look", form)
    bob = Mention.objects.get(person__username="bob")
    assert queued() == [f"mention-mail-{bob.pk}"]


def test_the_mail_says_where_and_nothing_of_what_was_written(order: Order, settings: Settings) -> None:
    settings.SITE_URL = "https://shop.example"
    colleague("bob", "bob@example.com")
    notes.change_notes(order.number, "ada", "@bob the customer Konrad Zuse called.")
    mention = Mention.objects.get()
    assert notes.mail(mention.pk)
    (sent,) = mail.outbox
    assert sent.to == ["bob@example.com"]
    assert sent.subject == f"[{settings.SHOP_NAME}] ada mentioned you on {order.number}"
    assert f"https://shop.example/admin/orders/order/{order.pk}/change/" in sent.body
    assert "Zuse" not in sent.body
    assert sent.extra_headers["Message-ID"] == f"<mention-{mention.pk}@vorkasse>"


def test_no_mail_to_who_has_seen_it_or_may_not_any_more(order: Order) -> None:
    bob = colleague("bob", "bob@example.com")
    notes.comment(order.number, "ada", "@bob look", uuid4())
    notes.comment(order.number, "ada", "@bob look again", uuid4())
    first, second = Mention.objects.order_by("pk")
    Mention.objects.filter(pk=first.pk).update(seen_at=timezone.now())
    bob.groups.clear()
    assert [notes.mail(pk) for pk in (first.pk, second.pk, 0)] == [False, False, False]
    assert mail.outbox == []


def test_a_mail_server_that_is_away_is_an_error_to_try_again_that_names_nobody(
    order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    colleague("bob", "bob@example.com")
    notes.comment(order.number, "ada", "@bob look", uuid4())

    def away(_message: object) -> None:
        raise smtplib.SMTPRecipientsRefused({"bob@example.com": (450, b"later")})

    monkeypatch.setattr("orders.services.notes.EmailMessage.send", away)
    with pytest.raises(MailNotSent) as refused:
        notes.mail(Mention.objects.get().pk)
    assert "bob" not in str(refused.value)
    assert refused.value.__cause__ is None
