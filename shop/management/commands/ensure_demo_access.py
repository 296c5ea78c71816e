"""`manage.py ensure_demo_access`: the practice accounts and API key that `up` made, read as JSON from stdin."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.management.base import BaseCommand, CommandError

from orders.services import api_keys


class Command(BaseCommand):
    help = 'Make the practice accounts: {"accounts": {name: password}, "api_key": key} on stdin. DEBUG only.'

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("Practice accounts exist only with DEBUG on. Use `manage.py createsuperuser`.")
        wanted = json.load(sys.stdin)
        for name, password in wanted["accounts"].items():
            user, _ = User.objects.get_or_create(username=name, defaults={"email": f"{name}@localhost"})
            user.is_staff = True
            user.is_superuser = name == "admin"
            user.set_password(password)
            user.save()
            user.groups.set(Group.objects.filter(name=name))
        api_keys.ensure("practice frontend", wanted["api_key"])
