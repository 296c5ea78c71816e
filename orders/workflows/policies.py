"""How long things may take and how hard they are tried; the execution timeout is computed from it."""

from __future__ import annotations

from datetime import timedelta

from temporalio.common import RetryPolicy

# A provider's client gives up after 13 s, so no attempt is still under way when the next one starts.
ATTEMPT = timedelta(seconds=20)

# Before any money moved there is a customer at the checkout: an answer within a minute beats patience.
BRIEF = RetryPolicy(
    initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=10), maximum_attempts=5
)
# Once money is involved, and for every undo: 1 s to 5 min, ten attempts, nine minutes at least; longer while a
# provider is known to be down, because nobody asks before the time that is set for it.
HARD = RetryPolicy(
    initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5), maximum_attempts=10
)
# What touches our own database only waits for the database.
PATIENT = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5))
# An alert is worth a day's tries.
ALERT = RetryPolicy(
    initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5), maximum_attempts=300
)

# An authorization is renewed this long before it lapses; a provider that cannot be reached is asked again.
RENEW_BEFORE = timedelta(hours=24)
LAST_RENEWAL_BEFORE = timedelta(hours=6)

# How far staff may move a deadline beyond the first one, all extensions together.
MAX_EXTENSION = timedelta(days=60)


def worst_case(policy: RetryPolicy) -> timedelta:
    """The longest that an activity under `policy` can take: every attempt times out, every pause is the longest.

    A provider may name a longer pause than the policy's next one, up to the policy's longest.
    """
    longest = policy.maximum_interval or policy.initial_interval * 100
    return longest * (policy.maximum_attempts - 1) + ATTEMPT * policy.maximum_attempts


def execution_timeout(payment_window: timedelta) -> timedelta:
    """A safety net only: the window, all extensions, and the worst case of every step, undo and mail.

    A day on top is for a database that is away: work on our own data waits for it.
    """
    steps = 7  # five steps, a renewal that is under way at the deadline, and the last check there
    undos = 4
    mails = 5
    return payment_window + MAX_EXTENSION + worst_case(HARD) * (steps + undos + mails) + timedelta(days=1)
