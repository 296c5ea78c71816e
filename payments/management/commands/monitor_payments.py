"""`manage.py monitor_payments`: watch the payments of many orders, one by one, with a coordinator over them."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from payments.models import Payment
from payments.workflows.coordinator import MOST_ORDERS, CoordinatorInput
from payments.workflows.types import TASK_QUEUE
from shop.kernel import outbox


class Command(BaseCommand):
    help = "Ask the provider about each of these payments every hour until it is decided, so many at a time."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("orders", nargs="*", metavar="ORDER", help="order numbers")
        parser.add_argument("--gateway", help="all payments of this gateway that wait for money")
        parser.add_argument("--at-most", type=int, default=100, help="so many at a time (100)")
        parser.add_argument("--days", type=int, default=14, help="give up on one after so many days (14)")
        parser.add_argument(
            "--cancel-together",
            action="store_true",
            help="cancelling the coordinator cancels what it has begun",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["at_most"] < 1 or options["days"] < 1:
            raise CommandError("--at-most and --days have to be 1 at least.")
        if bool(options["orders"]) == bool(options["gateway"]):
            raise CommandError("Give order numbers, or a gateway with --gateway.")
        numbers = options["orders"] or self._waiting_at(options["gateway"])
        if not numbers:
            self.stdout.write("No payment waits for money there.")
            return
        if len(numbers) > MOST_ORDERS:
            raise CommandError(f"{len(numbers)} orders are too many; give at most {MOST_ORDERS} at once.")
        workflow_id = f"payment-coordinator-{uuid4()}"
        outbox.start_workflow(
            workflow_id,
            workflow_id,
            "PaymentCheckCoordinator",
            CoordinatorInput(
                numbers,
                at_most=options["at_most"],
                max_days=options["days"],
                cancel_children=options["cancel_together"],
            ),
            task_queue=TASK_QUEUE,
            summary=f"watch {len(numbers)} payments",
        )
        self.stdout.write(
            f"{len(numbers)} payments are watched, at most {options['at_most']} at a time, by {workflow_id}."
        )

    def _waiting_at(self, gateway: str) -> list[str]:
        if gateway not in settings.PAYMENT_GATEWAYS:
            known = ", ".join(sorted(settings.PAYMENT_GATEWAYS)) or "none"
            raise CommandError(f"There is no gateway “{gateway}” here; there are: {known}.")
        waiting = Payment.objects.filter(gateway=gateway, closed_at=None).exclude(reference="").order_by("pk")
        return list(dict.fromkeys(waiting.values_list("merchant_reference", flat=True)[: MOST_ORDERS + 1]))
