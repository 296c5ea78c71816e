"""Shipping by hand: staff pack the parcel, take it to whom they like, and enter the tracking number later."""

from __future__ import annotations

import hashlib

from orders.carriers.base import CarrierShipment, ShipmentStatus


class ManualCarrier:
    """No call leaves the shop. A shipment's reference follows from its key: same key, same shipment."""

    name = "manual"
    remote = False

    def create_shipment(self, idempotency_key: str, merchant_reference: str) -> CarrierShipment:
        return CarrierShipment(_reference(idempotency_key), "", ShipmentStatus.CREATED)

    def find(self, idempotency_key: str) -> CarrierShipment | None:
        return CarrierShipment(_reference(idempotency_key), "", ShipmentStatus.CREATED)

    def cancel(self, reference: str, idempotency_key: str) -> CarrierShipment:
        return CarrierShipment(reference, "", ShipmentStatus.CANCELLED)

    def track(self, reference: str) -> CarrierShipment:
        return CarrierShipment(reference, "", ShipmentStatus.CREATED)


def _reference(idempotency_key: str) -> str:
    return "manual-" + hashlib.sha256(idempotency_key.encode()).hexdigest()[:16]
