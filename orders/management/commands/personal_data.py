"""`manage.py personal_data export|erase EMAIL`: a customer's data as JSON, or gone."""

from __future__ import annotations

import getpass
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from orders.services import personal_data


class Command(BaseCommand):
    help = (
        "Personal data of a customer: all of it as JSON, or erased. Their orders are those placed with EMAIL."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        export = verbs.add_parser("export", help="Print everything that is stored.")
        erase = verbs.add_parser("erase", help="Say what would be erased; with --yes erase it.")
        for verb in (export, erase):
            verb.add_argument("email", metavar="EMAIL")
        erase.add_argument(
            "--reason", default="", help="Why: the customer's request and its date, for instance."
        )
        erase.add_argument("--yes", action="store_true", help="Erase it.")

    def handle(self, *args: Any, verb: str, email: str, **options: Any) -> None:
        if verb == "export":
            self.stdout.write(json.dumps(personal_data.export(email), indent=1, ensure_ascii=False))
            return
        if not options["yes"]:
            self.stdout.write(personal_data.preview(email).sentence)
            self.stdout.write("Nothing is erased yet. Add --yes --reason TEXT.")
            return
        try:
            erased = personal_data.erase(email, f"{getpass.getuser()} (manage.py)", options["reason"])
        except personal_data.ErasureRefused as refused:
            raise CommandError(str(refused)) from None
        self.stdout.write(erased.message)
