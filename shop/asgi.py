"""The web process's entry point: Django, and `/metrics` beside it.

`/metrics` is not one of Django's pages, because Prometheus names an address and no host of ours, and speaks no TLS.
"""

import os
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

_pages = get_asgi_application()

from django.conf import settings  # noqa: E402

from shop.kernel import tracing  # noqa: E402
from shop.metrics import exposition  # noqa: E402  (the models can be imported only now)

tracing.start("web")


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Without METRICS_TOKEN, or without the right one, there is no such page as `/metrics`."""
    is_metrics = scope["type"] == "http" and scope["path"] == "/metrics"
    if is_metrics and exposition.may_read(scope, settings.METRICS_TOKEN):
        await exposition.answer(send)
    else:
        await _pages(scope, receive, send)
