"""`manage.py reconcile [--fix]`: do the books agree with each other and with the engine?"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from temporalio.service import RPCError

from orders.services.reconciling import differences
from shop.kernel import temporal


class Command(BaseCommand):
    help = (
        "Compare stock, money and sagas with each other and with Temporal. Exit code 1 where they disagree."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--fix",
            action="store_true",
            help="mend what is safe: roll back orphaned sagas, ask again for refunds and old webhooks",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        left = 0
        try:
            for difference in differences(temporal.client()):
                mended = options["fix"] and difference.fix()
                left += not mended
                self.stdout.write(
                    f"{difference.about}: {difference.sentence}{f' – {difference.remedy}.' if mended else ''}"
                )
        except (RPCError, RuntimeError) as error:
            raise CommandError(f"Temporal cannot be asked: {error}") from error
        if left:
            self.stdout.write(f"{left} difference{'' if left == 1 else 's'}.")
            sys.exit(1)
        self.stdout.write("The books agree.")
