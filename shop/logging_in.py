"""Logging in to the staff site: name and password, then a code of the second factor where there is one.

Nobody is logged in between the two: the session only remembers, for some minutes, whose password was right.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from axes.models import AccessAttempt
from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db.models import Max
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters

from shop import second_factor
from shop.client_address import client_address
from shop.second_factor import SecondFactorRefused

HALF_WAY = "password_was_right"  # in the session
LASTS_S = 600


# --- the password ----------------------------------------------------------------------------------------


def locked_until(request: HttpRequest, username: str) -> datetime:
    """From when on this name is let try again from where the request comes: a full minute, UTC."""
    wrong = AccessAttempt.objects.filter(username=username, ip_address=client_address(request))
    last = wrong.aggregate(at=Max("attempt_time"))["at"] or timezone.now()
    until: datetime = last + settings.AXES_COOLOFF_TIME + timedelta(minutes=1)
    return until.replace(second=0, microsecond=0)


class PasswordForm(AdminAuthenticationForm):
    def get_invalid_login_error(self) -> ValidationError:
        if self.request is None or not getattr(self.request, "axes_locked_out", False):
            return super().get_invalid_login_error()
        until = locked_until(self.request, self.cleaned_data["username"])
        return ValidationError(
            _("Too many wrong passwords for this name. Try again at %(until)s UTC."),
            code="locked_out",
            params={"until": f"{until:%H:%M}"},
        )


class PasswordStep(LoginView):
    authentication_form = PasswordForm
    template_name = "admin/login.html"

    def form_valid(self, form: Any) -> HttpResponse:
        user = form.get_user()
        if second_factor.enrolled(user) is None:
            return super().form_valid(form)
        self.request.session.cycle_key()
        self.request.session[HALF_WAY] = {
            "user": user.pk,
            "backend": user.backend,
            "password": user.get_session_auth_hash(),
            "since": time.time(),
            "next": self.get_success_url(),
        }
        return HttpResponseRedirect(reverse("admin:login_code"))

    def form_invalid(self, form: Any) -> HttpResponse:
        answer = super().form_invalid(form)
        if form.has_error(NON_FIELD_ERRORS, "locked_out"):
            answer.status_code = 429
        return answer


# --- the code --------------------------------------------------------------------------------------------


class CodeForm(forms.Form):
    code = forms.CharField(
        label=_("Code"),
        max_length=40,
        widget=forms.TextInput(
            attrs={"autocomplete": "one-time-code", "autofocus": True, "autocapitalize": "off", "size": 20}
        ),
        help_text=_("The six digits that the app shows now, or one of the recovery codes."),
    )


def _half_way(request: HttpRequest) -> tuple[User, dict[str, Any]] | None:
    """Whose password was right, while that counts: not for long, and not after the password was changed."""
    noted = request.session.get(HALF_WAY)
    if not noted or time.time() - noted["since"] > LASTS_S:
        return None
    user = User.objects.filter(pk=noted["user"], is_active=True, is_staff=True).first()
    if user is None or not constant_time_compare(user.get_session_auth_hash(), noted["password"]):
        return None
    return user, noted


@sensitive_post_parameters()
@csrf_protect
@never_cache
def code_step(request: HttpRequest) -> HttpResponse:
    found = _half_way(request)
    if found is None:
        request.session.pop(HALF_WAY, None)
        return HttpResponseRedirect(reverse("admin:login"))
    user, noted = found
    form = CodeForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            device = second_factor.prove(user, form.cleaned_data["code"])
        except SecondFactorRefused as refusal:
            form.add_error(None, str(refusal))
        else:
            del request.session[HALF_WAY]
            user.otp_device = device  # type: ignore[attr-defined]  # what makes the session a proved one
            login(request, user, backend=noted["backend"])
            return HttpResponseRedirect(noted["next"])
    context = {**admin.site.each_context(request), "title": _("Second factor"), "form": form}
    return TemplateResponse(request, "admin/login_code.html", context)
