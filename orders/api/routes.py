"""The API's operations."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path, re_path
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from ninja import Header, NinjaAPI, Query
from ninja.openapi.schema import OpenAPISchema
from ninja.parser import Parser
from ninja.responses import Status
from ninja.security import HttpBearer

from orders.api import problems
from orders.api.incoming import NewOrder
from orders.api.outgoing import OrderOut, ProductPage, order_now, product_page
from orders.api.problems import BadRequest, Problem, WrongContentType, not_found, problem
from orders.models import ApiKey, Order
from orders.services import api_keys
from orders.services.placing import place_order

MAX_PAGE = 10_000
MAX_LIMIT = 200


class Authorized(HttpRequest):
    """A request after `BearerKey` has let it in."""

    auth: ApiKey


class BearerKey(HttpBearer):
    def authenticate(self, request: HttpRequest, token: str) -> ApiKey | None:
        return api_keys.find(token)


class JsonBody(Parser):
    def parse_body(self, request: HttpRequest) -> Any:
        if request.content_type != "application/json":
            raise WrongContentType
        return json.loads(request.body)


class Api(NinjaAPI):
    def get_openapi_schema(
        self, *, path_prefix: str | None = None, path_params: dict[str, Any] | None = None
    ) -> OpenAPISchema:
        """Errors have a media type of their own, which ninja has no way to say."""
        schema = super().get_openapi_schema(path_prefix=path_prefix, path_params=path_params)
        for operations in schema["paths"].values():
            for operation in operations.values():
                for status, response in operation["responses"].items():
                    if status >= 400:
                        response["content"] = {problems.MEDIA_TYPE: response["content"]["application/json"]}
        return schema


api = Api(
    title="Vorkasse",
    version="1",
    description="Products, and orders that are shipped once their money has arrived.",
    urls_namespace="api",
    auth=BearerKey(),
    parser=JsonBody(),
    docs_url=None,  # its page needs scripts from elsewhere
    docs_decorator=require_safe,
)
problems.handle_errors(api)


@api.get("/products/", response={200: ProductPage, 401: Problem, 422: Problem}, summary="Products for sale")
def products(
    request: Authorized,
    page: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 1,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
) -> ProductPage:
    """The products for sale, by SKU."""
    return product_page(page, limit)


@api.post(
    "/orders/",
    response={201: OrderOut, 200: OrderOut} | dict.fromkeys((400, 401, 409, 413, 415, 422), Problem),
    summary="Place an order",
)
def place(
    request: Authorized,
    response: HttpResponse,
    order: NewOrder,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="Up to 200 printable ASCII characters. Repeating a request with the same key gives the "
            "first order again (200) instead of a second one.",
        ),
    ] = None,
) -> Status[OrderOut]:
    """Take an order; unless staff start it, its saga begins at once."""
    if idempotency_key is not None:
        _check_key(idempotency_key)
    placed, created = place_order(
        order.draft(), f"api:{request.auth.name}", idempotency_key=idempotency_key, body_digest=order.digest()
    )
    response["Location"] = f"{request.path}{placed.number}/"
    return Status(201 if created else 200, order_now(placed.number))


@api.get("/orders/{number}/", response={200: OrderOut, 401: Problem, 404: Problem}, summary="An order")
def order(request: Authorized, number: str) -> OrderOut:
    """An order as it stands now, with its payment and the steps that were taken."""
    return order_now(number)


def _check_key(key: str) -> None:
    longest = Order._meta.get_field("api_idempotency_key").max_length
    assert longest is not None
    if not (1 <= len(key) <= longest and key.isascii() and key.isprintable()):
        raise BadRequest(
            _("An Idempotency-Key has 1 to {longest} printable ASCII characters.").format(longest=longest)
        )


def _with_problems(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """What ninja answers by itself, outside its exception handlers: a wrong method, and its empty root."""

    @csrf_exempt
    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            response = view(request, *args, **kwargs)
        except Http404:
            return not_found(request)
        if response.status_code == 405:
            allowed = response["Allow"]
            detail = _("{method} is not possible here; possible: {allowed}.").format(
                method=request.method, allowed=allowed
            )
            return problem(405, detail, headers={"Allow": allowed})
        return response

    return wrapped


_patterns, _app, _namespace = api.urls
urlpatterns = [
    path(
        "",
        (
            [
                URLPattern(p.pattern, _with_problems(p.callback), p.default_args, p.name)
                for p in _patterns
                if isinstance(p, URLPattern)
            ],
            _app,
            _namespace,
        ),
    ),
    re_path("", csrf_exempt(lambda request: not_found(request))),
]
