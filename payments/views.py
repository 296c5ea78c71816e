"""Where providers deliver their webhooks."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from payments.gateways.base import WebhookRejected
from payments.services import webhooks


@csrf_exempt
@require_POST
def webhook(request: HttpRequest, gateway: str) -> HttpResponse:
    """200 once stored and processed (or seen before); 400 with a sentence when rejected."""
    if gateway not in settings.PAYMENT_GATEWAYS:
        return JsonResponse({"detail": f"No gateway “{gateway}” is set up here."}, status=404)
    try:
        body = request.body
    except RequestDataTooBig:  # far too large: it was not even read
        body = None
    if body is None or len(body) > settings.WEBHOOK_MAX_BYTES:
        return JsonResponse(
            {"detail": f"A webhook may have at most {settings.WEBHOOK_MAX_BYTES} bytes."}, status=413
        )
    try:
        delivery = webhooks.receive(gateway, request.headers, body)
    except WebhookRejected as rejection:
        return JsonResponse({"detail": str(rejection)}, status=400)
    return JsonResponse({"state": delivery.state})
