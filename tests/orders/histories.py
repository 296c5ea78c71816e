"""The stories whose histories are recorded, one for each way in which a workflow ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from orders.models import DeadLetter
from orders.services import dead_letters
from tests.orders.bulk_shop import start_check, taken
from tests.orders.practice_shop import PracticeShop

HISTORIES = Path(__file__).parents[1] / "histories"
INTO = "HISTORIES_INTO"


def completed(shop: PracticeShop) -> str:
    return shop.paid().workflow_id


def timed_out(shop: PracticeShop) -> str:
    return shop.waiting().workflow_id


def renewed(shop: PracticeShop) -> str:
    shop.provider.faults(authorize={"hold_s": 7 * 24 * 3600})
    return shop.waiting().workflow_id


def lapsed(shop: PracticeShop) -> str:
    shop.provider.faults(authorize={"hold_s": 7 * 24 * 3600}, renew={"refuse_rate": 1})
    return shop.waiting().workflow_id


def staff_cancelled(shop: PracticeShop) -> str:
    order = shop.waiting()
    shop.cancel(order)
    return order.workflow_id


def payment_failed(shop: PracticeShop) -> str:
    order = shop.waiting()
    shop.decline(order)
    shop.hear(order)
    return order.workflow_id


def raw_cancelled(shop: PracticeShop) -> str:
    """In the middle of the capture, and again in the middle of the rollback."""
    order = shop.waiting()
    shop.provider.faults(capture={"latency_ms": 8000}, refund={"error_rate": 1})
    shop.pay(order)
    shop.hear(order)
    shop.until_in_flight(order, "payment_captured")
    shop.raw_cancel(order)
    shop.provider.faults(refund={"error_rate": 1})
    shop.until_failed(order, "payment_captured", "compensation")
    shop.raw_cancel(order)
    shop.engine.progress(order)
    shop.provider.faults()
    return order.workflow_id


def compensation_failed(shop: PracticeShop) -> str:
    shop.provider.faults(create_shipment={"refuse_rate": 1}, refund={"refuse_rate": 1})
    return shop.paid().workflow_id


def rolled_back_only(shop: PracticeShop) -> str:
    order = shop.waiting()
    shop.engine.wait(shop.engine.handle(order.workflow_id).terminate("by hand"))
    shop.cancel(order)
    return order.workflow_id


def dead_letter_retried(shop: PracticeShop) -> str:
    order_workflow = compensation_failed(shop)
    shop.engine.result(order_workflow)
    shop.provider.faults()
    letter = DeadLetter.objects.get()
    dead_letters.retry(letter.pk, "grace", "Repaired", key="k")
    shop.engine.deliver()
    return f"dead-letter-{letter.pk}"


def fulfilled(shop: PracticeShop) -> str:
    order = taken()
    shop.pay(order)
    shop.engine.result(start_check(shop.engine), skip=False)
    return order.workflow_id


def fulfillment_undone(shop: PracticeShop) -> str:
    shop.provider.faults(create_shipment={"refuse_rate": 1})
    return fulfilled(shop)


def hybrid_check(shop: PracticeShop) -> str:
    late, order = taken(), taken()
    shop.pay(order)
    late.sagas.update(deadline=timezone.now())
    return start_check(shop.engine)


# Each brings an order to where nothing but the engine has to act, and gives the id of the workflow to record.
STORIES: dict[str, Callable[[PracticeShop], str]] = {
    story.__name__: story
    for story in (
        completed,
        timed_out,
        renewed,
        lapsed,
        staff_cancelled,
        payment_failed,
        raw_cancelled,
        compensation_failed,
        rolled_back_only,
        dead_letter_retried,
        fulfilled,
        fulfillment_undone,
        hybrid_check,
    )
}


@pytest.mark.parametrize("name", STORIES)
def test_recording(shop: PracticeShop, name: str) -> None:
    workflow_id = STORIES[name](shop)
    shop.engine.result(workflow_id)
    history = json.loads(shop.engine.history(workflow_id).to_json())
    into = Path(os.environ.get(INTO, HISTORIES))
    into.mkdir(parents=True, exist_ok=True)
    (into / f"{name}.json").write_text(json.dumps(_anonymous(history), indent=1, sort_keys=True) + "\n")


def _anonymous(recorded: Any) -> Any:
    """Without the names of the machine that recorded it."""
    if isinstance(recorded, dict):
        return {key: _anonymous(value) for key, value in recorded.items() if key != "identity"}
    return [_anonymous(value) for value in recorded] if isinstance(recorded, list) else recorded
