"""Payment in advance by bank transfer: we are our own provider, and the bank statement is the news.

An authorization is a `Receivable` with an ISO 11649 creditor reference, a refund is an `OutgoingTransfer` that
staff send to the bank. Everything is in our database, so a call runs in its caller's transaction, and row locks
make one of two that come at once. What the bank has booked is in the books already (`PaymentEvent`), because
importing a statement writes it there; this gateway only adds it up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from payments.gateways.base import (
    Capabilities,
    ChangesPage,
    EventOutcome,
    EventType,
    GatewayEvent,
    GatewayRefused,
    GatewayResult,
    ListPage,
    RemotePayment,
    RemoteStatus,
    WebhookRejected,
    one_by_one,
)
from payments.models import OutgoingTransfer, PaymentEvent, Receivable
from payments.references import creditor_reference
from payments.services import transfers
from shop.kernel.money import Money

_BOOKED = (EventType.RECEIPT, EventType.REFUND, EventType.REFUND_REVERSAL, EventType.CHARGEBACK)


class BankTransferGateway:
    """Vorkasse into the account of `settings.BANK_IBAN`."""

    name = "bank_transfer"
    capabilities = Capabilities(
        remote=False,
        change_feed=False,
        partial_capture=True,
        partial_refund=True,
        webhooks=False,
        received_on_our_account=True,
    )

    @transaction.atomic
    def authorize(self, merchant_reference: str, money: Money, idempotency_key: str) -> GatewayResult:
        """Open a receivable. Its reference is that of the order number and of which attempt it is."""
        if money.amount <= 0:
            raise GatewayRefused(_("There is nothing to pay."), "invalid_amount")
        _one_at_a_time(idempotency_key)
        earlier = Receivable.objects.filter(idempotency_key=idempotency_key).first()
        if earlier is not None:
            if (earlier.merchant_reference, earlier.money) != (merchant_reference, money):
                raise _key_reused()
            return GatewayResult(earlier.reference, _view(earlier))
        _one_at_a_time(f"attempts of {merchant_reference}")
        attempt = Receivable.objects.filter(merchant_reference=merchant_reference).count() + 1
        try:
            reference = creditor_reference(merchant_reference, attempt)
        except ValueError as error:
            raise GatewayRefused(str(error), "invalid_merchant_reference") from error
        opened = Receivable.objects.create(
            reference=reference,
            merchant_reference=merchant_reference,
            amount=money.amount,
            currency=money.currency,
            idempotency_key=idempotency_key,
        )
        return GatewayResult(opened.reference, _view(opened))

    @transaction.atomic
    def capture(self, payment_reference: str, money: Money, idempotency_key: str) -> GatewayResult:
        """Book the receivable as income; that its money is there is the caller's to know."""
        row = _locked(payment_reference)
        _same_currency(row, money)
        if row.captured_at is not None and row.capture_key == idempotency_key:
            if row.captured != money.amount:
                raise _key_reused()
            return GatewayResult(_part(row, "capture"), _view(row))
        _refuse_if_closed(row, _("captured"))
        if not 0 < money.amount <= row.amount:
            raise GatewayRefused(
                _("%(money)s is not within the %(due)s that are due.") % {"money": money, "due": row.money},
                "amount_too_high",
            )
        row.captured, row.captured_at, row.capture_key = money.amount, timezone.now(), idempotency_key
        row.save(update_fields=["captured", "captured_at", "capture_key"])
        return GatewayResult(_part(row, "capture"), _view(row))

    @transaction.atomic
    def void(self, payment_reference: str, idempotency_key: str) -> GatewayResult:
        """Close the receivable. Money that has come for it stays on our account."""
        row = _locked(payment_reference)
        if row.voided_at is None or row.void_key != idempotency_key:
            _refuse_if_closed(row, _("voided"))
            row.voided_at, row.void_key = timezone.now(), idempotency_key
            row.save(update_fields=["voided_at", "void_key"])
        return GatewayResult(_part(row, "void"), _view(row))

    def renew(self, payment_reference: str, idempotency_key: str) -> GatewayResult:
        raise GatewayRefused(_("A receivable does not lapse; there is nothing to renew."), "no_renewal")

    @transaction.atomic
    def refund(self, payment_reference: str, money: Money, idempotency_key: str) -> GatewayResult:
        """Have money sent back. The refund has succeeded once a statement shows it booked."""
        row = _locked(payment_reference)
        _same_currency(row, money)
        transfer = OutgoingTransfer.objects.filter(idempotency_key=idempotency_key).first()
        if transfer is not None:
            if (transfer.receivable_id, transfer.money) != (row.pk, money):
                raise _key_reused()
            return GatewayResult(transfer.end_to_end_id, _view(row))
        if row.captured_at is None:
            raise GatewayRefused(_("Nothing was captured, so there is nothing to refund."), "not_captured")
        left = Money(row.captured - _going_back(row), row.currency)
        if not 0 < money.amount <= left.amount:
            raise GatewayRefused(
                _("%(money)s is not within the %(left)s captured and not refunded yet.")
                % {"money": money, "left": left},
                "refund_too_high",
            )
        transfer = transfers.refund_captured(row, money, idempotency_key)
        return GatewayResult(transfer.end_to_end_id, _view(row))

    def status(self, payment_reference: str) -> RemotePayment:
        row = Receivable.objects.filter(reference=payment_reference).first()
        if row is None:
            raise _unknown(payment_reference)
        return _view(row)

    def statuses(self, payment_references: Sequence[str]) -> Mapping[str, RemotePayment | None]:
        return one_by_one(self, payment_references)

    @transaction.atomic
    def find(self, idempotency_key: str) -> RemotePayment | None:
        _one_at_a_time(idempotency_key)  # so that None does not mean “not committed yet”
        row = Receivable.objects.filter(idempotency_key=idempotency_key).first()
        return _view(row) if row else None

    def changes(self, cursor: str, limit: int = 500, *, overlap: bool = False) -> ChangesPage:
        return ChangesPage((), cursor, more=False)

    def payments(self, opened_from: datetime, opened_until: datetime, cursor: str = "") -> ListPage:
        return ListPage((), "")  # a bank knows no payments before they come

    def parse_webhook(
        self, headers: Mapping[str, str], body: bytes, received_at: datetime | None = None
    ) -> tuple[GatewayEvent, ...]:
        raise WebhookRejected(_("Banks send no webhooks: import their statements."), "not_understood")


# --- the rules -------------------------------------------------------------------------------------------


def _one_at_a_time(what: str) -> None:
    """Until this transaction ends, others that name `what` wait. For rows that are not there yet to lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"receivable: {what}"])


def _locked(payment_reference: str) -> Receivable:
    row = Receivable.objects.select_for_update().filter(reference=payment_reference).first()
    if row is None:
        raise _unknown(payment_reference)
    return row


def _refuse_if_closed(row: Receivable, wanted: str) -> None:
    if row.captured_at is not None:
        told = _("This payment was captured; it cannot be %s now.") % wanted
        raise GatewayRefused(told, "already_captured")
    if row.voided_at is not None:
        told = _("This payment was voided; it cannot be %s now.") % wanted
        raise GatewayRefused(told, "already_voided")


def _same_currency(row: Receivable, money: Money) -> None:
    if money.currency != row.currency:
        raise GatewayRefused(
            _("This payment is in %(currency)s, not in %(other)s.")
            % {"currency": row.currency, "other": money.currency},
            "currency_mismatch",
        )


def _key_reused() -> GatewayRefused:
    return GatewayRefused(_("This idempotency key was used for something else."), "idempotency_key_reuse")


def _unknown(payment_reference: str) -> GatewayRefused:
    return GatewayRefused(_("There is no payment %r.") % payment_reference, "not_found")


# --- the view --------------------------------------------------------------------------------------------


def _going_back(row: Receivable) -> int:
    """What was refunded, booked by the bank already or not, or taken back. A returned transfer is ours again."""
    outgoing = row.outgoing.exclude(state=OutgoingTransfer.State.RETURNED)
    taken_back = _booked(row).filter(type=EventType.CHARGEBACK)
    return sum(outgoing.values_list("amount", flat=True)) + sum(taken_back.values_list("amount", flat=True))


def _booked(row: Receivable) -> QuerySet[PaymentEvent]:
    """What the bank's statements say about it."""
    return PaymentEvent.objects.filter(
        payment__gateway=BankTransferGateway.name,
        payment__reference=row.reference,
        type__in=_BOOKED,
        outcome=EventOutcome.SUCCEEDED,
    ).order_by("id")


def _part(row: Receivable, what: str) -> str:
    return f"{row.reference}/{what}"


def _view(row: Receivable) -> RemotePayment:
    booked = list(_booked(row))
    received = sum(event.amount for event in booked if event.type == EventType.RECEIPT)
    refunded = _going_back(row)
    if row.voided_at is not None:
        status = RemoteStatus.VOIDED
    elif row.captured_at is not None:
        status = RemoteStatus.REFUNDED if refunded >= row.captured else RemoteStatus.CAPTURED
    else:
        status = RemoteStatus.PAID if received >= row.amount else RemoteStatus.AUTHORIZED
    return RemotePayment(
        payment_reference=row.reference,
        merchant_reference=row.merchant_reference,
        currency=row.currency,
        status=status,
        authorized=row.amount,
        received=received,
        captured=row.captured,
        refunded=refunded,
        voided=row.amount if row.voided_at else 0,
        authorized_until=None,
        events=(*_ours(row), *(_told(row, event) for event in booked)),
    )


def _ours(row: Receivable) -> list[GatewayEvent]:
    """What we did ourselves. Transfers are not in it: they count once the bank has booked them."""
    did = [(EventType.AUTHORIZATION, row.reference, row.amount, row.created_at)]
    if row.captured_at is not None:
        did.append((EventType.CAPTURE, _part(row, "capture"), row.captured, row.captured_at))
    if row.voided_at is not None:
        did.append((EventType.VOID, _part(row, "void"), row.amount, row.voided_at))
    return [
        GatewayEvent(
            type=type_,
            outcome=EventOutcome.SUCCEEDED,
            psp_reference=reference,
            payment_reference=row.reference,
            merchant_reference=row.merchant_reference,
            money=Money(amount, row.currency),
            occurred_at=at,
        )
        for type_, reference, amount, at in did
    ]


def _told(row: Receivable, event: PaymentEvent) -> GatewayEvent:
    return GatewayEvent(
        type=EventType(event.type),
        outcome=EventOutcome(event.outcome),
        psp_reference=event.psp_reference,
        payment_reference=row.reference,
        merchant_reference=row.merchant_reference,
        money=event.money,
        occurred_at=event.occurred_at,
        raw_id=event.raw_id,
        detail=event.detail,
    )
