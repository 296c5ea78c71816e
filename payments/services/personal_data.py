"""Personal data in the books of payments: what belongs to the payments of some orders, and taking it out.

Amounts, references, dates and what staff did stay. Whose orders they are, `orders` knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cached_property
from typing import Any

from django.db.models import Q, QuerySet, Sum
from django.utils.translation import gettext as _

from payments.gateways.base import EventOutcome
from payments.models import (
    Allocation,
    BankStatement,
    BankTransaction,
    OutgoingTransfer,
    Payment,
    PaymentEvent,
    Retelling,
    ReviewItem,
    StatementFile,
    StatementFilePart,
    StatementLine,
    TransferBatch,
    WebhookDelivery,
    WebhookReprocessing,
)
from payments.references import find
from payments.services.strays import MONEY
from shop.kernel.redaction import Redactor, erased, write_over

Purpose = Allocation.Purpose


class Holdings:
    """What the books hold of the payments of these merchant references, as it is when it is first asked for.

    Bookings are those in which the money came and went, without what other orders have a part of; also what came
    from an account of the payers and is for no order at all. For such an account that has paid for other orders too
    (it may be that of a payment service), or from `before` on, only what an order is known for counts.
    """

    def __init__(self, numbers: Sequence[str], before: date | None = None) -> None:
        self.numbers = numbers
        self.before = before

    @property
    def payments(self) -> QuerySet[Payment]:
        return Payment.objects.filter(merchant_reference__in=self.numbers)

    @property
    def events(self) -> QuerySet[PaymentEvent]:
        return PaymentEvent.objects.filter(payment__in=self.payments)

    @property
    def bookings(self) -> QuerySet[BankTransaction]:
        return BankTransaction.objects.filter(pk__in=self._came | self._went)

    @property
    def shared(self) -> QuerySet[BankTransaction]:
        """Bookings that paid other orders as well: they stay as they are."""
        matched = BankTransaction.objects.filter(allocations__payment__in=self.payments)
        return matched.exclude(pk__in=self._came | self._went).distinct()

    @cached_property
    def _came(self) -> set[int]:
        about = Q(allocations__payment__in=self.payments) | Q(reviews__in=self._reviews)
        linked = BankTransaction.objects.filter(about)
        accounts = set(linked.exclude(counterparty_iban="").values_list("counterparty_iban", flat=True))
        same_account = BankTransaction.objects.filter(counterparty_iban__in=accounts)
        for_others = BankTransaction.objects.filter(pk__in=self._for_others(same_account))
        accounts -= set(for_others.values_list("counterparty_iban", flat=True))
        unknown = BankTransaction.objects.filter(counterparty_iban__in=accounts)
        if self.before is not None:
            unknown = unknown.filter(booking_date__lt=self.before)
        return {row.pk for rows in (linked, unknown) for row in rows.only("pk")} - self._for_others(linked)

    @cached_property
    def _went(self) -> set[int]:
        sent = list(self.transfers.values_list("end_to_end_id", flat=True))
        about = Q(end_to_end_id__in=sent) | Q(original_end_to_end_id__in=sent)
        return set(BankTransaction.objects.filter(about).values_list("pk", flat=True))

    def _for_others(self, rows: QuerySet[BankTransaction]) -> set[int]:
        """Those of them of which other orders have a part."""
        parts = Allocation.objects.filter(transaction__in=rows.values("pk"), payment__isnull=False)
        others = parts.exclude(payment__in=self.payments).values("transaction", "payment")
        return {row["transaction"] for row in others.annotate(sum=Sum("amount")).exclude(sum=0)}

    @property
    def _reviews(self) -> QuerySet[ReviewItem]:
        return ReviewItem.objects.filter(
            Q(merchant_reference__in=self.numbers) | Q(payment__in=self.payments)
        )

    @property
    def reviews(self) -> QuerySet[ReviewItem]:
        return ReviewItem.objects.filter(Q(pk__in=self._reviews) | Q(transaction__in=self.bookings))

    @property
    def allocations(self) -> QuerySet[Allocation]:
        return Allocation.objects.filter(Q(transaction__in=self.bookings) | Q(payment__in=self.payments))

    @property
    def transfers(self) -> QuerySet[OutgoingTransfer]:
        paid_back = Allocation.objects.filter(purpose=Purpose.REFUNDED, transaction__in=self._came)
        return OutgoingTransfer.objects.filter(
            Q(payment__in=self.payments) | Q(payment=None, idempotency_key__in=paid_back.values("key"))
        )

    @property
    def batches(self) -> QuerySet[TransferBatch]:
        """Files for the bank that name the transfers, also one that it refused."""
        named = Q(transfers__in=self.transfers)
        for reference in self.transfers.values_list("end_to_end_id", flat=True):
            named |= Q(xml__contains=reference)
        return TransferBatch.objects.filter(pk__in=TransferBatch.objects.filter(named).values("pk"))

    @property
    def statements(self) -> QuerySet[BankStatement]:
        told = Retelling.objects.filter(transaction__in=self.bookings).values("statement")
        return BankStatement.objects.filter(Q(pk__in=self.bookings.values("statement")) | Q(pk__in=told))

    @property
    def lines(self) -> QuerySet[StatementLine]:
        """What was left out of the statements that tell of the person."""
        return StatementLine.objects.filter(statement__in=self.statements, transaction=None)

    @property
    def files(self) -> QuerySet[StatementFile]:
        """The statements as the bank gave them, with files of the same content."""
        told = StatementFile.objects.filter(statements__in=self.statements)
        content = {file.same_as_id or file.pk for file in told}
        return StatementFile.objects.filter(Q(pk__in=content) | Q(same_as__in=content))

    @property
    def webhooks(self) -> QuerySet[WebhookDelivery]:
        """Those about the payments, and those that were never understood but name one of the orders."""
        about = Q(pk__in=self.reviews.exclude(webhook=None).values("webhook"))
        for name, reference in self.payments.exclude(reference="").values_list("gateway", "reference"):
            about |= Q(gateway=name, payment_reference=reference)
        unread = WebhookDelivery.objects.filter(payment_reference="").only("pk", "body")
        words = [number.encode() for number in self.numbers]
        named = [row.pk for row in unread.iterator() if any(word in bytes(row.body) for word in words)]
        return WebhookDelivery.objects.filter(about | Q(pk__in=named))

    def rows(self) -> Iterator[tuple[str, QuerySet[Any]]]:
        """All of it, by name, for whoever wants to read it."""
        for name in (
            "payments", "events", "bookings", "allocations", "reviews", "transfers", "batches", "lines", "webhooks",
        ):  # fmt: skip
            yield name, getattr(self, name)
        yield "reprocessings", WebhookReprocessing.objects.filter(delivery__in=self.webhooks)

    def names(self) -> set[str]:
        """Of people, as payments and banks tell them."""
        return {
            *self.payments.values_list("payer_name", flat=True),
            *self.bookings.values_list("counterparty_name", flat=True),
            *self.transfers.values_list("payee_name", flat=True),
        } - {""}

    def accounts(self) -> set[str]:
        return {
            *self.bookings.values_list("counterparty_iban", flat=True),
            *self.transfers.values_list("payee_iban", flat=True),
        } - {""}


# --- what is not over ------------------------------------------------------------------------------------


def still_open(number: str) -> str:
    """What of the order's money is under way, in a sentence; empty if nothing is."""
    held = Holdings([number])
    if held.reviews.filter(state=ReviewItem.State.OPEN).exists():
        return _("Something about its money is in review.")
    done = (OutgoingTransfer.State.BOOKED, OutgoingTransfer.State.RETURNED)
    if held.transfers.exclude(state__in=done).exists():
        return _("A transfer of money that goes back is not booked yet.")
    if any(payment.totals().refund_requested for payment in held.payments.prefetch_related("events")):
        return _("A refund is on its way.")
    if held.webhooks.filter(state=WebhookDelivery.State.WAITING).exists():
        return _("A webhook about its payment waits.")
    return ""


def last_booked(number: str) -> date | None:
    """The day of the last entry about money that has moved; None if none ever has."""
    held = Holdings([number])
    days = [
        *held.events.filter(type__in=[t.value for t in MONEY], outcome=EventOutcome.SUCCEEDED.value)
        .values_list("recorded_at", flat=True),
        *held.transfers.values_list("created_at", flat=True),
    ]  # fmt: skip
    booked = [day.date() for day in days]
    booked += held.bookings.values_list("booking_date", flat=True)
    return max(booked, default=None)


# --- taking it out ---------------------------------------------------------------------------------------


def lock(held: Holdings) -> None:
    """In the usual order. The caller has locked the orders."""
    for rows in (held.payments, held.reviews, held.bookings):
        list(rows.select_for_update(of=("self",)).order_by("pk").values_list("pk", flat=True))


def erase(held: Holdings, redact: Redactor, oldest_kept: date | None) -> Counter[str]:
    """Write over what is personal; returns how many rows of what. The caller has written the `Erasure`.

    Files of the bank and for the bank tell of many people. They go as a whole, once all that is in them is from
    before `oldest_kept`; None: at once.
    """
    counts: Counter[str] = Counter()
    text, value = redact.text, redact.value
    _erase_files(held, oldest_kept, counts)
    reprocessings = WebhookReprocessing.objects.filter(delivery__in=held.webhooks)
    write_over(reprocessings, {"result": text}, counts)
    gone = {"headers": lambda _: {}, "body": lambda _: b"", "events": value, "error": text}
    write_over(held.webhooks, gone, counts)
    write_over(held.lines, {"text": text}, counts)
    write_over(held.allocations, {"reason": text}, counts)
    write_over(held.reviews, {"detail": text, "resolution": text, "proposals": value}, counts)
    payee = {
        "payee_name": erased,
        "payee_iban": lambda _: "",
        "remittance_information": text,
        "return_reason": text,
    }
    write_over(held.transfers, payee, counts)
    party = {
        "counterparty_name": erased,
        "counterparty_iban": lambda _: "",
        "remittance_information": _references_in,
        "return_reason": text,
    }
    write_over(held.bookings, party, counts)
    write_over(held.events, {"detail": text}, counts)
    write_over(held.payments, {"payer_name": erased, "instructions": lambda _: {}}, counts)
    return counts


def _references_in(remittance: str) -> str:
    """What people wrote to the bank may be anything; the orders that it names stay."""
    return " ".join(sorted(reference for reference, _attempt in find([remittance]).certain))


def kept_files(held: Holdings, oldest_kept: date | None) -> list[str]:
    """Files that have to stay because of what else is in them."""
    if oldest_kept is None:
        return []
    return [
        *(file.name for file in held.files if _newest(file) >= oldest_kept),
        *(str(batch) for batch in held.batches if batch.created_at.date() >= oldest_kept),
    ]


def _newest(file: StatementFile) -> date:
    told = BankTransaction.objects.filter(statement__source=file).order_by("-booking_date").first()
    return max(told.booking_date if told else date.min, file.received_at.date())


def _erase_files(held: Holdings, oldest_kept: date | None, counts: Counter[str]) -> None:
    kept = set(kept_files(held, oldest_kept))
    for batch in [batch for batch in held.batches if str(batch) not in kept and batch.xml]:
        TransferBatch.objects.filter(pk=batch.pk).update(xml="")
        counts["transfer batches"] += 1
    for file in [file for file in held.files if file.name not in kept and file.is_finished]:
        # Without its digest, the file may be handed in again: its bookings are known by their keys.
        StatementFilePart.objects.filter(file=file).delete()
        StatementFile.objects.filter(pk=file.pk).update(digest="")
        counts["statement files"] += 1
