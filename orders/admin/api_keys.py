"""Keys of the shop's frontend: made here and shown once, then only revoked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.admin.helpers import AdminForm
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from orders.models import ApiKey
from orders.services import api_keys
from shop.kernel.admin.acting import Act, ActingAdmin
from shop.kernel.admin.labels import label
from shop.kernel.admin.readonly import LookOnlyAdmin


class ApiKeyForm(forms.Form):
    name = forms.CharField(label=_("Name"), max_length=100, help_text=_("Who uses it, and where."))


@dataclass(frozen=True, slots=True)
class Revoked:
    message: str
    repeated: bool


class Revoke(Act):
    slug = "revoke"
    label = _("Revoke")
    permission = "orders.change_apikey"
    dangerous = True
    follows = _("From now on the API refuses it. It cannot be used again; make a new one instead.")

    def why_not(self, subject: ApiKey) -> str:
        return gettext("It is revoked.") if subject.revoked_at else ""

    def will(self, subject: ApiKey) -> str:
        return gettext("Whoever uses it can place no more orders with it.")

    def do(self, subject: ApiKey, data: dict[str, Any], actor: str, seen: str) -> Revoked:
        repeated = subject.revoked_at is not None
        api_keys.revoke(subject)
        return Revoked(gettext("The key is revoked."), repeated)


@admin.register(ApiKey)
class ApiKeyAdmin(ActingAdmin, LookOnlyAdmin):
    acts = (Revoke(),)
    change_form_template = "admin/acting_change_form.html"
    list_display = ("name", "state", "created_at", "revoked_at")
    fields = ("name", "created_at", "revoked_at")
    readonly_fields = fields
    sortable_by: ClassVar = ()

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("orders.add_apikey"))

    @admin.display(description=_("state"))
    def state(self, key: ApiKey) -> SafeString:
        return label("off", gettext("revoked")) if key.revoked_at else label("succeeded", gettext("in use"))

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form: Any = ApiKeyForm(request.POST if request.method == "POST" else None)
        key = api_keys.create(form.cleaned_data["name"]) if form.is_bound and form.is_valid() else ""
        context = {
            **self.admin_site.each_context(request),
            "title": _("A new API key"),
            "opts": self.opts,
            "form": form,
            "adminform": AdminForm(form, [(None, {"fields": ["name"]})], {}, (), self),
            "key": key,  # in this answer only: nothing keeps it
            "media": self.media,
        }
        response = TemplateResponse(request, "admin/orders/apikey/new.html", context)
        response["Cache-Control"] = "no-store"
        return response
