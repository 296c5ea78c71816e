"""`manage.py monitor_payments`: watch the payments of many orders, one by one, with a coordinator over them."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any
from uuid import uuid4

from django.core.management.base import BaseCommand, CommandError

from payments.gateways import gateway
from payments.gateways.base import GatewayMisconfigured
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
        numbers = _known(options["orders"]) or _waiting_at(options["gateway"])
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
            summary=f"payments to watch: {len(numbers)}",
        )
        self.stdout.write(
            f"Payments to watch: {len(numbers)}, at most {options['at_most']} at a time, by {workflow_id}."
        )


def _known(numbers: list[str]) -> list[str]:
    """They, if there is a payment of each of which somebody can be asked."""
    latest = Payment.objects.filter(merchant_reference__in=numbers).order_by("merchant_reference", "-pk")
    gateways = dict(latest.distinct("merchant_reference").values_list("merchant_reference", "gateway"))
    if unknown := [number for number in numbers if number not in gateways]:
        raise CommandError(f"There is no payment of {', '.join(unknown[:10])}.")
    for name in sorted(set(gateways.values())):
        _check(name)
    return numbers


def _waiting_at(name: str) -> list[str]:
    _check(name)
    waiting = Payment.objects.filter(gateway=name, closed_at=None).exclude(reference="").order_by("pk")
    return list(dict.fromkeys(waiting.values_list("merchant_reference", flat=True)[: MOST_ORDERS + 1]))


def _check(name: str) -> None:
    try:
        if not gateway(name).capabilities.remote:
            raise CommandError(f"Nobody can be asked about {name}: bank statements say what has come.")
    except GatewayMisconfigured as error:
        raise CommandError(str(error)) from error
