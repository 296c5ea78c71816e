"""The practice shop whose orders come in bulk: a file that is imported, and the hybrid check on the test's engine."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from django.core.management import call_command

from orders.models import Order
from orders.services.intake import take
from orders.workflows.hybrid import HybridInput
from tests import factories
from tests.orders.engine import Engine
from tests.orders.practice_shop import PracticeShop

_numbers = itertools.count(1)


def line(key: str = "", **changes: Any) -> dict[str, Any]:
    """A line of a file: two pieces of TEA for Ada."""
    home = {"street": "Am Wall 1", "postal_code": "28195", "city": "Bremen", "country": "DE"}
    return {
        "idempotency_key": key or f"old-shop-{next(_numbers)}",
        "customer": {"name": "Ada Lovelace", "email": "ada@example.com"},
        "shipping_address": {"name": "Ada Lovelace", **home},
        "currency": "EUR",
        "payment_method": "sandbox",
        "lines": [{"sku": "TEA", "quantity": 2}],
        **changes,
    }


def taken(*lines: tuple[str, int], **changes: Any) -> Order:
    """One order of TEA in bulk, not from a file."""
    key = f"old-shop-{next(_numbers)}"
    take(
        factories.draft(*lines, **{"carrier": "practice", **changes}),
        "test",
        idempotency_key=key,
        body_digest=key,
    )
    return Order.objects.get(api_idempotency_key=key)


def start_check(engine: Engine) -> str:
    """Start the hybrid check; the id of its workflow."""
    workflow_id = f"bulk-fulfillment-{next(_numbers)}"
    engine.wait(
        engine.client.start_workflow(
            "HybridPaymentCheckWorkflow", HybridInput(), id=workflow_id, task_queue="orders"
        )
    )
    return workflow_id


class BulkShop(PracticeShop):
    """Files of orders, and checks."""

    folder: Path

    def import_lines(self, *lines: dict[str, Any] | str) -> None:
        """Import a file of these lines. Raises `SystemExit` if one could not be taken."""
        path = self.folder / "orders.jsonl"
        texts = (entry if isinstance(entry, str) else json.dumps(entry) for entry in lines)
        path.write_text("\n".join(texts) + "\n")
        call_command("import_orders", str(path))

    def imported(self, **changes: Any) -> Order:
        """One order in bulk, that waits for its money."""
        self.import_lines(line(**changes))
        return Order.objects.latest("id")

    def start_check(self) -> str:
        return start_check(self.engine)

    def check(self, *, skip: bool = False) -> dict[str, Any]:
        """What a hybrid check finds and does, without the zeros; then the outbox is emptied."""
        result: dict[str, Any] = self.engine.result(self.start_check(), skip=skip)
        self.engine.deliver()
        return {name: value for name, value in result.items() if value}
