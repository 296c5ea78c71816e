"""Every request has an id: in its answer, in each line that it writes, and in one line about itself."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import cast
from uuid import uuid4

from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from shop.kernel import logs

log = logging.getLogger(__name__)

HEADER = "X-Request-ID"
# What a proxy gives is taken as it is, unless it could be more than an id.
_GIVEN = re.compile(r"[A-Za-z0-9._-]{8,64}")

Answer = HttpResponseBase
Handler = Callable[[HttpRequest], Answer] | Callable[[HttpRequest], Awaitable[Answer]]


@sync_and_async_middleware
def request_log(get_response: Handler) -> Handler:
    if iscoroutinefunction(get_response):

        async def follow_async(request: HttpRequest) -> Answer:
            request_id, began = _id(request), time.monotonic()
            with logs.about(request_id=request_id):
                return _told(request, await get_response(request), request_id, began)

        return follow_async

    def follow(request: HttpRequest) -> Answer:
        request_id, began = _id(request), time.monotonic()
        with logs.about(request_id=request_id):
            return _told(request, cast(Answer, get_response(request)), request_id, began)

    return follow


def _id(request: HttpRequest) -> str:
    given = request.headers.get(HEADER, "")
    return given if _GIVEN.fullmatch(given) else uuid4().hex


def _told(request: HttpRequest, answer: Answer, request_id: str, began: float) -> Answer:
    answer[HEADER] = request_id
    # Without the query: people search for names.
    facts = {
        "method": request.method,
        "path": request.path,
        "status": answer.status_code,
        "ms": round((time.monotonic() - began) * 1000),
    }
    log.info("%(method)s %(path)s %(status)s", facts, extra=facts)
    return answer
