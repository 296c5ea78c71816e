"""`manage.py runworker`: the Temporal worker and the outbox dispatcher."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from shop.worker import QUEUES, WorkerProcess, exit_now


class Command(BaseCommand):
    help = "Run the workflows and activities of our task queues, and deliver the outbox. SIGTERM drains."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--queue",
            action="append",
            choices=QUEUES,
            help="a task queue to serve; repeatable; all by default",
        )
        parser.add_argument("--concurrency", type=int, default=16, help="activities at a time (16)")
        parser.add_argument("--health-port", type=int, help="serve /health and /metrics on this port")
        parser.add_argument(
            "--health-address",
            default="127.0.0.1",
            help="the address for --health-port; 0.0.0.0 for probes from outside a container (127.0.0.1)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        queues = options["queue"] or list(QUEUES)
        health = options["health_port"], options["health_address"]
        exit_now(WorkerProcess(queues, options["concurrency"], *health).run())
