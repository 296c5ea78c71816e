"""One's own second factor: set it up, make new recovery codes, remove it. Open to all staff, for themselves alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import django_otp
from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.helpers import AdminForm
from django.contrib.auth.models import User
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters

from shop import second_factor
from shop.authenticators import Authenticator
from shop.logging_in import CodeForm
from shop.second_factor import SecondFactorRefused

if TYPE_CHECKING:
    from shop.site import StaffSite

View = Callable[[HttpRequest, User], HttpResponse]


class EnrolForm(forms.Form):
    code = forms.CharField(
        label=_("Code"),
        max_length=10,
        widget=forms.TextInput(
            attrs={"autocomplete": "one-time-code", "inputmode": "numeric", "autofocus": True, "size": 10}
        ),
        help_text=_("The six digits that the app shows now."),
    )
    offered = forms.CharField(widget=forms.HiddenInput)


def urls(site: StaffSite) -> list[URLPattern]:
    def own(view: View) -> Any:
        """For staff about themselves, also where nothing else is open before a second factor is set up."""

        def guarded(request: HttpRequest) -> HttpResponse:
            user = cast(User, request.user)
            unproved = second_factor.enrolled(user) is not None and not second_factor.is_proved(user)
            if not site.is_staff(request) or unproved:
                return redirect_to_login(request.get_full_path(), reverse("admin:login"))
            return view(request, user)

        return never_cache(csrf_protect(sensitive_post_parameters()(guarded)))

    return [
        path("second-factor/", own(_second_factor), name="second_factor"),
        path("second-factor/codes/", own(_new_codes), name="second_factor_codes"),
        path("second-factor/remove/", own(_remove), name="second_factor_remove"),
    ]


def _second_factor(request: HttpRequest, user: User) -> HttpResponse:
    """How it stands; or, where there is none, a new secret to scan, which the code of a POST takes up."""
    device = second_factor.enrolled(user)
    if device is not None:
        left = device.recovery_codes.filter(used_at=None).count()
        context = {"device": device, "left": left, "required": settings.REQUIRE_TOTP}
        return _page(request, "admin/second_factor.html", context)
    posted = request.POST if request.method == "POST" else None
    form = EnrolForm(posted, initial={"offered": second_factor.offer(user)})
    if form.is_valid():
        try:
            made, codes = second_factor.enrol(user, **form.cleaned_data)
        except SecondFactorRefused as refusal:
            form.add_error("code", str(refusal))
        else:
            request.session.cycle_key()
            django_otp.login(request, made)
            return _codes(request, codes, _("From now on, logging in takes a code of the app."))
    try:
        secret = second_factor.secret_of(str(form["offered"].value()), user)
    except SecondFactorRefused:
        form = EnrolForm(initial={"offered": second_factor.offer(user)})
        messages.warning(request, _("This page was too old. Scan its new code."))
        secret = second_factor.secret_of(str(form["offered"].value()), user)
    address = second_factor.address_of(secret, user)
    context = {
        "form": form,
        "adminform": _fieldset(form),
        "secret": " ".join(secret[i : i + 4] for i in range(0, len(secret), 4)),
        "address": address,
        "qr": mark_safe(second_factor.qr_svg(address)),
        "required": settings.REQUIRE_TOTP,
    }
    return _page(request, "admin/second_factor_new.html", context)


def _new_codes(request: HttpRequest, user: User) -> HttpResponse:
    def do(device: Authenticator) -> HttpResponse:
        codes = second_factor.renew_codes(user, device)
        return _codes(request, codes, _("The ones before are good for nothing any more."))

    return _by_code(
        request,
        user,
        _("New recovery codes"),
        _("Ten new ones are made and shown once. The ones before are then good for nothing."),
        do,
    )


def _remove(request: HttpRequest, user: User) -> HttpResponse:
    def do(device: Authenticator) -> HttpResponse:
        second_factor.remove(user, device)
        messages.success(request, _("Your second factor is removed: logging in takes your password alone."))
        return HttpResponseRedirect(reverse("admin:index"))

    return _by_code(
        request,
        user,
        _("Remove the second factor"),
        _("Logging in then takes your password alone, and your recovery codes are good for nothing."),
        do,
        dangerous=True,
    )


def _by_code(
    request: HttpRequest,
    user: User,
    label: Any,
    follows: Any,
    do: Callable[[Authenticator], HttpResponse],
    *,
    dangerous: bool = False,
) -> HttpResponse:
    """GET asks for a code; POST does it if the code is right."""
    if second_factor.enrolled(user) is None:
        return HttpResponseRedirect(reverse("admin:second_factor"))
    form = CodeForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            return do(second_factor.prove(user, form.cleaned_data["code"]))
        except SecondFactorRefused as refusal:
            form.add_error("code", str(refusal))
    context = {"form": form, "adminform": _fieldset(form), "follows": follows, "dangerous": dangerous}
    return _page(request, "admin/second_factor_act.html", {"title": label, **context})


def _codes(request: HttpRequest, codes: list[str], note: Any) -> HttpResponse:
    """The recovery codes, in this answer only: nothing keeps them."""
    context = {"title": _("Recovery codes"), "codes": codes, "note": note}
    return _page(request, "admin/second_factor_codes.html", context)


def _fieldset(form: forms.Form) -> AdminForm:
    plain_form: Any = form  # the fieldset template takes any form; the stubs do not know
    return AdminForm(plain_form, [(None, {"fields": ["code"]})], {})


def _page(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    return TemplateResponse(
        request, template, {**admin.site.each_context(request), "title": _("Second factor"), **context}
    )
