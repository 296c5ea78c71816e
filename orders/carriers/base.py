"""What every carrier can do, and the words in which it says so.

One protocol for all of them. A call either returns the shipment, or raises one of three errors, which differ
in what may be done next:

- `CarrierUnavailable`: the outcome is **unknown**. Call again with the same idempotency key.
- `CarrierRefused`: the carrier said no, and would say no again.
- `CarrierMisconfigured`: our credentials or settings are wrong; a person has to act.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class ShipmentStatus(StrEnum):
    """Where a shipment stands at the carrier."""

    CREATED = "created"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class CarrierShipment:
    """The carrier's view of a shipment. `tracking_number` is empty where staff enter it later."""

    reference: str
    tracking_number: str
    status: ShipmentStatus


class Carrier(Protocol):
    """A carrier. Every write takes an idempotency key: the same key and body give the first answer.

    `remote`: its calls leave this process (so they run as normal activities, never inside a transaction).
    """

    name: str
    remote: bool

    def create_shipment(self, idempotency_key: str, merchant_reference: str) -> CarrierShipment:
        """Order the carriage of a merchant reference (the order number)."""

    def find(self, idempotency_key: str) -> CarrierShipment | None:
        """The shipment that `create_shipment` made with this key, or None if that call never took effect.

        Raises `CarrierUnavailable` while that call is still in flight at the carrier, so None is final.
        """

    def cancel(self, reference: str, idempotency_key: str) -> CarrierShipment:
        """Call a shipment off. Refused when it was cancelled before with another key, or is on its way."""

    def track(self, reference: str) -> CarrierShipment:
        """The shipment as the carrier sees it now. `CarrierRefused` (code `not_found`) if it knows none."""


class CarrierError(Exception):
    """A carrier did not do what was asked. `code` is the carrier's or ours, the message is for people."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class CarrierUnavailable(CarrierError):
    """No answer, or not now: the outcome is unknown. `retry_after` in seconds, where the carrier named it."""

    def __init__(self, message: str, code: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, code)
        self.retry_after = retry_after


class CarrierRefused(CarrierError):
    """The carrier refused for good; asking again changes nothing."""


class CarrierMisconfigured(CarrierError):
    """The carrier is not set up, or does not accept our credentials or settings."""
