"""Money that we send back by credit transfer: asked for, given an account, put into a file, booked or returned.

Only the bank's statement closes a transfer. Our end-to-end id finds it there, so it is also the reference of
the refund in the books: banks' own references may be missing, or shared by a whole file.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from django.db import transaction
from django.db.models import Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from payments.banking.account import NAME_LENGTH, AccountInvalid, grouped, our_account, valid_iban
from payments.banking.pain001 import Credit, FileInvalid, pain001
from payments.gateways.base import EventOutcome, EventType, GatewayEvent
from payments.models import (
    Allocation,
    OutgoingTransfer,
    Payment,
    PaymentEvent,
    Receivable,
    ReviewItem,
    TransferBatch,
)
from payments.services.recording import record
from payments.signals import payment_refunded
from shop.kernel.money import Money

State = OutgoingTransfer.State
Reason = ReviewItem.Reason

BANK_TRANSFER = "bank_transfer"
MOST = Money(999_999_999_99, "EUR")  # SEPA
MOST_IN_A_FILE = 5000


class TransferRefused(Exception):
    """That cannot be done with a transfer or a batch now; the message says why. `field`: the wrong one, if any."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Payee:
    """Whom to send money to. `iban` in upper case, without spaces; empty where it has to be asked for."""

    name: str
    iban: str


# --- asking for one --------------------------------------------------------------------------------------


def refund_captured(receivable: Receivable, money: Money, idempotency_key: str) -> OutgoingTransfer:
    """The transfer that refunds captured money. The caller holds the receivable's lock and minds the limit."""
    payment = Payment.objects.filter(gateway=BANK_TRANSFER, reference=receivable.reference).first()
    return _create(
        idempotency_key,
        money,
        f"Refund {receivable.merchant_reference}",
        payment=payment,
        receivable=receivable,
        payee=payee_of(payment) if payment else None,
        actor=_who_asked(payment, idempotency_key),
    )


def _who_asked(payment: Payment | None, key: str) -> str:
    """Refunds are written down under their key, with the person, before the gateway is asked."""
    asked = PaymentEvent.objects.filter(
        payment=payment, psp_reference=key, type=EventType.REFUND.value, outcome=EventOutcome.REQUESTED.value
    )
    return asked.values_list("actor", flat=True).first() or "shop"


@transaction.atomic
def pay_back(
    money: Money,
    idempotency_key: str,
    actor: str,
    *,
    payment: Payment | None = None,
    payee: Payee | None = None,
    text: str = "",
) -> OutgoingTransfer:
    """The transfer that sends back money which was never captured: late, too much, or not for us.

    It is no refund in the payment's books; the customer is told. The same key gives the transfer of the first
    time. Without `payee` it goes where the payment's money came from. Raises `TransferRefused`.
    """
    earlier = OutgoingTransfer.objects.filter(idempotency_key=idempotency_key).first()
    if earlier is not None:
        if earlier.money != money:
            raise TransferRefused(
                _("%(earlier)s were asked for under this key before, not %(money)s.")
                % {"earlier": earlier.money, "money": money}
            )
        return earlier
    if money.amount <= 0:
        raise TransferRefused(_("There is nothing to pay back."))
    if payee is None and payment is not None:
        payee = payee_of(payment)
    number = payment.merchant_reference if payment else ""
    transfer = _create(
        idempotency_key,
        money,
        text or f"Your payment {number} returned".replace("  ", " "),
        payment=payment,
        payee=payee,
        actor=actor,
    )
    if payment is not None:
        payment_refunded.send(
            Payment,
            payment=payment,
            money=money,
            about=f"transfer-{transfer.pk}",
            needs_account=transfer.state == State.NEEDS_ACCOUNT,
        )
    return transfer


def needs_account(idempotency_key: str) -> bool:
    """Whether there is a transfer under this key that waits for its payee's account."""
    return OutgoingTransfer.objects.filter(
        idempotency_key=idempotency_key, state=State.NEEDS_ACCOUNT
    ).exists()


def payee_of(payment: Payment) -> Payee | None:
    """Where the payment's money came from; None if that is not known, not one account, or does not work.

    Read from the bank bookings that are matched to the payment.
    """
    names: dict[str, str] = {}
    sums: dict[str, int] = defaultdict(int)
    matched = Allocation.objects.filter(
        payment=payment,
        purpose=Allocation.Purpose.MATCHED,
        transaction__direction="credit",
        transaction__is_reversal=False,
    )
    for allocation in matched.select_related("transaction"):
        sums[allocation.transaction.counterparty_iban] += allocation.amount
        names[allocation.transaction.counterparty_iban] = allocation.transaction.counterparty_name
    came_from = [iban for iban, amount in sums.items() if amount > 0]
    if len(came_from) != 1 or not came_from[0]:
        return None
    returned = OutgoingTransfer.objects.filter(payment=payment, state=State.RETURNED)
    if returned.filter(payee_iban=came_from[0]).exists():
        return None
    try:
        return Payee(names[came_from[0]][:140], valid_iban(came_from[0]))
    except AccountInvalid:
        return None


def _create(
    key: str,
    money: Money,
    text: str,
    *,
    payment: Payment | None = None,
    receivable: Receivable | None = None,
    payee: Payee | None = None,
    actor: str = "",
) -> OutgoingTransfer:
    known = payee is not None and payee.name.strip() and payee.iban
    return OutgoingTransfer.objects.create(
        receivable=receivable,
        payment=payment,
        idempotency_key=key,
        end_to_end_id=_end_to_end_id(key),
        amount=money.amount,
        currency=money.currency,
        payee_name=payee.name if payee else "",
        payee_iban=payee.iban if payee else "",
        remittance_information=text[:140],
        state=State.READY if known else State.NEEDS_ACCOUNT,
        requested_by=actor,
    )


def _end_to_end_id(key: str) -> str:
    """Made from the key, and such that nobody can take it for a creditor reference or an order number."""
    return "VK-" + hashlib.sha256(key.encode()).hexdigest()[:20].upper()


def to_whom(payee: Payee | None) -> str:
    """For a sentence: where the money goes, if that is not back to whoever sent it."""
    if payee is None:
        return ""
    if payee.iban:
        return _(" to %(name)s, %(iban)s") % {
            "name": payee.name or _("an account"),
            "iban": grouped(payee.iban),
        }
    if payee.name:
        return _(" to %s, whose account is to be asked for") % payee.name
    return _(" to an account that is to be asked for")


# --- the payee's account ---------------------------------------------------------------------------------


def payee_typed(name: str, iban: str) -> Payee:
    """The payee that somebody has entered. Raises `TransferRefused`, with the field that is wrong."""
    name = " ".join(name.split())
    if not name or len(name) > NAME_LENGTH:
        raise TransferRefused(_("The payee's name has 1 to %s characters.") % NAME_LENGTH, "name")
    try:
        iban = valid_iban(iban)
        ours = our_account().iban
    except AccountInvalid as error:
        raise TransferRefused(str(error), "iban") from error
    if iban == ours:
        raise TransferRefused(_("That is the shop's own account."), "iban")
    return Payee(name, iban)


@transaction.atomic
def set_account(transfer: OutgoingTransfer, name: str, iban: str, actor: str) -> OutgoingTransfer:
    """Enter the payee, or correct it, as long as the transfer is in no file. Raises `TransferRefused`."""
    row = OutgoingTransfer.objects.select_for_update().get(pk=transfer.pk)
    if row.state not in (State.NEEDS_ACCOUNT, State.READY):
        raise TransferRefused(
            _("%(transfer)s is %(state)s: its account stays as it is.")
            % {"transfer": row, "state": row.get_state_display()}
        )
    payee = payee_typed(name, iban)
    row.payee_name, row.payee_iban, row.account_set_by, row.state = (
        payee.name, payee.iban, actor, State.READY
    )  # fmt: skip
    row.save(update_fields=["payee_name", "payee_iban", "account_set_by", "state"])
    return row


# --- the file for the bank -------------------------------------------------------------------------------


@transaction.atomic
def make_batch(transfers: Iterable[OutgoingTransfer], actor: str) -> TransferBatch:
    """Put transfers that are ready into one pain.001 file, to be executed today. Raises `TransferRefused`."""
    asked = {transfer.pk for transfer in transfers}
    rows = list(OutgoingTransfer.objects.select_for_update().filter(pk__in=asked).order_by("pk"))
    if not rows:
        raise TransferRefused(_("Choose the transfers that the file is to hold."))
    if len(rows) > MOST_IN_A_FILE:
        raise TransferRefused(
            _("A file holds at most %(most)s transfers; %(number)s were chosen.")
            % {"most": MOST_IN_A_FILE, "number": len(rows)}
        )
    if problems := [problem for row in rows if (problem := why_not_export(row))]:
        raise TransferRefused(" ".join(problems))
    credits = [
        Credit(row.end_to_end_id, row.payee_name, row.payee_iban, row.money, row.remittance_information)
        for row in rows
    ]
    try:
        message_id, xml = pain001(our_account(), credits, timezone.now().date())
    except (AccountInvalid, FileInvalid) as error:
        raise TransferRefused(str(error)) from error
    batch = TransferBatch.objects.create(message_id=message_id, xml=xml, created_by=actor)
    for row in rows:
        row.state, row.batch = State.EXPORTED, batch
    OutgoingTransfer.objects.bulk_update(rows, ["state", "batch"])
    return batch


def why_not_export(row: OutgoingTransfer) -> str:
    """Why a transfer can be in no file now; empty if it can."""
    if row.state == State.NEEDS_ACCOUNT:
        return _("%(transfer)s (%(money)s) has no account to go to: enter the payee's IBAN first.") % {
            "transfer": row,
            "money": row.money,
        }
    if row.state != State.READY:
        return _("%(transfer)s is %(state)s already.") % {"transfer": row, "state": row.get_state_display()}
    if row.currency != "EUR":
        return _(
            "%(transfer)s is in %(currency)s, and a SEPA file holds euros only: send it by hand, with "
            "%(transfer)s as its reference, so that the statement closes it."
        ) % {"transfer": row, "currency": row.currency}
    if row.amount > MOST.amount:
        return _("%(transfer)s is over %(money)s; a SEPA transfer carries at most %(most)s.") % {
            "transfer": row,
            "money": row.money,
            "most": MOST,
        }
    try:
        valid_iban(row.payee_iban)
    except AccountInvalid as error:
        return f"{row}: {error}"
    return ""


@transaction.atomic
def mark_sent(batch: TransferBatch, actor: str) -> TransferBatch:
    """Write down who handed the file to the bank. What was written first stays."""
    row = TransferBatch.objects.select_for_update().get(pk=batch.pk)
    if row.refused_at is not None:
        raise TransferRefused(_("The bank has refused this file. Make a new one."))
    if row.sent_at is None:
        row.sent_at, row.sent_by = timezone.now(), actor
        row.save(update_fields=["sent_at", "sent_by"])
    return row


def why_not_refused(batch: TransferBatch) -> str:
    """Why the bank cannot have refused this file; empty if it can."""
    if batch.refused_at is not None:
        return _("That is written down already.")
    done = list(batch.transfers.exclude(state=State.EXPORTED).order_by("pk")[:3])
    if not done:
        return ""
    return _("The bank has booked from this file: %s. So it took it.") % ", ".join(map(str, done))


@transaction.atomic
def mark_refused(batch: TransferBatch, actor: str, reason: str) -> TransferBatch:
    """The bank did not take the file: its transfers are ready for another one, and may be corrected.

    Not for single transfers that came back; those are on the statement. Raises `TransferRefused`.
    """
    if not reason.strip():
        raise TransferRefused(_("Say why the bank refused the file."))
    row = TransferBatch.objects.select_for_update().get(pk=batch.pk)
    if row.refused_at is not None:
        return row
    inside = list(OutgoingTransfer.objects.select_for_update().filter(batch=row).order_by("pk"))
    if why_not := why_not_refused(row):
        raise TransferRefused(why_not)
    for transfer in inside:
        transfer.state, transfer.batch = State.READY, None
    OutgoingTransfer.objects.bulk_update(inside, ["state", "batch"])
    row.refused_at, row.refused_by, row.refusal = timezone.now(), actor, reason
    row.save(update_fields=["refused_at", "refused_by", "refusal"])
    return row


# --- what the statement says -----------------------------------------------------------------------------


@transaction.atomic
def booked(end_to_end_id: str, bank_reference: str, money: Money, booked_on: date) -> OutgoingTransfer | None:
    """A statement shows a transfer of ours booked: close it. None if it is none of ours.

    Telling it again changes nothing. An amount that is not ours, or a second booking of the same transfer
    (another bank reference), is for a person.
    """
    row = _find(end_to_end_id)
    if row is None:
        return None
    if row.money != money:
        _review(
            f"transfer-amount:{row}:{bank_reference or money}",
            Reason.AMBIGUOUS,
            row,
            money,
            _("The bank booked %(money)s for our transfer %(transfer)s, which is over %(ours)s.")
            % {"money": money, "transfer": row, "ours": row.money},
        )
        return row
    if row.booked_at is not None:
        if bank_reference and row.bank_reference and bank_reference != row.bank_reference:
            _review(
                f"transfer-twice:{row}:{bank_reference}",
                Reason.DUPLICATE,
                row,
                money,
                _(
                    "The bank booked our transfer %(transfer)s a second time (%(reference)s after "
                    "%(earlier)s). Was its file sent twice?"
                )
                % {"transfer": row, "reference": bank_reference, "earlier": row.bank_reference},
            )
        return row
    row.booked_at, row.bank_reference = _start_of(booked_on), bank_reference[:120]
    if row.state != State.RETURNED:  # a return may be read before the booking that it undoes
        row.state = State.BOOKED
    row.save(update_fields=["booked_at", "bank_reference", "state"])
    _record(row, EventType.REFUND, booked_on, bank_reference, _("Booked by the bank"))
    return row


@transaction.atomic
def returned(
    end_to_end_id: str,
    reason: str,
    *,
    money: Money | None = None,
    returned_on: date | None = None,
    bank_reference: str = "",
) -> OutgoingTransfer | None:
    """A statement shows that a transfer of ours came back: the customer has nothing yet. None if none of ours.

    The whole transfer is open again, also if the banks kept a fee. A person is told.
    """
    row = _find(end_to_end_id)
    if row is None or row.state == State.RETURNED:
        return row
    day = returned_on or timezone.now().date()
    row.state, row.returned_at, row.return_reason = State.RETURNED, _start_of(day), reason[:140]
    row.save(update_fields=["state", "returned_at", "return_reason"])
    _record(row, EventType.REFUND_REVERSAL, day, bank_reference, reason)
    fee = _("Only %s of it arrived.") % money if money is not None and money != row.money else ""
    came_back = _("Our transfer %(transfer)s to %(name)s came back: %(reason)s.") % {
        "transfer": row,
        "name": row.payee_name,
        "reason": reason or _("no reason given"),
    }
    ask = _("Ask the customer for another account, and refund again.")
    _review(
        f"returned:{row}",
        Reason.REFUND_FAILED,
        row,
        row.money,
        " ".join(filter(None, (came_back, fee, ask))),
    )
    return row


def _find(end_to_end_id: str) -> OutgoingTransfer | None:
    sought = end_to_end_id.strip().upper()
    return OutgoingTransfer.objects.select_for_update().filter(end_to_end_id=sought).first()


def _record(row: OutgoingTransfer, type_: EventType, day: date, bank_reference: str, detail: str) -> None:
    if row.receivable_id is None or row.payment is None:
        return  # never captured, so it is no refund
    event = GatewayEvent(
        type=type_,
        outcome=EventOutcome.SUCCEEDED,
        psp_reference=row.end_to_end_id,
        payment_reference=row.payment.reference,
        merchant_reference=row.payment.merchant_reference,
        money=row.money,
        occurred_at=_start_of(day),
        raw_id=bank_reference[:120],
        detail=detail,
    )
    record(row.payment, [event], source="statement")


def _review(key: str, reason: str, row: OutgoingTransfer, money: Money, detail: str) -> None:
    ReviewItem.objects.get_or_create(
        key=key,
        defaults={
            "reason": reason,
            "merchant_reference": row.payment.merchant_reference if row.payment else "",
            "payment": row.payment,
            "amount": money.amount,
            "currency": money.currency,
            "detail": detail,
        },
    )


def _start_of(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def paid_back(payment: Payment) -> int:
    """How much that was never captured goes, or went, back to the customer; minor units."""
    rows = OutgoingTransfer.objects.filter(payment=payment, receivable__isnull=True)
    found: int | None = rows.exclude(state=State.RETURNED).aggregate(sum=Sum("amount"))["sum"]
    return found or 0
