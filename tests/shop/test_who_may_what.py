"""Every address of the site, by every role: who may look, who may act, and that nobody else changes anything.

The addresses are those that the URL resolver knows. One that is in none of the tables below fails the test.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from html.parser import HTMLParser
from typing import Any
from uuid import uuid4

import pytest
from axes.models import AccessAttempt, AccessLog
from django.contrib.admin import site
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from pytest_django.fixtures import Settings

from orders.models import ApiKey, DeadLetter, Difference, Order, ReconcileRun
from payments.gateways import gateway
from payments.models import (
    BankStatement,
    BankTransaction,
    GatewayState,
    OutgoingTransfer,
    StatementFile,
    TransferBatch,
)
from shop import schedule_pages
from shop.kernel.admin.acting import ActingAdmin
from shop.kernel.models import ActRequest, Erasure
from shop.models import ScheduleAct
from shop.schedules.engine import ScheduleProblem
from shop.up import ports
from tests.orders.test_admin_books import books

pytestmark = pytest.mark.django_db

# --- the matrix: roles by name; a superuser ("admin") may whatever anybody may ------------------------------

EVERY_ROLE = "viewer orders payments ops"
STAFF = f"nobody {EVERY_ROLE}"  # also those of the staff who have no role at all
ADMIN = ""
NEVER = None  # not even a superuser

# Who sees rows of this kind, who adds, changes, deletes them.
MODELS: dict[str, tuple[str | None, str | None, str | None, str | None]] = {
    "kernel_actrequest": (EVERY_ROLE, NEVER, NEVER, NEVER),
    "kernel_erasure": (EVERY_ROLE, NEVER, NEVER, NEVER),
    "kernel_outboxmessage": ("ops", NEVER, NEVER, NEVER),
    "ops_scheduleact": (EVERY_ROLE, NEVER, NEVER, NEVER),
    "orders_apikey": (ADMIN, ADMIN, NEVER, NEVER),
    "orders_difference": (EVERY_ROLE, NEVER, NEVER, NEVER),
    "orders_reconcilerun": (EVERY_ROLE, NEVER, NEVER, NEVER),
    "orders_mail": (EVERY_ROLE, NEVER, NEVER, NEVER),
    "orders_opsalertnotice": (EVERY_ROLE, NEVER, NEVER, NEVER),
    "orders_order": (EVERY_ROLE, "orders", "orders", NEVER),
    "orders_product": (EVERY_ROLE, "orders", "orders", NEVER),
    "payments_bankstatement": (EVERY_ROLE, NEVER, NEVER, NEVER),
    "payments_banktransaction": (EVERY_ROLE, NEVER, NEVER, NEVER),
    "payments_batchrun": (EVERY_ROLE, NEVER, NEVER, NEVER),
    "payments_gatewaystate": (EVERY_ROLE, NEVER, NEVER, NEVER),
    "payments_outgoingtransfer": (EVERY_ROLE, NEVER, NEVER, NEVER),
    "payments_payment": (EVERY_ROLE, NEVER, NEVER, NEVER),
    "payments_reviewitem": (EVERY_ROLE, NEVER, NEVER, NEVER),
    "payments_statementfile": ("payments", NEVER, NEVER, NEVER),
    "payments_transferbatch": (EVERY_ROLE, NEVER, NEVER, NEVER),
    "payments_webhookdelivery": (EVERY_ROLE, NEVER, NEVER, NEVER),
    "auth_group": (ADMIN, ADMIN, ADMIN, ADMIN),
    "auth_user": (ADMIN, ADMIN, ADMIN, ADMIN),
    "axes_accessattempt": (ADMIN, NEVER, NEVER, NEVER),
    "axes_accesslog": (ADMIN, NEVER, NEVER, NEVER),
}
# What is done to rows, each on a page of its own: for one, and for several (`…_many`).
ACTS = {
    "orders_order_start": "orders",
    "orders_order_cancel": "orders",
    "orders_order_extend-deadline": "orders",
    "orders_order_tracking": "orders",
    "orders_order_confirm-payment": "payments",
    "orders_order_refund": "payments",
    "orders_order_watch-payment": "payments",
    "orders_order_stop-watching": "payments",
    "orders_order_erase-customer": ADMIN,
    "orders_difference_fix": "ops",
    "kernel_actrequest_approve": "payments",  # whoever may do what was asked for
    "kernel_actrequest_decline": "payments",
    "kernel_actrequest_withdraw": NEVER,  # but for who asked
    "orders_apikey_revoke": ADMIN,
    "payments_payment_refund": "payments",
    "payments_payment_refund-again": "payments",
    "payments_payment_pay-back": "payments",
    "payments_reviewitem_assign": "payments",
    "payments_reviewitem_split": "payments",
    "payments_reviewitem_confirmed-by-hand": "payments",
    "payments_reviewitem_accept": "payments",
    "payments_reviewitem_accept-any": ADMIN,
    "payments_reviewitem_wait": "payments",
    "payments_reviewitem_pay-back": "payments",
    "payments_reviewitem_discard": "payments",
    "payments_reviewitem_close": "payments",
    "payments_reviewitem_webhook-again": "payments ops",
    "payments_reviewitem_webhook-discard": "payments",
    "payments_webhookdelivery_reprocess": "payments ops",
    "payments_outgoingtransfer_account": "payments",
    "payments_transferbatch_sent": "payments",
    "payments_transferbatch_refused": "payments",
    "payments_statementfile_again": "payments",
    "payments_gatewaystate_ask-now": "ops",
    "auth_user_reset-second-factor": ADMIN,
    "axes_accessattempt_unlock": ADMIN,
}
# The other pages, which show, and those that act.
PAGES = {
    "index": STAFF,
    "password_change_done": STAFF,
    "jsi18n": STAFF,
    "view_on_site": STAFF,  # of nothing here: 404
    "autocomplete": NEVER,  # nothing here completes itself
    "app_list": STAFF,  # 404 where there is nothing for them
    "orders_order_live": EVERY_ROLE,
    "orders_order_by_number": EVERY_ROLE,
    "orders_order_slip": EVERY_ROLE,
    "payments_statementfile_live": "payments",
    "payments_statementfile_download": "payments",
    "payments_transferbatch_download": "payments",
    "dead_letters": EVERY_ROLE,
    "dead_letter": EVERY_ROLE,
    "dead_letter_live": EVERY_ROLE,
    "dead_letter_provider": EVERY_ROLE,
    "dead_letters_retried": EVERY_ROLE,
    "dead_letters_retried_live": EVERY_ROLE,
    "schedules": EVERY_ROLE,
    "schedules_live": EVERY_ROLE,
    "health": EVERY_ROLE,
    "health_live": EVERY_ROLE,
    "health_notice": EVERY_ROLE,
    "charts": EVERY_ROLE,
    "first_steps": EVERY_ROLE,
    "orders_mail_html": EVERY_ROLE,
    "orders_order_personal_data": ADMIN,
    "orders_order_export": EVERY_ROLE,
    "payments_payment_export": EVERY_ROLE,
    "payments_reviewitem_export": EVERY_ROLE,
    "payments_banktransaction_export": EVERY_ROLE,
    "payments_outgoingtransfer_export": EVERY_ROLE,
}
ACTING_PAGES = {
    "password_change": STAFF,
    "second_factor": STAFF,
    "second_factor_codes": STAFF,
    "second_factor_remove": STAFF,
    "auth_user_password_change": ADMIN,
    "payments_bankstatement_import": "payments",
    "payments_outgoingtransfer_batch": "payments",
    "dead_letters_retry": "ops",
    "dead_letter_act": "ops",
    "schedule_act": "ops",
    "orders_order_comment": "orders payments ops",
    "orders_mention_seen": EVERY_ROLE,
}
# Not by role. Each is tested where it is named.
ELSEWHERE = {
    "admin:login": "tests/shop/test_logging_in.py",
    "admin:login_code": "tests/shop/test_second_factor.py",
    "admin:logout": "tests/shop/test_logging_in.py",
    "set_language": "for everybody: tests/shop/test_languages.py",
    "admin:session": "tests/shop/test_session_pages.py",
    "admin:form_expired": "tests/shop/test_session_pages.py",
    "payment-webhook": "by signature: tests/orders/test_webhooks.py",
    "api:openapi-json": "for everybody: tests/orders/test_api.py",
    "api:products": "by key: below, and tests/orders/test_api.py",
    "api:place": "by key: below, and tests/orders/test_api.py",
    "api:order": "by key: below, and tests/orders/test_api.py",
    "api:api-root": "shows nothing",
    "/": "leads to the admin",
    "/api/": "not found",
    "/admin/(?P<url>.*)$": "not found",
}
OUTSIDERS = ("stranger", "customer")  # not logged in; logged in, and not of the staff
ROLES = (*OUTSIDERS, "nobody", *EVERY_ROLE.split(), "admin")
MAIL_AS_SENT = re.compile(r"/admin/orders/mail/\d+/html/")
LETTER_ACTS = ("retry", "resolve", "hand-over", "snooze", "wake", "comment")
SCHEDULE_ACTS = ("trigger", "pause", "resume", "sync", "delete")


def may(role: str, allowed: str | None) -> bool:
    return allowed is not None and (role == "admin" or role in allowed.split())


class Door:
    """One address of the site, with who may GET and who may POST."""

    def __init__(self, name: str, route: str) -> None:
        self.name, self.route = name.removeprefix("admin:"), route
        self.act = False
        self.single = self.name.removesuffix("_many")
        model, _underscore, kind = self.name.rpartition("_")
        if self.name in PAGES:
            self.get = self.post = PAGES[self.name]
        elif self.name in ACTING_PAGES:
            self.get = self.post = ACTING_PAGES[self.name]
            self.act = True
        elif self.single in ACTS:
            self.get = self.post = ACTS[self.single]
            self.act = True
        elif model in MODELS:
            see, add, change, delete = MODELS[model]
            table = {
                "changelist": (see, see),
                "history": (see, see),
                "change": (see, change),
                "add": (add, add),
                "delete": (delete, delete),
            }
            self.get, self.post = table[kind]
            self.act = kind in ("add", "change", "delete")
        elif not self.name and route.endswith("/<path:object_id>/"):
            self.get = self.post = STAFF  # leads to the row's page
        else:
            pytest.fail(f"Who may do what at {self.name or route}? Say it in the tables of {__name__}.")

    def __repr__(self) -> str:
        return self.name or self.route


def addresses(resolver: URLResolver, before: str = "/", space: str = "") -> Iterator[tuple[str, str]]:
    for pattern in resolver.url_patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            inner = f"{pattern.namespace}:" if pattern.namespace else space
            yield from addresses(pattern, route, inner)
        elif isinstance(pattern, URLPattern):
            yield (f"{space}{pattern.name}" if pattern.name else ""), route


def doors() -> list[Door]:
    found = dict.fromkeys(addresses(get_resolver()))
    return [Door(name, route) for name, route in found if (name or route) not in ELSEWHERE]


# --- a shop with one row of everything ---------------------------------------------------------------------


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of refusals, each with its traceback."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def everything(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.SANDBOX_URL = f"http://127.0.0.1:{ports.any_free()}"
    settings.SANDBOX_API_KEY = "key"
    settings.PAYMENT_GATEWAYS = {"sandbox": "payments.gateways.sandbox.SandboxGateway"}
    gateway.cache_clear()

    async def away(*_args: Any) -> Any:
        raise ScheduleProblem("Temporal does not answer.")

    monkeypatch.setattr(schedule_pages, "standings", away)
    books()
    ApiKey.objects.create(name="web shop", digest="0" * 64)
    ScheduleAct.objects.create(key=uuid4(), schedule="hourly-payment-batch", verb="pause", actor="ops")
    GatewayState.objects.get_or_create(gateway="sandbox")
    file = StatementFile.objects.create(name="march.xml", size=1, digest="0" * 64, received_from="payments")
    statement = BankStatement.objects.create(
        kind="camt.053", account_iban="DE89370400440532013000", file_name="march.xml", currency="EUR",
        imported_by="payments", source=file,
    )  # fmt: skip
    BankTransaction.objects.create(
        key="k", statement=statement, position="1", direction="credit", amount=1, currency="EUR",
        booking_date=date(2026, 3, 1),
    )  # fmt: skip
    batch = TransferBatch.objects.create(message_id="M1", xml="<x/>", created_by="payments")
    OutgoingTransfer.objects.create(
        idempotency_key="k", end_to_end_id="E1", amount=1, currency="EUR", remittance_information="x",
        batch=batch, state="exported",
    )  # fmt: skip
    AccessAttempt.objects.create(username="x", failures_since_start=5)
    AccessLog.objects.create(username="x")
    User.objects.create_user("colleague")
    order = Order.objects.all()[0]
    ActRequest.objects.create(
        act="confirm", subject="x", what="Confirm it.", amount=1, currency="EUR", page="orders.order",
        slug="confirm-payment", object_id=order.pk, permission="orders.confirm_payment",
        asked_by=User.objects.create_user("asker"),
    )  # fmt: skip
    Difference.objects.create(
        kind="saga", subject="x", weight="money", sentence="It differs.", remedy="roll it back",
        order=order, first_seen_at=timezone.now(), last_seen_at=timezone.now(),
    )  # fmt: skip
    ReconcileRun.objects.create(key="x", actor="ops")
    Erasure.objects.create(person="0" * 64, actor="admin", reason="asked for")


def person(role: str) -> Client:
    browser = Client()
    if role != "stranger":
        staff = role != "customer"
        user = User.objects.create_user(role, is_staff=staff, is_superuser=role == "admin", password="x")
        user.groups.set(Group.objects.filter(name=role))
        browser.force_login(user)
    return browser


def urls(door: Door) -> list[str]:
    """Where it is, with a row that exists."""
    given = {
        "<int:pk>": str(DeadLetter.objects.values_list("pk", flat=True)[0]),
        "<uuid:key>": str(uuid4()),
        "<path:number>": Order.objects.values_list("number", flat=True)[0],
        "<str:schedule_id>": "hourly-payment-batch",
        "<str:kind>": "csv",
        "<path:content_type_id>/<path:object_id>": "1/1",
        "^(?P<app_label>kernel|payments|orders|auth|axes|ops)/$": "orders/",
    }
    if row := re.match(r"/admin/(\w+)/(\w+)/", door.route):
        models = {(m._meta.app_label, m._meta.model_name): m for m in site._registry}
        if model := models.get((row[1], row[2])):
            pk = str(model._default_manager.order_by("pk").values_list("pk", flat=True)[0])
            given |= dict.fromkeys(("<int:object_id>", "<path:object_id>", "<int:pk>", "<id>"), pk)
            if door.name.endswith("_many"):
                return [f"{door.route}?ids={pk}"]
    verbs = SCHEDULE_ACTS if door.name == "schedule_act" else LETTER_ACTS
    found = [
        door.route.replace("<slug:verb>", verb) for verb in (verbs if "<slug:verb>" in door.route else [""])
    ]
    for part, value in given.items():
        found = [url.replace(part, value) for url in found]
    assert not [url for url in found if re.search(r"[<(^]", url)], f"an example is missing for {door.route}"
    return found


# --- what came of a request ------------------------------------------------------------------------------


def turned_away(answer: HttpResponse | Any) -> bool:
    to_login = answer.status_code == 302 and answer["Location"].startswith("/admin/login/")
    return answer.status_code == 403 or to_login or "HX-Refresh" in answer


def let_in(answer: HttpResponse) -> bool:
    return not turned_away(answer) and answer.status_code in (200, 204, 302, 404)


@contextmanager
def writes() -> Iterator[list[str]]:
    """What a request writes to the database, the session apart."""
    written: list[str] = []

    def watch(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        said = sql.lstrip().upper()
        if (
            said.startswith(("INSERT", "UPDATE", "DELETE", "SELECT PG_NOTIFY"))
            and "django_session" not in sql
        ):
            written.append(sql)
        return execute(sql, *args)

    with connection.execute_wrapper(watch):
        yield written


@contextmanager
def undone() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def ask(browser: Client, method: str, url: str) -> HttpResponse:
    data = {}
    if method == "POST":
        data = {"ids": [url.partition("?ids=")[2]]} if "?ids=" in url else {}
    return getattr(browser, method.lower())(url, data)  # type: ignore[no-any-return]


# --- the tests -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_each_role_gets_where_it_may_and_nowhere_else(role: str) -> None:
    browser = person(role)
    wrong = []
    for door in doors():
        for url in urls(door):
            for method, allowed in (("GET", door.get), ("POST", door.post)):
                welcome = role not in OUTSIDERS and may(role, allowed)
                with undone(), writes() as written:
                    answer = ask(browser, method, url)
                shut_for_all = answer.status_code == 405
                if not (shut_for_all or (let_in(answer) if welcome else turned_away(answer))):
                    expected = "should get in" if welcome else "should be turned away"
                    wrong.append(f"{role} {expected}: {method} {url} gave {answer.status_code}")
                if written and not (welcome and door.act and method == "POST"):
                    wrong.append(f"{role}: {method} {url} wrote {written[0][:80]}")
    assert wrong == []


@pytest.mark.parametrize("role", [role for role in ROLES if role not in OUTSIDERS])
def test_menus_of_lists_offer_what_the_role_may_and_take_nothing_else(role: str) -> None:
    browser = person(role)
    for model, admin in site._registry.items():
        label = f"{model._meta.app_label}_{model._meta.model_name}"
        if not may(role, MODELS[label][0]):
            continue
        url = f"/admin/{label.replace('_', '/')}/"
        pk = model._default_manager.values_list("pk", flat=True)[0]
        page = browser.get(url).content.decode()
        acts = [act for act in getattr(admin, "acts", ()) if act.on_list]
        for name in [*(act.slug for act in acts), "delete_selected"]:
            allowed = MODELS[label][3] if name == "delete_selected" else ACTS[f"{label}_{name}"]
            offered = f'<option value="{name}">' in page
            with undone(), writes() as written:
                answer = browser.post(url, {"action": name, "_selected_action": [pk]})
            confirms = b"Are you sure" in answer.content
            taken = confirms or f"/{name}/" in answer.get("Location", "")
            assert offered == may(role, allowed), f"{role}: {name} in the menu of {url}"
            assert taken == may(role, allowed), f"{role}: {name} chosen in {url}"
            assert written == []


@pytest.mark.parametrize("role", [role for role in ROLES if role not in OUTSIDERS])
def test_no_page_leads_where_its_reader_may_not_go(role: str) -> None:
    browser = person(role)
    followed: dict[str, str] = {}
    for door in doors():
        if may(role, door.get):
            for url in urls(door):
                answer = browser.get(url)
                if answer.status_code == 200 and answer["Content-Type"].startswith("text/html"):
                    for link in re.findall(r'href="(/admin/[^"#]*)', answer.content.decode()):
                        followed.setdefault(link.partition("?")[0], url)
    shut = [f"{page} leads to {link}" for link, page in followed.items() if turned_away(browser.get(link))]
    assert shut == []


def test_no_form_is_taken_from_another_site() -> None:
    """Without the token that our own pages have, nothing is done, whoever is logged in."""
    User.objects.create_user("admin", is_staff=True, is_superuser=True)
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(User.objects.get(username="admin"))
    for door in doors():
        for url in urls(door):
            with undone(), writes() as written:
                answer = ask(browser, "POST", url)
            assert not (door.act and door.post is not NEVER) or answer.status_code == 403, url
            assert written == [], url
    assert browser.post("/admin/logout/").status_code == 403
    assert browser.post("/admin/login/", {"username": "admin", "password": "x"}).status_code == 403


def test_the_api_asks_for_a_key_and_not_for_a_role() -> None:
    for role in ("stranger", "admin"):
        browser = person(role)
        with writes() as written:
            assert browser.get("/api/products/").status_code == 401
            assert browser.get(f"/api/orders/{Order.objects.get().number}/").status_code == 401
            assert browser.post("/api/orders/", {}, content_type="application/json").status_code == 401
        assert written == []


def test_every_act_is_in_the_matrix() -> None:
    acting = {
        f"{model._meta.app_label}_{model._meta.model_name}_{act.slug}"
        for model, admin in site._registry.items()
        if isinstance(admin, ActingAdmin)
        for act in admin.acts
    }
    assert acting == set(ACTS)
    named = {name.removeprefix("admin:") for name, _route in addresses(get_resolver())}
    assert {*PAGES, *ACTING_PAGES} <= named
    assert set(ELSEWHERE) <= {name or route for name, route in addresses(get_resolver())}


# --- what every answer says ------------------------------------------------------------------------------


# Browsers may keep these of Django's: they show nobody's data.
KEPT = ("/admin/jsi18n/", "/admin/password_change/", "/admin/password_change/done/")


class Inline(HTMLParser):
    """Scripts and styles inside a page, which its content policy would not run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        data = tag == "script" and names.get("type") == "application/json"
        if (tag == "script" and "src" not in names and not data) or tag == "style":
            self.found.append(f"<{tag}>")
        self.found += [f"{tag} {name}" for name in names if name == "style" or name.startswith("on")]
        self.found += [
            f"{tag} {v}" for v in names.values() if v and v.strip().lower().startswith("javascript:")
        ]


@pytest.mark.parametrize("role", ["stranger", "nobody", "admin"])
def test_no_answer_can_be_framed_kept_or_made_to_run_what_is_not_ours(role: str) -> None:
    browser = person(role)
    pages = [url for door in doors() for url in urls(door)]
    for url in [*pages, "/admin/login/", "/admin/no/such/page/", "/", "/api/openapi.json", "/api/no/such/"]:
        answer = browser.get(url)
        rules = dict(
            rule.strip().split(" ", 1)
            for rule in answer["Content-Security-Policy"].split(";")
            if rule.strip()
        )
        if MAIL_AS_SENT.fullmatch(url):
            continue  # shown in a frame of the order page, under rules of its own: tests/orders/test_admin.py
        assert rules["frame-ancestors"] == "'none'", url
        assert rules["default-src"] == "'self'", url
        assert rules["object-src"] == "'none'", url
        assert rules["base-uri"] == rules["form-action"] == "'self'", url
        assert "unsafe" not in answer["Content-Security-Policy"], url
        assert answer["X-Frame-Options"] == "DENY", url
        assert answer["X-Content-Type-Options"] == "nosniff", url
        assert answer["Referrer-Policy"] == "same-origin", url
        assert answer["Cross-Origin-Opener-Policy"] == "same-origin", url
        if url.startswith("/admin/") and url not in KEPT and answer.status_code == 200:
            assert "no-store" in answer.headers.get("Cache-Control", ""), url
        if answer["Content-Type"].startswith("text/html"):
            inline = Inline()
            inline.feed(answer.content.decode())
            assert inline.found == [], url
