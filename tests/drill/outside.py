"""Who hears of what happens in the shop: a mail server for everybody, and the chat tool of the ops."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from payments.sandbox.signing import is_signed, new_secret
from tests.payments.sandbox_process import WebhookReceiver, webhook_receiver
from tests.servers import Mailbox

OPS = "ops@example.com"


class MailServer(Mailbox):
    """While `away_for_customers` it takes mail for the ops only."""

    away_for_customers = False

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.away_for_customers and address != OPS:
            return "451 Try again later"
        return await super().handle_RCPT(server, session, envelope, address, options)

    def kinds(self, recipient: str) -> list[str]:
        """What kinds of mail they have got, oldest first, from the Message-IDs."""
        mails = [str(mail["Message-ID"]) for mail in self.messages if mail["To"] == recipient]
        return [message_id.partition("@")[0].rpartition(".")[2] for message_id in mails]

    def subjects(self, recipient: str) -> list[str]:
        return [str(mail["Subject"]) for mail in self.messages if mail["To"] == recipient]


@dataclass
class Chat:
    """The receiver of alerts, which believes only what is signed."""

    receiver: WebhookReceiver
    secret: str
    heard: list[dict[str, Any]] = field(default_factory=list)

    def listen(self) -> list[dict[str, Any]]:
        """All that has come so far. Raises `AssertionError` for what is not signed, or is old."""
        while not self.receiver.received.empty():
            webhook = self.receiver.received.get()
            headers = {name.lower(): text for name, text in webhook.headers.items()}
            sent_at = int(headers["webhook-timestamp"])
            signatures = headers["webhook-signature"]
            assert is_signed([self.secret], headers["webhook-id"], sent_at, webhook.body, signatures)
            assert abs(time.time() - sent_at) < 300
            self.heard.append(json.loads(webhook.body))
        return self.heard


@dataclass(frozen=True)
class Outside:
    mail: MailServer
    chat: Chat

    @property
    def settings(self) -> dict[str, str]:
        """By which the shop finds them."""
        return {
            "EMAIL_URL": self.mail.url,
            "OPS_ALERT_EMAILS": OPS,
            "OPS_ALERT_WEBHOOK_URL": self.chat.receiver.url,
            "OPS_ALERT_WEBHOOK_SECRET": self.chat.secret,
        }


@contextmanager
def outside() -> Iterator[Outside]:
    """They run until the block ends."""
    mail = MailServer()
    controller = Controller(mail, hostname=mail.host, port=mail.port)
    controller.start()
    try:
        with webhook_receiver() as receiver:
            yield Outside(mail, Chat(receiver, new_secret()))
    finally:
        controller.stop()
