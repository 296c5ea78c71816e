"""The door itself: wrong passwords, where they come from, and what a session is like afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import Group, User
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.utils import timezone
from pytest_django.fixtures import Settings

from shop.client_address import client_address

pytestmark = pytest.mark.django_db
LOGIN = "/admin/login/"
PASSWORD = "correct horse battery staple"
HERE, ELSEWHERE = "192.0.2.1", "198.51.100.7"


@pytest.fixture(autouse=True)
def grace() -> User:
    user = User.objects.create_user("grace", password=PASSWORD, is_staff=True)
    user.groups.set(Group.objects.filter(name="viewer"))
    return user


def knock(
    password: str, name: str = "grace", address: str = HERE, browser: Client | None = None
) -> HttpResponse:
    data = {"username": name, "password": password, "next": "/admin/orders/order/"}
    return (browser or Client()).post(LOGIN, data, REMOTE_ADDR=address)  # type: ignore[return-value]


def locked_out(**where: Any) -> None:
    for _ in range(5):
        knock("wrong", **where)


# --- throttling ------------------------------------------------------------------------------------------


def test_too_many_wrong_passwords_shut_the_door_and_say_until_when() -> None:
    for _ in range(4):
        assert knock("wrong").status_code == 200
    fifth = knock("wrong")
    until = AccessAttempt.objects.get().attempt_time + timedelta(minutes=16)
    said = f"Too many wrong passwords for this name. Try again at {until:%H:%M} UTC."
    assert fifth.status_code == 429
    assert said in fifth.content.decode()
    right = knock(PASSWORD)
    assert right.status_code == 429
    assert said in right.content.decode()  # trying meanwhile makes it no longer


def test_the_door_opens_again_by_itself() -> None:
    locked_out()
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=15, seconds=1))
    assert knock(PASSWORD).status_code == 302


def test_a_stranger_elsewhere_locks_nobody_out() -> None:
    locked_out(address=ELSEWHERE)
    assert knock(PASSWORD, address=ELSEWHERE).status_code == 429
    assert knock(PASSWORD).status_code == 302


def test_another_browser_is_no_way_around_it() -> None:
    for number in range(5):
        Client(HTTP_USER_AGENT=f"browser {number}").post(
            LOGIN, {"username": "grace", "password": "wrong"}, REMOTE_ADDR=HERE
        )
    assert knock(PASSWORD).status_code == 429


def test_names_that_do_not_exist_are_treated_alike() -> None:
    for _ in range(4):
        assert knock("wrong", "nobody").content.count(b"Please enter the correct") == 1
    assert knock("wrong", "nobody").status_code == 429


def test_the_right_password_wipes_the_slate() -> None:
    for _ in range(4):
        knock("wrong")
    assert knock(PASSWORD).status_code == 302
    assert knock("wrong").status_code == 200


def test_nothing_that_was_typed_is_kept_but_the_name() -> None:
    knock("my secret passphrase")
    kept = AccessAttempt.objects.values().get()
    assert "my secret passphrase" not in str(kept)
    assert kept["ip_address"] == HERE


def test_an_administrator_lets_a_colleague_try_again() -> None:
    locked_out()
    admin = Client()
    admin.force_login(User.objects.create_superuser("admin"))
    pk = AccessAttempt.objects.get().pk
    admin.post(f"/admin/axes/accessattempt/{pk}/unlock/")
    assert knock(PASSWORD).status_code == 302


def test_log_ins_are_no_business_of_other_roles() -> None:
    browser = Client()
    knock(PASSWORD, browser=browser)
    assert "axes" not in browser.get("/admin/").content.decode()


# --- where a request comes from --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forwarded", "proxies", "address"),
    [
        ("203.0.113.5", 1, "203.0.113.5"),
        ("10.0.0.1, 203.0.113.5", 1, "203.0.113.5"),  # the client made the first up
        ("10.0.0.1, 203.0.113.5, 10.9.9.9", 2, "203.0.113.5"),
        ("203.0.113.5:4711", 1, "203.0.113.5"),
        ("[2001:db8:1:2:3:4:5:6]:443", 1, "2001:db8:1:2::"),
        ("2001:db8:1:2:3:4:5:6", 1, "2001:db8:1:2::"),
        ("::ffff:203.0.113.5", 1, "203.0.113.5"),
        ("203.0.113.5", 2, HERE),  # fewer than there should be: the proxy's own
        ("nonsense", 1, HERE),
        ("", 1, HERE),
    ],
)
def test_behind_proxies_the_address_is_what_they_say_and_not_what_the_client_says(
    forwarded: str, proxies: int, address: str, settings: Settings
) -> None:
    settings.PROXY_COUNT = proxies
    request = RequestFactory().get("/", REMOTE_ADDR=HERE, HTTP_X_FORWARDED_FOR=forwarded)
    settings.BEHIND_PROXY = True
    assert client_address(request) == address
    settings.BEHIND_PROXY = False
    assert client_address(request) == HERE


def test_a_header_is_no_way_around_the_throttle(settings: Settings) -> None:
    settings.BEHIND_PROXY = True
    answers = [
        Client().post(
            LOGIN,
            {"username": "grace", "password": "wrong"},
            REMOTE_ADDR=HERE,
            HTTP_X_FORWARDED_FOR=f"10.0.0.{number}, {ELSEWHERE}",
        )
        for number in range(5)
    ]
    assert answers[-1].status_code == 429
    assert AccessAttempt.objects.get().ip_address == ELSEWHERE


# --- sessions --------------------------------------------------------------------------------------------


def test_a_log_in_leads_where_one_wanted_to_go_and_nowhere_else() -> None:
    assert knock(PASSWORD)["Location"] == "/admin/orders/order/"
    away = Client().post(LOGIN, {"username": "grace", "password": PASSWORD, "next": "https://evil.example/"})
    assert away["Location"].startswith("/")


def test_a_session_is_new_with_each_log_in_and_ends_with_the_log_out(settings: Settings) -> None:
    browser = Client()
    stranger = browser.session
    stranger["planted"] = True
    stranger.save()
    browser.cookies[settings.SESSION_COOKIE_NAME] = stranger.session_key or ""
    cookie = knock(PASSWORD, browser=browser).cookies[settings.SESSION_COOKIE_NAME]
    assert cookie.value != stranger.session_key
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
    assert 12 * 3600 - 60 < int(cookie["max-age"]) <= 12 * 3600
    assert browser.get("/admin/").status_code == 200
    out = browser.post("/admin/logout/", secure=True)
    assert out["Clear-Site-Data"] == '"cache"'
    browser.cookies[settings.SESSION_COOKIE_NAME] = cookie.value
    assert browser.get("/admin/").status_code == 302


def test_nobody_is_logged_out_by_a_link() -> None:
    browser = Client()
    knock(PASSWORD, browser=browser)
    assert browser.get("/admin/logout/").status_code == 405
    assert browser.get("/admin/").status_code == 200


def test_a_new_password_ends_the_other_sessions(grace: User) -> None:
    here, there = Client(), Client()
    for browser in (here, there):
        knock(PASSWORD, browser=browser)
    new = "another horse entirely"
    data = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    assert here.post("/admin/password_change/", data).status_code == 302
    assert here.get("/admin/").status_code == 200
    assert there.get("/admin/").status_code == 302


def test_production_hardens_cookies_and_transport() -> None:
    """As `deploy/` sets it: TLS at a proxy."""
    names = (
        "SESSION_COOKIE_SECURE SESSION_COOKIE_HTTPONLY SESSION_COOKIE_SAMESITE SESSION_COOKIE_NAME CSRF_COOKIE_SECURE "
        "CSRF_COOKIE_HTTPONLY CSRF_COOKIE_SAMESITE CSRF_COOKIE_NAME SESSION_COOKIE_AGE SECURE_HSTS_SECONDS "
        "SECURE_SSL_REDIRECT X_FRAME_OPTIONS"
    )
    code = f"from django.conf import settings\nfor name in {names.split()!r}: print(getattr(settings, name))"
    env = {
        **{name: value for name, value in os.environ.items() if name != "DEBUG"},
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "SECRET_KEY": "x" * 50,
        "SITE_URL": "https://shop.example.com",
        "BEHIND_PROXY": "true",
        "SESSION_AGE": "8h",
    }
    root = Path(__file__).parents[2]
    told = subprocess.run([sys.executable, "-c", code], env=env, cwd=root, capture_output=True, text=True)
    assert told.stdout.split() == [
        "True", "True", "Lax", "__Host-sessionid", "True", "True", "Lax", "__Host-csrftoken", "28800", "31536000",
        "True", "DENY",
    ], told.stderr  # fmt: skip
