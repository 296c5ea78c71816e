"""The daily look whether all books agree."""

from __future__ import annotations

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from datetime import timedelta

    from orders.workflows.types import ReconcileInput, ReconcileResult

# A million payments, a hundred in a call.
LONGEST = timedelta(hours=10)
# It tells that it is alive with each page.
SILENT = timedelta(minutes=5)
TRIES = RetryPolicy(
    initial_interval=timedelta(seconds=10), maximum_interval=timedelta(minutes=5), maximum_attempts=5
)


@workflow.defn
class ReconcileWorkflow:
    """Compares all books once. What differs is in the database, and ops are told where money or stock does."""

    @workflow.run
    async def run(self, wanted: ReconcileInput) -> ReconcileResult:
        result: ReconcileResult = await workflow.execute_activity(
            "reconcile_books",
            wanted,
            result_type=ReconcileResult,
            start_to_close_timeout=LONGEST,
            heartbeat_timeout=SILENT,
            retry_policy=TRIES,
        )
        return result
