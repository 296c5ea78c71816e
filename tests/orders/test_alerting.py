"""What ops are told: one alert and one follow-up, whatever the storm; by mail and by a signed webhook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from orders.models import OpsAlert, OpsAlertNotice
from orders.services import alerting
from orders.workflows.ops_alert import GATHER, QUIET
from orders.workflows.types import Alert, AlertLook
from payments.sandbox.signing import is_signed, new_secret
from shop.kernel.models import OutboxMessage
from tests.orders.conftest import PickyMailbox
from tests.orders.engine import Engine
from tests.orders.practice_shop import OPS

pytestmark = pytest.mark.django_db(transaction=True)


class Chat:
    """A chat tool's incoming webhook on a socket. `answers` are its next status codes, then 204."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                chat.heard.append(({name.lower(): text for name, text in self.headers.items()}, body))
                self.send_response(chat.answers.pop(0) if chat.answers else 204)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/hook"

    def texts(self) -> list[str]:
        return [json.loads(body)["text"].partition("\n")[0] for _headers, body in self.heard]


@pytest.fixture
def chat(settings: Any) -> Iterator[Chat]:
    made = Chat()
    thread = Thread(target=made.server.serve_forever)
    thread.start()
    settings.OPS_ALERT_WEBHOOK_URL = made.url
    settings.OPS_ALERT_WEBHOOK_SECRET = new_secret()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def fails(n: int, topic: str = "rollback") -> None:
    alerting.raise_alert(
        Alert(
            f"ORD-{n}/1/{topic}/run", f"ORD-{n}", "Rollback failed: shipping", "The carrier is away.", topic
        )
    )


def told(engine: Engine) -> None:
    """Let the engine tell and follow up every alert."""
    engine.deliver()
    for pk in OpsAlert.objects.values_list("pk", flat=True):
        engine.result(f"ops-alert-{pk}")


def subjects(mailbox: PickyMailbox) -> list[str]:
    return [str(message["Subject"]) for message in mailbox.messages if message["To"] == OPS]


def test_one_failure_is_one_alert_with_its_order_and_error(
    engine: Engine, mailbox: PickyMailbox, chat: Chat
) -> None:
    fails(1)
    told(engine)
    assert subjects(mailbox) == chat.texts() == ["[Vorkasse] ORD-1: Rollback failed: shipping"]
    text = str(mailbox.messages[0].get_payload())
    assert "The carrier is away." in text
    assert "/admin/ops/dead-letters/" in text
    notice = OpsAlertNotice.objects.get()
    assert notice.mailed_at
    assert notice.posted_at


def test_storm_of_two_hundred_is_one_alert_and_one_follow_up(
    engine: Engine, mailbox: PickyMailbox, chat: Chat
) -> None:
    for n in range(30):
        fails(n)
    engine.deliver()
    engine.sleep_until(engine.now() + GATHER + timedelta(seconds=1))
    engine.until(lambda: len(subjects(mailbox)) == 1)

    def one(n: int) -> None:
        fails(n)
        connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(30, 200)))
    told(engine)
    assert subjects(mailbox) == [
        "[Vorkasse] 30 × rollback failed",
        "[Vorkasse] 170 more × rollback failed",
    ]
    assert chat.texts() == subjects(mailbox)
    follow_up = str(mailbox.messages[-1].get_payload())
    assert "- ORD-" in follow_up
    assert "and 150 more" in follow_up
    assert OutboxMessage.objects.filter(name="OpsAlertWorkflow").count() == 1


def test_after_it_was_quiet_the_next_failure_is_a_new_alert(engine: Engine, mailbox: PickyMailbox) -> None:
    fails(1)
    told(engine)
    fails(2)
    told(engine)
    assert subjects(mailbox) == [f"[Vorkasse] ORD-{n}: Rollback failed: shipping" for n in (1, 2)]


def test_storm_that_does_not_end_is_followed_up_within_the_hour(db: None) -> None:
    fails(1)
    group = OpsAlert.objects.get()
    seen = alerting.word_first(group.pk).entries
    for n in range(2, 5):
        fails(n)
        look = alerting.follow_up(AlertLook(group.pk, seen, last=False))
        assert (look.notice, look.over) == (0, False)
        seen = look.entries
    fails(5)
    look = alerting.follow_up(AlertLook(group.pk, seen, last=True))
    again = alerting.follow_up(AlertLook(group.pk, seen, last=True))
    assert look == again
    assert (look.over, OpsAlertNotice.objects.get(pk=look.notice).told) == (True, 5)


def test_same_thing_told_twice_is_one_entry_and_topics_are_told_apart(
    engine: Engine, mailbox: PickyMailbox
) -> None:
    for _ in range(3):
        fails(1)
    fails(1, "lapse")
    told(engine)
    assert len(subjects(mailbox)) == 2
    assert [alert.entries.count() for alert in OpsAlert.objects.all()] == [1, 1]


def test_webhook_is_signed_and_the_same_for_each_try(engine: Engine, chat: Chat, settings: Any) -> None:
    chat.answers = [503, 500, 429]
    fails(1)
    told(engine)
    assert len(chat.heard) == 4
    assert len({(headers["webhook-id"], body) for headers, body in chat.heard}) == 1
    for headers, body in chat.heard:
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        message_id, timestamp, signature = (headers[name] for name in names)
        assert is_signed([settings.OPS_ALERT_WEBHOOK_SECRET], message_id, int(timestamp), body, signature)
        assert not is_signed([new_secret()], message_id, int(timestamp), body, signature)
        assert abs(int(timestamp) - timezone.now().timestamp()) < 60
    content = json.loads(chat.heard[0][1])
    assert content["type"] == "ops.alert"
    assert content["data"] == {"topic": "rollback", "part": "first", "told": 1, "orders": ["ORD-1"]}


def test_webhook_that_is_refused_keeps_no_mail_back_and_is_on_record(
    engine: Engine, mailbox: PickyMailbox, chat: Chat
) -> None:
    chat.answers = [404] * 10
    fails(1)
    told(engine)
    assert (len(chat.heard), len(subjects(mailbox))) == (1, 1)
    notice = OpsAlertNotice.objects.get()
    assert (notice.posted_at, notice.error) == (None, "The alert webhook was refused: 404.")


def test_mail_server_that_is_away_delays_the_mail_and_not_the_webhook(
    engine: Engine, mailbox: PickyMailbox, chat: Chat
) -> None:
    mailbox.refuses[OPS] = "451 Try again later"
    fails(1)
    engine.deliver()
    engine.sleep_until(engine.now() + GATHER + QUIET / 2)
    engine.until(lambda: chat.heard)
    assert subjects(mailbox) == []
    mailbox.refuses.clear()
    told(engine)
    assert (len(subjects(mailbox)), len(chat.heard)) == (1, 1)


def test_alert_whose_workflow_was_lost_takes_nothing_more(engine: Engine, mailbox: PickyMailbox) -> None:
    fails(1)
    OpsAlert.objects.update(opened_at=timezone.now() - alerting.LOST_AFTER)
    fails(2)
    assert OpsAlert.objects.filter(closed_at=None).count() == 1
    assert OpsAlert.objects.count() == 2
    told(engine)
    assert any("ORD-2" in subject for subject in subjects(mailbox))
