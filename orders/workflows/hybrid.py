"""Orders that were taken in bulk, and have no workflow while they wait: looked after together, once an hour."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ChildWorkflowError, WorkflowAlreadyStartedError, is_cancelled_exception
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from orders.workflows import policies
    from orders.workflows.fulfillment import OrderFulfillmentWorkflow, fulfillment_id
    from orders.workflows.saga import in_words
    from orders.workflows.types import BulkPage, OverdueOrders, PaidOrders, SagaInput
    from payments.workflows import types as checks
    from payments.workflows.batch import BatchPaymentCheckWorkflow
    from shop.kernel.search_attributes import ORDER_NUMBER, SAGA_STAGE

# What the ids of its batch checks begin with.
CHECK_ID = "payment-batch-hybrid-"
# A page is a hundred children at most, each some five events: so the history stays short.
PAGES_PER_RUN = 2
PAGE = timedelta(seconds=30)
# A hundred questions one after the other, where a provider takes no more at once.
SLOW_PAGE = timedelta(minutes=5)
PATIENT = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5))


class Stage(StrEnum):
    """What a run that goes on for another begins with."""

    CHECK = "check"
    OVERDUE = "overdue"
    PAID = "paid"


@dataclass(frozen=True)
class HybridResult:
    """How bulk orders stand: what one run of the check found and did.

    `paid`: their money is complete and nobody had begun to fulfil them; `fulfillment_started` is how many this
    run began with. `pending`: they go on waiting for money. `given_up`: their deadline has passed, and they are
    rolled back; `unanswered` of those could not be asked about. `check_failed`: why there was no batch check.
    """

    paid: int = 0
    pending: int = 0
    fulfillment_started: int = 0
    given_up: int = 0
    unanswered: int = 0
    check_failed: str = ""


@dataclass(frozen=True)
class HybridInput:
    """`gateways`: their names; all if there is none. The rest is carried from run to run."""

    gateways: list[str] = field(default_factory=list)
    stage: Stage = Stage.CHECK
    after: int = 0
    so_far: HybridResult = HybridResult()


@workflow.defn
class HybridPaymentCheckWorkflow:
    """The batch check, and then what follows from it for bulk orders. What it promises:

    1. Each paid order gets one fulfillment, of its own id, that goes on whatever becomes of this run. One that
       runs already is left alone. An order that is missed is found by the next run.
    2. No order is given up before its provider was asked a last time; one that could not be asked about is
       left to the next run.
    3. The cost does not grow with the orders that wait, and the history holds no more than two pages of them.
    """

    @workflow.init
    def __init__(self, check: HybridInput) -> None:
        self._check = check
        self._result = check.so_far
        self._pages = 0

    @workflow.run
    async def run(self, check: HybridInput) -> HybridResult:
        """What all runs together found and did."""
        if check.stage == Stage.CHECK:
            await self._check_payments()
        if check.stage != Stage.PAID:
            await self._give_up_overdue(check.after)
        await self._fulfil_paid(check.after if check.stage == Stage.PAID else 0)
        return replace(self._result, pending=await self._ask("count_pending_bulk_orders", [], int))

    async def _check_payments(self) -> None:
        try:
            await workflow.execute_child_workflow(
                BatchPaymentCheckWorkflow.run,
                checks.BatchCheckInput(self._check.gateways),
                id=f"{CHECK_ID}{workflow.uuid4()}",
                task_queue=checks.TASK_QUEUE,
            )
        except ChildWorkflowError as error:
            if is_cancelled_exception(error):
                raise
            # What is in the books already, from webhooks and bank statements, is reason enough to go on.
            self._result = replace(self._result, check_failed=in_words(error.cause or error))

    async def _give_up_overdue(self, after: int) -> None:
        while True:
            page: OverdueOrders = await self._ask(
                "give_up_overdue_bulk_orders", [BulkPage(after)], OverdueOrders, SLOW_PAGE
            )
            self._result = replace(
                self._result,
                given_up=self._result.given_up + page.given_up,
                unanswered=self._result.unanswered + page.unanswered,
            )
            if not page.after:
                return
            after = page.after
            self._go_on_as_new_when_long(Stage.OVERDUE, after)

    async def _fulfil_paid(self, after: int) -> None:
        while True:
            page: PaidOrders = await self._ask("get_paid_bulk_orders", [BulkPage(after)], PaidOrders)
            started = await asyncio.gather(*(self._start(order) for order in page.orders))
            self._result = replace(
                self._result,
                paid=self._result.paid + len(page.orders),
                fulfillment_started=self._result.fulfillment_started + sum(started),
            )
            if not page.after:
                return
            after = page.after
            self._go_on_as_new_when_long(Stage.PAID, after)

    async def _start(self, order: SagaInput) -> bool:
        """Whether it was started here, and was not under way already."""
        number = order.order_number
        try:
            await workflow.start_child_workflow(
                OrderFulfillmentWorkflow.run,
                order,
                id=fulfillment_id(number),
                parent_close_policy=ParentClosePolicy.ABANDON,
                execution_timeout=policies.execution_timeout(timedelta(seconds=order.payment_window_s)),
                search_attributes=TypedSearchAttributes(
                    [SearchAttributePair(ORDER_NUMBER, number), SearchAttributePair(SAGA_STAGE, "running")]
                ),
                static_summary=f"{number}, attempt {order.attempt}",
            )
        except WorkflowAlreadyStartedError:
            return False
        return True

    def _go_on_as_new_when_long(self, stage: Stage, after: int) -> None:
        # Each child that was asked for has been seen to start: the engine drops one that has not.
        self._pages += 1
        if self._pages >= PAGES_PER_RUN:
            workflow.continue_as_new(replace(self._check, stage=stage, after=after, so_far=self._result))

    async def _ask(
        self, activity: str, arguments: list[Any], result_type: Any, timeout: timedelta = PAGE
    ) -> Any:
        return await workflow.execute_activity(
            activity,
            args=arguments,
            result_type=result_type,
            start_to_close_timeout=timeout,
            retry_policy=PATIENT,
        )
