"""Rows that are only looked at: financial and audit rows can be changed by nobody, superusers included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest

from shop.kernel.admin.lists import FastListAdmin

if TYPE_CHECKING:
    _Inline = admin.TabularInline[Any, Any]
else:
    _Inline = admin.TabularInline


class _LookOnly:
    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class LookOnlyAdmin(_LookOnly, FastListAdmin):
    """No add, no change, no delete."""


class LookOnlyInline(_LookOnly, _Inline):
    """The same for rows inside another's page."""

    extra = 0
    can_delete = False
    show_change_link = False
