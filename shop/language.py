"""Which language a request is answered in.

Staff read in theirs: the one they chose (a cookie), else the one their browser asks for. Programs (the API, webhooks)
get `LANGUAGE_CODE` whatever they ask for, because what they do also leaves sentences in the books.
"""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.middleware.locale import LocaleMiddleware
from django.utils import translation

FOR_PROGRAMS = ("/api/", "/webhooks/")


class LanguageMiddleware(LocaleMiddleware):
    def process_request(self, request: HttpRequest) -> None:
        if request.path_info.startswith(FOR_PROGRAMS):
            translation.activate(settings.LANGUAGE_CODE)
        else:
            super().process_request(request)

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if request.path_info.startswith(FOR_PROGRAMS):
            return response  # it does not vary by Accept-Language
        return super().process_response(request, response)
