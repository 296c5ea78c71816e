"""What people need to know to decide on a dead letter: what was to be undone, and how it stands at the provider."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from django.db import connection
from django.db.models import QuerySet
from django.utils.translation import get_language, ngettext, override
from django.utils.translation import gettext as _

from orders.carriers import carrier
from orders.carriers.base import CarrierError, ShipmentStatus
from orders.models import DeadLetter, Reservation, Saga, SagaStep, Shipment
from orders.words import named, said
from orders.workflows import policies
from orders.workflows.types import Step
from payments.gateways import gateway
from payments.gateways.base import GatewayError, RemotePayment, RemoteStatus
from shop.kernel import outbox
from shop.kernel.models import OutboxMessage
from shop.kernel.money import Money

log = logging.getLogger(__name__)
T = TypeVar("T")

ANSWER_WITHIN_S = 4.0
AT_ONCE = 8  # providers' answers that pages of one process wait for


@dataclass(frozen=True, slots=True)
class View:
    """The provider's view of one step. `state` is its own word; `problem` says why there is none."""

    state: str = ""
    sentence: str = ""
    details: tuple[str, ...] = ()
    problem: str = ""


def with_facts(letters: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
    """With what `to_undo` reads, in a fixed number of queries."""
    return letters.select_related("saga__order", "saga__payment", "saga__shipment").prefetch_related(
        "saga__payment__events", "saga__reservations__product", "saga__steps"
    )


# --- what was to be undone -------------------------------------------------------------------------------


def to_undo(letter: DeadLetter) -> str:
    """In a sentence or two, from our own books."""
    what = _what(letter)
    if any(
        row.step == letter.step and row.kind == "action" and row.outcome == "succeeded"
        for row in letter.saga.steps.all()
    ):
        return what
    return f"{what} {_('The step itself never came to a known end: it may have happened or not.')}"


def _what(letter: DeadLetter) -> str:
    saga = letter.saga
    payment = saga.payment
    match letter.step:
        case Step.INVENTORY:
            held = [r for r in saga.reservations.all() if r.state == Reservation.State.RESERVED]
            pieces = ", ".join(f"{r.quantity} × {r.product.sku}" for r in held)
            return _("Release the reserved stock: {pieces}.").format(
                pieces=pieces or _("none is reserved in our books")
            )
        case Step.SHIPPING:
            shipment = _shipment(saga)
            if shipment is None:
                return _("Call back the parcel, if the carrier ({carrier}) ever took one.").format(
                    carrier=named(saga.order.carrier)
                )
            name = named(shipment.carrier)
            if shipment.tracking_number:
                name = _("{carrier}, tracking number {number}").format(
                    carrier=name, number=shipment.tracking_number
                )
            return _("Call back the parcel {reference} ({carrier}).").format(
                reference=shipment.reference, carrier=name
            )
        case _ if payment is None:
            return _("Give back the customer's money, if any payment was opened.")
    where = f"{payment.reference or _('its reference is not known')}, {named(payment.gateway)}"
    if letter.step == Step.PAYMENT_HOLD:
        return _("Release the authorization of {money} ({where}).").format(
            money=payment.due.format(), where=where
        )
    totals = payment.totals()
    # What the undo asked for, if it came so far: a retry asks for the same again.
    asked = [event.amount for event in payment.events.all() if event.psp_reference == letter.idempotency_key]
    due, captured, refunded = (
        Money(n, payment.currency).format()
        for n in (*(asked or [totals.kept])[:1], totals.captured, totals.refunded)
    )
    if not (asked or totals.captured):
        return _("Refund whatever was captured ({where}). Our books know of no capture.").format(where=where)
    return _("Refund {due} ({where}). In our books {captured} were captured and {refunded} refunded.").format(
        due=due, where=where, captured=captured, refunded=refunded
    )


def _shipment(saga: Saga) -> Shipment | None:
    return getattr(saga, "shipment", None)


# --- how its retry is doing ------------------------------------------------------------------------------


def progress(letter: DeadLetter) -> str:
    """How the retry that is under way is doing, from our own books; empty if there is none."""
    if letter.state != DeadLetter.State.RETRYING or letter.retried_at is None:
        return ""
    if letter.retry_is_lost:
        return _(
            "Its workflow seems to be lost: it has been under way for longer than any retry takes. Retry it."
        )
    message = outbox.find(f"{letter.workflow_id}/retry-{letter.retries}")
    if message is not None and message.state == OutboxMessage.State.QUEUED:
        trouble = f" {message.last_error}" if message.last_error else ""
        return _("It is queued, and goes out as soon as Temporal can be reached.") + trouble
    failed = [
        row.error
        for row in letter.saga.steps.all()
        if row.step == letter.step
        and row.kind == SagaStep.Kind.COMPENSATION
        and row.outcome == SagaStep.Outcome.FAILED
        and row.at >= letter.retried_at
    ]
    if not failed:
        return _("It is under way; no try has failed so far.")
    most = policies.HARD.maximum_attempts
    return ngettext(
        "It is under way; {n} of at most {most} tries failed, with: {error}",
        "It is under way; {n} of at most {most} tries failed, the last with: {error}",
        len(failed),
    ).format(n=len(failed), most=most, error=said(failed[-1]))


# --- how it stands at the provider -----------------------------------------------------------------------


def provider_view(letter: DeadLetter) -> View:
    """Asked now, and waited for no longer than `ANSWER_WITHIN_S`. Takes no lock and changes nothing."""
    if letter.step == Step.INVENTORY:
        return View(sentence=_("The stock is in our own books: nobody else is asked."))
    ask = _shipment_view if letter.step == Step.SHIPPING else _payment_view
    language = get_language()  # that of the reader, which the thread would not know
    asking = _threads().submit(_in_thread, language, lambda: ask(letter))
    try:
        return asking.result(ANSWER_WITHIN_S)
    except TimeoutError:
        asking.cancel()
        return View(
            problem=_(
                "No answer within {seconds:g} seconds. A retry waits longer, and in the background."
            ).format(seconds=ANSWER_WITHIN_S)
        )
    except (GatewayError, CarrierError) as error:
        return View(problem=str(error))
    except Exception:
        log.exception("The provider's view could not be asked for")
        return View(problem=_("It could not be asked for; the log says why."))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="provider-view")


def _in_thread(language: str | None, work: Callable[[], T]) -> T:
    try:
        with override(language):
            return work()
    finally:
        connection.close()


def _payment_view(letter: DeadLetter) -> View:
    payment = letter.saga.payment
    if payment is None:
        return View(sentence=_("No payment was ever opened."))
    provider = gateway(payment.gateway)
    remote = (
        provider.status(payment.reference) if payment.reference else provider.find(payment.idempotency_key)
    )
    if remote is None:
        return View(sentence=_only_written_down(_("The authorization never reached it.")))
    amounts = {
        name: getattr(remote, name) for name in ("authorized", "received", "captured", "refunded", "voided")
    }
    details = tuple(f"{named(name)} {Money(n, remote.currency).format()}" for name, n in amounts.items() if n)
    hold = letter.step == Step.PAYMENT_HOLD
    return View(named(remote.status), _of_hold(remote) if hold else _of_capture(remote), details)


def _only_written_down(sentence: str) -> str:
    return f"{sentence} {_('A retry only writes that down.')}"


def _of_hold(remote: RemotePayment) -> str:
    match remote.status:
        case RemoteStatus.AUTHORIZED | RemoteStatus.PAID:
            return _("It is still authorized: its release is still to be done.")
        case RemoteStatus.VOIDED:
            return _only_written_down(_("It was released there."))
        case RemoteStatus.CAPTURED:
            return _("It was captured there: money is to be refunded, not an authorization released.")
        case _:
            return _only_written_down(_("Nothing is held there any more."))


def _of_capture(remote: RemotePayment) -> str:
    left = remote.captured - remote.refunded
    if not remote.captured:
        return _only_written_down(_("Nothing was captured there."))
    if left > 0:
        return _("{money} are still to be refunded there.").format(
            money=Money(left, remote.currency).format()
        )
    return _only_written_down(_("All of it was refunded there."))


def _shipment_view(letter: DeadLetter) -> View:
    saga = letter.saga
    service = carrier(saga.order.carrier)
    if not service.remote:
        return View(sentence=_("The carrier has no interface. Ask it by phone or on its own pages."))
    shipment = _shipment(saga)
    parcel = service.track(shipment.reference) if shipment else service.find(saga.key(letter.step))
    if parcel is None:
        return View(sentence=_only_written_down(_("It knows no such parcel.")))
    called_back = parcel.status == ShipmentStatus.CANCELLED
    return View(
        named(parcel.status),
        _only_written_down(_("The parcel was called back there."))
        if called_back
        else _("The parcel is still on its way: it is still to be called back."),
        (parcel.reference,),
    )
