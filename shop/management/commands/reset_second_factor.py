"""`manage.py reset_second_factor`: for the administrator whose telephone and recovery codes are lost."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from shop import second_factor


class Command(BaseCommand):
    help = "Forget the second factor of this user; the password alone lets them in again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")

    def handle(self, *args: Any, username: str, **options: Any) -> None:
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"There is no user “{username}”.")
        was_there = second_factor.reset(user, user, "on the command line")
        self.stdout.write("It is reset." if was_there else "There was none.")
