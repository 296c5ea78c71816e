"""A customer's personal data: all of it in one JSON, or gone, with the books as they were.

A customer is an e-mail address; their orders are those placed with it. An order that is under way keeps everything.
One with money in its books stays for `RETENTION_YEARS` after the end of the year of its last booking, as tax law wants
of what documents a booking. The others are erased: names, addresses, mails, accounts and texts are written over;
numbers, amounts, references, dates, countries and what staff did stay.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Model, Q, QuerySet
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext

from orders.models import (
    DeadLetter,
    DeadLetterAct,
    Mail,
    OpsAlertEntry,
    OpsAlertNotice,
    Order,
    OrderEvent,
    OrderLine,
    Saga,
    SagaStep,
    Shipment,
)
from orders.words import day
from payments.services import personal_data as payments_data
from payments.services.personal_data import Holdings
from shop.kernel import second_person
from shop.kernel.models import ActRequest, Erasure, OutboxMessage
from shop.kernel.redaction import Redactor, erased, write_over

_ADDRESS = ("name", "street", "postal_code", "city")
OVER = (Order.Status.COMPLETED, Order.Status.CANCELLED)


class ErasureRefused(Exception):
    """Nothing was erased; the message says why."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What came of it. `repeated`: nothing was left to erase."""

    message: str
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """An order that has to stay, and until when."""

    number: str
    until: date


@dataclass(frozen=True, slots=True)
class Preview:
    """What an erasure would do now. `under_way`: why it would do nothing, a sentence for each such order."""

    to_erase: list[str] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    under_way: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    shared: int = 0

    @property
    def why_not(self) -> str:
        """Why nothing can be erased now; empty if something can."""
        if self.under_way:
            nothing = gettext("Nothing is erased before all of it has come to its end.")
            return " ".join([*self.under_way, nothing])
        if not self.to_erase:
            return self.what_stays or gettext("There is nothing to erase.")
        return ""

    @property
    def what_stays(self) -> str:
        told = []
        if self.kept:
            until = gettext("{order} until {until}")
            orders = ", ".join(until.format(order=kept.number, until=day(kept.until)) for kept in self.kept)
            told.append(gettext("Kept, because bookings have to be: {orders}.").format(orders=orders))
        if self.files:
            files = ", ".join(self.files)
            told.append(
                gettext("Kept, because of the bookings of others in them: {files}.").format(files=files)
            )
        if self.shared:
            shared = gettext("Kept, because they paid other orders as well: bank bookings ({number}).")
            told.append(shared.format(number=self.shared))
        return " ".join(told)

    @property
    def sentence(self) -> str:
        if why_not := self.why_not:
            return why_not
        erased = gettext("Erased is: {orders}.").format(orders=", ".join(self.to_erase))
        return " ".join(filter(None, (erased, self.what_stays)))


# --- whose -----------------------------------------------------------------------------------------------


def orders_of(email: str) -> QuerySet[Order]:
    return Order.objects.filter(customer_email__iexact=email.strip(), erased_at=None).order_by("pk")


def person(email: str) -> str:
    """What stands for a person in the record of an erasure: only whoever has the address and our key can tell."""
    return salted_hmac("orders.personal_data", email.strip().lower(), algorithm="sha256").hexdigest()


def preview(email: str) -> Preview:
    return _preview(list(orders_of(email)))


def _preview(orders: Sequence[Order]) -> Preview:
    to_erase: list[str] = []
    kept: list[Kept] = []
    under_way: list[str] = []
    today = timezone.now().date()
    for order in orders:
        until = kept_until(order)
        if why := why_under_way(order):
            under_way.append(why)
        elif until is not None and until >= today:
            kept.append(Kept(order.number, until))
        else:
            to_erase.append(order.number)
    held = Holdings(to_erase, _oldest_kept())
    files = payments_data.kept_files(held, _oldest_kept()) if to_erase else []
    shared = held.shared.count() if to_erase else 0
    return Preview(to_erase, kept, under_way, files, shared)


def kept_until(order: Order) -> date | None:
    """The last day on which the order has to be kept; None if it never had to."""
    booked = payments_data.last_booked(order.number)
    if booked is None or not settings.RETENTION_YEARS:
        return None
    return date(booked.year + settings.RETENTION_YEARS, 12, 31)


def _oldest_kept() -> date | None:
    """Bookings from this day on have to be kept."""
    years = settings.RETENTION_YEARS
    return date(timezone.now().year - years, 1, 1) if years else None


def why_under_way(order: Order) -> str:
    saga = order.saga
    why = ""
    if order.status not in OVER or (saga is not None and not saga.is_final):
        why = gettext("It is {state}.").format(state=order.get_status_display())
    elif Mail.objects.filter(saga__order=order, state__in=[Mail.State.QUEUED, Mail.State.SENDING]).exists():
        why = gettext("A mail to its customer is on its way.")
    elif _messages(order).filter(state=OutboxMessage.State.QUEUED).exists():
        why = gettext("A message to Temporal is on its way.")
    elif second_person.waiting().filter(order_number=order.number).exists():
        why = gettext("Something about it waits for a second person.")
    else:
        why = payments_data.still_open(order.number)
    return f"{order.number}: {why}" if why else ""


# --- all of it -------------------------------------------------------------------------------------------


def export(email: str) -> dict[str, Any]:
    """Everything that is stored about the customer and can still be told to be theirs."""
    orders = orders_of(email)
    held = Holdings([order.number for order in orders])
    tables = {name: [_plain(row) for row in rows] for name, rows in _rows(orders)}
    return {
        "email": email.strip(),
        "exported_at": timezone.now().isoformat(),
        "orders": [_plain(order) for order in orders],
        **tables,
        "payment_records": {name: [_plain(row) for row in rows] for name, rows in held.rows()},
        "erasures": [
            {"at": row.at.isoformat(), "orders": row.orders}
            for row in Erasure.objects.filter(person=person(email))
        ],
    }


def _rows(orders: QuerySet[Order]) -> Iterator[tuple[str, QuerySet[Any]]]:
    """What hangs on the orders, by name."""
    numbers = list(orders.values_list("number", flat=True))
    sagas = Saga.objects.filter(order__in=orders)
    letters = DeadLetter.objects.filter(saga__in=sagas)
    entries = OpsAlertEntry.objects.filter(order_number__in=numbers)
    yield "lines", OrderLine.objects.filter(order__in=orders)
    yield "order_events", OrderEvent.objects.filter(order__in=orders)
    yield "sagas", sagas
    yield "saga_steps", SagaStep.objects.filter(saga__in=sagas)
    yield "shipments", Shipment.objects.filter(saga__in=sagas)
    yield "mails", Mail.objects.filter(saga__in=sagas)
    yield "dead_letters", letters
    yield "dead_letter_acts", DeadLetterAct.objects.filter(letter__in=letters)
    yield "requests", ActRequest.objects.filter(order_number__in=numbers)
    yield "alert_entries", entries
    yield "alert_notices", OpsAlertNotice.objects.filter(alert__entries__in=entries).distinct()
    messages = OutboxMessage.objects.none()
    for order in orders:
        messages |= _messages(order)
    yield "messages", messages


def _messages(order: Order) -> QuerySet[OutboxMessage]:
    """To the order's workflows, of whatever kind."""
    number, keys = order.number, Holdings([order.number]).payments.values_list("pk", flat=True)
    about = Q(workflow_id=order.workflow_id) | Q(workflow_id=f"payment-monitor-{number}")
    about |= Q(workflow_id__startswith=f"order-mail-{number}-")
    for key in keys:
        about |= Q(workflow_id__startswith=f"refund-{key}-")
    letters = DeadLetter.objects.filter(saga__order=order)
    return OutboxMessage.objects.filter(about | Q(workflow_id__in=[letter.workflow_id for letter in letters]))


def _plain(row: Model) -> dict[str, Any]:
    return {f.attname: _shown(getattr(row, f.attname)) for f in row._meta.concrete_fields}


def _shown(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        content = bytes(value)
        try:
            return content.decode()
        except UnicodeDecodeError:
            return b64encode(content).decode()
    return value if isinstance(value, str | int | bool | None | list | dict) else str(value)


# --- gone ------------------------------------------------------------------------------------------------


@transaction.atomic
def erase(email: str, actor: str, reason: str, *, seen: str = "") -> Erased:
    """Erase what may be erased of the customer now; what has to stay is told with its day.

    `seen` is the preview's sentence, as the actor saw it. Done again it finds nothing left. Raises `ErasureRefused`:
    an order is under way, or all has to stay.
    """
    if not reason.strip():
        raise ErasureRefused(
            gettext("Say why the customer is erased: their request and its date, for instance.")
        )
    orders = list(orders_of(email).select_for_update())
    if not orders:
        earlier = Erasure.objects.filter(person=person(email)).first()
        if earlier is None:
            raise ErasureRefused(gettext("No order was placed with this e-mail address."))
        told = gettext("It was erased on {at} by {who}.").format(at=day(earlier.at), who=earlier.actor)
        return Erased(told, repeated=True)
    payments_data.lock(Holdings([order.number for order in orders]))
    planned = _preview(orders)
    if planned.why_not:
        raise ErasureRefused(planned.why_not)
    if seen and seen != planned.sentence:
        changed = gettext("It has changed in the meantime. {sentence} Look at it again.")
        raise ErasureRefused(changed.format(sentence=planned.sentence))
    chosen = [order for order in orders if order.number in planned.to_erase]
    record = Erasure(person=person(email), actor=actor, reason=reason.strip(), orders=planned.to_erase)
    held = Holdings(planned.to_erase, _oldest_kept())
    redact = _redactor(chosen, held)
    record.reason = redact.text(record.reason)
    record.save()  # opens what is otherwise never changed, for this transaction
    counts = _erase_rows(chosen, redact)
    counts += payments_data.erase(held, redact, _oldest_kept())
    for order in chosen:
        OrderEvent.objects.create(
            order=order,
            kind=OrderEvent.Kind.ERASED,
            actor=actor,
            reason=record.reason,
            data={"erasure": record.pk},
        )
    gone = gettext("Erased: {what}.").format(what=_told(counts))
    return Erased(f"{gone} {planned.what_stays}".strip())


def _redactor(orders: Sequence[Order], held: Holdings) -> Redactor:
    names = {name for o in orders for name in (o.customer_name, o.shipping_name, o.billing_name)}
    texts = {o.customer_email for o in orders} | held.accounts()
    for order in orders:
        for kind in ("shipping", "billing"):
            texts.add(getattr(order, f"{kind}_street"))
            texts.add(f"{getattr(order, f'{kind}_postal_code')} {getattr(order, f'{kind}_city')}".strip())
    return Redactor(names | held.names(), texts)


def _erase_rows(orders: Sequence[Order], redact: Redactor) -> Counter[str]:
    counts: Counter[str] = Counter()
    rows = dict(_rows(Order.objects.filter(pk__in=[order.pk for order in orders])))
    text, value = redact.text, redact.value
    mail = {"recipient": erased, "subject": text, "text": erased, "html": lambda _: "", "error": text}
    write_over(rows["mails"], mail, counts)
    notes = rows["order_events"].filter(kind=OrderEvent.Kind.NOTE)
    write_over(notes, {"reason": erased}, counts)
    write_over(rows["order_events"], {"reason": text, "data": value}, counts)
    write_over(rows["sagas"], {"reason": text, "result": value}, counts)
    write_over(rows["saga_steps"], {"error": text}, counts)
    write_over(rows["dead_letter_acts"], {"text": text, "evidence": text}, counts)
    write_over(rows["dead_letters"], {"error": text, "resolution": text, "evidence": text}, counts)
    write_over(rows["alert_entries"], {"text": text}, counts)
    write_over(rows["alert_notices"], {"text": text, "error": text}, counts)
    write_over(rows["messages"], {"payload": value, "last_error": text}, counts)
    asked = {"what": text, "reason": text, "data": lambda _: {}, "shown": text, "outcome": text}
    write_over(rows["requests"], asked, counts)
    address = {f"{kind}_{part}": erased for kind in ("shipping", "billing") for part in _ADDRESS}
    customer = {
        "customer_name": erased,
        "customer_email": erased,
        "notes": erased,
        "api_body_digest": lambda _: "",
    }
    pks = [order.pk for order in orders]
    write_over(Order.objects.filter(pk__in=pks), address | customer, counts)
    Order.objects.filter(pk__in=pks).update(erased_at=timezone.now())
    return counts


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))
