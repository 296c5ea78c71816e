"""Leave to call a provider, and what the calls say about it, in one row that all processes share.

- **Rate**: the generic cell rate algorithm. A caller gets a time at which its call fits in, or is sent away
  with an appointment; appointments lie apart by the rate as well, so those sent away do not come back at once.
- **Retry-After**: nobody calls before the time that the provider named.
- **Circuit breaker**: after `GATEWAY_DOWN_AFTER` calls in a row without an answer, for more than one payment,
  nobody calls for a while, which grows with jitter; then one call tries, and its answer lets all others in again.

Each function is one statement of its own, past the caller's transaction: a rollback must not undo it, and its
lock is never held during a call. It is not worth waiting for the disk for it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from payments.models.gateway_state import GatewayIncident, GatewayState, called
from shop.kernel.listening import own_connection

DEFAULT_RATE = 10.0  # requests a second
BURST_S = 0.25  # so much of a second's calls may come at once
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 60.0  # of an open circuit; doubled with each try in vain
# Who meets an open circuit waits as long again as it has lasted, up to this: so few attempts are used up, and yet
# whoever comes after the pause tries at once.
LONGEST_APPOINTMENT_S = 300.0
LONGEST_BACKOFF_S = 60.0  # after refusals as too many without a Retry-After
LONGEST_RETRY_AFTER_S = 3600.0
PROBE_S = 30.0  # so long the one call that tries may take; then another may
PROBED_AGAIN_S = 3.0  # those who meet it come back after this
APPOINTMENTS_S = 120.0  # the furthest appointment after the provider can be called again
SUCCESS_NOTED_S = 60.0  # how old the time of the last success may get


@dataclass(frozen=True, slots=True)
class Leave:
    """Whether a call may go, and after how many seconds; if not, why, and in how many seconds to come again.

    `probe` marks the call that tries whether the provider is back; it is handed in with what came of it.
    """

    goes: bool
    wait_s: float
    probe: datetime | None = None
    is_down: bool = False
    code: str = ""
    why: str = ""


_ASK = """
    WITH was AS MATERIALIZED (
        SELECT gateway, arrival, appointment, not_before, failing_since, open_until,
            statement_timestamp() AS now,
            open_until IS NULL OR (
                open_until <= statement_timestamp()
                AND coalesce(probing_until, '-infinity') <= statement_timestamp()
            ) AS lets_in,
            greatest(statement_timestamp(), not_before, arrival - %(burst)s) AS ready_at,
            set_config('synchronous_commit', 'off', true) AS commits
        FROM payments_gatewaystate WHERE gateway = %(gateway)s FOR UPDATE
    ), decided AS MATERIALIZED (
        SELECT *,
            lets_in AND ready_at <= now + %(patience)s AS goes,
            CASE WHEN open_until > now THEN
                    greatest(open_until, ready_at, now + least(now - failing_since, %(longest)s))
                WHEN NOT lets_in THEN greatest(now + %(probed_again)s, ready_at)
                ELSE ready_at END AS base
        FROM was
    )
    UPDATE payments_gatewaystate AS state SET
        arrival = CASE WHEN goes THEN greatest(decided.arrival, ready_at) + %(cost)s
            ELSE decided.arrival END,
        probing_until = CASE WHEN goes AND decided.open_until IS NOT NULL THEN ready_at + %(probe)s
            ELSE state.probing_until END,
        appointment = CASE WHEN goes THEN decided.appointment
            ELSE least(greatest(decided.appointment, base) + %(cost)s, base + %(appointments)s) END
    FROM decided WHERE state.gateway = decided.gateway AND commits = 'off'
    RETURNING goes, ready_at - now, state.probing_until, state.appointment - now, lets_in,
        decided.open_until, decided.not_before, decided.failing_since, now
"""


_NEW = "INSERT INTO payments_gatewaystate (gateway) VALUES (%(gateway)s) ON CONFLICT DO NOTHING"


def ask_leave(gateway: str, patience_s: float, requests: int = 1) -> Leave:
    """Leave for a call that makes so many requests. `patience_s`: how long its caller can wait for its turn."""
    rate = settings.GATEWAY_RATES.get(gateway, DEFAULT_RATE)
    arguments = {
        "gateway": gateway,
        "cost": timedelta(seconds=requests / rate),
        "burst": timedelta(seconds=BURST_S),
        "patience": timedelta(seconds=patience_s),
        "probe": timedelta(seconds=PROBE_S),
        "probed_again": timedelta(seconds=PROBED_AGAIN_S),
        "appointments": timedelta(seconds=APPOINTMENTS_S),
        "longest": timedelta(seconds=LONGEST_APPOINTMENT_S),
    }
    with _cursor() as cursor:
        cursor.execute(_ASK, arguments)
        row = cursor.fetchone()
        if row is None:  # its first call ever
            cursor.execute(_NEW, arguments)
            cursor.execute(_ASK, arguments)
            row = cursor.fetchone()
    goes, wait, probe, appointment, lets_in, open_until, not_before, failing_since, now = row
    is_down = open_until is not None
    if goes:
        return Leave(True, max(0.0, wait.total_seconds()), probe if is_down else None, is_down)
    again_s = max(0.1, appointment.total_seconds()) * random.uniform(1, 1.1)
    if not lets_in:
        names = {
            "provider": called(gateway),
            "since": f"{date_format(failing_since, 'SHORT_DATETIME_FORMAT')} UTC",
            "until": f"{open_until:%H:%M:%S} UTC",
        }
        if open_until > now:
            why = _(
                "Not sent: %(provider)s has not answered since %(since)s and is not asked before %(until)s."
            )
        else:
            why = _("Not sent: %(provider)s has not answered since %(since)s and is just being tried.")
        why %= names
        return Leave(False, again_s, None, True, "circuit_open", why)
    if not_before is not None and not_before > now:
        why = _("Not sent: %(provider)s has asked us to wait until %(until)s.") % {
            "provider": called(gateway),
            "until": f"{not_before:%H:%M:%S} UTC",
        }
        return Leave(False, again_s, None, is_down, "asked_to_wait", why)
    why = _("Not sent: more calls of %(provider)s wait than %(rate)s requests a second allow.") % {
        "provider": called(gateway),
        "rate": f"{rate:g}",
    }
    return Leave(False, again_s, None, is_down, "own_rate_limit", why)


_NEWS = """
    FROM payments_gatewaystate
    WHERE gateway = %(gateway)s AND (open_until IS NULL OR probing_until = %(probe)s) AND (
        failures > 0 OR too_many > 0 OR open_until IS NOT NULL
        OR coalesce(last_success_at, '-infinity') < statement_timestamp() - %(noted)s
    )
"""
_ANSWERED = f"""
    WITH was AS MATERIALIZED (
        SELECT id, failing_since, open_until IS NOT NULL AS was_down,
            set_config('synchronous_commit', 'off', true) AS commits
        {_NEWS} FOR UPDATE
    ), noted AS (
        UPDATE payments_gatewaystate AS state SET
            failures = 0, last_failed = '', too_many = 0, failing_since = NULL, times_opened = 0,
            open_until = NULL, probing_until = NULL, last_success_at = statement_timestamp(),
            arrival = CASE WHEN was_down THEN greatest(arrival, statement_timestamp() + %(burst)s)
                ELSE arrival END
        FROM was WHERE state.id = was.id AND commits = 'off'
    )
    INSERT INTO payments_gatewayincident (gateway_id, kind, detail)
    SELECT id, 'came back', 'It had not answered since '
        || to_char(failing_since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC.'
    FROM was WHERE was_down
"""


def answered(gateway: str, probe: datetime | None = None) -> None:
    """The provider has answered, be it no: it is there. While its circuit is open only a probe's answer counts."""
    arguments = {
        "gateway": gateway,
        "probe": probe,
        "burst": timedelta(seconds=BURST_S),
        "noted": timedelta(seconds=SUCCESS_NOTED_S),
    }
    with _cursor() as cursor:
        cursor.execute(f"SELECT 1 {_NEWS}", arguments)
        if cursor.fetchone():  # as a rule it was well before
            cursor.execute(_ANSWERED, arguments)


_TOO_MANY = """
    UPDATE payments_gatewaystate AS state SET
        too_many = too_many + 1,
        failures = CASE WHEN open_until IS NULL THEN 0 ELSE failures END,
        failing_since = CASE WHEN open_until IS NULL THEN NULL ELSE failing_since END,
        last_error = %(error)s, last_failure_at = statement_timestamp(),
        not_before = greatest(not_before, told.until), arrival = greatest(arrival, told.until + %(burst)s)
    FROM (
        SELECT id, statement_timestamp() + coalesce(
            %(told)s::interval,
            least(interval '1 s' * 2 ^ least(too_many, 10), %(longest)s) * %(jitter)s::float8
        ) AS until FROM payments_gatewaystate WHERE gateway = %(gateway)s FOR UPDATE
    ) AS told
    WHERE state.id = told.id RETURNING state.not_before - statement_timestamp()
"""


def refused_as_too_many(gateway: str, error: str, retry_after_s: float | None) -> float:
    """Nobody calls for so long as the provider said, or for a time that grows. Returns it in seconds."""
    arguments = {
        "gateway": gateway,
        "error": error,
        "told": _told(retry_after_s),
        "longest": timedelta(seconds=LONGEST_BACKOFF_S),
        "jitter": random.uniform(0.5, 1),
        "burst": timedelta(seconds=BURST_S),
    }
    with _cursor() as cursor:
        cursor.execute(_TOO_MANY, arguments)
        wait: timedelta = cursor.fetchone()[0]
    return max(0.0, wait.total_seconds())


_NO_ANSWER = """
    WITH was AS MATERIALIZED (
        SELECT id, open_until IS NULL AS was_up, (last_failed IS DISTINCT FROM nullif(%(about)s, ''))::int AS counts,
            CASE WHEN open_until IS NULL THEN last_failed IS DISTINCT FROM nullif(%(about)s, '')
                    AND failures + 1 >= %(down_after)s
                ELSE coalesce(probing_until = %(probe)s, false) END AS opens,
            statement_timestamp() + %(told)s::interval AS told_until,
            statement_timestamp()
                + least(%(first)s * 2 ^ least(times_opened, 10), %(longest)s) * %(jitter)s::float8 AS until
        FROM payments_gatewaystate WHERE gateway = %(gateway)s FOR UPDATE
    ), noted AS (
        UPDATE payments_gatewaystate AS state SET
            failures = failures + counts, last_failed = %(about)s,
            failing_since = coalesce(failing_since, statement_timestamp()),
            last_failure_at = statement_timestamp(), last_error = %(error)s,
            not_before = greatest(not_before, told_until),
            times_opened = CASE WHEN opens THEN times_opened + counts ELSE times_opened END,
            open_until = CASE WHEN opens THEN greatest(until, told_until) ELSE open_until END,
            probing_until = CASE WHEN opens THEN NULL ELSE probing_until END
        FROM was WHERE state.id = was.id
    )
    INSERT INTO payments_gatewayincident (gateway_id, kind, detail)
    SELECT id, 'went down', %(error)s FROM was WHERE opens AND was_up
"""


def gave_no_answer(
    gateway: str, about: str, error: str, retry_after_s: float | None = None, probe: datetime | None = None
) -> bool:
    """A call had no answer that can be used. Enough of them in a row, and the circuit opens: whether it did now.

    `about`: the one payment that it was about, which is counted once in a row; empty for a call about many.
    """
    arguments = {
        "gateway": gateway,
        "probe": probe,
        "about": about[:120],
        "error": error,
        "told": _told(retry_after_s),
        "down_after": settings.GATEWAY_DOWN_AFTER,
        "first": timedelta(seconds=FIRST_PAUSE_S),
        "longest": timedelta(seconds=LONGEST_PAUSE_S),
        "jitter": random.uniform(0.8, 1.2),
    }
    with _cursor() as cursor:
        cursor.execute(_NO_ANSWER, arguments)
        return bool(cursor.rowcount)


def troubles(gateways: Iterable[str] | None = None) -> list[GatewayState]:
    """The providers, among those named or all, that cannot be called now; each has a `sentence`."""
    found = GatewayState.objects.filter(Q(open_until__isnull=False) | Q(not_before__gt=timezone.now()))
    return list(found if gateways is None else found.filter(gateway__in=gateways))


@dataclass(frozen=True, slots=True)
class AskedNow:
    """What came of `ask_now`. `repeated`: there was nothing to wait for."""

    message: str
    repeated: bool = False


@transaction.atomic
def ask_now(gateway: str, actor: str) -> AskedNow:
    """Let one call through at once, whatever the wait: its answer lets in all others."""
    state = GatewayState.objects.select_for_update().get(gateway=gateway)
    now = timezone.now()
    if not (state.is_down or state.is_told_to_wait(now)):
        return AskedNow(_("%s is asked as usual; there is nothing to wait for.") % state, repeated=True)
    detail = state.sentence
    state.open_until, state.not_before, state.probing_until = now, None, None
    state.failing_since = state.failing_since or now
    state.save(update_fields=["open_until", "not_before", "probing_until", "failing_since"])
    GatewayIncident.objects.create(
        gateway=state, kind=GatewayIncident.Kind.ASKED_NOW, actor=actor, detail=detail
    )
    return AskedNow(_("The next call to %s is let through; if it is answered, so are all others.") % state)


def _told(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=min(seconds, LONGEST_RETRY_AFTER_S))


@contextmanager
def _cursor() -> Iterator[Any]:
    """Where a statement is a transaction of its own: Django's connection, or, inside a transaction, another."""
    if connection.in_atomic_block:
        with own_connection(autocommit=True) as beside, beside.cursor() as cursor:
            yield cursor
    else:
        with connection.cursor() as cursor:
            yield cursor
