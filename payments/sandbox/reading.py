"""Reading requests: bodies and parameters, checked, each mistake named by its field."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from payments.sandbox.refusal import Refused, invalid
from shop.kernel.money import Money

LONGEST_BODY = 64 * 1024
LONGEST_TEXT = 255
LARGEST_AMOUNT = 10**15
DEFAULT_PAGE = 100
LARGEST_PAGE = 1000
MOST_REFERENCES = 100


async def raw_body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_BODY:
            raise Refused("too_large", f"The body is larger than {LONGEST_BODY} bytes.", status=413)
    return body


async def json_body(request: Request) -> Any:
    """The body as JSON; an empty one is an empty object."""
    raw = await raw_body(request)
    try:
        return json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        raise Refused("invalid_json", "The body is not JSON.", status=400) from None


async def json_object(request: Request) -> dict[str, Any]:
    body = await json_body(request)
    if not isinstance(body, dict):
        raise invalid("", "The body is not a JSON object.")
    return body


def is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")


async def form_or_json(request: Request) -> dict[str, Any]:
    """What a form or a program posted. A form's amount is digits."""
    if not is_form(request):
        return await json_object(request)
    form: dict[str, Any] = dict(parse_qsl((await raw_body(request)).decode(errors="replace")))
    if re.fullmatch(r"[0-9]{1,16}", form.get("amount", "")):
        form["amount"] = int(form["amount"])
    return form


def text(body: dict[str, Any], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_TEXT:
        raise invalid(field, f"“{field}” must be a text of 1 to {LONGEST_TEXT} characters.")
    return value


def amount(body: dict[str, Any], field: str = "amount") -> int:
    value = body.get(field)
    if type(value) is not int or not 0 < value <= LARGEST_AMOUNT:
        raise invalid(field, f"“{field}” must be a whole number of minor units above 0.")
    return value


def money(body: dict[str, Any]) -> Money:
    currency = body.get("currency")
    if not isinstance(currency, str) or not re.fullmatch(r"[A-Z]{3}", currency):
        raise invalid("currency", "“currency” must be an ISO 4217 code such as EUR.")
    return Money(amount(body), currency)


def seconds(body: dict[str, Any], field: str, default: float, highest: float) -> float:
    value = body.get(field, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not 0 < value <= highest:
        raise invalid(field, f"“{field}” must be a number of seconds above 0, at most {highest:.0f}.")
    return float(value)


def references(request: Request) -> list[str]:
    """The payments that are asked for by name."""
    given = request.query_params.getlist("psp_reference")
    if len(given) > MOST_REFERENCES:
        raise invalid(
            "psp_reference", f"At most {MOST_REFERENCES} payments can be asked for at once, not {len(given)}."
        )
    return given


def window(request: Request) -> tuple[datetime, datetime] | None:
    """The time in which payments were opened, if it is given: both moments, with their offset from UTC."""
    given = {name: request.query_params.get(name, "") for name in ("opened_from", "opened_until")}
    if not any(given.values()):
        return None
    moments = []
    for name, text in given.items():
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise invalid(name, f"“{name}” must be a moment such as 2026-01-31T00:00:00Z.")
        moments.append(moment)
    return moments[0], moments[1]


def page_limit(request: Request) -> int:
    return _number(request, "limit", DEFAULT_PAGE, 1, LARGEST_PAGE, "invalid_request")


def cursor(request: Request, name: str, last: int = 2**62) -> int:
    """The place a cursor stands for. One past `last` is refused: it is from another store and would skip."""
    return _number(request, name, 0, 0, last, "invalid_cursor")


def _number(request: Request, name: str, default: int, lowest: int, highest: int, code: str) -> int:
    given = request.query_params.get(name, "")
    if not given:
        return default
    if not re.fullmatch(r"[0-9]{1,18}", given) or not lowest <= int(given) <= highest:
        problem = "is not a cursor of this provider" if code == "invalid_cursor" else "is not a page size"
        raise Refused(code, f"“{name}” {problem}: {given!r}.", field=name)
    return int(given)
