"""`manage.py worker_versions list|activate [BUILD_ID]`: which build of the worker gets the work."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from temporalio.service import RPCError

from shop.kernel import temporal
from shop.versions import VersionProblem, activate, versions


class Command(BaseCommand):
    help = "List the builds of the worker that Temporal knows, or give new work to one (docs/runbook.md, Upgrade)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("verb", choices=("list", "activate"))
        parser.add_argument(
            "build_id", nargs="?", default=settings.BUILD_ID, help="for activate; BUILD_ID by default"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["verb"] == "list":
                self._list()
            else:
                self._activate(options["build_id"])
        except VersionProblem as problem:
            raise CommandError(str(problem)) from problem
        except (RPCError, RuntimeError) as error:
            raise CommandError(f"Temporal cannot be asked: {error}") from error

    def _list(self) -> None:
        found = async_to_sync(versions)(temporal.client(), settings.WORKER_DEPLOYMENT)
        for version in found:
            self.stdout.write(f"{version.build_id}: {version.state}")
        if not found:
            self.stdout.write("No worker with a BUILD_ID has connected yet; every worker takes any work.")

    def _activate(self, build_id: str) -> None:
        if not build_id:
            raise CommandError("Say which build, or set BUILD_ID.")
        changed = async_to_sync(activate)(temporal.client(), settings.WORKER_DEPLOYMENT, build_id)
        self.stdout.write(f"New work goes to {build_id}." if changed else f"{build_id} is current already.")
