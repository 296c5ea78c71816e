"""Second factors: set up, asked for, used once, throttled, required, reset; and what of them is kept."""

from __future__ import annotations

import io
import re
import time
from base64 import b32decode
from collections.abc import Callable
from datetime import timedelta

import pytest
import segno
import zxingcpp
from django.conf import settings as current
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from django_otp.oath import TOTP
from PIL import Image
from pytest_django.fixtures import Settings

from shop import logging_in
from shop.authenticators import Authenticator, RecoveryCode
from shop.roles import ROLES

pytestmark = pytest.mark.django_db
LOGIN, CODE, OWN = "/admin/login/", "/admin/login/code/", "/admin/second-factor/"
PASSWORD = "correct horse battery staple"
Clock = Callable[[float], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the codes, which stands until it is moved on, by seconds."""
    now = [1_800_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


@pytest.fixture
def grace() -> User:
    user = User.objects.create_user("grace", password=PASSWORD, is_staff=True)
    user.groups.set(Group.objects.filter(name="viewer"))
    return user


def with_password() -> tuple[Client, str]:
    """A browser after the right password, and where that leads."""
    browser = Client()
    answer = browser.post(LOGIN, {"username": "grace", "password": PASSWORD, "next": "/admin/orders/order/"})
    return browser, answer["Location"]


def code_of(secret: str) -> str:
    totp = TOTP(b32decode(secret.replace(" ", "")))
    totp.time = time.time()
    return f"{totp.token():06}"


def offered(browser: Client) -> tuple[str, dict[str, str]]:
    """The secret that the page shows, and its form."""
    page = browser.get(OWN).content.decode()
    secret = re.search(r'id="secret">([A-Z2-7 ]+)<', page)
    form = re.search(r'name="offered" value="([^"]+)"', page)
    assert secret
    assert form
    return secret[1], {"offered": form[1]}


def enrolled(browser: Client) -> tuple[str, list[str]]:
    """Set up on the person's own page: the secret and the recovery codes."""
    secret, form = offered(browser)
    page = browser.post(OWN, form | {"code": code_of(secret)}).content.decode()
    shown = re.search(r'id="recovery-codes">([^<]+)<', page)
    assert shown
    return secret, shown[1].split()


@pytest.fixture
def secret(grace: User, clock: Clock) -> str:
    browser, _ = with_password()
    secret, _codes = enrolled(browser)
    clock(30)
    return secret


def in_the_shop(browser: Client) -> bool:
    return browser.get("/admin/").status_code == 200


# --- setting it up ---------------------------------------------------------------------------------------


def test_what_is_scanned_is_what_is_shown(grace: User, clock: Clock) -> None:
    browser, _ = with_password()
    page = browser.get(OWN).content.decode()
    address = re.search(r'href="(otpauth://[^"]+)"', page)
    assert address
    text = address[1].replace("&amp;", "&")
    assert re.fullmatch(
        r"otpauth://totp/[^?]+%3Agrace\?secret=[A-Z2-7]{32}&issuer=Vorkasse%20Practice%20Shop", text
    )
    png = io.BytesIO()
    segno.make(text, error="m", micro=False).save(png, kind="png", scale=4)
    (read,) = zxingcpp.read_barcodes(Image.open(png))
    assert read.text == text
    assert "<svg" in page
    assert "no-store" in browser.get(OWN)["Cache-Control"]
    assert not Authenticator.objects.exists()  # a look sets nothing up


def test_it_is_set_up_with_a_code_of_the_app_and_not_without(grace: User, clock: Clock) -> None:
    browser, _ = with_password()
    secret, form = offered(browser)
    wrong = browser.post(OWN, form | {"code": "000000"}).content.decode()
    assert "This is not the code that the app shows now." in wrong
    assert secret in wrong  # no need to scan again
    assert not Authenticator.objects.exists()
    page = browser.post(OWN, form | {"code": code_of(secret)}).content.decode()
    assert len(re.findall(r"\b[a-z2-7]{4}(?:-[a-z2-7]{4}){3}\b", page)) == 10
    assert in_the_shop(browser)
    assert "Recovery codes left" in browser.get(OWN).content.decode()


def test_an_offer_is_for_one_person_and_for_an_hour(
    grace: User, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, _ = with_password()
    secret, form = offered(browser)
    other = Client()
    other.force_login(User.objects.create_user("eve", is_staff=True))
    assert "This page was too old" in other.post(OWN, form | {"code": code_of(secret)}).content.decode()
    clock(3601)
    assert "This page was too old" in browser.post(OWN, form | {"code": code_of(secret)}).content.decode()
    assert not Authenticator.objects.exists()


def test_neither_secret_nor_codes_can_be_read_from_the_database(grace: User, clock: Clock) -> None:
    browser, _ = with_password()
    secret, codes = enrolled(browser)
    kept = f"{list(Authenticator.objects.values())}{list(RecoveryCode.objects.values())}"
    sealed = bytes(Authenticator.objects.get().sealed)
    assert secret.replace(" ", "") not in kept
    assert b32decode(secret.replace(" ", "")) not in sealed
    assert not any(code in kept or code.replace("-", "") in kept for code in codes)
    assert not any(code in browser.get(OWN).content.decode() for code in codes)


# --- logging in ------------------------------------------------------------------------------------------


def test_the_password_alone_lets_nobody_in(secret: str) -> None:
    browser, led_to = with_password()
    assert led_to == CODE
    assert not in_the_shop(browser)
    assert "_auth_user_id" not in browser.session
    answer = browser.post(CODE, {"code": code_of(secret)})
    assert answer["Location"] == "/admin/orders/order/"
    assert in_the_shop(browser)


def test_the_session_changes_its_name_when_the_code_is_right(secret: str, settings: Settings) -> None:
    browser, _ = with_password()
    before = browser.cookies[settings.SESSION_COOKIE_NAME].value
    browser.post(CODE, {"code": code_of(secret)})
    assert browser.cookies[settings.SESSION_COOKIE_NAME].value != before
    assert logging_in.HALF_WAY not in browser.session


def test_the_page_of_the_code_is_for_those_whose_password_was_right_just_now(
    secret: str, clock: Clock
) -> None:
    assert Client().get(CODE)["Location"] == LOGIN
    late, _ = with_password()
    clock(logging_in.LASTS_S + 1)
    assert late.post(CODE, {"code": code_of(secret)})["Location"] == LOGIN
    assert not in_the_shop(late)
    changed, _ = with_password()
    user = User.objects.get()
    user.set_password("another")
    user.save()
    assert changed.post(CODE, {"code": code_of(secret)})["Location"] == LOGIN


def test_a_code_is_good_once(secret: str, clock: Clock) -> None:
    code = code_of(secret)
    first, _ = with_password()
    first.post(CODE, {"code": code})
    second, _ = with_password()
    assert "was used already" in second.post(CODE, {"code": code}).content.decode()
    assert not in_the_shop(second)


def test_a_recovery_code_is_good_once_however_it_is_typed(grace: User, clock: Clock) -> None:
    browser, _ = with_password()
    _secret, codes = enrolled(browser)
    typed = f" {codes[3].upper().replace('-', ' ')} "
    first, _ = with_password()
    assert first.post(CODE, {"code": typed}).status_code == 302
    second, _ = with_password()
    assert "was used already" in second.post(CODE, {"code": codes[3]}).content.decode()


def test_wrong_codes_make_a_pause_that_grows_and_ends(secret: str) -> None:
    browser, _ = with_password()
    for failures in range(1, 13):
        Authenticator.objects.update(throttling_failure_timestamp=timezone.now() - timedelta(hours=1))
        assert "This code is wrong" in browser.post(CODE, {"code": "12345x"}).content.decode()
        assert Authenticator.objects.get().throttling_failure_count == min(failures, 11)
    page = browser.post(CODE, {"code": code_of(secret)}).content.decode()
    assert re.search(r"Too many wrong codes. Try again at \d\d:\d\d:\d\d UTC.", page)
    pause = Authenticator.objects.get().verify_is_allowed()[1]["locked_until"] - timezone.now()
    assert timedelta(minutes=16) < pause < timedelta(minutes=18)
    Authenticator.objects.update(throttling_failure_timestamp=timezone.now() - timedelta(minutes=18))
    assert browser.post(CODE, {"code": code_of(secret)}).status_code == 302
    assert Authenticator.objects.get().throttling_failure_count == 0


def test_sessions_from_before_it_was_set_up_have_to_log_in_again(grace: User, clock: Clock) -> None:
    here, there = with_password()[0], with_password()[0]
    enrolled(here)
    assert in_the_shop(here)
    assert not in_the_shop(there)
    assert there.get(OWN).status_code == 302
    page = there.get("/admin/", follow=True).content.decode()
    assert "A second factor was set up. Log in with it." in page
    assert "_auth_user_id" not in there.session


# --- afterwards ------------------------------------------------------------------------------------------


def test_new_recovery_codes_and_the_removal_take_a_code(grace: User, clock: Clock) -> None:
    browser, _ = with_password()
    secret, codes = enrolled(browser)
    clock(30)
    assert "This code is wrong" in browser.post(f"{OWN}codes/", {"code": "000000"}).content.decode()
    Authenticator.objects.update(throttling_failure_timestamp=None)
    page = browser.post(f"{OWN}codes/", {"code": code_of(secret)}).content.decode()
    new = re.search(r'id="recovery-codes">([^<]+)<', page)
    assert new
    assert not set(new[1].split()) & set(codes)
    assert RecoveryCode.objects.count() == 10
    browser.get(f"{OWN}remove/")
    assert Authenticator.objects.exists()
    browser.post(f"{OWN}remove/", {"code": new[1].split()[0]})
    assert not Authenticator.objects.exists()
    assert with_password()[1] == "/admin/orders/order/"


def test_an_administrator_resets_a_colleagues_with_a_reason_that_is_kept(secret: str, grace: User) -> None:
    half_way, _ = with_password()
    admin = Client()
    admin.force_login(User.objects.create_superuser("admin"))
    url = f"/admin/auth/user/{grace.pk}/reset-second-factor/"
    admin.post(url, {})
    assert Authenticator.objects.exists()
    admin.post(url, {"reason": "Telephone lost; seen in person."})
    assert not Authenticator.objects.exists()
    entry = LogEntry.objects.order_by("pk").last()
    assert entry
    assert (entry.user.username, entry.change_message) == (
        "admin",
        "Reset the second factor: Telephone lost; seen in person.",
    )
    # Whoever had the password only is not let in by it.
    half_way.post(CODE, {"code": code_of(secret)})
    assert not in_the_shop(half_way)
    assert with_password()[1] == "/admin/orders/order/"


def test_the_command_resets_it_for_an_administrator_who_is_locked_out(secret: str) -> None:
    call_command("reset_second_factor", "grace")
    assert not Authenticator.objects.exists()


@pytest.mark.usefixtures("secret")
def test_nobody_of_the_roles_may_reset_one() -> None:
    assert not any("authenticator" in name for names in ROLES.values() for name in names)
    for group in Group.objects.all():
        assert not group.permissions.filter(codename__contains="authenticator").exists()


def test_a_change_of_the_secret_key_keeps_it_with_the_old_one_as_fallback(
    secret: str, clock: Clock, settings: Settings
) -> None:
    before = current.SECRET_KEY
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [before], "another" * 8
    browser, _ = with_password()
    assert browser.post(CODE, {"code": code_of(secret)}).status_code == 302
    # Its next use is under the new key alone.
    clock(30)
    settings.SECRET_KEY_FALLBACKS = []
    browser, _ = with_password()
    assert browser.post(CODE, {"code": code_of(secret)}).status_code == 302
    settings.SECRET_KEY = before
    browser, _ = with_password()
    assert "ask an administrator to reset" in browser.post(CODE, {"code": "000000"}).content.decode()


# --- where everybody has to have one -----------------------------------------------------------------------


def test_where_it_is_required_nothing_else_is_open_before(
    grace: User, clock: Clock, settings: Settings
) -> None:
    settings.REQUIRE_TOTP = True
    browser, _ = with_password()
    for url in ("/admin/", "/admin/orders/order/", "/admin/password_change/", "/admin/ops/dead-letters/"):
        assert browser.get(url, follow=True).redirect_chain[-1][0] == OWN, url
    page = browser.get(OWN).content.decode()
    assert "Everybody needs a second factor here." in page
    assert 'action="/admin/logout/"' in page
    secret, _codes = enrolled(browser)
    assert in_the_shop(browser)
    clock(30)
    browser.post(f"{OWN}remove/", {"code": code_of(secret)})
    assert Authenticator.objects.exists()


def test_where_it_is_required_one_can_log_out_without(grace: User, settings: Settings) -> None:
    settings.REQUIRE_TOTP = True
    browser, _ = with_password()
    browser.post("/admin/logout/")
    assert "_auth_user_id" not in browser.session
