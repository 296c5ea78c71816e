"""Our books against the provider's own: what either has of a payment that the other has not.

The provider's list is read day by day and page by page; what it does not settle is asked for by `statuses`. Nothing
is locked and nothing is written meanwhile, and memory holds a day's references at most. A line that agrees costs no
question. News of the last hour (`EARLY`) count on neither side: they may be under way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Min
from django.utils import timezone

from payments.gateways import gateway
from payments.gateways.base import (
    EventOutcome,
    EventType,
    Gateway,
    GatewayEvent,
    GatewayMisconfigured,
    GatewayUnavailable,
    ListedPayment,
    RemotePayment,
)
from payments.models import Payment, PaymentEvent, WebhookDelivery
from payments.services import strays
from payments.services.recording import absorb
from shop.kernel.money import Money

# Payments that were opened before are settled; what is written about them later has them looked at again.
BACK = timedelta(days=35)
EARLY = timedelta(hours=1)
A_DAY = timedelta(days=1)
AT_ONCE = 100
# What people and bank statements say is no provider's matter.
OURS_ALONE = ("staff", "statement")

Beat = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A payment about which the two disagree. `payment` is None where our books have none of it.

    `can_take`: what is missing is missing here, so `take` settles it.
    """

    gateway: str
    reference: str
    merchant_reference: str
    payment: Payment | None
    sentence: str
    can_take: bool


def comparable() -> list[str]:
    """The gateways whose books can be read."""
    found = []
    for name in sorted({*Payment.objects.order_by().values_list("gateway", flat=True).distinct()}):
        try:
            capabilities = gateway(name).capabilities
        except GatewayMisconfigured:  # not used any more
            continue
        if capabilities.remote and capabilities.lists_payments:
            found.append(name)
    return found


def mismatches(
    gateway_name: str, again: Iterable[str] = (), *, beat: Beat = lambda: None
) -> Iterator[Mismatch]:
    """Everything that does not agree, of the last `BACK` and of the references in `again`.

    `beat` is called between questions. Raises `GatewayError` where the provider does not answer.
    """
    provider = gateway(gateway_name)
    now = timezone.now()
    # What the account was used for before is not ours to find.
    first = Payment.objects.filter(gateway=gateway_name).aggregate(first=Min("created_at"))["first"]
    start = max(first, now - BACK) if first else now
    told: set[str] = set()
    moment = start
    end = now + timedelta(seconds=1)  # lists count in whole ones
    while moment < end:
        until = min(moment + A_DAY, end)
        for mismatch in _of_window(provider, moment, until, beat):
            told.add(mismatch.reference)
            yield mismatch
        moment = until
    for references in _paged(_touched_lately(gateway_name, start)):
        beat()
        yield from compare(gateway_name, references)
    yield from compare(gateway_name, [reference for reference in again if reference not in told])


def compare(gateway_name: str, references: Sequence[str], *, beat: Beat = lambda: None) -> Iterator[Mismatch]:
    """Ask about these payments. Raises `GatewayError`, also where some were left unanswered."""
    provider = gateway(gateway_name)
    for start in range(0, len(references), AT_ONCE):
        beat()
        some = references[start : start + AT_ONCE]
        answers = provider.statuses(some)
        payments = _ours(gateway_name, some)
        ours = _events_of(payments.values())
        for reference in some:
            if reference not in answers:
                raise GatewayUnavailable(f"{gateway_name} gave no answer about payment {reference}.")
            found = _compared(
                gateway_name, reference, answers[reference], payments.get(reference), ours[reference]
            )
            if found is not None:
                yield found


def take(gateway_name: str, reference: str) -> bool:
    """Take over what the provider says of a payment; of an unknown one, have a person decide. Whether it said anything.

    Raises `GatewayError`.
    """
    remote = gateway(gateway_name).statuses([reference]).get(reference)
    if remote is None:
        return False
    payment = Payment.objects.filter(gateway=gateway_name, reference=reference).first()
    if payment is not None:
        absorb(payment, remote, "check")
        return True
    with transaction.atomic():
        strays.keep(gateway_name, {reference: remote.events})
        strays.review(gateway_name, reference)
    return True


# --- the list --------------------------------------------------------------------------------------------


def _of_window(provider: Gateway, start: datetime, until: datetime, beat: Beat) -> Iterator[Mismatch]:
    seen: set[str] = set()
    cursor = ""
    while True:
        beat()
        page = provider.payments(start, until, cursor)
        seen.update(line.payment_reference for line in page.payments)
        yield from compare(provider.name, _doubtful(provider.name, page.payments))
        if not page.cursor or page.cursor == cursor:
            break
        cursor = page.cursor
    # Opened here before they were opened there, so some stand in the next day's list; asking tells.
    opened = Payment.objects.filter(gateway=provider.name, created_at__gte=start, created_at__lt=until)
    missed = (reference for reference in _references(opened) if reference not in seen)
    for references in _paged(missed):
        yield from compare(provider.name, references, beat=beat)


def _doubtful(gateway_name: str, lines: Sequence[ListedPayment]) -> list[str]:
    """The payments of a page that do not add up to what we have of them."""
    payments = _ours(gateway_name, [line.payment_reference for line in lines])
    ours = _events_of(payments.values())
    doubtful = []
    for line in lines:
        reference = line.payment_reference
        if reference in payments:
            have = _sums(ours[reference])
            say = {
                EventType.RECEIPT: line.received,
                EventType.CAPTURE: line.captured,
                EventType.REFUND: line.refunded,
                EventType.VOID: line.voided,
            }
            agrees = all(have[type_] == amount for type_, amount in say.items())
        else:
            agrees = not (line.received or line.captured or line.refunded)
        if line.unsure or not agrees:
            doubtful.append(reference)
    return doubtful


def _touched_lately(gateway_name: str, before: datetime) -> Iterator[str]:
    """The older payments about which something was written since."""
    events = PaymentEvent.objects.filter(gateway=gateway_name, recorded_at__gte=before)
    return _references(Payment.objects.filter(pk__in=events.values("payment"), created_at__lt=before))


def _references(payments: object) -> Iterator[str]:
    """Page by page: nothing stays open while the provider is asked."""
    after = 0
    while True:
        page = list(
            payments.filter(pk__gt=after)  # type: ignore[attr-defined]
            .exclude(reference="")
            .order_by("pk")
            .values_list("pk", "reference")[:1000]
        )
        yield from (reference for _, reference in page)
        if len(page) < 1000:
            return
        after = page[-1][0]


def _paged(references: Iterator[str]) -> Iterator[list[str]]:
    page: list[str] = []
    for reference in references:
        page.append(reference)
        if len(page) == AT_ONCE:
            yield page
            page = []
    if page:
        yield page


# --- one payment -----------------------------------------------------------------------------------------


def _ours(gateway_name: str, references: Iterable[str]) -> dict[str, Payment]:
    found = Payment.objects.filter(gateway=gateway_name, reference__in=list(references))
    return {payment.reference: payment for payment in found}


def _events_of(payments: Iterable[Payment]) -> dict[str, list[PaymentEvent]]:
    """What our books have from the provider, by the payments' references."""
    references = {payment.pk: payment.reference for payment in payments}
    events: dict[str, list[PaymentEvent]] = defaultdict(list)
    for event in PaymentEvent.objects.filter(
        payment__in=references, outcome=EventOutcome.SUCCEEDED.value
    ).exclude(source__in=OURS_ALONE):
        events[references[event.payment_id]].append(event)
    return events


def _sums(events: Iterable[PaymentEvent]) -> Mapping[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for event in events:
        sums[event.type] += event.amount
    sums[EventType.REFUND] += sums[EventType.CHARGEBACK] - sums[EventType.REFUND_REVERSAL]
    return sums


def _compared(
    gateway_name: str,
    reference: str,
    remote: RemotePayment | None,
    payment: Payment | None,
    ours: Sequence[PaymentEvent],
) -> Mismatch | None:
    early = timezone.now() - EARLY
    if remote is None:
        if payment is None or payment.created_at > early:
            return None
        sentence = f"{gateway_name} knows no payment {reference}, which is in our books"
        return Mismatch(
            gateway_name, reference, payment.merchant_reference, payment, f"{sentence}.", can_take=False
        )
    theirs = {(event.type.value, event.psp_reference): event for event in remote.events if _counts(event)}
    if payment is None:
        return _unknown(gateway_name, reference, remote, theirs.values(), early)
    # Money in another currency is in review, and not in the books.
    theirs = {key: event for key, event in theirs.items() if event.money.currency == payment.currency}
    have = {(event.type, event.psp_reference): event for event in ours if event.amount}
    lacking = [event for key, event in theirs.items() if key not in have and event.occurred_at < early]
    foreign = [event for key, event in have.items() if key not in theirs and event.recorded_at < early]
    other = [key for key, event in theirs.items() if key in have and event.money != have[key].money]
    sentences = []
    if lacking:
        sentences.append(
            f"{gateway_name} tells of {_told((e.type.value, e.money) for e in lacking)}, "
            "which our books do not have."
        )
    if foreign:
        sentences.append(
            f"Our books have {_told((e.type, e.money) for e in foreign)}, "
            f"of which {gateway_name} does not know."
        )
    if other:
        both = "; ".join(f"{theirs[key].money} there and {have[key].money} here" for key in other)
        sentences.append(f"The amounts differ: {both}.")
    if not sentences:
        return None
    return Mismatch(
        gateway_name,
        reference,
        payment.merchant_reference,
        payment,
        " ".join(sentences),
        can_take=bool(lacking) and not (foreign or other),
    )


def _unknown(
    gateway_name: str,
    reference: str,
    remote: RemotePayment,
    theirs: Iterable[GatewayEvent],
    early: datetime,
) -> Mismatch | None:
    """A payment with money that was not opened here; unless people have it before them, or have decided about it."""
    news = [event for event in theirs if event.occurred_at < early]
    webhooks = WebhookDelivery.objects.filter(gateway=gateway_name, payment_reference=reference)
    decided = webhooks.filter(state=WebhookDelivery.State.DISCARDED).exists()
    if not strays.are_about_money(news) or decided or strays.is_in_review(gateway_name, reference):
        return None
    order = f" for {remote.merchant_reference}" if remote.merchant_reference else ""
    sentence = (
        f"{gateway_name} has a payment {reference}{order}, which was not opened here: "
        f"{_told((e.type.value, e.money) for e in news)}."
    )
    return Mismatch(gateway_name, reference, remote.merchant_reference, None, sentence, can_take=True)


def _counts(event: GatewayEvent) -> bool:
    return event.outcome == EventOutcome.SUCCEEDED and event.money.amount != 0 and not event.flaw


def _told(events: Iterable[tuple[str, Money]]) -> str:
    return ", ".join(f"{_A[EventType(type_)]} of {money}" for type_, money in events)


_A = {
    EventType.AUTHORIZATION: "an authorization",
    EventType.AUTHORIZATION_ADJUSTMENT: "an adjustment",
    EventType.RECEIPT: "a receipt",
    EventType.CAPTURE: "a capture",
    EventType.VOID: "a void",
    EventType.REFUND: "a refund",
    EventType.REFUND_REVERSAL: "a refund that came back",
    EventType.CHARGEBACK: "a chargeback",
}
