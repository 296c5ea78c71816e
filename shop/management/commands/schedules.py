"""`manage.py schedules VERB [ID]`: what runs by itself."""

from __future__ import annotations

import getpass
from argparse import ArgumentParser
from datetime import datetime
from typing import Any
from uuid import uuid4

from asgiref.sync import async_to_sync
from django.core.management.base import BaseCommand, CommandError

from shop.kernel import temporal
from shop.kernel.durations import in_words
from shop.schedules import acting
from shop.schedules.declared import ours
from shop.schedules.engine import ScheduleProblem
from shop.schedules.standing import Standing, standings
from shop.schedules.syncing import sync

ACTS = ("pause", "resume", "trigger", "delete")
VERBS = ("list", "sync", *ACTS, "describe")


class Command(BaseCommand):
    help = "List, sync, pause, resume, trigger, delete or describe our schedules. Exit code 1 if it cannot be done."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("verb", choices=VERBS)
        parser.add_argument("id", nargs="?", default="", help="the schedule; left out, `describe` takes all")
        parser.add_argument("--reason", default="", help="why; it is shown to others and kept")

    def handle(self, *args: Any, **options: Any) -> None:
        verb, schedule_id = options["verb"], options["id"]
        if schedule_id and verb in ("list", "sync"):
            raise CommandError(f"`{verb}` is about all schedules; leave the id out.")
        try:
            if verb == "sync":
                self._sync()
            elif verb in ACTS:
                self._act(verb, schedule_id, options["reason"])
            else:
                chosen = [schedule for schedule in ours() if schedule_id in ("", schedule.id)]
                if not chosen:
                    raise CommandError(f"We have no schedule “{schedule_id}”. {_which()}")
                for standing in async_to_sync(standings)(temporal.client(), chosen):
                    self.stdout.write(_line(standing) if verb == "list" else _page(standing))
        except ScheduleProblem as problem:
            raise CommandError(str(problem)) from problem

    def _sync(self) -> None:
        synced = async_to_sync(sync)(temporal.client())
        for sentence in synced.done:
            self.stdout.write(sentence)
        if synced.problems:
            raise CommandError("\n".join(synced.problems))
        if not synced.done:
            self.stdout.write("The schedules are as declared; nothing was to do.")

    def _act(self, verb: str, schedule_id: str, reason: str) -> None:
        if not schedule_id:
            raise CommandError(f"Say which schedule. {_which()}")
        actor = f"{getpass.getuser()} (manage.py)"
        self.stdout.write(acting.act(schedule_id, verb, actor, reason, uuid4()).message)


def _which() -> str:
    return f"There are: {', '.join(schedule.id for schedule in ours())}."


def _line(standing: Standing) -> str:
    schedule = standing.schedule
    last = standing.runs[0] if standing.runs else None
    return (
        f"{schedule.id}: {standing.state}, {schedule.times}; "
        f"last run {f'{_when(last.started_at)}, {last.words}' if last else 'none'}; "
        f"next {_when(standing.next[0]) if standing.next and not standing.paused else 'none'}"
        f"{f'; but {_differs(standing)}' if standing.differs else ''}"
    )


def _differs(standing: Standing) -> str:
    return f"Temporal has other {' and '.join(standing.differs)}; `manage.py schedules sync` makes it as declared here"


def _page(standing: Standing) -> str:
    schedule = standing.schedule
    return "\n".join(
        [
            schedule.id,
            f"  {schedule.does}",
            f"  state:     {standing.state}{f' ({standing.note})' if standing.note else ''}",
            f"  runs:      {schedule.times}, up to {in_words(schedule.jitter)} later; "
            f"ended after {in_words(schedule.limit)}; made up for until {in_words(schedule.catch_up)} late",
            *([f"  differs:   {_differs(standing)}"] if standing.differs else []),
            f"  starts:    {schedule.workflow} on queue {schedule.queue}",
            f"  next:      {', '.join(_when(moment) for moment in standing.next) or 'none'}",
            f"  so far:    {_runs(standing.total)}, {standing.missed} missed, {standing.skipped} skipped; "
            f"{standing.running} under way, {standing.waiting} waiting",
            *(
                f"  run:       {_when(run.started_at)}, {run.words}"
                f"{f', {in_words(run.duration)}' if run.duration else ''}"
                f"{f': {run.result}' if run.result else ''}"
                for run in standing.runs
            ),
        ]
    )


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
