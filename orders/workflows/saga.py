"""The saga of an order: reserve, authorize, wait for the money, capture, ship, confirm; or undo it all."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, FailureError
from temporalio.workflow import ActivityCancellationType

with workflow.unsafe.imports_passed_through():
    from orders.workflows import policies
    from orders.workflows.types import (
        LAPSED,
        NO_PAYMENT,
        UNPAID,
        Alert,
        AuthorizationLasts,
        CancelOrder,
        ConfirmPayment,
        ExtendDeadline,
        FailedUndo,
        HoldResult,
        Lapse,
        MailInput,
        PaymentFailed,
        Progress,
        RollbackStart,
        SagaEnd,
        SagaInput,
        SagaResult,
        Status,
        Step,
        StepInput,
        StepResult,
    )
    from shop.kernel.search_attributes import SAGA_STAGE

T = TypeVar("T")

# A cancel raises `CancelledError`, which `except Exception` misses. A bare `BaseException` would also catch
# what cache eviction raises, and act on it.
EXITS = (asyncio.CancelledError, asyncio.TimeoutError, FailureError)


@dataclass(frozen=True)
class Work:
    """A step: its activity, the activity that undoes it, and how hard the step is tried."""

    step: Step
    action: str
    undo: str
    policy: RetryPolicy


INVENTORY = Work(Step.INVENTORY, "reserve_inventory", "release_inventory", policies.PATIENT)
PAYMENT_HOLD = Work(Step.PAYMENT_HOLD, "create_payment_hold", "release_payment_hold", policies.BRIEF)
PAYMENT_CAPTURED = Work(Step.PAYMENT_CAPTURED, "capture_payment", "refund_payment", policies.HARD)
SHIPPING = Work(Step.SHIPPING, "schedule_shipping", "cancel_shipping", policies.HARD)
UNDOABLE = (INVENTORY, PAYMENT_HOLD, PAYMENT_CAPTURED, SHIPPING)


@workflow.defn
class OrderSagaWorkflow:
    """Carries one attempt at an order to its end. What it promises:

    1. An undo is registered before its step runs, and works by idempotency key: a step whose answer was lost
       is undone too; one that never happened is a recorded no-op.
    2. Whatever ends the forward way (failure, timeout, staff's `cancel_order`, a raw cancel), every registered
       undo runs, newest first, and nothing stops it: not a failed undo, not a second cancel.
    3. An undo that fails for good becomes a dead letter, and the saga ends `compensation_failed`.
    4. Money counts until the last moment: at the deadline the provider is asked once more.
    5. An authorization that would lapse before the deadline is renewed in time; where that cannot be, people
       are told while they can still decide, and the wait ends with the authorization.
    6. The confirmation mail is no reason to call back a paid parcel: if it fails for good, ops are told and
       the saga completes.
    """

    @workflow.init
    def __init__(self, order: SagaInput) -> None:
        self._order = order
        self._undos: list[Work] = []
        self._undone: list[str] = []
        self._mails: list[asyncio.Task[None]] = []
        self._cancel: CancelOrder | None = None
        self._confirmed = False
        self._failed: PaymentFailed | None = None
        self._deadline: datetime | None = None
        self._lapses: datetime | None = None
        self._renew_at: datetime | None = None  # None: nothing can be done about its lapse any more
        self._warned_of: datetime | None = None
        self._reminded = False
        self._payment_id = order.payment_id
        self._shipment_id = order.shipment_id
        self._stage = "starting"

    @workflow.run
    async def run(self, order: SagaInput) -> SagaResult:
        """The order's result, also after a raw cancel."""
        if order.roll_back_only:
            self._undos = list(UNDOABLE)
            return await self._finish_rollback(order.roll_back_only, actor="reconciler")
        forward = asyncio.create_task(self._fulfil())
        try:
            await workflow.wait_condition(lambda: forward.done() or self._cancel is not None)
        except asyncio.CancelledError:
            self._cancel = self._cancel or CancelOrder("", order.attempt, "Cancelled in Temporal", "Temporal")
        if not forward.done():
            forward.cancel()
        try:
            not_begun = await until_done(forward)
        except EXITS as error:
            if self._cancel is not None:
                return await self._finish_rollback(self._cancel.reason, self._cancel.actor)
            return await self._finish_rollback(in_words(error), actor="saga")
        if not_begun is not None:
            return not_begun
        return await until_done(asyncio.create_task(self._finish(self._result(Status.COMPLETED))))

    # --- the forward way ---------------------------------------------------------------------------------

    async def _fulfil(self) -> SagaResult | None:
        """The way to a completed order; a result only where there is nothing to do."""
        await self._open()
        await self._wait_for_money()
        await self._complete()
        return None

    async def _open(self) -> None:
        await self._do(INVENTORY, local=True)
        window = timedelta(seconds=self._order.payment_window_s)
        hold: HoldResult = await self._do(
            PAYMENT_HOLD,
            HoldResult,
            local=not self._order.gateway_remote,
            deadline=workflow.now() + window,
        )
        self._payment_id = hold.reference
        deadline = datetime.fromisoformat(hold.deadline)
        self._deadline = max(deadline, self._deadline or deadline)  # an extension may have overtaken us
        if hold.authorized_until:
            self._lasts_until(datetime.fromisoformat(hold.authorized_until))
        self._mail("received")

    async def _complete(self) -> None:
        await self._do(PAYMENT_CAPTURED, local=not self._order.gateway_remote)
        shipment: StepResult = await self._do(SHIPPING, local=not self._order.carrier_remote)
        self._shipment_id = shipment.reference
        await self._confirm()

    async def _do(
        self, work: Work, result_type: type = StepResult, *, local: bool, deadline: datetime | None = None
    ) -> Any:
        self._leave_if_cancelled()
        self._undos.append(work)
        self._enter(work.step)
        argument = StepInput(
            self._order.order_number,
            self._order.attempt,
            work.step,
            deadline=deadline.isoformat() if deadline else "",
        )
        result = await execute(
            work.action, argument, result_type, local=local, policy=work.policy, summary=f"{work.step}"
        )
        # An activity that was asked to stop and finished all the same returns as if nothing had been asked.
        self._leave_if_cancelled()
        return result

    async def _wait_for_money(self) -> None:
        self._enter("waiting for payment", "waiting")
        since, remind_before = workflow.now(), timedelta(seconds=self._order.reminder_before_s)
        while not (self._confirmed or self._failed):
            self._leave_if_cancelled()  # what is awaited below may have swallowed a cancel
            now, ends = workflow.now(), self._wait_ends()
            # An authorization may end long before the deadline, for which the reminder's time was chosen.
            remind_at = ends - min(remind_before, (ends - since) / 4)
            renew_at = self._renew_at if self._lapses_early() else None
            if now >= ends:
                await self._check_a_last_time()
            elif renew_at and now >= renew_at:
                await self._renew()
            elif now >= remind_at and not self._reminded:
                self._reminded = True
                self._mail("reminder")
            else:
                moments = {"payment deadline": ends}
                if not self._reminded:
                    moments["payment reminder"] = remind_at
                if renew_at:
                    moments["renewal of the authorization"] = renew_at
                await self._sleep_until(*min(moments.items(), key=lambda moment: moment[1]))
        if self._failed and not self._confirmed:
            raise ApplicationError(self._failed.detail, type="PaymentFailed")
        self._enter("payment confirmed", "running")

    async def _sleep_until(self, what: str, moment: datetime) -> None:
        """Until then, or until something has come that changes the wait."""
        seen = (self._deadline, self._lapses)

        def something_came() -> bool:
            return self._confirmed or self._failed is not None or (self._deadline, self._lapses) != seen

        with contextlib.suppress(asyncio.TimeoutError):  # the loop looks at the clock
            await workflow.wait_condition(
                something_came, timeout=moment - workflow.now(), timeout_summary=what
            )

    def _wait_ends(self) -> datetime:
        assert self._deadline is not None
        return min(self._deadline, self._lapses or self._deadline)

    def _lapses_early(self) -> bool:
        """Whether the authorization ends before the deadline."""
        return self._lapses is not None and self._deadline is not None and self._lapses < self._deadline

    def _lasts_until(self, moment: datetime) -> None:
        """The authorization lasts until then; it is renewed a day before, or in its last quarter if shorter."""
        if self._lapses is None or moment > self._lapses:
            self._lapses = moment
            self._renew_at = moment - min(policies.RENEW_BEFORE, (moment - workflow.now()) / 4)

    async def _renew(self) -> None:
        """Have the authorization last longer; if it cannot, tell people, and try again if that has a chance."""
        lapses = self._lapses
        assert lapses is not None
        self._renew_at = None
        argument = StepInput(
            self._order.order_number, self._order.attempt, Step.PAYMENT_HOLD, deadline=lapses.isoformat()
        )
        try:
            until = await execute(
                "renew_authorization",
                argument,
                str,
                local=not self._order.gateway_remote,
                policy=policies.HARD,
                summary="renewal of the authorization",
            )
        except ActivityError as error:
            self._leave_if_cancelled()
            left = lapses - workflow.now()
            if may_succeed_later(error) and left > policies.LAST_RENEWAL_BEFORE:
                self._renew_at = workflow.now() + left / 2
            await self._warn(lapses, in_words(error))
        else:
            self._lasts_until(datetime.fromisoformat(until))

    async def _warn(self, lapses: datetime, why: str) -> None:
        """Tell people, once of each lapse: in the order's timeline, and by mail."""
        if self._warned_of == lapses or self._confirmed:
            return
        self._warned_of = lapses
        lapse = Lapse(self._order.order_number, self._order.attempt, lapses.isoformat(), why)
        await execute("note_lapse", lapse, type(None), local=True, policy=policies.PATIENT)
        text = (
            f"It could not be renewed: {why}\n\nIf the money has not come by then, the order is rolled back. "
            "Until then you can confirm the payment, if you know that the money is there, or cancel the order. "
            "The deadline cannot be moved beyond that."
        )
        alert = self._alert(
            f"lapse/{lapses:%Y%m%dT%H%M%S}", f"The authorization ends on {lapses:%Y-%m-%d %H:%M} UTC", text
        )
        self._mails.append(asyncio.create_task(alert))  # beside the saga, which waits on

    async def _check_a_last_time(self) -> None:
        asked_for, lapsed = self._wait_ends(), self._lapses_early()
        state = await execute(
            "check_payment_status",
            StepInput(self._order.order_number, self._order.attempt, Step.PAYMENT_HOLD),
            str,
            local=not self._order.gateway_remote,
            policy=policies.HARD,
            summary="last check at the deadline",
        )
        if state == "paid":
            self._confirmed = True
        elif not self._confirmed and self._wait_ends() == asked_for:
            if lapsed:
                raise ApplicationError(
                    f"{LAPSED} {asked_for:%Y-%m-%d %H:%M} UTC {UNPAID}",
                    type="AuthorizationLapsed",
                )
            raise ApplicationError(NO_PAYMENT, type="PaymentTimeout")

    async def _confirm(self) -> None:
        self._leave_if_cancelled()
        self._enter(Step.CONFIRMATION)
        argument = StepInput(self._order.order_number, self._order.attempt, Step.CONFIRMATION)
        try:
            await execute(
                "send_confirmation_email", argument, StepResult, policy=policies.HARD, summary="confirmation"
            )
        except ActivityError as error:
            self._leave_if_cancelled()
            await self._alert("confirmation", "The confirmation mail could not be sent", in_words(error))
        self._leave_if_cancelled()

    # --- the way back ------------------------------------------------------------------------------------

    async def _finish_rollback(self, reason: str, actor: str) -> SagaResult:
        rollback = asyncio.create_task(self._roll_back(reason, actor))
        return await until_done(rollback)

    async def _roll_back(self, reason: str, actor: str) -> SagaResult:
        self._enter("rolling back", "compensating")
        run_id = str(workflow.uuid4())
        start = RollbackStart(self._order.order_number, self._order.attempt, run_id, reason, actor)
        finished: SagaResult | None = await execute(
            "begin_rollback", start, SagaResult | None, local=True, policy=policies.PATIENT
        )
        if finished is not None:
            return finished  # the books had closed a moment before; they decide
        failed = [work.step for work in reversed(self._undos) if not await self._undo(work, run_id)]
        if failed:
            what = ", ".join(failed)
            await self._alert(
                f"rollback/{run_id}", f"Rollback failed: {what}", f"Reason of the rollback: {reason}"
            )
        status = Status.COMPENSATION_FAILED if failed else Status.CANCELLED
        return await self._finish(self._result(status, reason))

    async def _undo(self, work: Work, run_id: str) -> bool:
        argument = StepInput(self._order.order_number, self._order.attempt, work.step, rollback_run=run_id)
        remote = {
            Step.INVENTORY: False,
            Step.SHIPPING: self._order.carrier_remote,
        }.get(work.step, self._order.gateway_remote)
        try:
            result: StepResult = await execute(
                work.undo,
                argument,
                StepResult,
                local=not remote,
                policy=policies.HARD,
                summary=f"undo {work.step}",
            )
        except FailureError as error:
            letter = FailedUndo(
                self._order.order_number,
                self._order.attempt,
                work.step,
                run_id,
                in_words(error),
                kind_of(error),
            )
            await execute("write_to_dlq", letter, int, local=True, policy=policies.PATIENT)
            return False
        if result.outcome == "succeeded":
            self._undone.append(work.step)
        return True

    # --- the end -----------------------------------------------------------------------------------------

    async def _finish(self, result: SagaResult) -> SagaResult:
        end = SagaEnd(self._order.order_number, self._order.attempt, result)
        mails = await execute("finish_saga", end, list[str], local=True, policy=policies.PATIENT)
        self._enter(result.status, result.status)
        for kind in mails:
            self._mail(kind)
        for mail in self._mails:
            await until_done(mail)
        return result

    # --- pieces ------------------------------------------------------------------------------------------

    def _result(self, status: Status, reason: str = "") -> SagaResult:
        return SagaResult(
            status=status,
            order_id=self._order.order_number,
            payment_id=self._payment_id,
            shipment_id=self._shipment_id,
            reason=reason,
            compensated_steps=list(self._undone),
        )

    def _leave_if_cancelled(self) -> None:
        if self._cancel is not None:
            raise ApplicationError(self._cancel.reason, type="Cancelled")

    def _mail(self, kind: str) -> None:
        """Send a mail beside the saga: its fate is on the mail's row, and never the saga's."""
        self._mails.append(asyncio.create_task(self._send(kind)))

    async def _send(self, kind: str) -> None:
        argument = MailInput(self._order.order_number, self._order.attempt, kind)
        try:
            await execute("send_order_email", argument, str, policy=policies.HARD, summary=f"mail: {kind}")
        except FailureError:
            workflow.logger.warning("The mail %s could not be sent", kind)

    async def _alert(self, key: str, subject: str, text: str) -> None:
        number = self._order.order_number
        topic = key.partition("/")[0]
        alert = Alert(f"{number}/{self._order.attempt}/{key}", number, subject, text, topic)
        try:
            await execute(
                "send_alert_to_ops", alert, type(None), policy=policies.HARD, summary="alert to ops"
            )
        except FailureError:
            workflow.logger.warning("The alert could not be sent: %s", subject)

    def _enter(self, stage: str, search: str = "") -> None:
        self._stage = stage
        deadline = f", payment until {self._wait_ends():%Y-%m-%d %H:%M} UTC" if self._deadline else ""
        workflow.set_current_details(f"**{stage}**{deadline}")
        if search:
            workflow.upsert_search_attributes([SAGA_STAGE.value_set(search)])

    # --- messages ----------------------------------------------------------------------------------------
    # Each only sets state, so a duplicate changes nothing. A message for another attempt is not for us.

    @workflow.signal
    def confirm_payment(self, message: ConfirmPayment) -> None:
        self._confirmed = self._confirmed or message.attempt == self._order.attempt

    @workflow.signal
    def payment_failed(self, message: PaymentFailed) -> None:
        if message.attempt == self._order.attempt:
            self._failed = self._failed or message

    @workflow.signal
    def cancel_order(self, message: CancelOrder) -> None:
        if message.attempt == self._order.attempt:
            self._cancel = self._cancel or message

    @workflow.signal
    def extend_deadline(self, message: ExtendDeadline) -> None:
        deadline = datetime.fromisoformat(message.deadline)
        if message.attempt == self._order.attempt and (self._deadline is None or deadline > self._deadline):
            self._deadline = deadline

    @workflow.signal
    def authorization_lasts(self, message: AuthorizationLasts) -> None:
        if message.attempt == self._order.attempt:
            self._lasts_until(datetime.fromisoformat(message.until))

    @workflow.query
    def progress(self) -> Progress:
        return Progress(
            stage=self._stage,
            deadline=self._deadline.isoformat() if self._deadline else "",
            authorized_until=self._lapses.isoformat() if self._lapses else "",
            payment_confirmed=self._confirmed,
            to_undo=[work.step for work in reversed(self._undos) if work.step not in self._undone],
            compensated_steps=list(self._undone),
            cancel_reason=self._cancel.reason if self._cancel else "",
        )


async def execute(
    activity: str,
    argument: Any,
    result_type: Any,
    *,
    local: bool = False,
    policy: RetryPolicy,
    summary: str | None = None,
) -> Any:
    """Run an activity to a known end.

    `local` for what only touches our own database: it spares the engine two thirds of the work. A cancel waits
    until the activity is over, so that no undo overtakes its step.
    """
    options: dict[str, Any] = {
        "result_type": result_type,
        "start_to_close_timeout": policies.ATTEMPT,
        "retry_policy": policy,
        "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        "summary": summary,
    }
    if local:
        return await workflow.execute_local_activity(activity, argument, **options)
    return await workflow.execute_activity(activity, argument, **options)


async def until_done(task: asyncio.Task[T]) -> T:
    """The task's result, waited for through any number of cancels: a single shield falls to the second one."""
    while not task.done():
        try:
            await asyncio.shield(task)
        except EXITS:
            continue
    return task.result()


def in_words(error: BaseException) -> str:
    """The message of a failure, which is the sentence that an activity raised."""
    error = _raised(error)
    if isinstance(error, FailureError):
        return error.message
    return "Cancelled" if isinstance(error, asyncio.CancelledError) else str(error)


def may_succeed_later(error: ActivityError) -> bool:
    """Whether the activity was given up on, and not refused for good."""
    return not (isinstance(error.cause, ApplicationError) and error.cause.non_retryable)


def kind_of(error: BaseException) -> str:
    """The type of what an activity raised, such as `GatewayRefused`."""
    error = _raised(error)
    return (error.type or "") if isinstance(error, ApplicationError) else type(error).__name__


def _raised(error: BaseException) -> BaseException:
    """What the activity itself raised. What that was caused by in its turn is for the log, not for people."""
    return error.cause if isinstance(error, ActivityError) and error.cause else error
