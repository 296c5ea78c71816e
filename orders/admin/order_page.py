"""What an order's page shows: the panel on top and the timeline. Both renew themselves while the saga runs.

The page asks every second with the stamp of what it shows; when nothing has changed the answer is empty, so
nothing moves under the reader's hands. When the saga has ended the answer carries no trigger any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.safestring import SafeString, mark_safe

from orders.admin.acts import latest_saga
from orders.models import Order, Saga, Shipment
from orders.services.outlook import outlook
from orders.services.timeline import timeline
from payments.banking.account import AccountInvalid
from payments.banking.girocode import NoGirocode, girocode_svg
from payments.banking.instructions import Instructions, instructions_of
from payments.services.availability import troubles
from payments.services.refunding import failed_refunds
from shop.kernel.admin.acting import Button
from shop.kernel.models import ActRequest


def page_context(
    request: HttpRequest, order: Order, buttons: list[Button], requests: Iterable[ActRequest]
) -> dict[str, Any]:
    """The context of panel and timeline; `stamp` stands for what they show."""
    saga = latest_saga(order)
    instructions = _how_to_pay(saga) if saga else None
    context: dict[str, Any] = {
        "order": order,
        "saga": saga,
        "outlook": outlook(order, saga),
        "timeline": timeline(order),
        "attempts": saga.attempt if saga else 0,
        "letters": [letter for letter in saga.dead_letters.all() if letter.state != "resolved"]
        if saga
        else [],
        "instructions": instructions,
        "girocode": _girocode(instructions) if instructions else "",
        "failed_refunds": failed_refunds(saga.payment) if saga and saga.payment else [],
        "provider_troubles": troubles([order.payment_method]) if saga and not saga.is_final else [],
        "act_buttons": buttons,
        "act_requests": list(requests),
        "shipment": Shipment.objects.filter(saga=saga).first() if saga else None,
        "temporal_url": _temporal_url(request, order),
    }
    shown = render_to_string("admin/orders/order/_live.html", context, request)
    return context | {"stamp": hashlib.sha256(shown.encode()).hexdigest()[:16]}


def renewed(
    request: HttpRequest, order: Order, buttons: list[Button], requests: Iterable[ActRequest]
) -> HttpResponse:
    """The answer to the page's question whether anything has changed."""
    context = page_context(request, order, buttons, requests)
    if request.GET.get("stamp") == context["stamp"]:
        return HttpResponse(status=204)
    return HttpResponse(render_to_string("admin/orders/order/_live.html", context | {"oob": True}, request))


def _how_to_pay(saga: Saga) -> Instructions | None:
    """What the customer was told, for as long as the order waits for money that comes by bank transfer."""
    if saga.status != Saga.Status.WAITING or saga.payment is None:
        return None
    try:
        return instructions_of(saga.payment)
    except AccountInvalid:  # the shop takes no bank transfers any more
        return None


def _girocode(instructions: Instructions) -> SafeString | str:
    try:
        return mark_safe(girocode_svg(instructions))  # drawn by us: shapes, and nothing that anyone wrote
    except NoGirocode:
        return ""


def _temporal_url(request: HttpRequest, order: Order) -> str:
    """The workflow in Temporal's own screens, for people who look after the engine."""
    if not (settings.TEMPORAL_UI_URL and request.user.has_perm("kernel.view_outboxmessage")):
        return ""
    namespace = quote(settings.TEMPORAL_NAMESPACE, safe="")
    return f"{settings.TEMPORAL_UI_URL}/namespaces/{namespace}/workflows/{quote(order.workflow_id, safe='')}"
