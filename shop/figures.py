"""What the charts beside the work queue tell. Each is one or two queries over an indexed range of dates.

However large the shop is: days and weeks are counted by the database from an index alone, the distribution looks
at the newest `SAMPLE` payments, and a figure that takes longer than `TIMEOUT_S` is left out and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import accumulate
from typing import Any

from django.db import OperationalError, connection, transaction
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.translation import gettext, ngettext, pgettext
from django.utils.translation import gettext_lazy as _

from orders.models import DeadLetter, Order, Saga, SagaStep
from orders.workflows.types import LAPSED, NO_PAYMENT, UNPAID, Step
from shop.kernel.money import Money

DAYS = 30
WEEKS = 12
SAMPLE = 20_000
TIMEOUT_S = 2
MOST_DAYS = 14  # what is longer is one column

_order, _saga, _step, _letter = (model._meta.db_table for model in (Order, Saga, SagaStep, DeadLetter))


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of a chart: `values` one for each column, None where there is nothing to tell."""

    name: str
    tone: str
    values: Sequence[float | None]
    words: Sequence[str]  # the values as the table has them


@dataclass(frozen=True, slots=True)
class Figure:
    """`says` is the answer in a sentence. `stacked` bars, or lines of percentages. Without `series`: no data."""

    name: str
    title: str | Promise
    says: str
    first_column: str = ""
    columns: Sequence[str] = ()
    series: Sequence[Series] = ()
    is_rate: bool = False


def figures() -> list[Figure]:
    """All of them, in the order in which they are shown."""
    return [_in_time(name, title, read) for name, title, read in _FIGURES]


def _in_time(name: str, title: Promise, read: Callable[[str, Promise], Figure]) -> Figure:
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = '{TIMEOUT_S}s'")
            return read(name, title)
    except OperationalError:
        return Figure(
            name, title, gettext("It took too long to count; the database has much to do. Look again later.")
        )


def _rows(sql: str, parameters: dict[str, Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())


# --- orders by state -------------------------------------------------------------------------------------

O = Order.Status  # noqa: E741
_GROUPS = (
    (_("waiting for money"), "wait", {O.PLACED, O.AWAITING_PAYMENT}),
    (_("paid, on its way"), "move", {O.PAID, O.SHIPPED}),
    (_("completed"), "good", {O.COMPLETED}),
    (_("cancelled"), "off", {O.ROLLING_BACK, O.CANCELLED}),
    (_("rollback failed"), "bad", {O.COMPENSATION_FAILED}),
)


def _by_state(name: str, title: Promise) -> Figure:
    today = timezone.now().date()
    days = [today - timedelta(days=ago) for ago in range(DAYS - 1, -1, -1)]
    sql = f"""
        SELECT (created_at AT TIME ZONE 'UTC')::date, status, count(*) FROM {_order}
        WHERE created_at >= %(since)s GROUP BY 1, 2
    """
    found = {(day, status): number for day, status, number in _rows(sql, {"since": _midnight(days[0])})}
    series = [
        _counts(str(words), tone, [sum(found.get((day, status), 0) for status in statuses) for day in days])
        for words, tone, statuses in _GROUPS
    ]
    total = sum(found.values())
    says = ngettext("%d order in 30 days.", "%d orders in 30 days.", total) % total
    shown = series if total else ()
    return Figure(name, title, says, gettext("Placed on"), [_day(day) for day in days], shown)


# --- days from order to money ----------------------------------------------------------------------------


def _until_paid(name: str, title: Promise) -> Figure:
    sql = f"""
        SELECT least(floor(extract(epoch FROM paid.at - placed.created_at) / 86400), %(most)s)::int, count(*)
        FROM (
            SELECT at, saga_id FROM {_step}
            WHERE step = '{Step.PAYMENT_CAPTURED}' AND kind = 'action' AND outcome = 'succeeded' AND at >= %(since)s
            ORDER BY at DESC LIMIT %(sample)s
        ) paid JOIN {_saga} saga ON saga.id = paid.saga_id JOIN {_order} placed ON placed.id = saga.order_id
        GROUP BY 1
    """
    since = timezone.now() - timedelta(days=DAYS)
    found = dict(_rows(sql, {"since": since, "most": MOST_DAYS, "sample": SAMPLE}))
    numbers = [found.get(days, 0) for days in range(MOST_DAYS + 1)]
    columns = ["<1", *(str(days) for days in range(1, MOST_DAYS)), f"{MOST_DAYS}+"]
    total = sum(numbers)
    if not total:
        return Figure(name, title, gettext("No order was paid in 30 days."))
    return Figure(
        name, title, _half(numbers, total), gettext("Days"), columns,
        [_counts(gettext("orders paid"), "good", numbers)],
    )  # fmt: skip


def _half(numbers: Sequence[int], total: int) -> str:
    days = next(days for days, seen in enumerate(accumulate(numbers)) if 2 * seen >= total)
    if days == MOST_DAYS:
        return gettext("Half of those paid in 30 days took %d days or longer.") % days
    return ngettext(
        "Half of those paid in 30 days were paid within a day.",
        "Half of those paid in 30 days were paid within %(days)d days.",
        days + 1,
    ) % {"days": days + 1}


# --- timeouts and rollbacks ------------------------------------------------------------------------------


def _outcomes(name: str, title: Promise) -> Figure:
    this_week = timezone.now().date() - timedelta(days=timezone.now().weekday())
    weeks = [this_week - timedelta(weeks=ago) for ago in range(WEEKS - 1, -1, -1)]
    week = "date_trunc('week', ended_at AT TIME ZONE 'UTC')::date"
    since = {"since": _midnight(weeks[0])}
    ended = dict(_rows(f"SELECT {week}, count(*) FROM {_saga} WHERE ended_at >= %(since)s GROUP BY 1", since))
    sql = f"""
        SELECT {week}, count(*),
            count(*) FILTER (WHERE reason = '{NO_PAYMENT}' OR reason LIKE '{LAPSED} %% {UNPAID}'),
            count(*) FILTER (WHERE letters.saga_id IS NULL)
        FROM {_saga} saga LEFT JOIN (SELECT DISTINCT saga_id FROM {_letter}) letters ON letters.saga_id = saga.id
        WHERE status IN ('cancelled', 'compensation_failed') AND ended_at >= %(since)s GROUP BY 1
    """
    rolled_back = {row[0]: row[1:] for row in _rows(sql, since)}
    timeouts = [(rolled_back.get(week, (0, 0, 0))[1], ended.get(week, 0)) for week in weeks]
    undone = [(rolled_back.get(week, (0, 0, 0))[2], rolled_back.get(week, (0, 0, 0))[0]) for week in weeks]
    if not ended:
        return Figure(name, title, gettext("No saga has ended in 12 weeks."))
    says = gettext(
        "In 12 weeks %(timeouts)s of the sagas timed out, and %(undone)s of the rollbacks succeeded."
    ) % {
        "timeouts": _share(*map(sum, zip(*timeouts, strict=True))),
        "undone": _share(*map(sum, zip(*undone, strict=True))),
    }
    series = [
        _rates(gettext("timed out"), "warn", timeouts),
        _rates(gettext("rollbacks without a dead letter"), "good", undone),
    ]
    return Figure(name, title, says, gettext("Week of"), [_day(day) for day in weeks], series, is_rate=True)


# --- value waiting ---------------------------------------------------------------------------------------


def _waiting(name: str, title: Promise) -> Figure:
    sql = f"""
        SELECT placed.currency,
            greatest(-1, least(%(most)s, floor(extract(epoch FROM saga.deadline - now()) / 86400)))::int,
            count(*), sum(placed.total)::bigint
        FROM {_saga} saga JOIN {_order} placed ON placed.id = saga.order_id
        WHERE saga.status = 'waiting' AND saga.deadline IS NOT NULL GROUP BY 1, 2
    """
    found = {
        (currency, days): (number, total) for currency, days, number, total in _rows(sql, {"most": MOST_DAYS})
    }
    if not found:
        return Figure(name, title, gettext("No order waits for money."))
    number = sum(number for number, _total in found.values())
    currencies = sorted({currency for currency, _days in found})
    sums = {
        one: sum(total for (currency, _d), (_n, total) in found.items() if currency == one)
        for one in currencies
    }
    says = ngettext(
        "%(number)d order waits for %(money)s.", "%(number)d orders wait for %(money)s.", number
    ) % {
        "number": number,
        "money": ", ".join(Money(total, currency).format() for currency, total in sums.items()),
    }
    tones = ("wait", "move", "good", "warn", "off")
    series = [
        _amounts(
            currency, tone, [found.get((currency, days), (0, 0))[1] for days in range(-1, MOST_DAYS + 1)]
        )
        for currency, tone in zip(currencies, tones, strict=False)
    ]
    columns = [gettext("over"), "<1", *(str(days) for days in range(1, MOST_DAYS)), f"{MOST_DAYS}+"]
    return Figure(name, title, says, gettext("Days to the deadline"), columns, series)


_FIGURES: tuple[tuple[str, Promise, Callable[[str, Promise], Figure]], ...] = (
    ("states", _("Orders of the last 30 days, by state"), _by_state),
    ("waiting", _("Value waiting, by days to the deadline"), _waiting),
    ("until-paid", _("Days from order to money"), _until_paid),
    ("outcomes", _("Timeouts and rollbacks, by week"), _outcomes),
)


# --- words -----------------------------------------------------------------------------------------------


def _counts(name: str, tone: str, numbers: Sequence[int]) -> Series:
    return Series(name, tone, numbers, [str(number) for number in numbers])


def _amounts(currency: str, tone: str, amounts: Sequence[int]) -> Series:
    money = [Money(amount, currency) for amount in amounts]
    return Series(currency, tone, [float(one.decimal) for one in money], [one.format() for one in money])


def _rates(name: str, tone: str, parts: Sequence[tuple[int, int]]) -> Series:
    values = [100 * part / whole if whole else None for part, whole in parts]
    return Series(name, tone, values, [_share(part, whole) for part, whole in parts])


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} % ({part}/{whole})" if whole else "–"


def _day(day: date) -> str:
    return date_format(day, pgettext("a day as Django formats it", "j M"))


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=timezone.get_default_timezone())
