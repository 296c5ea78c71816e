"""The ops' page of schedules over HTTP: who may do what, once, on record; and honest without Temporal."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from django.conf import settings as current
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.utils import ProgrammingError
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from shop import schedule_pages, work_queue
from shop.kernel import temporal
from shop.management.commands import schedules as schedules_command
from shop.models import ScheduleAct
from shop.roles import ROLES
from shop.schedules import declared, engine, syncing, verbs
from shop.schedules.standing import Standing, standings
from shop.up import ports

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = "/admin/ops/schedules/"
HOURLY = "hourly-payment-batch"


def act_page(verb: str) -> str:
    return f"{PAGE}{HOURLY}/{verb}/"


@pytest.fixture(autouse=True)
def engine_of_the_test(
    temporal_server: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The web process's own client, on the test's server; the schedule has a queue that nobody serves."""
    settings.TEMPORAL_ADDRESS = temporal_server
    settings.PAYMENT_CHECK_CRON = ""
    monkeypatch.setattr(temporal, "_client", None)
    name = uuid4().hex[:8]
    hourly = next(each for each in declared.ours() if each.id == HOURLY)
    declare(monkeypatch, replace(hourly, queue=f"checks-{name}", workflow_id=f"payment-batch-{name}"))

    async def clear() -> None:
        client = await temporal.connect()
        for schedule_id in await engine.list_ours(client):
            await engine.delete(client, schedule_id)

    asyncio.run(clear())
    yield
    settings.TEMPORAL_ADDRESS = temporal_server
    asyncio.run(clear())


def declare(monkeypatch: pytest.MonkeyPatch, schedule: declared.Schedule) -> None:
    for module in (declared, syncing, verbs, schedule_pages, schedules_command, work_queue):
        monkeypatch.setattr(module, "ours", lambda: [schedule])


@pytest.fixture
def synced() -> None:
    asyncio.run(_sync())


async def _sync() -> None:
    assert not (await syncing.sync(await temporal.connect())).problems


def standing() -> Standing:
    async def ask() -> Standing:
        (found,) = await standings(await temporal.connect(), declared.ours())
        return found

    return asyncio.run(ask())


@pytest.fixture
def login(live_server: LiveServer) -> Iterator[Callable[[str], httpx2.Client]]:
    """A session over a socket for somebody of this role; `admin` is a superuser."""
    opened: list[httpx2.Client] = []

    def logged_in(role: str) -> httpx2.Client:
        user = User.objects.create_user(role, is_staff=True, is_superuser=role == "admin")
        user.groups.set(Group.objects.filter(name=role))
        browser = Client()
        browser.force_login(user)
        cookies = {current.SESSION_COOKIE_NAME: browser.cookies[current.SESSION_COOKIE_NAME].value}
        http = httpx2.Client(base_url=live_server.url, cookies=cookies, trust_env=False, timeout=20)
        opened.append(http)
        return http

    yield logged_in
    for http in opened:
        http.close()


def form_of(page: str) -> dict[str, str]:
    return dict(re.findall(r'name="(csrfmiddlewaretoken|key)" value="([^"]+)"', page))


def fill_in(http: httpx2.Client, verb: str, reason: str) -> tuple[dict[str, str], httpx2.Response]:
    form = form_of(http.get(act_page(verb)).text) | {"reason": reason}
    return form, http.post(act_page(verb), data=form)


Login = Callable[[str], httpx2.Client]


@pytest.mark.usefixtures("synced")
def test_ops_pause_and_resume_with_a_reason_that_all_see(login: Login) -> None:
    ops, viewer = login("ops"), login("viewer")
    _form, answer = fill_in(ops, "pause", "The bank is closed until Monday.")
    assert (answer.status_code, answer.headers["location"]) == (302, PAGE)
    assert (standing().paused, standing().note) == (True, "ops: The bank is closed until Monday.")
    page = viewer.get(PAGE).text
    assert re.search(r"Paused by ops on [-\d]+ [:\d]+ UTC: The bank is closed until Monday\.", page)
    assert "Not possible now" in ops.get(act_page("pause")).text
    assert standing().paused  # nothing acts on GET
    fill_in(ops, "resume", "It is open.")
    assert not standing().paused
    assert list(ScheduleAct.objects.values_list("verb", "actor", "reason", "outcome")) == [
        ("resume", "ops", "It is open.", "It runs again."),
        ("pause", "ops", "The bank is closed until Monday.", "It is paused."),
    ]


@pytest.mark.usefixtures("synced")
def test_double_click_on_run_now_starts_one_run(login: Login) -> None:
    ops = login("ops")
    form = form_of(ops.get(act_page("trigger")).text) | {"reason": "now"}
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: ops.post(act_page("trigger"), data=form).status_code, range(4)))
    assert answers == [302] * 4
    assert (standing().total, standing().waiting, ScheduleAct.objects.count()) == (1, 0, 1)
    assert "running" in ops.get(PAGE).text
    fill_in(ops, "trigger", "and once more")
    assert (standing().total, standing().waiting) == (1, 1)  # it follows the one under way


@pytest.mark.usefixtures("synced")
def test_only_ops_may_act_and_everyone_may_look(login: Login) -> None:
    for role in ROLES:
        http = login(role)
        page = http.get(PAGE)
        assert page.status_code == 200
        assert ("Run now" in page.text) == (role == "ops")
        for verb in ("pause", "resume", "trigger", "sync", "delete"):
            allowed = 200 if role == "ops" else 403
            assert http.get(act_page(verb)).status_code == allowed
        token = http.get("/admin/password_change/").text
        posted = http.post(act_page("pause"), data=form_of(token) | {"key": str(uuid4()), "reason": "no"})
        assert posted.status_code == (302 if role == "ops" else 403)
    nobody = User.objects.create_user("nobody", is_staff=True)
    browser = Client()
    browser.force_login(nobody)
    assert [browser.get(url).status_code for url in (PAGE, f"{PAGE}live/")] == [403, 403]
    assert httpx2.get(str(page.url), trust_env=False).status_code == 302  # to the login
    assert set(ScheduleAct.objects.values_list("actor", flat=True)) == {"ops"}


@pytest.mark.usefixtures("synced")
def test_form_without_a_reason_or_key_does_nothing(login: Login) -> None:
    ops = login("ops")
    token = form_of(ops.get(act_page("pause")).text)["csrfmiddlewaretoken"]
    for data in ({"reason": "no key"}, {"key": str(uuid4())}, {"key": "x", "reason": "y"}):
        assert (
            "Not done yet: 1 thing has to be corrected."
            in ops.post(act_page("pause"), data=data | {"csrfmiddlewaretoken": token}).text
        )
    assert not standing().paused
    form, _answer = fill_in(ops, "pause", "first")
    assert "used for something else" in ops.post(act_page("resume"), data=form).text
    assert standing().paused
    assert ops.get(act_page("describe")).status_code == 404
    assert ops.get(f"{PAGE}nothing/pause/").status_code == 404


def test_without_temporal_the_page_says_so_and_the_form_can_be_sent_again(
    login: Login, settings: Settings, monkeypatch: pytest.MonkeyPatch, temporal_server: str
) -> None:
    asyncio.run(_sync())
    ops = login("ops")
    form = form_of(ops.get(act_page("pause")).text) | {"reason": "maintenance"}
    with socket.socket() as silent:  # takes connections, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for port in (ports.any_free(), silent.getsockname()[1]):
            settings.TEMPORAL_ADDRESS = f"127.0.0.1:{port}"
            monkeypatch.setattr(temporal, "_client", None)
            before = time.monotonic()
            for answer in (ops.get(PAGE), ops.get(f"{PAGE}live/"), ops.post(act_page("pause"), data=form)):
                assert answer.status_code == 200
                assert f"Temporal does not answer at 127.0.0.1:{port}" in answer.text
                assert "Check that it runs" in answer.text
            assert time.monotonic() - before < 20
            assert "Run now" not in ops.get(PAGE).text
    row = ScheduleAct.objects.get()
    assert (row.done_at, row.outcome[:24]) == (None, "Temporal does not answer")
    assert "not done, or not known" in ops.get(PAGE).text
    settings.TEMPORAL_ADDRESS = temporal_server
    monkeypatch.setattr(temporal, "_client", None)
    assert ops.post(act_page("pause"), data=form).status_code == 302
    assert standing().paused
    assert ScheduleAct.objects.get().done_at


def test_schedule_that_is_not_made_yet_can_be_made_and_nothing_else(login: Login) -> None:
    ops = login("ops")
    page = ops.get(PAGE).text
    assert "not made yet" in page
    for button, shown in (("sync", True), ("trigger", False), ("pause", False), ("delete", False)):
        assert (act_page(button) in page) == shown
    assert "It is made: it runs every 1 h." in ops.get(act_page("sync")).text
    fill_in(ops, "sync", "no worker yet")
    page = ops.get(PAGE).text
    assert "It was made: it runs every 1 h." in page
    assert (act_page("sync") in page, act_page("trigger") in page) == (False, True)
    assert "It is as declared; there is nothing to do." in ops.get(act_page("sync")).text
    assert standing().made


@pytest.mark.usefixtures("synced")
def test_schedule_that_differs_is_shown_and_brought_up_to_date(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops = login("ops")
    fill_in(ops, "pause", "the bank is closed")
    hourly = next(each for each in declared.ours() if each.id == HOURLY)
    declare(monkeypatch, replace(hourly, every=timedelta(minutes=5)))
    assert "Temporal has other: limit, times." in ops.get(PAGE).text
    assert "but Temporal has other limit and times" in command("list")
    will = ops.get(act_page("sync")).text
    assert "It is changed: limit, times. It then runs every 5 min." in will
    fill_in(ops, "sync", "the new interval")
    assert (standing().differs, standing().paused) == ([], True)
    assert "not as declared" not in ops.get(PAGE).text


@pytest.mark.usefixtures("synced")
def test_what_is_done_and_what_differs_is_told_in_the_readers_language(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops = login("ops")
    ops.headers["Accept-Language"] = "de"
    fill_in(ops, "pause", "Bank geschlossen")
    assert f"Zeitplan {HOURLY}: Er ist angehalten." in ops.get(PAGE).text
    hourly = next(each for each in declared.ours() if each.id == HOURLY)
    declare(monkeypatch, replace(hourly, every=timedelta(minutes=5)))
    assert "Er wird geändert: Höchstdauer, Zeiten." in ops.get(act_page("sync")).text
    fill_in(ops, "sync", "neuer Abstand")
    assert "Er wurde geändert: Höchstdauer, Zeiten." in ops.get(PAGE).text
    assert standing().note.endswith("ops: Bank geschlossen")


@pytest.mark.usefixtures("synced")
def test_ops_delete_a_schedule_after_being_told_what_follows(login: Login) -> None:
    ops = login("ops")
    form = ops.get(act_page("delete")).text
    assert "does not start" in form
    assert "to stop it for good, pause it" in form
    assert standing().made
    fill_in(ops, "delete", "made anew")
    assert not standing().made
    assert list(ScheduleAct.objects.values_list("verb", "reason")) == [("delete", "made anew")]


@pytest.mark.usefixtures("synced")
def test_pause_made_elsewhere_is_shown_as_such(login: Login) -> None:
    async def pause() -> None:
        await (await temporal.connect()).get_schedule_handle(HOURLY).pause(note="by hand, in the UI")

    asyncio.run(pause())
    assert "Paused, but not on this page: by hand, in the UI" in " ".join(
        login("viewer").get(PAGE).text.split()
    )


def test_record_of_what_was_done_cannot_be_changed() -> None:
    row = ScheduleAct.objects.create(key=uuid4(), schedule=HOURLY, verb="pause", actor="ada")
    ScheduleAct.objects.update(outcome="It is paused.", done_at=timezone.now())
    for change in (lambda: ScheduleAct.objects.update(actor="eve"), row.delete):
        with pytest.raises(ProgrammingError), transaction.atomic():
            change()


def test_schedule_that_has_not_run_for_two_intervals_is_on_the_work_queue(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = login("admin")
    waits = "<strong>1</strong> <span>Schedules that have not run"
    hourly = next(each for each in declared.ours() if each.id == HOURLY)
    for ago, late in ((timedelta(minutes=119), False), (timedelta(minutes=121), True), (None, False)):
        ran = timezone.now() - ago if ago else None
        declare(monkeypatch, replace(hourly, last_run=lambda ran=ran: ran))  # type: ignore[misc]
        assert (waits in admin.get("/admin/").text) is late
    with connection.cursor() as cursor:  # it was set up a day ago, and has never run
        cursor.execute("UPDATE django_migrations SET applied = applied - interval '1 day' WHERE app = 'ops'")
    try:
        assert "<strong>1</strong> <span>Schedules" in admin.get("/admin/").text
    finally:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE django_migrations SET applied = applied + interval '1 day' WHERE app = 'ops'"
            )


def command(*args: str, **options: Any) -> str:
    out = StringIO()
    call_command("schedules", *args, stdout=out, **options)
    return out.getvalue()


def test_command_does_what_the_page_does_and_is_on_record() -> None:
    assert command("list") == f"{HOURLY}: not made yet, every 1 h; last run none; next none\n"
    assert command("sync") == f"{HOURLY} was made: it runs every 1 h.\n"
    assert command("sync") == "The schedules are as declared; nothing was to do.\n"
    assert command("pause", HOURLY, reason="the bank is closed") == f"Schedule {HOURLY}: It is paused.\n"
    assert "the bank is closed" in command("describe", HOURLY)
    assert "0 runs, 0 missed" in command("describe")
    assert "paused, every 1 h" in command("list")
    assert "A run starts now." in command("trigger", HOURLY)
    assert "It runs again." in command("resume", HOURLY)
    assert "running" in command("describe")
    assert "so far:    1 run, 0 missed" in command("describe")
    assert "It is deleted." in command("delete", HOURLY)
    verbs_on_record = ScheduleAct.objects.order_by("id").values_list("verb", flat=True)
    assert list(verbs_on_record) == ["pause", "trigger", "resume", "delete"]
    assert ScheduleAct.objects.filter(actor__endswith="(manage.py)").count() == 4


def test_command_says_what_is_wrong(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for args, sentence in (
        (("pause",), "Say which schedule. There are: hourly-payment-batch."),
        (("describe", "nightly"), "We have no schedule “nightly”"),
        (("resume", "nightly"), "Temporal has no schedule “nightly”"),
        (("sync", HOURLY), "leave the id out"),
    ):
        with pytest.raises(CommandError, match=sentence):
            command(*args)
    settings.TEMPORAL_ADDRESS = f"127.0.0.1:{ports.any_free()}"
    monkeypatch.setattr(temporal, "_client", None)
    for args in (("list",), ("sync",), ("pause", HOURLY)):
        with pytest.raises(CommandError, match="Temporal does not answer"):
            command(*args)
