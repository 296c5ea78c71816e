"""The practice provider without its list of changes, so that waiting orders have to be asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from payments.gateways.base import RemotePayment, one_by_one
from payments.gateways.sandbox import SandboxGateway


class Feedless(SandboxGateway):
    """It can be asked for a hundred payments at once."""

    capabilities = replace(SandboxGateway.capabilities, change_feed=False)


class OneAtATime(SandboxGateway):
    """It can be asked for one payment at a time only."""

    capabilities = replace(SandboxGateway.capabilities, change_feed=False, batch_status=False)

    def statuses(self, payment_references: Sequence[str]) -> Mapping[str, RemotePayment | None]:
        return one_by_one(self, payment_references)
