"""Who gets in: users with their second factors, and failed and successful log-ins. The administrators' screens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from axes.models import AccessAttempt, AccessLog
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _

from shop import second_factor
from shop.kernel.admin.acting import Act, ActForm, ActingAdmin
from shop.kernel.admin.readonly import LookOnlyAdmin
from shop.kernel.forms import ReasonField

if TYPE_CHECKING:
    _UserAdmin = UserAdmin[User]
else:
    _UserAdmin = UserAdmin


# Of Django's own pages about users; it has no German for them yet.
_DJANGOS = (
    gettext_noop("After you’ve created a user, you’ll be able to edit more user options."),
    gettext_noop("Conflicting form data submitted. Please try again."),
    gettext_noop("Disable password-based authentication"),
    gettext_noop("Disabled"),
    gettext_noop("Enable password-based authentication"),
    gettext_noop("Enable password-based authentication for this user by setting a password."),
    gettext_noop("Enabled"),
    gettext_noop("Password-based authentication"),
    gettext_noop("Password-based authentication was disabled."),
    gettext_noop("Raw passwords are not stored, so there is no way to see the user’s password."),
    gettext_noop("Reset password"),
    gettext_noop("Set password"),
    gettext_noop("Set password: %s"),
    gettext_noop("This action will <strong>enable</strong> password-based authentication for this user."),
    gettext_noop(
        "Whether the user will be able to authenticate using a password or not. If disabled, they may still be able "
        "to authenticate using other backends, such as Single Sign-On or LDAP."
    ),
)


@dataclass(frozen=True, slots=True)
class Done:
    message: str
    repeated: bool


# --- users -----------------------------------------------------------------------------------------------


class ResetForm(ActForm):
    reason = ReasonField(
        label=_("Reason"), help_text=_("And how you know that it is really this person who asks. It is kept.")
    )


class ResetSecondFactor(Act):
    slug = "reset-second-factor"
    label = _("Reset second factor")
    permission = "ops.reset_authenticator"
    form = ResetForm
    on_list = False
    dangerous = True
    follows = _("The password alone lets this person in again, until a new second factor is set up.")

    def why_not(self, subject: User) -> str:
        return "" if second_factor.enrolled(subject) else gettext("There is none.")

    def will(self, subject: User) -> str:
        return gettext("Telephone and recovery codes are good for nothing from then on.")

    def do(self, subject: User, data: dict[str, Any], actor: str, seen: str) -> Done:
        was_there = second_factor.reset(subject, User.objects.get(username=actor), data["reason"])
        return Done(
            gettext("It is reset.") if was_there else gettext("There was none."), repeated=not was_there
        )


admin.site.unregister(User)


@admin.register(User)
class StaffUserAdmin(ActingAdmin, _UserAdmin):
    acts = (ResetSecondFactor(),)
    change_form_template = "admin/acting_change_form.html"
    list_display = ("username", "email", "first_name", "last_name", "is_staff", "has_second_factor")
    list_select_related: ClassVar = ["authenticator"]

    @admin.display(description=_("second factor"), boolean=True)
    def has_second_factor(self, user: User) -> bool:
        return second_factor.enrolled(user) is not None


# --- log-ins ---------------------------------------------------------------------------------------------


class Unlock(Act):
    slug = "unlock"
    label = _("Forget these failures")
    permission = "axes.change_accessattempt"
    follows = _("Whoever was locked out by them can try again at once.")

    def why_not(self, subject: AccessAttempt) -> str:
        return "" if subject.failures_since_start else gettext("They are forgotten.")

    def do(self, subject: AccessAttempt, data: dict[str, Any], actor: str, seen: str) -> Done:
        counted = AccessAttempt.objects.filter(pk=subject.pk, failures_since_start__gt=0)
        return Done(gettext("They are forgotten."), repeated=not counted.update(failures_since_start=0))


@admin.register(AccessAttempt)
class AccessAttemptAdmin(ActingAdmin, LookOnlyAdmin):
    acts = (Unlock(),)
    change_form_template = "admin/acting_change_form.html"
    list_display = ("attempt_time", "username", "ip_address", "failures_since_start")
    search_fields = ("username", "ip_address")
    sortable_by: ClassVar = ()
    fields = ("username", "ip_address", "failures_since_start", "attempt_time", "user_agent", "path_info")
    readonly_fields = fields


@admin.register(AccessLog)
class AccessLogAdmin(LookOnlyAdmin):
    list_display = ("attempt_time", "logout_time", "username", "ip_address")
    search_fields = ("username", "ip_address")
    sortable_by: ClassVar = ()
    fields = ("username", "ip_address", "attempt_time", "logout_time", "user_agent", "path_info")
    readonly_fields = fields
