"""The practice carrier, which lives in the practice provider's process; it can refuse and fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from django.utils.translation import gettext as _

from orders.carriers.base import (
    CarrierMisconfigured,
    CarrierRefused,
    CarrierShipment,
    CarrierUnavailable,
    ShipmentStatus,
)
from payments.gateways.base import GatewayMisconfigured, GatewayRefused, GatewayUnavailable
from payments.gateways.sandbox import call


class PracticeCarrier:
    """The practice carrier, at `settings.SANDBOX_URL`."""

    name = "practice"
    remote = True

    def create_shipment(self, idempotency_key: str, merchant_reference: str) -> CarrierShipment:
        with _in_carrier_words():
            body = {"merchant_reference": merchant_reference}
            return _shipment(call("POST", "/shipments", body=body, idempotency_key=idempotency_key))

    def find(self, idempotency_key: str) -> CarrierShipment | None:
        try:
            with _in_carrier_words():
                return _shipment(call("GET", "/shipments", params={"idempotency_key": idempotency_key}))
        except CarrierRefused as refusal:
            if refusal.code == "not_found":
                return None
            raise

    def cancel(self, reference: str, idempotency_key: str) -> CarrierShipment:
        with _in_carrier_words():
            path = f"{_path(reference)}/cancel"
            return _shipment(call("POST", path, body={}, idempotency_key=idempotency_key))

    def track(self, reference: str) -> CarrierShipment:
        with _in_carrier_words():
            return _shipment(call("GET", _path(reference)))


def _path(reference: str) -> str:
    return f"/shipments/{quote(reference, safe='')}"


def _shipment(answer: dict[str, Any]) -> CarrierShipment:
    try:
        return CarrierShipment(
            reference=answer["reference"],
            tracking_number=answer["tracking_number"],
            status=ShipmentStatus(answer["status"]),
        )
    except (KeyError, ValueError) as error:
        raise CarrierUnavailable(
            _("The practice carrier's answer was not understood: {error!r}").format(error=error),
            "not_understood",
        ) from error


@contextmanager
def _in_carrier_words() -> Iterator[None]:
    """The provider and the carrier share one HTTP interface; only the names of the errors differ."""
    try:
        yield
    except GatewayUnavailable as error:
        raise CarrierUnavailable(str(error), error.code, error.retry_after) from error
    except GatewayRefused as error:
        raise CarrierRefused(str(error), error.code) from error
    except GatewayMisconfigured as error:
        raise CarrierMisconfigured(str(error), error.code) from error
