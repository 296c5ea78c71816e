"""What happens to the shop of one test, and how its books look afterwards. No test asks who called whom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from email.message import Message
from typing import TYPE_CHECKING, Any

from django.db import connection

from orders.models import Mail, OpsAlert, Order, Product, Reservation, Saga, SagaStep
from orders.services import lifecycle
from orders.workflows.types import Step
from payments.gateways import gateway
from payments.services.recording import record
from shop.kernel.listening import own_connection
from shop.kernel.money import Money
from tests import factories
from tests.orders.engine import Engine
from tests.payments.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from tests.orders.conftest import PickyMailbox

CUSTOMER = "ada@example.com"
OPS = "ops@example.com"
ON_HAND = 5
QUANTITY = 2

# The provider's name of the call that a step makes.
OPERATION = {
    Step.PAYMENT_HOLD: "authorize",
    Step.PAYMENT_CAPTURED: "capture",
    Step.SHIPPING: "create_shipment",
}


class PracticeShop:
    """One shop on one engine, with the practice provider and a mail server."""

    def __init__(self, engine: Engine, provider: SandboxProcess, mailbox: PickyMailbox) -> None:
        self.engine = engine
        self.provider = provider
        self.mailbox = mailbox

    # --- what people do ----------------------------------------------------------------------------------

    def place(self, quantity: int = QUANTITY, **changes: Any) -> Order:
        """An order of TEA, shipped by the practice carrier; its start is queued."""
        return factories.place(("TEA", quantity), **{"carrier": "practice", **changes})

    def waiting(self, **changes: Any) -> Order:
        """An order whose saga waits for the money; its customer has the payment instructions."""
        order = self.place(**changes)
        self.engine.deliver()
        self.until_waiting(order)
        return order

    def paid(self, **changes: Any) -> Order:
        """An order whose saga has been told that all its money is there."""
        order = self.waiting(**changes)
        self.pay(order)
        self.hear(order)
        return order

    def completed(self, **changes: Any) -> Order:
        order = self.paid(**changes)
        assert self.end(order)["status"] == "completed"
        return order

    def pay(self, order: Order, amount: int | None = None) -> None:
        """The customer pays at the provider. No webhook comes; `hear` is the webhook."""
        body = {} if amount is None else {"amount": amount}
        self._customer(order, "pay", body)

    def decline(self, order: Order) -> None:
        self._customer(order, "decline", {})

    def _customer(self, order: Order, verb: str, body: dict[str, int]) -> None:
        payment = self.saga(order).payment
        assert payment is not None
        with self.provider.client() as client:
            client.post(f"/customer/{payment.reference}/{verb}", json=body).raise_for_status()

    def hear(self, order: Order) -> None:
        """The provider's news of the order's payment come in, and their messages reach the engine."""
        payment = self.saga(order).payment
        assert payment is not None
        record(payment, gateway("sandbox").status(payment.reference).events, "webhook")
        self.engine.deliver()

    def confirm(self, order: Order, amount: int | None = None, bank_reference: str = "B1") -> None:
        """Staff have seen the money arrive."""
        lifecycle.confirm_payment(
            order.number,
            "grace",
            "Seen on the statement",
            amount=Money(order.total if amount is None else amount, order.currency),
            received_on=date(2026, 1, 1),
            bank_reference=bank_reference,
        )
        self.engine.deliver()

    def cancel(self, order: Order, reason: str = "Ordered twice") -> None:
        """Staff cancel."""
        lifecycle.cancel(order.number, "grace", reason)
        self.engine.deliver()

    def raw_cancel(self, order: Order) -> None:
        """Somebody cancels the workflow in Temporal, past the shop."""
        self.engine.wait(self.engine.handle(order.workflow_id).cancel())

    def end(self, order: Order, *, skip: bool = True) -> dict[str, Any]:
        """The saga's result, with or without skipping the time until then."""
        result: dict[str, Any] = self.engine.result(order.workflow_id, skip=skip)
        return result

    # --- holding things up -------------------------------------------------------------------------------

    def until_status(self, order: Order, status: str) -> None:
        self.engine.until(lambda: self.saga(order).status == status)

    def until_waiting(self, order: Order) -> None:
        instructions = Mail.objects.filter(saga__order=order, kind="received", state="sent")
        self.engine.until(lambda: instructions.filter(saga=self.saga(order), saga__status="waiting").exists())

    def until_failed(self, order: Order, step: str, kind: str = "action") -> None:
        """Until an attempt at the step has failed, so the engine is between two attempts."""
        failed = SagaStep.objects.filter(saga__order=order, step=step, kind=kind, outcome="failed")
        self.engine.until(failed.exists)

    def until_in_flight(self, order: Order, step: str, attempt: int = 1) -> None:
        """Until the step's call has arrived at the provider, which holds it."""
        path = "/shipments" if step == Step.SHIPPING else "/payments"
        self.engine.until(lambda: self.in_flight(path, f"{order.number}/{attempt}/{step}"))

    def in_flight(self, path: str, key: str) -> bool:
        with self.provider.client() as client:
            return client.get(path, params={"idempotency_key": key}).status_code == 409

    @contextmanager
    def shelf_locked(self) -> Iterator[None]:
        """Someone else holds the products' rows, so that a step on the stock has to wait."""
        with own_connection() as other:
            other.execute("SELECT 1 FROM orders_product FOR UPDATE")
            yield
            other.rollback()

    def until_stuck_at_shelf(self) -> None:
        def someone_waits() -> bool:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
                return cursor.fetchone() is not None

        self.engine.until(someone_waits)

    # --- how the books look ------------------------------------------------------------------------------

    def saga(self, order: Order, attempt: int = 0) -> Saga:
        """One attempt's saga; the latest unless told."""
        found = Saga.objects.filter(order=order, **({"attempt": attempt} if attempt else {}))
        return found.select_related("order", "payment").order_by("-attempt")[0]

    def status(self, order: Order) -> str:
        return Order.objects.get(pk=order.pk).status

    def shelf(self) -> tuple[int, int]:
        """Pieces on hand, and reserved ones among them."""
        product = Product.objects.get(sku="TEA")
        return product.on_hand, product.reserved

    def held(self, order: Order) -> list[str]:
        """The states of the order's reservations, oldest first."""
        found = Reservation.objects.filter(saga__order=order).order_by("id")
        return list(found.values_list("state", flat=True))

    def trail(self, order: Order, attempt: int = 0) -> list[str]:
        """The audit rows, such as `inventory action succeeded`, in the order of their writing."""
        return [f"{row.step} {row.kind} {row.outcome}" for row in self.saga(order, attempt).steps.all()]

    def done(self, order: Order, attempt: int = 0) -> list[str]:
        """The trail without failed attempts."""
        return [row for row in self.trail(order, attempt) if not row.endswith("failed")]

    def payments(self, order: Order) -> list[dict[str, Any]]:
        """The order's payments in the provider's books."""
        with self.provider.client() as client:
            answer = client.get("/payments", params={"merchant_reference": order.number})
        found: list[dict[str, Any]] = answer.raise_for_status().json()["payments"]
        return found

    def moved(self, order: Order) -> list[str]:
        """What happened to the order's money at the provider, such as `capture 3998`."""
        return [f"{e['type']} {e['amount']}" for p in self.payments(order) for e in p["events"]]

    def parcels(self, order: Order) -> list[str]:
        """The states of the order's parcels at the carrier."""
        with self.provider.client() as client:
            answer = client.get("/shipments", params={"merchant_reference": order.number})
        return [parcel["status"] for parcel in answer.raise_for_status().json()["shipments"]]

    def mails(self, to: str = CUSTOMER) -> list[Message]:
        return [message for message in self.mailbox.messages if message["To"] == to]

    def alerts(self) -> list[Message]:
        """What ops are mailed, once all alerts that were raised have been told and followed up."""
        self.engine.deliver()
        for pk in OpsAlert.objects.values_list("pk", flat=True):
            self.engine.result(f"ops-alert-{pk}")
        return self.mails(OPS)

    def mail_kinds(self, to: str = CUSTOMER) -> list[str]:
        """The kinds of the customer's mails in the order of their arrival, from their Message-IDs."""
        return [str(message["Message-ID"]).split("@")[0].split(".")[-1] for message in self.mails(to)]

    # --- what must hold ----------------------------------------------------------------------------------

    def assert_completed(self, order: Order, result: dict[str, Any]) -> None:
        """Captured once, shipped once, stock consumed, mailed; and the result says so."""
        saga = self.saga(order)
        assert saga.payment is not None
        assert result == {
            "status": "completed",
            "order_id": order.number,
            "payment_id": saga.payment.reference,
            "shipment_id": saga.shipment.reference,
            "reason": "",
            "compensated_steps": [],
        }
        assert (self.status(order), saga.status, saga.result) == ("completed", "completed", result)
        assert self.shelf() == (ON_HAND - QUANTITY, 0)
        assert self.held(order)[-1] == "consumed"
        last = self.payments(order)[-1]
        assert (last["status"], last["captured"], last["refunded"]) == ("captured", order.total, 0)
        assert self.parcels(order).count("created") == 1
        assert self.done(order) == [f"{step} action succeeded" for step in Step]
        assert "confirmed" in self.mail_kinds()

    def assert_rolled_back(
        self, order: Order, result: dict[str, Any], *, undone: list[str], reason: str | None = None
    ) -> None:
        """Nothing of the attempt is left anywhere; `undone` is what was really there, newest first."""
        saga = self.saga(order)
        assert result["status"] == "cancelled"
        assert result["order_id"] == order.number
        assert result["compensated_steps"] == undone
        if reason is not None:
            assert (result["reason"], saga.reason) == (reason, reason)
        assert (self.status(order), saga.status, saga.result) == ("cancelled", "cancelled", result)
        assert saga.ended_at is not None
        self.assert_nothing_left(order)
        rows = list(saga.steps.filter(kind="compensation").exclude(outcome="failed"))
        assert [row.step for row in rows if row.outcome == "succeeded"] == undone
        assert [row.step for row in rows] == _newest_first(row.step for row in rows)
        assert {row.rollback_run for row in saga.steps.filter(kind="compensation")} <= {saga.rollback_run}
        registered = set(saga.steps.filter(kind="action").values_list("step", flat=True)) - {"confirmation"}
        assert registered <= {row.step for row in rows}
        assert self.mail_kinds().count("cancelled") == saga.attempt

    def assert_nothing_left(self, order: Order) -> None:
        """The stock is back, and no money is held, at the provider or with us; refund or void, never both."""
        assert self.shelf() == (ON_HAND, 0)
        assert set(self.held(order)) <= {"released"}
        for payment in self.payments(order):
            assert payment["status"] in ("voided", "refunded", "declined")
            assert payment["captured"] == payment["refunded"]
            assert not (payment["voided"] and payment["refunded"])
            happened = [event["type"] for event in payment["events"]]
            assert all(happened.count(kind) <= 1 for kind in ("capture", "void", "refund"))
        assert set(self.parcels(order)) <= {"cancelled"}
        for saga in order.sagas.select_related("payment"):
            if saga.payment is not None:
                assert saga.payment.totals().refundable == 0


def _newest_first(steps: Iterator[str]) -> list[str]:
    order = [step.value for step in Step]
    return sorted(steps, key=order.index, reverse=True)
