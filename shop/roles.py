"""The four roles that come with the shop, as groups. Each `migrate` makes sure that they are there.

Permissions that are missing are added; what an administrator has added is left. For other roles make other
groups.
"""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig, apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission
from django.db import DEFAULT_DB_ALIAS
from django.db.models import Q

APPS = ("kernel", "payments", "orders", "ops")
# Everyone looks; keys of the API are the administrators', and the outbox is the ops'.
HIDDEN = ("view_apikey", "view_outboxmessage")
# payments.refund_beyond_limit, ops.reset_authenticator, orders.export_customer and orders.erase_customer are nobody's:
# an administrator gives them to whom they may concern.
ROLES: dict[str, tuple[str, ...]] = {
    "viewer": (),
    "orders": (
        "orders.add_order",
        "orders.add_orderevent",
        "orders.change_order",
        "orders.start_saga",
        "orders.cancel_saga",
        "orders.extend_deadline",
        "orders.add_product",
        "orders.change_product",
    ),
    "payments": (
        "orders.add_orderevent",
        "orders.confirm_payment",
        "payments.change_reviewitem",
        "payments.discard_money",
        "payments.import_statement",
        "payments.refund",
        "payments.reprocess_webhook",
    ),
    "ops": (
        "payments.reprocess_webhook",
        "orders.add_orderevent",
        "orders.retry_deadletter",
        "orders.resolve_deadletter",
        "orders.fix_difference",
        "payments.ask_gateway",
        "kernel.view_outboxmessage",
        "ops.operate_schedules",
    ),
}


def ensure_roles(sender: AppConfig, using: str = DEFAULT_DB_ALIAS, **_: Any) -> None:
    """Run after `migrate`: make the groups, and give each what its role needs."""
    for name in APPS:
        create_permissions(apps.get_app_config(name), verbosity=0, using=using)
    permissions = Permission.objects.using(using).filter(content_type__app_label__in=APPS)
    looking = permissions.filter(codename__startswith="view_").exclude(codename__in=HIDDEN)
    for role, names in ROLES.items():
        group, _created = Group.objects.using(using).get_or_create(name=role)
        wanted = Q(pk__in=looking)
        for name in names:
            app, _dot, codename = name.partition(".")
            wanted |= Q(content_type__app_label=app, codename=codename)
        group.permissions.add(*permissions.filter(wanted))
