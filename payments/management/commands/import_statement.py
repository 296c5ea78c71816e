"""`manage.py import_statement FILE …`: bank statements into the books, with a table of what came of them."""

from __future__ import annotations

import getpass
import sys
from argparse import ArgumentParser
from collections import defaultdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from payments.models import Allocation, ReviewItem
from payments.services.importing import Report, Tally
from payments.services.statement_files import import_now
from payments.statements import StatementError
from shop.kernel.terminal import Bar, columns


class Command(BaseCommand):
    help = (
        "Import bank statements (camt.053, camt.054, MT940; also zipped) and match their money. What was imported "
        "before is not counted again. Exit code 1 if a file could not be imported; the others are."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE")

    def handle(self, *args: Any, **options: Any) -> None:
        reports: list[Report] = []
        failed = 0
        for path in options["files"]:
            try:
                reports.append(self._import(path))
            except (StatementError, OSError) as error:
                failed += 1
                self.stderr.write(in_words(path, error))
        if reports:
            self.stdout.write(table(reports))
        if failed:
            self.stderr.write(f"{failed} of {len(options['files'])} files could not be imported.")
            sys.exit(1)

    def _import(self, path: Path) -> Report:
        bar = Bar(path.name)
        try:
            with path.open("rb") as file:
                return import_now(path.name, file, f"{getpass.getuser()} (import_statement)", bar.show)
        finally:
            bar.clear()


def in_words(path: Path, error: StatementError | OSError) -> str:
    """Why a file could not be imported."""
    if isinstance(error, StatementError):
        return str(error)
    return f"{path}: {error.strerror or error}"


def table(reports: list[Report]) -> str:
    """The files, then what came of their new bookings."""
    files = [("File", "New", "Known before", "Left out")]
    outcomes: dict[str, Tally] = defaultdict(Tally)
    for report in reports:
        files.append((report.file, f"{report.new:,}", f"{report.known:,}", f"{report.left_out:,}"))
        for outcome, tally in report.outcomes.items():
            outcomes[outcome].count += tally.count
            outcomes[outcome].sums.update(tally.sums)
    lines = columns(files)
    if outcomes:
        rows = [
            (label(outcome), f"{tally.count:,}", str(tally))
            for outcome, tally in sorted(outcomes.items(), key=_matched_first)
        ]
        lines += ["", *columns([("New bookings", "Number", "Sum"), *rows])]
    return "\n".join(lines)


def label(outcome: str) -> str:
    """An outcome as the screens call it."""
    if outcome in ReviewItem.Reason.values:
        return f"in review: {ReviewItem.Reason(outcome).label}"
    return str(Allocation.Purpose(outcome).label)


def _matched_first(row: tuple[str, Tally]) -> tuple[bool, int]:
    outcome, tally = row
    return outcome in ReviewItem.Reason.values, -tally.count
