"""A mail to a customer goes out at most once; where nobody can know, a person decides."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections
from django.utils import timezone

from orders.models import Mail, Order
from orders.services import mails
from tests import factories
from tests.payments.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from tests.orders.conftest import PickyMailbox

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("provider", "mailbox")]


@pytest.fixture
def order(provider: SandboxProcess) -> Order:
    factories.product("TEA")
    return factories.place(("TEA", 2))


def _send(order: Order) -> Mail:
    return mails.send(order.number, 1, "cancelled")


def test_mail_is_sent_once_with_an_id_that_follows_from_the_order(
    order: Order, mailbox: PickyMailbox
) -> None:
    assert _send(order).state == "sent"
    assert _send(order).state == "sent"
    (message,) = mailbox.messages
    assert message["Message-ID"] == f"<{order.number}.1.cancelled@localhost>"
    assert (message["To"], order.number in message["Subject"]) == ("ada@example.com", True)
    assert message.get_content_type() == "multipart/alternative"
    mail = Mail.objects.get()
    assert (mail.attempts, mail.sent_at is not None) == (1, True)


def test_mail_that_is_refused_for_now_is_sent_later(order: Order, mailbox: PickyMailbox) -> None:
    mailbox.refusal = "451 Try again later"
    for _ in range(2):
        with pytest.raises(mails.MailNotSent, match="451"):
            _send(order)
    assert Mail.objects.get().state == "queued"
    mailbox.refusal = None
    assert _send(order).state == "sent"
    assert (len(mailbox.messages), Mail.objects.get().attempts) == (1, 3)


def test_mail_server_that_is_away_is_tried_again(order: Order, mailbox: PickyMailbox, settings: Any) -> None:
    port, settings.EMAIL_PORT = settings.EMAIL_PORT, 1
    with pytest.raises(mails.MailNotSent, match="cannot be reached"):
        _send(order)
    settings.EMAIL_PORT = port
    assert _send(order).state == "sent"
    assert len(mailbox.messages) == 1


def test_mail_that_is_refused_for_good_has_failed_and_is_not_tried_again(
    order: Order, mailbox: PickyMailbox
) -> None:
    mailbox.refusal = "550 No such user"
    with pytest.raises(mails.MailRefused, match="550"):
        _send(order)
    mailbox.refusal = None
    with pytest.raises(mails.MailRefused, match="550"):
        _send(order)
    assert (Mail.objects.get().state, mailbox.messages) == ("failed", [])


def test_connection_lost_in_the_middle_leaves_the_mail_unknown(order: Order, mailbox: PickyMailbox) -> None:
    mailbox.hanging_up = True
    with pytest.raises(mails.MailRefused, match="Nobody knows"):
        _send(order)
    mailbox.hanging_up = False
    with pytest.raises(mails.MailRefused, match="connection broke"):
        _send(order)
    assert (Mail.objects.get().state, mailbox.messages) == ("unknown", [])


def test_sender_that_died_in_the_middle_leaves_the_mail_unknown_and_unsent(
    order: Order, mailbox: PickyMailbox
) -> None:
    mail = mails.write(order.sagas.get(), "cancelled")
    Mail.objects.filter(pk=mail.pk).update(state="sending", sending_since=timezone.now(), attempts=1)
    with pytest.raises(mails.MailNotSent, match="by someone else"):
        _send(order)
    Mail.objects.filter(pk=mail.pk).update(sending_since=timezone.now() - timedelta(minutes=2))
    with pytest.raises(mails.MailRefused, match="died in the middle"):
        _send(order)
    mail.refresh_from_db()
    assert (mail.state, mail.attempts, mailbox.messages) == ("unknown", 1, [])


def test_two_senders_at_once_send_one_mail(order: Order, mailbox: PickyMailbox) -> None:
    mailbox.holding = True
    outcome: list[str] = []

    def first() -> None:
        try:
            outcome.append(_send(order).state)
        finally:
            connections.close_all()

    sender = threading.Thread(target=first)
    sender.start()
    while not mailbox.held:
        assert sender.is_alive()
    with pytest.raises(mails.MailNotSent, match="by someone else"):
        _send(order)
    mailbox.holding = False
    sender.join(20)
    assert (outcome, len(mailbox.messages)) == (["sent"], 1)
