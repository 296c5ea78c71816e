"""Manners towards providers: the rate, Retry-After and the circuit breaker, as the provider sees them."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from pytest_django.fixtures import Settings
from temporalio.common import RetryPolicy
from temporalio.testing import ActivityEnvironment

from payments.gateways import gateway, manners
from payments.gateways.base import (
    Capabilities,
    Gateway,
    GatewayRefused,
    GatewayUnavailable,
    Trouble,
    retry_after,
)
from payments.gateways.manners import mannered, may_wait
from payments.models import GatewayIncident, GatewayState
from payments.services import availability
from shop.kernel.activities import pause_after
from tests.payments.counted_provider import CountedProvider, counted_provider

pytestmark = pytest.mark.django_db(transaction=True)
_numbers = itertools.count(1)
DOWN_AFTER = 5


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountedProvider]:
    with counted_provider(tmp_path_factory.mktemp("provider") / "books.sqlite3") as provider:
        yield provider


@pytest.fixture
def provider(running: CountedProvider, settings: Settings) -> Iterator[CountedProvider]:
    settings.SANDBOX_URL, settings.SANDBOX_API_KEY = running.url, running.api_key
    settings.PAYMENT_GATEWAYS = {"sandbox": "payments.gateways.sandbox.SandboxGateway"}
    settings.GATEWAY_DOWN_AFTER = DOWN_AFTER
    gateway.cache_clear()
    running.faults()
    running.arrivals.clear()
    yield running
    running.faults()


def call() -> str:
    """Ask about a payment that there is not, a new one each time: how it ended, in a word."""
    try:
        gateway("sandbox").status(f"nobody-{next(_numbers)}")
    except GatewayRefused as error:
        return error.code
    except GatewayUnavailable as error:
        return error.code
    raise AssertionError("there is such a payment")


def state() -> GatewayState:
    return GatewayState.objects.get(gateway="sandbox")


def later(seconds: float) -> None:
    """Time passes for the state: everything in it is so much longer ago."""
    fields = ("arrival", "appointment", "not_before", "failing_since", "open_until", "probing_until")
    found = state()
    for name in fields:
        moment = getattr(found, name)
        setattr(found, name, moment and moment - timedelta(seconds=seconds))
    found.save()


def go_down(provider: CountedProvider) -> None:
    provider.faults(down=True)
    assert {call() for _ in range(DOWN_AFTER)} == {"connection_failed"}
    assert state().is_down


def at_once(callers: int, work: Callable[[], str]) -> list[str]:
    """What came of so many calls from threads that begin together."""
    together = threading.Barrier(callers)

    def run(_: int) -> str:
        together.wait()
        try:
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(run, range(callers)))


# --- the rate --------------------------------------------------------------------------------------------


def test_two_processes_together_keep_the_rate(provider: CountedProvider) -> None:
    db = connection.settings_dict
    env = os.environ | {
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "DATABASE_URL": f"postgresql://{db['USER']}:{db['PASSWORD']}@{db['HOST']}:{db['PORT']}/{db['NAME']}",
        "SANDBOX_URL": provider.url,
        "SANDBOX_API_KEY": provider.api_key,
        "GATEWAY_RATES": "sandbox=50",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.payments.calling_process", "80"],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
    said = [process.communicate(b"go\n", timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert set(b"".join(said).split()) <= {b"own_rate_limit"}
    assert len(provider.arrivals) == 160
    assert provider.most_in_a_second() <= 50 * (1 + 2 * availability.BURST_S)
    assert provider.arrivals[-1] - provider.arrivals[0] > 160 / 50 - availability.BURST_S - 0.5


def test_page_is_told_at_once_and_does_not_wait(provider: CountedProvider, settings: Settings) -> None:
    settings.GATEWAY_RATES = {"sandbox": 1}
    began = time.monotonic()
    assert [call(), call()] == ["not_found", "own_rate_limit"]
    assert time.monotonic() - began < 0.9
    assert len(provider.arrivals) == 1


def test_worker_waits_for_its_turn_but_not_long(provider: CountedProvider, settings: Settings) -> None:
    settings.GATEWAY_RATES = {"sandbox": 4}
    with may_wait(0.5):
        answers = at_once(6, lambda: _patiently(0.5))
    assert Counter(answers) == {"not_found": 3, "own_rate_limit": 3} or Counter(answers) == {
        "not_found": 4,
        "own_rate_limit": 2,
    }


def _patiently(seconds: float = manners.LONGEST_WAIT_S) -> str:
    with may_wait(seconds):
        return call()


def test_activity_waits_only_while_its_call_still_has_time() -> None:
    env = ActivityEnvironment()

    def patience(seconds: float) -> float:
        env.info = replace(env.info, start_to_close_timeout=timedelta(seconds=seconds))
        return env.run(manners._patience_s)

    assert patience(20) == manners.LONGEST_WAIT_S
    assert 0.9 < patience(14) <= 1
    assert patience(10) == 0


def test_calls_that_are_several_requests_count_as_such(settings: Settings) -> None:
    settings.GATEWAY_RATES = {"fake": 100}
    assert availability.ask_leave("fake", 0, requests=100).goes
    turned_away = availability.ask_leave("fake", 0)
    assert (turned_away.goes, turned_away.code) == (False, "own_rate_limit")
    assert availability.ask_leave("fake", 1).wait_s == pytest.approx(0.75, abs=0.2)


def test_thousand_who_waited_for_a_provider_do_not_storm_it(
    provider: CountedProvider, settings: Settings
) -> None:
    """Each comes again when it was told to, as the engine does; the sleep is the engine's timer."""
    settings.GATEWAY_RATES = {"sandbox": 150}
    call()
    now = timezone.now()
    GatewayState.objects.update(
        open_until=now + timedelta(seconds=1), failing_since=now - timedelta(seconds=1), failures=DOWN_AFTER
    )
    provider.arrivals.clear()
    tries: Counter[int] = Counter()

    def attempt(number: int) -> float:
        tries[number] += 1
        try:
            with may_wait():
                gateway("sandbox").status(f"nobody-{number}")
        except GatewayRefused:
            return 0
        except GatewayUnavailable as error:
            return error.retry_after or 1
        finally:
            connection.close()
        raise AssertionError

    async def all_of_them() -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(16) as pool:

            async def one(number: int) -> None:
                while pause := await loop.run_in_executor(pool, attempt, number):
                    await asyncio.sleep(pause)

            await asyncio.gather(*(one(number) for number in range(1000)))

    asyncio.run(all_of_them())
    assert len(provider.arrivals) == 1000
    # What leaves in time may arrive together, on a machine that is busy.
    assert provider.most_in_a_second() <= 150 * (1 + 2 * availability.BURST_S)
    assert max(tries.values()) <= 4  # of the ten that an undo has


def test_those_sent_away_are_told_to_come_one_after_another(settings: Settings) -> None:
    settings.GATEWAY_RATES = {"fake": 10}
    while availability.ask_leave("fake", 0).goes:
        pass
    began = time.monotonic()
    comes = [availability.ask_leave("fake", 0).wait_s + time.monotonic() - began for _ in range(100)]
    assert 9 <= comes[-1] <= 12
    assert len({int(seconds) for seconds in comes}) >= 9


# --- what the provider asks for --------------------------------------------------------------------------


def test_retry_after_of_one_call_stops_the_calls_of_all(provider: CountedProvider) -> None:
    provider.faults(status={"rate_limit_per_s": 0})
    assert call() == "rate_limited"
    provider.faults()
    assert set(at_once(8, call)) == {"asked_to_wait"}
    assert len(provider.arrivals) == 1
    assert "has asked us to wait" in state().sentence
    later(1)
    assert call() == "not_found"
    assert not availability.troubles()


def test_retry_after_is_waited_for_where_it_is_short(provider: CountedProvider) -> None:
    provider.faults(status={"rate_limit_per_s": 0})
    assert call() == "rate_limited"
    provider.faults()
    assert set(at_once(4, _patiently)) == {"not_found"}
    first, *others = provider.arrivals
    assert min(others) - first >= 0.99


def test_retry_after_of_an_outage_is_kept_by_all(settings: Settings) -> None:
    availability.ask_leave("fake", 0)
    availability.gave_no_answer("fake", "p-1", "Down for repairs.", retry_after_s=60)
    told = availability.ask_leave("fake", 2)
    assert (told.goes, told.code) == (False, "asked_to_wait")
    assert 60 <= told.wait_s <= 70


def test_too_many_without_retry_after_waits_longer_each_time_with_jitter() -> None:
    availability.ask_leave("fake", 0)
    waits = [availability.refused_as_too_many("fake", "Too many.", None) for _ in range(9)]
    assert 0.5 <= waits[0] <= 1
    assert 30 <= waits[-1] <= 60
    assert availability.ask_leave("fake", 2).code == "asked_to_wait"


def test_payment_that_is_just_busy_says_nothing_about_the_provider(settings: Settings) -> None:
    settings.GATEWAY_DOWN_AFTER = 1
    fake: Any = Fake(
        GatewayUnavailable("Another call has this key.", "in_progress", trouble=Trouble.THIS_ONE)
    )
    with pytest.raises(GatewayUnavailable):
        mannered(fake).status("p")
    assert not availability.troubles()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120), ("", None), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("-5", None)],
)
def test_retry_after_is_a_number_or_a_date(header: str, seconds: float | None) -> None:
    assert retry_after(header) == seconds


# --- a provider that is down -----------------------------------------------------------------------------


def test_provider_that_does_not_answer_is_left_alone(provider: CountedProvider) -> None:
    go_down(provider)
    assert set(at_once(8, call)) == {"circuit_open"}
    assert len(provider.arrivals) == DOWN_AFTER
    with pytest.raises(
        GatewayUnavailable, match=r"Not sent: .* has not answered since .* is not asked before"
    ):
        gateway("sandbox").status("p")
    sentence = state().sentence
    assert sentence.startswith("Sandbox has not answered since 20")
    assert "The connection to the practice provider failed" in sentence
    assert "It is asked again at" in sentence
    assert [incident.kind for incident in GatewayIncident.objects.all()] == ["went down"]


def test_one_call_tries_and_its_answer_lets_in_all_others(provider: CountedProvider) -> None:
    go_down(provider)
    later(10)
    provider.faults(latency_ms=300)
    provider.arrivals.clear()
    answers = at_once(20, call)
    assert Counter(answers) == {"not_found": 1, "circuit_open": 19}
    assert len(provider.arrivals) == 1
    provider.faults()
    assert call() == "not_found"
    assert state().state == "working"
    assert GatewayIncident.objects.filter(kind="came back").count() == 1


def test_try_in_vain_makes_the_next_pause_longer(provider: CountedProvider) -> None:
    go_down(provider)
    pauses = []
    for _ in range(6):
        found = state()
        assert found.open_until
        pauses.append((found.open_until - timezone.now()).total_seconds())
        later(100)
        assert call() == "connection_failed"
        assert call() == "circuit_open"
    assert 3.5 < pauses[0] < 6.1
    assert 7 < pauses[1] < 12.1
    assert 40 < pauses[-1] < 72.1
    assert GatewayIncident.objects.count() == 1


def test_call_that_tried_and_was_killed_does_not_lock_the_others_out(provider: CountedProvider) -> None:
    go_down(provider)
    later(10)
    assert availability.ask_leave("sandbox", 0).probe  # and never heard of again
    provider.faults()
    assert call() == "circuit_open"
    later(availability.PROBE_S)
    assert call() == "not_found"
    assert not state().is_down


def test_late_answer_of_a_call_from_before_the_outage_closes_nothing(provider: CountedProvider) -> None:
    before = availability.ask_leave("sandbox", 0)
    go_down(provider)
    availability.answered("sandbox", before.probe)
    assert state().is_down


def test_one_payment_that_the_provider_chokes_on_does_not_make_it_down(provider: CountedProvider) -> None:
    provider.faults(status={"error_rate": 1})
    for _ in range(3 * DOWN_AFTER):
        with pytest.raises(GatewayUnavailable, match="told to fail"):
            gateway("sandbox").status("the-same")
    assert not state().is_down


def test_provider_that_only_checks_ask_is_down_all_the_same(provider: CountedProvider) -> None:
    provider.faults(down=True)
    for number in range(1, DOWN_AFTER + 1):
        with pytest.raises(GatewayUnavailable):
            gateway("sandbox").statuses(["a", "b"]) if number % 2 else gateway("sandbox").changes("7")
        assert state().is_down == (number == DOWN_AFTER)


def test_answers_in_between_keep_it_up(provider: CountedProvider) -> None:
    for _ in range(DOWN_AFTER):
        provider.faults(down=True)
        assert [call() for _ in range(DOWN_AFTER - 1)] == ["connection_failed"] * (DOWN_AFTER - 1)
        provider.faults()
        assert call() == "not_found"  # a no is an answer
    assert state().state == "working"


def test_longer_outage_means_longer_pauses_for_those_who_wait(provider: CountedProvider) -> None:
    go_down(provider)
    GatewayState.objects.update(failing_since=timezone.now() - timedelta(minutes=4))
    with pytest.raises(GatewayUnavailable) as info:
        gateway("sandbox").status("p")
    assert info.value.retry_after is not None
    assert 240 <= info.value.retry_after <= 270


def test_rollback_of_the_caller_does_not_undo_what_is_known(provider: CountedProvider) -> None:
    provider.faults(down=True)
    for _ in range(DOWN_AFTER):
        with transaction.atomic():
            assert call() == "connection_failed"
            transaction.set_rollback(True)
    assert state().is_down


# --- who asks now ----------------------------------------------------------------------------------------


def test_asking_now_lets_one_call_through_and_is_written_down(provider: CountedProvider) -> None:
    go_down(provider)
    assert "is let through" in availability.ask_now("sandbox", "grace").message
    provider.arrivals.clear()
    assert Counter(at_once(8, call)) == {"connection_failed": 1, "circuit_open": 7}
    assert len(provider.arrivals) == 1
    asked = GatewayIncident.objects.get(kind="asked now")
    assert asked.actor == "grace"
    assert "has not answered since" in asked.detail
    availability.ask_now("sandbox", "grace")
    provider.faults()
    assert [call(), call()] == ["not_found", "not_found"]
    assert availability.ask_now("sandbox", "grace").repeated


# --- the wrapper -----------------------------------------------------------------------------------------


class Fake:
    name = "fake"
    capabilities = Capabilities(remote=True, change_feed=False, partial_capture=False, partial_refund=False)

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def status(self, payment_reference: str) -> str:
        if self._error:
            raise self._error
        return payment_reference

    def of_tomorrow(self, *, references: list[str]) -> int:
        return len(references)

    def parse_webhook(self, headers: Any, body: bytes) -> tuple[()]:
        return ()


def test_method_that_the_protocol_gets_later_has_manners_too(settings: Settings) -> None:
    settings.GATEWAY_RATES = {"fake": 1}
    fake: Any = Fake()
    polite: Any = mannered(fake)
    assert polite.of_tomorrow(references=["a", "b"]) == 2
    with pytest.raises(GatewayUnavailable, match="more calls of Fake wait than 1 requests a second allow"):
        polite.of_tomorrow(references=[])
    with pytest.raises(AttributeError):
        _ = polite.of_yesterday
    assert polite.parse_webhook({}, b"") == ()  # no network, so no wait
    assert (polite.name, polite.capabilities) == ("fake", Fake.capabilities)


def test_gateway_of_our_own_is_given_out_as_it_is(settings: Settings) -> None:
    settings.PAYMENT_GATEWAYS = {"bank_transfer": "payments.gateways.bank_transfer.BankTransferGateway"}
    gateway.cache_clear()
    ours: Gateway = gateway("bank_transfer")
    assert type(ours).__name__ == "BankTransferGateway"
    gateway.cache_clear()


# --- how long the engine waits ---------------------------------------------------------------------------

HARD = RetryPolicy(
    initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5), maximum_attempts=10
)


def _pause(told: float | None, attempt: int) -> float:
    env = ActivityEnvironment()
    env.info = replace(env.info, attempt=attempt, retry_policy=HARD)
    pause = env.run(pause_after, GatewayUnavailable("Away.", retry_after=told))
    assert pause is not None
    return pause.total_seconds()


def test_short_waits_do_not_use_up_the_attempts_sooner() -> None:
    told_one_second = [_pause(1, attempt) for attempt in range(1, 10)]
    assert sum(told_one_second) >= 511
    assert all(1 <= pause / 2**i <= 1.1 for i, pause in enumerate(told_one_second))


def test_long_waits_are_kept_up_to_the_longest_of_the_policy() -> None:
    assert 60 <= _pause(60, 1) <= 66
    assert _pause(3600, 1) == 300
    assert len({_pause(None, 5) for _ in range(20)}) > 1  # jitter


def test_error_that_no_provider_made_keeps_to_the_policy() -> None:
    env = ActivityEnvironment()
    assert env.run(pause_after, ValueError("ours")) is None
