"""The report of statements line by line: what was new, known before or left out, and where its money is now."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import Prefetch, Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils.formats import number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from payments.admin.review import NONE, order_link
from payments.models import Allocation, BankTransaction, OutgoingTransfer, ReviewItem, StatementLine
from payments.services import lines as report
from shop.kernel.admin.labels import label
from shop.kernel.money import Money

PER_PAGE = 100
Purpose = Allocation.Purpose
_TONES = {
    "matched": "paid", "review": "open", "refunded": "closed", "discarded": "", "outgoing": "sent", "foreign": "",
}  # fmt: skip
Transfers = dict[int, list[OutgoingTransfer]]
"""By the primary key of the booking that is about them."""


# --- where a booking's money is --------------------------------------------------------------------------


def whereabouts(path: str = "") -> tuple[Prefetch[Any], str]:
    """What `fate` reads of a booking; `path` leads to it, as in `transaction__`."""
    payments = Allocation.objects.select_related("payment").order_by("id")
    return Prefetch(f"{path}allocations", payments), f"{path}reviews"


def fate(booking: BankTransaction, transfers: Transfers) -> SafeString:
    """Where the booking's money is, with links; the amount is told where the booking was split."""
    sums: Counter[tuple[str, str]] = Counter()
    for allocation in booking.allocations.all():
        order = allocation.payment.merchant_reference if allocation.payment else ""
        sums[allocation.purpose, order] += allocation.amount
    places = [(purpose, order, amount) for (purpose, order), amount in sums.items() if amount]
    parts = []
    for purpose, order, amount in places:
        words: SafeString | str = str(Purpose(purpose).label)
        if order:
            words = format_html("{}: {}", words, order_link(order))
        if len(places) > 1:
            words = format_html("{} ({})", words, Money(amount, booking.currency).format())
        parts.append(label(_TONES[purpose], words))
    item = next((item for item in booking.reviews.all() if item.state == ReviewItem.State.OPEN), None)
    if item is not None:
        url = reverse("admin:payments_reviewitem_change", args=[item.pk])
        parts.append(format_html('<a href="{}">{}</a>', url, item.get_reason_display()))
    parts.extend(transfer_link(transfer) for transfer in transfers.get(booking.pk, []))
    return format_html_join(" ", "{}", ((part,) for part in parts))


def transfer_link(transfer: OutgoingTransfer) -> SafeString:
    url = reverse("admin:payments_outgoingtransfer_change", args=[transfer.pk])
    return format_html('<a href="{}">{}</a>', url, transfer.end_to_end_id)


def transfers_of(bookings: Sequence[BankTransaction]) -> Transfers:
    """Our own transfers that the bookings are about, one query: by our id, or all of a file booked as one sum."""
    by_id: dict[str, list[int]] = defaultdict(list)
    by_reference: dict[str, list[int]] = defaultdict(list)
    for booking in bookings:
        for our_id in {booking.end_to_end_id, booking.original_end_to_end_id} - {""}:
            by_id[our_id.strip().upper()].append(booking.pk)
        if booking.direction == BankTransaction.Direction.DEBIT and booking.bank_reference:
            by_reference[booking.bank_reference].append(booking.pk)
    if not by_id and not by_reference:
        return {}
    found: Transfers = defaultdict(list)
    theirs = Q(end_to_end_id__in=by_id) | Q(bank_reference__in=by_reference, booked_at__isnull=False)
    for transfer in OutgoingTransfer.objects.filter(theirs).order_by("id"):
        about = by_id.get(transfer.end_to_end_id, []) + by_reference.get(transfer.bank_reference, [])
        for pk in dict.fromkeys(about):
            found[pk].append(transfer)
    return found


# --- the report ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choice:
    fate: str
    label: str
    count: int

    def __str__(self) -> str:
        return number_format(self.count, force_grouping=True)


@dataclass(frozen=True, slots=True)
class Line:
    row: StatementLine
    position: str
    left_out: str
    amount: str
    text: str
    fate: SafeString


@dataclass(frozen=True, slots=True)
class Report:
    choices: list[Choice]
    chosen: str
    page: Page[StatementLine]
    pages: list[int | str]
    lines: list[Line]
    several: bool
    """Whether the lines are of more than one statement."""


def _counted(statements: Sequence[int]) -> list[Choice]:
    """How many lines there are of each fate; those that there are always, and those that there are some of."""
    names = {
        report.ALL: _("all"),
        report.NEW: _("new"),
        report.KNOWN: _("known before"),
        report.LEFT_OUT: _("left out"),
        **dict(Purpose.choices),
    }
    always = (report.ALL, report.NEW, report.KNOWN, report.LEFT_OUT, Purpose.MATCHED, Purpose.REVIEW)
    return [
        Choice(fate, str(names[fate]), count)
        for fate, count in report.counts(statements).items()
        if count or fate in always
    ]


def report_of(request: HttpRequest, statements: Sequence[int]) -> Report:
    """The page of the report that the address asks for: `?fate=…&page=…`. Seven queries, however long it is."""
    chosen = request.GET.get("fate", "")
    chosen = chosen if chosen in report.FATES else report.ALL
    found = report.lines(statements, chosen).select_related("transaction__statement", "statement")
    paginator = Paginator(found.prefetch_related(*whereabouts("transaction__")), PER_PAGE)
    page = paginator.get_page(request.GET.get("page"))
    rows = list(page)
    transfers = transfers_of([row.transaction for row in rows if row.transaction])
    return Report(
        choices=_counted(statements),
        chosen=chosen,
        page=page,
        pages=list(paginator.get_elided_page_range(page.number, on_each_side=2, on_ends=1)),
        lines=[_shown(row, transfers) for row in rows],
        several=len(statements) > 1,
    )


def _shown(row: StatementLine, transfers: Transfers) -> Line:
    booking, position = row.transaction, position_in_words(row.position)
    if booking is None:
        assert row.amount is not None
        amount = Money(row.amount, row.currency).format()
        return Line(row, position, _(row.left_out), amount, row.text, SafeString(NONE))
    return Line(row, position, "", amount_of(booking), text_of(booking), fate(booking, transfers))


def position_in_words(position: str) -> str:
    """A place in a statement, which is stored in English."""
    place = re.fullmatch(r"entry (\d+)(?:, transaction (\d+))?", position)
    if place is None:
        return position
    if place[2]:
        return _("entry %(entry)s, transaction %(transaction)s") % {
            "entry": place[1],
            "transaction": place[2],
        }
    return _("entry %s") % place[1]


def amount_of(booking: BankTransaction) -> str:
    """Negative: out."""
    money = booking.money
    return (money if booking.direction == BankTransaction.Direction.CREDIT else -money).format()


def text_of(booking: BankTransaction) -> str:
    return " ".join(filter(None, (booking.creditor_reference, booking.remittance_information)))[:140]
