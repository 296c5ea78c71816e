"""`manage.py reconcile [--fix]`: do the books agree with each other, with the providers' and with the engine?"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any
from uuid import uuid4

from django.core.management.base import BaseCommand

from orders.models import Difference
from orders.services.reconciling.running import reconcile
from shop.worker import exit_now


class Command(BaseCommand):
    help = (
        "Compare money, stock, orders and messages with each other, with the providers' own lists and with Temporal. "
        "Exit code 1 while money or stock disagrees, or could not be compared."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--fix",
            action="store_true",
            help="mend what is safe: roll back orphaned sagas, deliver what waits, take over what providers say",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        left = dict.fromkeys(("heavy", "light"), 0)

        def tell(row: Difference, mended: bool) -> None:
            if mended:
                self.stdout.write(f"{row.about}: {row.sentence} – {row.remedy}.")
                return
            left["heavy" if row.weight in Difference.HEAVY else "light"] += 1
            by_itself = " (--fix does it.)" if row.remedy else ""
            self.stdout.write(f"{row.about}: {row.sentence} {row.to_do}".rstrip() + by_itself)

        run = reconcile(f"command-{uuid4()}", "reconcile", fix=options["fix"], tell=tell)
        for name, why in run.left_out.items():
            self.stdout.write(f"Not compared: {name}. {why}")
        self.stdout.write(_in_all(left["heavy"], left["light"], bool(run.left_out)))
        self._leave(1 if left["heavy"] or run.left_out else 0)

    def _leave(self, code: int) -> None:
        """Run by itself, it ends without the interpreter's teardown, which crashes now and then under the threads
        of Temporal's client."""
        if self._called_from_command_line:  # type: ignore[attr-defined]
            exit_now(code)
        if code:
            sys.exit(code)


def _in_all(heavy: int, light: int, incomplete: bool) -> str:
    if heavy:
        return f"{heavy} difference{'' if heavy == 1 else 's'}."
    if incomplete:
        return "What was compared agrees."
    return f"The books agree.{f' Left behind: {light}.' if light else ''}"
