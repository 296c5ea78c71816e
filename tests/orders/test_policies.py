"""The patience that the design asks for, and a safety net that is never shorter than it."""

from __future__ import annotations

from datetime import timedelta

from temporalio.common import RetryPolicy

from orders.workflows.policies import ATTEMPT, HARD, MAX_EXTENSION, execution_timeout, worst_case


def test_undos_are_tried_ten_times_with_pauses_from_a_second_to_five_minutes() -> None:
    assert (HARD.maximum_attempts, HARD.initial_interval) == (10, timedelta(seconds=1))
    assert HARD.maximum_interval == timedelta(minutes=5)


def test_worst_case_is_every_attempt_and_the_longest_pause_before_each() -> None:
    policy = RetryPolicy(
        initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=3), maximum_attempts=4
    )
    assert worst_case(policy) == 4 * ATTEMPT + timedelta(seconds=3 + 3 + 3)


def test_execution_timeout_is_longer_than_the_longest_saga() -> None:
    window = timedelta(days=14)
    five_steps_four_undos_and_the_last_check = 10 * worst_case(HARD)
    assert execution_timeout(window) > window + MAX_EXTENSION + five_steps_four_undos_and_the_last_check
