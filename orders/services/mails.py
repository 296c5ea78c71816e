"""Mails to customers: written with the effect they tell of, sent at most once.

SMTP cannot be asked whether it took a mail. So `sending` is committed first; a definite refusal puts the mail
back to `queued`, and a lost connection in the middle makes it `unknown`, which only a person sends again.
"""

from __future__ import annotations

import re
import smtplib
from base64 import b64decode
from datetime import timedelta
from email.mime.image import MIMEImage
from email.utils import parseaddr

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.db import transaction
from django.template.loader import render_to_string
from django.utils import timezone, translation

from orders.models import Mail, Saga
from orders.workflows.types import TASK_QUEUE, MailInput
from payments.banking.girocode import girocode_data_uri, why_no_girocode
from payments.banking.instructions import instructions_of
from shop.kernel import outbox
from shop.kernel.money import Money

State = Mail.State

_DATA_IMAGE = re.compile(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"')


class MailNotSent(Exception):
    """The mail server did not take the mail; it may later."""


class MailRefused(Exception):
    """The mail server refused the mail for good, or nobody knows whether it took it."""


def write(
    saga: Saga, kind: str, about: str = "", *, refunded: Money | None = None, needs_account: bool = False
) -> Mail:
    """The mail of this kind for this saga, rendered now in the customer's language; what was written already stays.

    `refunded`: what goes back to the customer, if that is not the order's total. `needs_account`: it asks where to.
    """
    existing = Mail.objects.filter(saga=saga, kind=kind, about=about).first()
    if existing is not None:
        return existing
    with translation.override(saga.order.language):
        return _write(saga, kind, about, refunded, needs_account)


def _write(saga: Saga, kind: str, about: str, refunded: Money | None, needs_account: bool) -> Mail:
    order = saga.order
    context = {
        "order": order,
        "saga": saga,
        "lines": order.lines.all(),
        "payment": saga.payment,
        "shipment": getattr(saga, "shipment", None),
        "shop_name": settings.SHOP_NAME,
        "total": order.total_money.format(),
        "refunded": (refunded or order.total_money).format(),
        "needs_account": needs_account,
        **_instructions(saga),
    }
    subject, _, text = render_to_string(f"mail/{kind}.txt", context).strip().partition("\n")
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2] or "localhost"
    mail, _created = Mail.objects.get_or_create(
        saga=saga,
        kind=kind,
        about=about,
        defaults={
            "message_id": f"<{order.number}.{saga.attempt}.{about}{'.' if about else ''}{kind}@{domain}>",
            "recipient": order.customer_email,
            "subject": subject.removeprefix("Subject:").strip(),
            "text": re.sub(r"\n{3,}", "\n\n", text.strip()) + "\n",
            "html": render_to_string(f"mail/{kind}.html", context),
        },
    )
    return mail


def queue(
    saga: Saga, kind: str, about: str = "", *, refunded: Money | None = None, needs_account: bool = False
) -> None:
    """Write the mail, and have it sent by a workflow of its own; none to a customer who was erased."""
    if saga.order.erased_at is not None:
        return
    write(saga, kind, about, refunded=refunded, needs_account=needs_account)
    number = saga.order.number
    workflow_id = f"order-mail-{number}-{about or kind}"
    outbox.start_workflow(
        workflow_id,
        workflow_id,
        "OrderMailWorkflow",
        MailInput(number, saga.attempt, kind, about),
        task_queue=TASK_QUEUE,
        summary=f"{number}: {kind} mail",
        order_number=number,
    )


def _instructions(saga: Saga) -> dict[str, object]:
    """How to pay by bank transfer, where that is how; with a QR code if there is one for the currency."""
    instructions = instructions_of(saga.payment) if saga.payment else None
    if instructions is None:
        return {}
    code = "" if why_no_girocode(instructions) else girocode_data_uri(instructions)
    return {"instructions": instructions, "girocode": code}


def send(order_number: str, attempt: int, kind: str, about: str = "") -> Mail:
    """Write the mail if need be, and send it unless that has been done. Raises `MailNotSent`, `MailRefused`."""
    saga = Saga.objects.select_related("order", "payment").get(order__number=order_number, attempt=attempt)
    mail = write(saga, kind, about)
    if not _take(mail):
        if mail.state != State.SENT:
            raise MailRefused(_impersonal(mail, mail.error))
        return mail
    connection = get_connection(timeout=settings.EMAIL_TIMEOUT)
    try:
        connection.open()  # whatever fails here, nothing was sent
    except (smtplib.SMTPException, OSError) as error:
        _put_back(mail, f"The mail server cannot be reached: {error}")
        raise MailNotSent(mail.error) from error
    message = _MailWithImages(
        mail.subject, mail.text, to=[mail.recipient], headers={"Message-ID": mail.message_id}
    )
    _attach_html(message, mail.html)
    try:
        connection.send_messages([message])
    except smtplib.SMTPRecipientsRefused as error:
        code, said = next(iter(error.recipients.values()))
        _not_sent(mail, code, f"The mail server refused {mail.recipient}: {code} {said!r}")
    except smtplib.SMTPResponseException as error:
        _not_sent(mail, error.smtp_code, f"The mail server refused: {error.smtp_code} {error.smtp_error!r}")
    except (smtplib.SMTPException, OSError) as error:
        _end(mail, State.UNKNOWN, f"The connection broke while sending: {error}")
        raise MailRefused(f"Nobody knows whether the mail server took the mail: {error}") from error
    finally:
        connection.close()
    mail.sent_at = timezone.now()
    _end(mail, State.SENT, "")
    return mail


class _MailWithImages(EmailMultiAlternatives):
    mixed_subtype = "related"  # the images belong to the HTML and are no files to download


def _attach_html(message: _MailWithImages, html: str) -> None:
    """Add the HTML. Its `data:` images, which mail programs do not show, go along as inline attachments."""

    def attached(found: re.Match[str]) -> str:
        content_id = f"image{len(message.attachments) + 1}"
        image = MIMEImage(b64decode(found[1]), "png")
        image.add_header("Content-ID", f"<{content_id}>")
        image.add_header("Content-Disposition", "inline", filename=f"{content_id}.png")
        message.attach(image)
        return f'src="cid:{content_id}"'

    message.attach_alternative(_DATA_IMAGE.sub(attached, html), "text/html")


@transaction.atomic
def _take(mail: Mail) -> bool:
    """Claim the mail for sending; false if that is not ours to do."""
    row = Mail.objects.select_for_update().get(pk=mail.pk)
    if row.state == State.SENDING and row.sending_since:
        if timezone.now() - row.sending_since < timedelta(seconds=2 * settings.EMAIL_TIMEOUT):
            raise MailNotSent("The mail is being sent by someone else at this moment.")
        _end(row, State.UNKNOWN, "The sender died in the middle.")
    mail.state, mail.attempts, mail.error = row.state, row.attempts, row.error
    if row.state != State.QUEUED:
        return False
    mail.state = State.SENDING
    mail.attempts += 1
    mail.sending_since = timezone.now()
    mail.save(update_fields=["state", "attempts", "sending_since"])
    return True


def _impersonal(mail: Mail, error: str) -> str:
    """What is raised ends up with Temporal, which is to know no person, causes included; the row has all of it."""
    return re.sub(re.escape(mail.recipient), "the recipient", error, flags=re.IGNORECASE)


def _not_sent(mail: Mail, code: int, error: str) -> None:
    told = _impersonal(mail, error)
    if 500 <= code < 600:
        _end(mail, State.FAILED, error)
        raise MailRefused(told) from None
    _put_back(mail, error)
    raise MailNotSent(told) from None


def _put_back(mail: Mail, error: str) -> None:
    _end(mail, State.QUEUED, error)


def _end(mail: Mail, state: str, error: str) -> None:
    mail.state, mail.error = state, error
    mail.save(update_fields=["state", "error", "sent_at"])
