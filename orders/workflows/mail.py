"""One mail by itself, about an order whose saga has ended."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from orders.workflows import policies
    from orders.workflows.saga import execute
    from orders.workflows.types import MailInput


@workflow.defn
class OrderMailWorkflow:
    """Sends a mail that is written already. Its fate is on the mail's row."""

    @workflow.run
    async def run(self, mail: MailInput) -> str:
        """The mail's state."""
        try:
            state: str = await execute(
                "send_order_email", mail, str, policy=policies.HARD, summary=f"mail: {mail.kind}"
            )
        except FailureError:
            workflow.logger.warning("The mail %s could not be sent", mail.kind)
            return "failed"
        return state
