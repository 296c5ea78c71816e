"""One more try at an undo that ended as a dead letter."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from dataclasses import replace

    from orders.workflows import policies
    from orders.workflows.saga import UNDOABLE, execute, in_words, kind_of
    from orders.workflows.types import MailInput, RetryInput, RetryResult, StepInput, StepResult


@workflow.defn
class CompensationRetryWorkflow:
    """Runs the undo again under the idempotency key it always had; closes the dead letter or opens it anew."""

    @workflow.run
    async def run(self, retry: RetryInput) -> RetryResult:
        undo = retry.undo
        (work,) = (work for work in UNDOABLE if work.step == undo.step)
        argument = StepInput(undo.order_number, undo.attempt, undo.step, rollback_run=undo.rollback_run)
        try:
            await execute(
                work.undo,
                argument,
                StepResult,
                local=not retry.remote,
                policy=policies.HARD,
                summary=f"undo {undo.step}",
            )
        except FailureError as error:
            letter = replace(undo, error=in_words(error), error_type=kind_of(error))
            await execute("write_to_dlq", letter, int, local=True, policy=policies.PATIENT)
            return RetryResult(resolved=False)
        mails = await execute("resolve_dead_letter", retry, list[str], local=True, policy=policies.PATIENT)
        for kind in mails:
            mail = MailInput(undo.order_number, undo.attempt, kind)
            try:
                await execute("send_order_email", mail, str, policy=policies.HARD, summary=f"mail: {kind}")
            except FailureError:
                workflow.logger.warning("The mail %s could not be sent", kind)
        return RetryResult(resolved=True, cancelled=bool(mails))
