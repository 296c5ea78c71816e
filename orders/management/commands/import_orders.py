"""`manage.py import_orders FILE …`: orders in bulk, from JSON lines, with a table of what came of them."""

from __future__ import annotations

import getpass
import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand
from pydantic import ValidationError

from orders.api.incoming import BulkOrder
from orders.api.problems import field_error
from orders.services.audit import StepRefused
from orders.services.intake import Taken, take
from orders.services.placing import FieldError, KeyReused, OrderInvalid
from payments.gateways.base import GatewayError, GatewayMisconfigured, GatewayUnavailable
from shop.kernel.terminal import Bar, columns

NOT_TAKEN = "not taken"


class Command(BaseCommand):
    help = (
        "Take orders in bulk. Each line of a file is a JSON object: an order as the API takes it, with an "
        "idempotency_key, and a payment_reference where its payment is open at the provider already. The hourly "
        "check fulfils those that are paid. The same file again goes on where it stopped, and adds nothing. Exit "
        "code 1 if an order could not be taken; the others are."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE")

    def handle(self, *args: Any, **options: Any) -> None:
        rows = [("File", "New", "Resumed", "Known before", "Not taken")]
        failed = False
        for path in options["files"]:
            try:
                found = self._import(path)
            except OSError as error:
                self.stderr.write(f"{path}: {error.strerror or error}")
                failed = True
                continue
            numbers = (found[Taken.NEW], found[Taken.RESUMED], found[Taken.KNOWN], found[NOT_TAKEN])
            rows.append((path.name, *(f"{number:,}" for number in numbers)))
            failed = failed or found[NOT_TAKEN] > 0
        if len(rows) > 1:
            self.stdout.write("\n".join(columns(rows)))
        if failed:
            self.stderr.write("Not all orders could be taken. Mend their lines and import the file again.")
            sys.exit(1)

    def _import(self, path: Path) -> Counter[str]:
        with path.open("rb") as file:
            total = sum(1 for _ in file)
        actor = f"{getpass.getuser()} (import_orders)"
        found: Counter[str] = Counter()
        bar = Bar(path.name)
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        taken, wrong = _take(line.removeprefix(b"\xef\xbb\xbf"), actor)
                        found[taken] += 1
                        for sentence in wrong:
                            bar.clear()
                            self.stderr.write(f"{path.name}, line {number}: {sentence}")
                    bar.show(number, total)
        finally:
            bar.clear()
        return found


def _take(line: bytes, actor: str) -> tuple[str, list[str]]:
    """What came of a line, and what is wrong with it, in sentences."""
    try:
        order = BulkOrder.model_validate_json(line)
        taken = take(
            order.draft(),
            actor,
            idempotency_key=order.idempotency_key,
            body_digest=order.digest(),
            payment_reference=order.payment_reference,
        )
    except ValidationError as error:
        return NOT_TAKEN, _sentences(field_error(e, e["loc"]) for e in error.errors())
    except OrderInvalid as error:
        return NOT_TAKEN, _sentences(error.errors)
    except KeyReused as error:
        return NOT_TAKEN, [str(error)]
    except (GatewayUnavailable, GatewayMisconfigured) as error:
        return NOT_TAKEN, [f"{error} Import the file again later."]
    except (GatewayError, StepRefused) as error:
        return NOT_TAKEN, [f"{error} The order is rolled back."]
    return taken, []


def _sentences(errors: Iterable[FieldError]) -> list[str]:
    return [f"{error.field}: {error.message}" if error.field else error.message for error in errors]
