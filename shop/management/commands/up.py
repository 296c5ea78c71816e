"""`manage.py up`: everything the shop needs, on this machine, until Ctrl-C."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from shop.settings import env
from shop.up.shop import up


class Command(BaseCommand):
    help = "Run the whole shop: database, Temporal, practice payment provider, worker and web server."
    # The database that the checks and the migrations would look at is not there yet.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-demo", action="store_true", help="do not make demo data at the first start")

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(up(os.environ, demo=not options["no_demo"], settings=env.names))
