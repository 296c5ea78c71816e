"""When a session ends, who may make it longer, and where a form leads that was sent without one."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

pytestmark = pytest.mark.django_db
SESSION = "/admin/session/"


@pytest.fixture
def ada() -> Client:
    user = User.objects.create_user("ada", is_staff=True)
    user.groups.set(Group.objects.filter(name="orders"))
    client = Client()
    client.force_login(user)
    return client


def seconds(client: Client) -> int:
    return int(client.get(SESSION).json()["seconds"])


def test_a_session_ends_when_it_was_said_to_however_much_is_done(ada: Client, settings: Settings) -> None:
    assert settings.SESSION_COOKIE_AGE - 5 < seconds(ada) <= settings.SESSION_COOKIE_AGE
    ends = Session.objects.get().expire_date
    ada.get("/admin/orders/order/?q=TEA")  # is remembered in the session
    assert "list:orders.order" in ada.session
    assert Session.objects.get().expire_date == ends


def test_who_stays_is_logged_in_as_long_as_after_a_log_in(ada: Client, settings: Settings) -> None:
    session = ada.session
    session.set_expiry(timezone.now() + timedelta(seconds=60))
    session.save()
    assert seconds(ada) <= 60
    answer = ada.post(SESSION)
    assert answer.json()["seconds"] > settings.SESSION_COOKIE_AGE - 5
    assert int(answer.cookies[settings.SESSION_COOKIE_NAME]["max-age"]) > settings.SESSION_COOKIE_AGE - 5
    assert seconds(ada) > settings.SESSION_COOKIE_AGE - 5


def test_asking_makes_nothing_longer_and_another_site_cannot(ada: Client) -> None:
    ends = Session.objects.get().expire_date
    seconds(ada)
    other_site = Client(enforce_csrf_checks=True)
    other_site.cookies = ada.cookies
    assert other_site.post(SESSION).status_code == 403
    assert ada.delete(SESSION).status_code == 405
    assert Session.objects.get().expire_date == ends


def test_without_a_session_there_is_none_to_make_longer() -> None:
    stranger = Client()
    assert stranger.get(SESSION).json() == stranger.post(SESSION).json() == {"seconds": 0}
    assert not Session.objects.exists()


# --- a form without a session ----------------------------------------------------------------------------

COMMENT = "/admin/orders/order/1/comment/"
PAGE = "/admin/orders/order/1/change/"


def test_the_log_in_leads_back_to_the_page_with_the_form() -> None:
    answer = Client().post(COMMENT, {"text": "Hi"}, headers={"Referer": f"http://testserver{PAGE}?a=1"})
    assert answer.headers["Location"] == f"/admin/login/?next={PAGE.replace('/', '%2F')}%3Fa%3D1"


@pytest.mark.parametrize("referer", ["", "https://elsewhere.example/page", "javascript:alert(1)", "//x"])
def test_no_other_site_says_where_it_leads_back_to(referer: str) -> None:
    answer = Client().post(COMMENT, {"text": "Hi"}, headers={"Referer": referer})
    assert answer.headers["Location"] == f"/admin/login/?next={COMMENT.replace('/', '%2F')}"
    refused = Client(enforce_csrf_checks=True).post(COMMENT, headers={"Referer": referer})
    assert f'href="{COMMENT}">Back to the form' in refused.content.decode()


def test_a_part_of_a_page_sends_the_whole_page_to_the_log_in() -> None:
    act = "/admin/ops/dead-letters/1/retry/"
    htmx = {"HX-Request": "true", "HX-Current-URL": "http://testserver/admin/ops/dead-letters/"}
    sent = Client().post(act, headers=htmx)
    assert sent.headers["HX-Redirect"] == f"/admin/login/?next={act.replace('/', '%2F')}"
    opened = Client().get(act, headers=htmx)
    assert opened.headers["HX-Redirect"] == "/admin/login/?next=%2Fadmin%2Fops%2Fdead-letters%2F"


def test_a_form_that_cannot_be_told_from_another_sites_is_refused_with_a_way_back(ada: Client) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.cookies = ada.cookies
    refused = browser.post(COMMENT, {"text": "Hi"}, headers={"Referer": f"http://testserver{PAGE}"})
    page = refused.content.decode()
    assert refused.status_code == 403
    assert "This form was out of date" in page
    assert "Nothing was done." in page
    assert f'href="{PAGE}">Back to the form' in page
    assert "sends no cookies" in page
    part = browser.post("/admin/ops/dead-letters/1/retry/", headers={"HX-Request": "true"})
    shown = browser.get(part.headers["HX-Redirect"])
    assert 'href="/admin/ops/dead-letters/1/retry/">Back to the form' in shown.content.decode()


def test_the_page_of_a_refused_form_leads_nowhere_else() -> None:
    for address in ("https://elsewhere.example/", "//elsewhere.example", "javascript:alert(1)"):
        shown = Client().get(reverse("admin:form_expired"), {"next": address}).content.decode()
        assert f'href="{reverse("admin:index")}">Back to the form' in shown
