"""Mails by themselves: to a customer whose saga has ended, and to a colleague who was mentioned."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from orders.workflows import policies
    from orders.workflows.saga import execute
    from orders.workflows.types import MailInput, MentionInput


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


@workflow.defn
class MentionMailWorkflow:
    """Tells a colleague by mail that they were mentioned."""

    @workflow.run
    async def run(self, mention: MentionInput) -> bool:
        """Whether there was something to send, and it was sent."""
        try:
            sent: bool = await execute(
                "send_mention_email", mention, bool, policy=policies.HARD, summary="mail: mention"
            )
        except FailureError:
            workflow.logger.warning("The mail about mention %d could not be sent", mention.mention)
            return False
        return sent
