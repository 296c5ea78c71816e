"""The API over HTTP: what it takes, what it refuses and with which words, and that a refusal leaves nothing."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

import httpx2
import pytest
from django.db import OperationalError, connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from orders.models import ApiKey, Order, OrderEvent, OrderLine, Product, Saga, SagaStep
from orders.services import api_keys, placing
from orders.services.placing import OrderDraft
from payments.gateways.base import EventOutcome, EventType
from payments.models import Payment, PaymentEvent
from shop.kernel.models import OutboxMessage
from tests import factories

pytestmark = pytest.mark.django_db

ORDER: dict[str, Any] = {
    "customer": {"name": "Ada Lovelace", "email": "ada@example.com"},
    "shipping_address": {
        "name": "Ada Lovelace",
        "street": "Analytical Row 1",
        "postal_code": "10115",
        "city": "Berlin",
        "country": "DE",
    },
    "currency": "EUR",
    "payment_method": "sandbox",
    "lines": [{"sku": "TEA", "quantity": 2}],
}
T = TypeVar("T")
MISSING: Any = object()
BIGINT = 2**63 - 1


@pytest.fixture(autouse=True)
def shop(settings: Settings) -> Iterator[None]:
    """A shop that takes the practice provider's payments; the provider itself is not needed here."""
    from payments.gateways import gateway

    settings.PAYMENT_GATEWAYS = {"sandbox": "payments.gateways.sandbox.SandboxGateway"}
    gateway.cache_clear()
    yield
    gateway.cache_clear()


@pytest.fixture
def key() -> str:
    return api_keys.create("frontend")


class Answer(Protocol):
    """What of Django's test response is looked at."""

    status_code: int
    content: bytes

    def __getitem__(self, header: str) -> str: ...


class Api:
    """The test client with an API key. `errors` of the last answer, by field."""

    def __init__(self, key: str) -> None:
        self.client = Client(headers={"Authorization": f"Bearer {key}"})

    def get(self, path: str) -> Answer:
        return self.client.get(path)

    def place(self, order: Any, idempotency_key: str | None = None) -> Answer:
        return self.send(json.dumps(order), idempotency_key=idempotency_key)

    def send(
        self,
        body: str | bytes,
        content_type: str = "application/json",
        idempotency_key: str | None = None,
    ) -> Answer:
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self.client.post("/api/orders/", body, content_type=content_type, headers=headers)


@pytest.fixture
def api(key: str) -> Api:
    return Api(key)


def changed(path: str, value: Any) -> dict[str, Any]:
    """ORDER with the value at `path` replaced, or taken away (MISSING)."""
    order = copy.deepcopy(ORDER)
    *parents, last = path.split(".")
    place: Any = order
    for name in parents:
        place = place[int(name)] if name.isdigit() else place.setdefault(name, {})
    if value is MISSING:
        del place[last]
    else:
        place[int(last) if last.isdigit() else last] = value
    return order


def answer(response: Answer) -> Any:
    return json.loads(response.content)


def assert_problem(response: Answer, status: int) -> dict[str, str]:
    """That it is a problem in full; its errors by field."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    body = answer(response)
    assert list(body) == ["type", "title", "status", "detail", "errors"]
    assert body["status"] == status
    assert body["title"]
    assert body["detail"].endswith((".", "”."))
    for error in body["errors"]:
        assert list(error) == ["field", "message"]
        assert error["message"].endswith(".")
    return {error["field"]: error["message"] for error in body["errors"]}


def assert_nothing_stored() -> None:
    for model in (Order, OrderLine, OrderEvent, Saga, Payment, OutboxMessage):
        assert not model._default_manager.exists(), model


# --- keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/products/"), ("POST", "/api/orders/"), ("GET", "/api/orders/ORD-1/")]
)
def test_every_operation_needs_a_key(client: Client, key: str, method: str, path: str) -> None:
    revoked = api_keys.create("old frontend")
    api_keys.revoke(ApiKey.objects.get(name="old frontend"))
    for header in ("", "Bearer", "Bearer ", "Bearer vk_wrong", f"Basic {key}", key, f"Bearer {key}x"):
        response = client.generic(method, path, headers={"Authorization": header})
        assert_problem(response, 401)
        assert response["WWW-Authenticate"].startswith('Bearer realm="')
    response = client.generic(method, path, headers={"Authorization": f"Bearer {revoked}"})
    assert_problem(response, 401)
    assert response["WWW-Authenticate"].endswith('error="invalid_token"')
    response = client.generic(method, path)
    assert_problem(response, 401)
    assert "error" not in response["WWW-Authenticate"]
    assert client.generic(method, path, headers={"Authorization": f"Bearer {key}"}).status_code != 401


def test_an_unknown_a_revoked_and_a_missing_key_cost_the_same(client: Client) -> None:
    revoked = api_keys.create("old")
    api_keys.revoke(ApiKey.objects.get())
    for key in ("vk_wrong", revoked, "", "é" * 1000):
        with CaptureQueriesContext(connection) as queries:
            assert api_keys.find(key) is None
        assert len(queries) == 1
        assert_problem(client.get("/api/products/", headers={"Authorization": f"Bearer {key}"}), 401)


def test_the_database_does_not_hold_the_key() -> None:
    key = api_keys.create("frontend")
    assert key.startswith("vk_")
    assert len(key) > 40
    row = ApiKey.objects.values().get()
    assert key not in json.dumps(row, default=str)
    assert key != api_keys.create("frontend")


def test_a_key_that_is_ensured_is_made_once_and_stays_revoked() -> None:
    first = api_keys.ensure("practice", "vk_practice")
    assert api_keys.find("vk_practice") == first
    assert api_keys.ensure("practice", "vk_practice") == first
    api_keys.revoke(first)
    assert first.revoked_at is not None
    api_keys.ensure("practice", "vk_practice")
    assert api_keys.find("vk_practice") is None


# --- products --------------------------------------------------------------------------------------------


def test_products_are_listed_as_the_frontend_needs_them(api: Api) -> None:
    factories.product("TEA", price=1999, on_hand=10, reserved=3)
    factories.product("OLD", active=False)
    response = api.get("/api/products/")
    assert response.status_code == 200
    assert answer(response) == {
        "items": [{"sku": "TEA", "name": "Product TEA", "price": 1999, "currency": "EUR", "available": 7}],
        "next_page": None,
    }


def test_products_come_in_pages_that_miss_none(api: Api) -> None:
    skus = [f"S{number}" for number in range(6)]
    for sku in reversed(skus):
        factories.product(sku)
    seen: list[str] = []
    page: int | None = 1
    while page is not None:
        with CaptureQueriesContext(connection) as queries:
            body = answer(api.get(f"/api/products/?page={page}&limit=2"))
        assert len(queries) == 2  # the key and the page
        assert len(body["items"]) == 2
        seen += [item["sku"] for item in body["items"]]
        page = body["next_page"]
    assert seen == skus
    assert answer(api.get("/api/products/?page=99")) == {"items": [], "next_page": None}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=10001", "page"),
        ("page=x", "page"),
        ("page=1.5", "page"),
        (f"page={'9' * 5000}", "page"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=%00", "limit"),
    ],
)
def test_a_page_that_cannot_be_is_refused(api: Api, query: str, field: str) -> None:
    assert list(assert_problem(api.get(f"/api/products/?{query}"), 422)) == [field]


# --- placing ---------------------------------------------------------------------------------------------


def test_an_order_is_placed_and_its_saga_started(api: Api) -> None:
    factories.product("TEA", price=1999, tax_rate=700)
    response = api.place(
        ORDER
        | {
            "billing_address": ORDER["shipping_address"] | {"name": "Babbage & Sons"},
            "lines": [{"sku": "TEA", "quantity": 2, "unit_price": 1999}],
            "total": 3998,
            "notes": "Ring twice.\nThanks!",
        }
    )
    assert response.status_code == 201, response.content
    order = Order.objects.get()
    assert response["Location"] == f"/api/orders/{order.number}/"
    body = answer(response)
    assert datetime.fromisoformat(body.pop("created_at")) - order.created_at < timedelta(milliseconds=1)
    assert body == {
        "number": order.number,
        "status": "placed",
        "language": "en",
        "lines": [{"sku": "TEA", "name": "Product TEA", "quantity": 2, "unit_price": 1999, "tax_rate": 700}],
        "shipping_cost": 0,
        "discount": 0,
        "total": 3998,
        "amount_received": 0,
        "currency": "EUR",
        "deadline": None,
        "payment": {"gateway": "sandbox", "reference": "", "status": "pending", "instructions": None},
        "saga": {
            "workflow_id": f"order-saga-{order.number}",
            "attempt": 1,
            "status": "pending",
            "result": None,
            "steps": [],
        },
    }
    assert answer(api.get(response["Location"]))["number"] == order.number
    assert order.placed_by == "api:frontend"
    assert (order.customer_email, order.shipping_city, order.billing_name, order.notes) == (
        "ada@example.com",
        "Berlin",
        "Babbage & Sons",
        "Ring twice.\nThanks!",
    )
    assert OutboxMessage.objects.get().workflow_id == f"order-saga-{order.number}"


def test_staff_may_be_the_ones_who_start(api: Api, settings: Settings) -> None:
    settings.AUTO_START_SAGAS = False
    factories.product()
    body = answer(api.place(ORDER))
    assert (body["status"], body["saga"]) == ("placed", None)
    assert not OutboxMessage.objects.exists()


def test_what_the_model_has_room_for_is_taken(api: Api) -> None:
    factories.product("S" * 40)
    longest = {
        "customer.name": "ü" * 200,
        "customer.email": "a" * 64 + "@" + ".".join(["b" * 61] * 3) + ".de",
        "shipping_address.name": "日" * 200,
        "shipping_address.street": "x" * 200,
        "shipping_address.postal_code": "1" * 20,
        "shipping_address.city": "x" * 100,
        "notes": "\t\r\n" + "𝄞" * 9_997,
        "lines.0.sku": "S" * 40,
    }
    order = copy.deepcopy(ORDER)
    for path, value in longest.items():
        order = _merged(order, path, value)
    assert api.place(order).status_code == 201


def _merged(order: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split(".")
    place: Any = order
    for name in parents:
        place = place[int(name)] if name.isdigit() else place[name]
    place[last] = value
    return order


def test_null_stands_for_what_is_left_out(api: Api) -> None:
    factories.product()
    order = changed("lines.0.unit_price", None) | {"billing_address": None, "total": None}
    assert api.place(order).status_code == 201


# --- the same key again ----------------------------------------------------------------------------------


def test_the_same_key_and_body_give_the_same_order(api: Api) -> None:
    factories.product()
    first = api.place(ORDER, "key-1")
    again = api.send(json.dumps(dict(reversed(ORDER.items())), indent=3), idempotency_key="key-1")
    assert (first.status_code, again.status_code) == (201, 200)
    assert answer(first) == answer(again)
    assert first["Location"] == again["Location"]
    assert Order.objects.count() == Saga.objects.count() == OutboxMessage.objects.count() == 1


def test_a_repetition_gets_its_order_even_if_the_catalogue_has_changed(api: Api) -> None:
    factories.product()
    first = api.place(ORDER, "key-1")
    Product.objects.update(active=False, price=1)
    again = api.place(ORDER, "key-1")
    assert again.status_code == 200
    assert answer(again)["number"] == answer(first)["number"]


def test_the_same_key_with_another_body_is_a_conflict(api: Api) -> None:
    factories.product()
    api.place(ORDER, "key-1")
    response = api.place(changed("lines.0.quantity", 3), "key-1")
    assert_problem(response, 409)
    assert answer(response)["type"] == "urn:vorkasse:problem:key-reused"
    assert Order.objects.count() == 1


def test_without_a_key_or_with_another_it_is_another_order(api: Api) -> None:
    factories.product()
    for key in (None, None, "key-1", "key-2", "k" * 200):
        assert api.place(ORDER, key).status_code == 201
    assert Order.objects.count() == 5


@pytest.mark.parametrize("idempotency_key", ["", "k" * 201, "schlüssel", "a\x7fb", "a\tb"])
def test_a_key_that_is_none_is_refused(api: Api, idempotency_key: str) -> None:
    factories.product()
    assert_problem(api.place(ORDER, idempotency_key), 400)
    assert_nothing_stored()


def test_a_refused_order_does_not_use_its_key_up(api: Api) -> None:
    assert_problem(api.place(ORDER, "key-1"), 422)
    factories.product()
    assert api.place(ORDER, "key-1").status_code == 201


def at_once(*calls: Callable[[], T]) -> list[T]:
    """What the calls return that start together, each in a thread of its own; a failed one fails the test."""
    together = threading.Barrier(len(calls))

    def one(call: Callable[[], T]) -> T:
        try:
            together.wait(10)
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [running.result(60) for running in [pool.submit(one, call) for call in calls]]


@pytest.fixture
def meeting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two orders that are placed at once both find their key unused before either is stored."""
    both = threading.Barrier(2)

    def check(draft: OrderDraft) -> Any:
        both.wait(10)
        return checked(draft)

    checked = placing._check
    monkeypatch.setattr(placing, "_check", check)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("meeting")
def test_the_same_key_twice_at_once_gives_one_order(key: str) -> None:
    factories.product()
    answers = at_once(*[partial(Api(key).place, ORDER, "key-1")] * 2)
    assert sorted(a.status_code for a in answers) == [200, 201]
    assert answer(answers[0]) == answer(answers[1])
    assert Order.objects.count() == Saga.objects.count() == OutboxMessage.objects.count() == 1
    assert OrderLine.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("meeting")
def test_the_same_key_with_two_bodies_at_once_gives_one_order_and_a_conflict(key: str) -> None:
    factories.product()
    other = changed("lines.0.quantity", 1)
    answers = at_once(*[partial(Api(key).place, body, "key-1") for body in (ORDER, other)])
    assert sorted(a.status_code for a in answers) == [201, 409]
    assert Order.objects.count() == OrderLine.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_the_same_key_many_times_at_once_gives_one_order(key: str) -> None:
    factories.product()
    answers = at_once(*[partial(Api(key).place, ORDER, "key-1") for _ in range(8)])
    assert sorted(a.status_code for a in answers) == [200] * 7 + [201]
    assert len({answer(a)["number"] for a in answers}) == 1
    assert Order.objects.count() == Saga.objects.count() == OutboxMessage.objects.count() == 1


# --- refusals --------------------------------------------------------------------------------------------

LONG = 300
WRONG: list[tuple[str, Any]] = [
    ("customer", MISSING),
    ("customer", "Ada"),
    ("customer.name", MISSING),
    ("customer.name", ""),
    ("customer.name", "  "),
    ("customer.name", None),
    ("customer.name", 7),
    ("customer.name", "x" * 201),
    ("customer.name", "A\0da"),
    ("customer.name", "Ada\nBcc: all@example.com"),
    ("customer.name", "\ud800"),
    ("customer.email", MISSING),
    ("customer.email", "ada"),
    ("customer.email", "ada@example.com, eve@example.com"),
    ("customer.email", "ada@example.com\n"),
    ("customer.email", f"{'a' * 60}@{'.'.join(['b' * 60] * 4)}.de"),
    ("customer.email", "a\0@example.com"),
    ("customer.phone", "030"),
    ("shipping_address", MISSING),
    ("shipping_address", None),
    ("shipping_address", []),
    *(
        (f"shipping_address.{f}", v)
        for f in ("name", "street", "city")
        for v in [MISSING, "", "x\0", "x" * 201]
    ),
    ("shipping_address.city", "x" * 101),
    ("shipping_address.postal_code", 10115),
    ("shipping_address.postal_code", "1" * 21),
    ("shipping_address.country", "Germany"),
    ("shipping_address.country", "D1"),
    ("shipping_address.country", "D"),
    ("shipping_address.country", ""),
    ("shipping_address.state", "Berlin"),
    ("billing_address", "the same"),
    ("billing_address", ORDER["shipping_address"] | {"city": ""}),
    ("billing_address", ORDER["shipping_address"] | {"city": "x" * LONG}),
    ("currency", MISSING),
    ("currency", "euro"),
    ("currency", "eur"),
    ("currency", "XQQ"),
    ("currency", "E\0R"),
    ("payment_method", MISSING),
    ("payment_method", "cash"),
    ("payment_method", "stripe"),  # known, but not set up here
    ("payment_method", "x" * LONG),
    ("payment_method", "\0"),
    ("lines", MISSING),
    ("lines", []),
    ("lines", {}),
    ("lines", [{"sku": "TEA", "quantity": 1}] * 201),
    ("lines.0", "TEA"),
    ("lines.0.sku", MISSING),
    ("lines.0.sku", "COFFEE"),
    ("lines.0.sku", "tea"),
    ("lines.0.sku", "RETIRED"),
    ("lines.0.sku", "DOLLAR"),  # sold in another currency
    ("lines.0.sku", "TEA\0"),
    ("lines.0.sku", "x" * LONG),
    ("lines.0.sku", 1),
    *(
        ("lines.0.quantity", v)
        for v in [MISSING, 0, -1, 10_001, BIGINT + 1, 10**4000, 2.5, 2.0, "2", True, None]
    ),
    *(("lines.0.unit_price", v) for v in (1998, 0, -1999, 1999.0, "1999", BIGINT, BIGINT + 1, 10**4000)),
    *(("total", v) for v in (3997, 0, -3998, 39.98, "3998", True, BIGINT, BIGINT + 1)),
    ("total", []),
    ("lines.0.discount", 5),
    ("notes", None),
    ("notes", "a\0b"),
    ("notes", "x" * 10_001),
    ("status", "paid"),
    ("shipping_cost", 0),
    ("placed_by", "boss"),
]


@pytest.mark.parametrize(
    ("field", "value"), WRONG, ids=[f"{f}={'missing' if v is MISSING else repr(v)[:20]}" for f, v in WRONG]
)
def test_a_wrong_field_is_named_and_nothing_is_stored(api: Api, field: str, value: Any) -> None:
    factories.product("TEA")
    factories.product("RETIRED", active=False)
    factories.product("DOLLAR", currency="USD")
    response = api.place(changed(field, value), "key-1")
    errors = assert_problem(response, 422)
    if field == "billing_address" and isinstance(value, dict):
        field = "billing_address.city"
    assert list(errors) == [field]
    assert answer(response)["type"] == "urn:vorkasse:problem:invalid"
    assert len(response.content) < 1500
    assert_nothing_stored()


def test_every_wrong_field_is_named_at_once(api: Api) -> None:
    factories.product("TEA")
    order = changed("customer.email", "ada")
    order["lines"] = [{"sku": "TEA", "quantity": 1}, {"sku": "TEE", "quantity": 1}]
    order["shipping_address"] = order["shipping_address"] | {"city": " "}
    errors = assert_problem(api.place(order), 422)
    assert errors == {
        "customer.email": "'ada' is not an e-mail address.",
        "shipping_address.city": "This is needed.",
        "lines.1.sku": "There is no product 'TEE' for sale.",
    }
    order = changed("customer.email", 1) | {"colour": "red"}
    errors = assert_problem(api.place(order), 422)
    assert errors == {"customer.email": "This must be a text.", "colour": "There is no such field."}


def test_an_order_too_dear_to_be_booked_or_for_nothing_is_refused(api: Api) -> None:
    factories.product("DEAR", price=BIGINT)
    factories.product("FREE", price=0)
    for sku in ("DEAR", "FREE"):
        assert list(assert_problem(api.place(changed("lines.0.sku", sku)), 422)) == ["total"]
    assert_nothing_stored()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"customer=Ada",
        b'{"total": 1',
        b"\xff\xfe\xfa",
        b'{"a": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"total": ' + b"9" * 5000 + b"}",
        b"{} {}",
        b"{\"customer\": 'Ada'}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_not_json_is_refused(api: Api, body: bytes) -> None:
    assert_problem(api.send(body), 400)
    assert_nothing_stored()


@pytest.mark.parametrize("body", ["null", "[]", "1", '"order"', "NaN", '{"\\ud800": 1}'])
def test_what_is_json_but_no_order_is_refused(api: Api, body: str) -> None:
    assert list(assert_problem(api.send(body), 422)) == [""]


def test_a_body_full_of_nonsense_gets_a_short_answer(api: Api) -> None:
    body = json.dumps({"x" * 1000 + str(number): number for number in range(900)})
    response = api.send(body)
    errors = assert_problem(response, 422)
    assert len(errors) <= 100
    assert len(response.content) < 50_000


def test_too_large_a_body_is_refused(api: Api) -> None:
    factories.product()
    body = json.dumps(ORDER)
    assert_problem(api.send(body + " " * (1_000_001 - len(body))), 413)
    assert_nothing_stored()
    assert api.send(body + " " * (1_000_000 - len(body))).status_code == 201


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "text/json"]
)
def test_a_body_of_another_type_is_refused(api: Api, content_type: str) -> None:
    factories.product()
    assert_problem(api.send(json.dumps(ORDER), content_type), 415)
    assert_nothing_stored()


def test_a_charset_may_be_named(api: Api) -> None:
    factories.product()
    assert api.send(json.dumps(ORDER), "Application/JSON; charset=utf-8").status_code == 201


@pytest.mark.parametrize(
    "path",
    [
        "/api/",
        "/api/docs",
        "/api/docs/",
        "/api/orders",
        "/api/nothing/",
        "/api/orders/ORD-1/lines/",
        "/api/orders/ORD-1",
        "/api/orders/ORD-1/",
        "/api/orders/%00/",
        "/api/orders/%ff/",
        f"/api/orders/{'9' * 3000}/",
        "/api/orders/%F0%9F%8D%B5/",
    ],
)
def test_what_is_not_there_is_a_problem_too(api: Api, path: str) -> None:
    assert_problem(api.get(path), 404)


def test_what_is_not_there_is_not_there_for_any_method() -> None:
    strict = Client(enforce_csrf_checks=True)
    for path in ("/api/", "/api/nothing/", "/api/orders"):
        assert_problem(strict.post(path, "{}", content_type="application/json"), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/orders/", "POST"),
        ("DELETE", "/api/orders/ORD-1/", "GET"),
        ("POST", "/api/products/", "GET"),
        ("PATCH", "/api/products/", "GET"),
        ("FOO", "/api/products/", "GET"),
        ("POST", "/api/openapi.json", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_a_problem_too(key: str, method: str, path: str, allowed: str) -> None:
    strict = Client(enforce_csrf_checks=True, headers={"Authorization": f"Bearer {key}"})
    response = strict.generic(method, path)
    assert_problem(response, 405)
    assert response["Allow"] == allowed


def test_a_failing_database_is_no_secret_and_no_web_page(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(key: str) -> None:
        raise OperationalError("password authentication failed for user “vorkasse”")

    monkeypatch.setattr(api_keys, "find", fails)
    response = api.get("/api/products/")
    assert_problem(response, 503)
    assert response["Retry-After"]
    assert b"vorkasse" not in response.content


def test_a_bug_is_no_secret_and_no_web_page(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(key: str) -> None:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr(api_keys, "find", fails)
    api.client.raise_request_exception = False
    response = api.get("/api/products/")
    assert_problem(response, 500)
    assert b"42" not in response.content
    api.client.raise_request_exception = True
    with pytest.raises(RuntimeError):  # whoever watches Django's signal is told
        api.get("/api/products/")


# --- an order in the middle of its life ------------------------------------------------------------------


def _with_history(order: Order, retries: int = 0) -> Saga:
    """A second attempt that is under way: authorized, half paid, and some tries failed."""
    first = Saga.objects.get(order=order)
    first.status = Saga.Status.CANCELLED
    first.save()
    _step(first, "inventory", reference="from the first attempt")
    payment = Payment.objects.create(
        gateway="sandbox",
        merchant_reference=order.number,
        idempotency_key=f"{order.number}/2/payment_hold",
        reference="pay_2",
        amount=order.total,
        currency="EUR",
    )
    _event(payment, EventType.AUTHORIZATION, order.total)
    _event(payment, EventType.RECEIPT, 1000)
    saga = Saga.objects.create(
        order=order,
        attempt=2,
        status=Saga.Status.WAITING,
        payment=payment,
        deadline=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    for attempt in range(1, retries + 1):
        _step(saga, "inventory", outcome="failed", attempt=attempt)
        _event(payment, EventType.RECEIPT, 1, f"more-{attempt}")
    _step(saga, "inventory", attempt=retries + 1, reference="2 pieces")
    _step(saga, "payment_hold", reference="pay_2")
    return saga


def _step(saga: Saga, step: str, outcome: str = "succeeded", attempt: int = 1, **values: str) -> None:
    values = {"kind": "action", "idempotency_key": saga.key(step), "actor": "saga"} | values
    now = datetime.now(UTC)
    SagaStep.objects.create(saga=saga, step=step, outcome=outcome, attempt=attempt, started_at=now, **values)


def _event(payment: Payment, type_: EventType, amount: int, reference: str = "") -> None:
    PaymentEvent.objects.create(
        payment=payment,
        gateway="sandbox",
        type=type_,
        outcome=EventOutcome.SUCCEEDED,
        psp_reference=reference or f"{type_}-{payment.pk}",
        amount=amount,
        currency="EUR",
        occurred_at=datetime.now(UTC),
        source="call",
    )


def test_an_order_shows_its_latest_attempt(api: Api) -> None:
    factories.product()
    order = factories.place()
    saga = _with_history(order)
    body = answer(api.get(f"/api/orders/{order.number}/"))
    times = [datetime.fromisoformat(step.pop("at")) for step in body["saga"]["steps"]]
    assert times == sorted(times)
    assert body["deadline"] == "2030-01-02T03:04:05Z"
    assert body["amount_received"] == 1000
    assert body["payment"] == {
        "gateway": "sandbox",
        "reference": "pay_2",
        "status": "partially_paid",
        "instructions": None,
    }
    done = {"kind": "action", "outcome": "succeeded", "attempt": 1}
    assert body["saga"] == {
        "workflow_id": f"order-saga-{order.number}",
        "attempt": 2,
        "status": "waiting",
        "result": None,
        "steps": [
            {"step": "inventory", "reference": "2 pieces"} | done,
            {"step": "payment_hold", "reference": "pay_2"} | done,
        ],
    }
    # A rollback, in the order in which it happened, and its result.
    _step(saga, "payment_captured", outcome="failed")
    _step(saga, "payment_captured", outcome="skipped", kind="compensation")
    _step(saga, "payment_hold", kind="compensation", reference="void_2")
    _step(saga, "inventory", kind="compensation")
    result = {"status": "cancelled", "reason": "no money", "compensated_steps": ["payment_hold", "inventory"]}
    Saga.objects.filter(pk=saga.pk).update(status="cancelled", result=result)
    Order.objects.update(status="cancelled")
    body = answer(api.get(f"/api/orders/{order.number}/"))
    assert (body["status"], body["saga"]["status"], body["saga"]["result"]) == (
        "cancelled",
        "cancelled",
        result,
    )
    assert [(s["step"], s["kind"], s["outcome"]) for s in body["saga"]["steps"]][2:] == [
        ("payment_captured", "action", "failed"),
        ("payment_captured", "compensation", "skipped"),
        ("payment_hold", "compensation", "succeeded"),
        ("inventory", "compensation", "succeeded"),
    ]


@pytest.mark.parametrize("retries", [0, 20])
def test_an_order_costs_the_same_few_queries_whatever_has_happened(api: Api, retries: int) -> None:
    skus = [factories.product(f"S{number}").sku for number in range(retries + 1)]
    order = factories.place(*[(sku, 1) for sku in skus])
    _with_history(order, retries)
    with CaptureQueriesContext(connection) as queries:
        body = answer(api.get(f"/api/orders/{order.number}/"))
    assert len(body["saga"]["steps"]) == retries + 2
    assert body["amount_received"] == 1000 + retries
    assert len(queries) == 5, "\n".join(q["sql"] for q in queries)


def test_placing_costs_the_same_few_queries_however_long_the_order(api: Api) -> None:
    for number in range(50):
        factories.product(f"S{number}")
    counts = []
    for length in (1, 50):
        lines = [{"sku": f"S{number}", "quantity": 1} for number in range(length)]
        with CaptureQueriesContext(connection) as queries:
            assert api.place(ORDER | {"lines": lines}, f"key-{length}").status_code == 201
        counts.append(len(queries))
    assert counts[0] == counts[1]


# --- the document ----------------------------------------------------------------------------------------


def test_the_openapi_document_is_public_and_true(client: Client) -> None:
    response = client.get("/api/openapi.json")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("application/json")
    document = answer(response)
    assert document["openapi"].startswith("3.")
    assert {path: list(operations) for path, operations in document["paths"].items()} == {
        "/api/products/": ["get"],
        "/api/orders/": ["post"],
        "/api/orders/{number}/": ["get"],
    }
    place = document["paths"]["/api/orders/"]["post"]
    assert place["security"] == [{"BearerKey": []}]
    assert document["components"]["securitySchemes"]["BearerKey"] == {"type": "http", "scheme": "bearer"}
    assert [(p["name"], p["in"], p["required"]) for p in place["parameters"]] == [
        ("Idempotency-Key", "header", False)
    ]
    assert set(place["responses"]) == {"200", "201", "400", "401", "409", "413", "415", "422"}
    assert list(place["responses"]["422"]["content"]) == ["application/problem+json"]
    assert list(place["responses"]["201"]["content"]) == ["application/json"]
    schemas = document["components"]["schemas"]
    assert schemas["NewOrder"]["required"] == [
        *("customer", "shipping_address", "currency", "payment_method", "lines")
    ]
    assert schemas["NewOrder"]["additionalProperties"] is False
    for reference in _references(document):
        assert reference.rpartition("/")[2] in schemas


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _references(part)


# --- through a socket ------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_frontend_places_an_order_and_looks_at_it(live_server: LiveServer, key: str) -> None:
    factories.product()
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "cart-1"}
    with httpx2.Client(base_url=live_server.url, headers=headers, trust_env=False, verify=False) as frontend:
        placed = frontend.post("/api/orders/", json=ORDER)
        assert placed.status_code == 201
        assert frontend.post("/api/orders/", json=ORDER).status_code == 200
        assert frontend.post("/api/orders/", json=ORDER | {"notes": "!"}).status_code == 409
        seen = frontend.get(placed.headers["Location"])
        assert seen.json() == placed.json()
        refused = frontend.post("/api/orders/", content=b"{", headers={"Content-Type": "application/json"})
        assert (refused.status_code, refused.headers["Content-Type"]) == (400, "application/problem+json")
        long_key = {"Idempotency-Key": "k" * 201}
        assert frontend.post("/api/orders/", json=ORDER, headers=long_key).status_code == 400
        assert frontend.get("/api/products/").json()["items"][0]["sku"] == "TEA"
    assert httpx2.get(f"{live_server.url}/api/products/", trust_env=False, verify=False).status_code == 401
    assert Order.objects.count() == 1
