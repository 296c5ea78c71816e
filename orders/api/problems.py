"""Errors as RFC 9457 problem details: one shape for all of them, whoever found the error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.core.signals import got_request_exception
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError
from pydantic import BaseModel, Field

from orders.services.placing import FieldError, KeyReused, OrderInvalid

MEDIA_TYPE = "application/problem+json"
INVALID = "urn:vorkasse:problem:invalid"
KEY_REUSED = "urn:vorkasse:problem:key-reused"
# A body of nothing but unknown fields would be answered with tens of thousands of errors.
MAX_ERRORS = 100
MAX_FIELD = 200

log = logging.getLogger("django.request")

# What pydantic finds, in sentences; `{}` is the limit. Anything else is said in pydantic's own words.
_SENTENCES = {
    "json_invalid": _("This is not JSON: {error}."),
    "missing": _("This is needed."),
    "extra_forbidden": _("There is no such field."),
    "int_type": _("This must be an integer."),
    "int_parsing": _("This must be an integer."),
    "int_parsing_size": _("This number is too large."),
    "int_from_float": _("This must be an integer."),
    "string_type": _("This must be a text."),
    "string_unicode": _("This is not valid Unicode."),
    "string_too_long": _("This may have at most {max_length} characters."),
    "string_too_short": _("This must have at least {min_length} characters."),
    "list_type": _("This must be a list."),
    "too_long": _("There may be at most {max_length} of them."),
    "too_short": _("There must be at least {min_length} of them."),
    "model_type": _("This must be an object."),
    "greater_than_equal": _("This must be at least {ge}."),
    "less_than_equal": _("This must be at most {le}."),
    "not_storable": _("This may not contain NUL characters or lone surrogates."),
    "control_character": _("This may not contain line breaks or control characters."),
}


class ProblemError(BaseModel):
    """One thing that is wrong: where, as a path in the request's body, and why, in a sentence."""

    field: str = Field(examples=["lines.0.sku"])
    message: str = Field(examples=["There is no product 'TEE' for sale."])


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(examples=[INVALID])
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["The order cannot be taken; see the errors."])
    errors: list[ProblemError]


class WrongContentType(Exception):
    """The body is not announced as JSON."""


class BadRequest(Exception):
    """The request is not one that this API understands; the message says why."""


def problem(
    status: int,
    detail: str,
    errors: Iterable[FieldError] = (),
    *,
    type_: str = "about:blank",
    headers: dict[str, str] | None = None,
) -> HttpResponse:
    """The answer to a request that went wrong."""
    body = Problem(
        type=type_,
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        errors=[ProblemError(field=e.field, message=e.message) for e in errors],
    )
    return JsonResponse(body.model_dump(), status=status, content_type=MEDIA_TYPE, headers=headers)


def not_found(request: HttpRequest, detail: str = "") -> HttpResponse:
    if not detail:
        detail = gettext("There is nothing at {path}.").format(path=request.path)
        if not request.path.endswith("/"):
            detail += " " + gettext("Addresses here end with a slash.")
    return problem(404, detail)


def handle_errors(api: NinjaAPI) -> None:
    """Turn everything that may go wrong inside `api` into a problem."""

    def on(kind: type[Exception], answer: Callable[[HttpRequest, Any], HttpResponse]) -> None:
        api.add_exception_handler(kind, answer)

    on(AuthenticationError, _unauthorized)
    on(ValidationError, _invalid)
    on(OrderInvalid, _order_invalid)
    on(KeyReused, _key_reused)
    on(BadRequest, lambda request, error: problem(400, str(error)))
    on(RequestDataTooBig, _too_large)
    on(HttpError, _http_error)
    on(Http404, lambda request, error: not_found(request, str(error)))
    on(OperationalError, _unavailable)
    on(Exception, _unexpected)


def _unauthorized(request: HttpRequest, error: object) -> HttpResponse:
    challenge = 'Bearer realm="Vorkasse"'
    if "Authorization" not in request.headers:
        detail = gettext("Send an API key: “Authorization: Bearer <key>”.")
    else:
        detail = gettext("This API key is not known here, or it was revoked.")
        challenge += ', error="invalid_token"'
    return problem(401, detail, headers={"WWW-Authenticate": challenge})


def _invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    # An empty body never reaches the parser.
    if any(e["loc"] == ("body", "order") and e["type"] == "missing" for e in error.errors):
        return problem(400, gettext("The body is empty; it must be a JSON object."))
    return problem(
        422,
        gettext("The request is not as it should be; see the errors."),
        [_field_error(e) for e in error.errors[:MAX_ERRORS]],
        type_=INVALID,
    )


def _field_error(error: dict[str, Any]) -> FieldError:
    """One of pydantic's errors. Its `loc` is where the value came from, for a body the parameter, and the path."""
    source, *path = error["loc"]
    return field_error(error, path[1:] if source == "body" else path)


def field_error(error: Mapping[str, Any], path: Iterable[str | int]) -> FieldError:
    """One of pydantic's errors in a sentence, and where it is."""
    sentence = _SENTENCES.get(error["type"])
    message = str(sentence).format(**error.get("ctx", {})) if sentence else f"{error['msg'].rstrip('.')}."
    return FieldError(".".join(map(str, path))[:MAX_FIELD], message)


def _order_invalid(request: HttpRequest, error: OrderInvalid) -> HttpResponse:
    return problem(422, gettext("The order cannot be taken; see the errors."), error.errors, type_=INVALID)


def _key_reused(request: HttpRequest, error: KeyReused) -> HttpResponse:
    return problem(409, str(error), type_=KEY_REUSED)


def _too_large(request: HttpRequest, error: object) -> HttpResponse:
    return problem(413, gettext("The body is too large."))


def _http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    # What goes wrong while the body is parsed comes wrapped.
    match error.__cause__:
        case WrongContentType():
            return problem(415, gettext("Send the body as JSON: “Content-Type: application/json”."))
        case ValueError() | RecursionError() as cause:
            return problem(400, gettext("The body is not JSON: {error}.").format(error=cause))
    return problem(error.status_code, str(error))


def _unavailable(request: HttpRequest, error: Exception) -> HttpResponse:
    log.error("The database failed under %s", request.path, exc_info=error)
    return problem(
        503, gettext("The shop cannot answer just now. Try again in a moment."), headers={"Retry-After": "5"}
    )


def _unexpected(request: HttpRequest, error: Exception) -> HttpResponse:
    got_request_exception.send(sender=None, request=request)
    log.error("Internal Server Error: %s", request.path, exc_info=error, extra={"status_code": 500})
    return problem(500, gettext("Something went wrong here; it has been written down."))
