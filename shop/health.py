"""Is the web process well? Asked by machines that know no host name and speak no TLS, so it is answered before both
are checked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction

from asgiref.sync import sync_to_async
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

Handler = Callable[[HttpRequest], HttpResponseBase] | Callable[[HttpRequest], Awaitable[HttpResponseBase]]


def ready(request: HttpRequest) -> HttpResponse:
    """200 while the process reaches its database; the engine is not asked, because pages do without it."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return HttpResponse("the database does not answer\n", status=503, content_type="text/plain")
    return HttpResponse("ok\n", content_type="text/plain")


def live(request: HttpRequest) -> HttpResponse:
    """200 while the process answers at all: a new one would find the same database."""
    return HttpResponse("ok\n", content_type="text/plain")


PATHS = {"/health/": ready, "/health/live/": live}


@sync_and_async_middleware
def health(get_response: Handler) -> Handler:
    if iscoroutinefunction(get_response):

        async def ask_async(request: HttpRequest) -> HttpResponseBase:
            asked = PATHS.get(request.path)
            return await (sync_to_async(asked) if asked else get_response)(request)

        return ask_async

    def ask(request: HttpRequest) -> HttpResponseBase:
        return PATHS.get(request.path, get_response)(request)  # type: ignore[return-value]

    return ask
