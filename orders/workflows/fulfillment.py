"""The second half of a saga, for a bulk order that is paid: capture, ship, confirm; or undo it all."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from orders.workflows import policies
    from orders.workflows.saga import INVENTORY, PAYMENT_HOLD, OrderSagaWorkflow, execute
    from orders.workflows.types import FulfillmentStart, SagaInput, SagaResult


def fulfillment_id(order_number: str) -> str:
    """The id of the workflow that fulfils this order; there is never more than one under way."""
    return f"fulfillment-{order_number}"


@workflow.defn
class OrderFulfillmentWorkflow(OrderSagaWorkflow):
    """Brings a paid bulk order to its end. It promises what the saga does, and:

    1. The order is taken on in one transaction that looks once more: it is paid in full, waits, was taken in
       bulk, and nobody wants to cancel it. If not, nothing is begun, and the result is `refused` and says why.
    2. What was done when the order was taken (stock reserved, payment opened) is undone with the rest.
    """

    @workflow.init
    def __init__(self, order: SagaInput) -> None:
        super().__init__(order)
        self._undos = [INVENTORY, PAYMENT_HOLD]

    @workflow.run
    async def run(self, order: SagaInput) -> SagaResult:
        return await super().run(order)

    async def _fulfil(self) -> SagaResult | None:
        self._enter("taking the order on", "running")
        start = FulfillmentStart(self._order.order_number, self._order.attempt)
        not_begun: SagaResult | None = await execute(
            "begin_fulfillment", start, SagaResult | None, local=True, policy=policies.PATIENT
        )
        if not_begun is not None:
            self._enter(not_begun.status, not_begun.status)
            return not_begun
        await self._complete()
        return None
