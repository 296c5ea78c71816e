"""What people do with their second factor: set it up, prove it, renew its recovery codes, remove it."""

from __future__ import annotations

import logging
import secrets
from base64 import b32decode, b32encode
from datetime import timedelta
from typing import Any, cast
from urllib.parse import quote, urlencode

import segno
from django.conf import settings
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import AnonymousUser, User
from django.core import signing
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext, gettext_noop

from shop.authenticators import (
    SECRET_BYTES,
    Authenticator,
    RecoveryCode,
    SecretUnreadable,
    digest_of,
    matching_step,
    new_recovery_code,
    plain,
    sealed,
)

log = logging.getLogger(__name__)

RECOVERY_CODES = 10
OFFER_LASTS = timedelta(hours=1)
_SALT = "vorkasse second factor"


class SecondFactorRefused(Exception):
    """It cannot be done; the message is a sentence for the person."""


# --- who has proved what ---------------------------------------------------------------------------------


def enrolled(user: User | AnonymousUser) -> Authenticator | None:
    """The person's authenticator; asked of the database once for each request."""
    return getattr(user, "authenticator", None)


def is_proved(user: User | AnonymousUser) -> bool:
    """Whether this session has given a code."""
    return getattr(user, "otp_device", None) is not None


def is_enough(user: User | AnonymousUser) -> bool:
    """Whether this session has given all that it has to: a code, or nothing where there is no second factor."""
    return is_proved(user) or (enrolled(user) is None and not settings.REQUIRE_TOTP)


# --- setting it up ---------------------------------------------------------------------------------------


def offer(user: User) -> str:
    """A new secret for this person, signed. It goes through their page and back; nothing keeps it until then."""
    secret = b32encode(secrets.token_bytes(SECRET_BYTES)).decode()
    return signing.dumps({"user": user.pk, "secret": secret}, salt=_SALT)


def secret_of(offered: str, user: User) -> str:
    """The secret in base32; raises `SecondFactorRefused` if it was not offered to this person within the hour."""
    try:
        content: dict[str, Any] = signing.loads(offered, salt=_SALT, max_age=OFFER_LASTS)
    except signing.BadSignature:
        content = {}
    if content.get("user") != user.pk:
        raise SecondFactorRefused(gettext("This page is too old. Open it again and scan its new code."))
    return cast(str, content["secret"])


def address_of(secret: str, user: User) -> str:
    """What an authenticator app reads: https://github.com/google/google-authenticator/wiki/Key-Uri-Format."""
    issuer = settings.SHOP_NAME.replace(":", " ")
    query = urlencode({"secret": secret, "issuer": issuer}, quote_via=quote)
    return f"otpauth://totp/{quote(f'{issuer}:{user.get_username()}')}?{query}"


def qr_svg(address: str) -> str:
    """As an `svg` element to put into a page; it needs no style and no script."""
    title = gettext("QR code")
    svg: str = segno.make(address, error="m", micro=False).svg_inline(scale=4, border=4, title=title)
    return svg


def enrol(user: User, offered: str, code: str) -> tuple[Authenticator, list[str]]:
    """Take up the offered secret, proved by a code of it; gives the recovery codes, which nothing shows again."""
    secret = b32decode(secret_of(offered, user))
    step = matching_step(secret, plain(code))
    if step is None:
        raise SecondFactorRefused(
            gettext(
                "This is not the code that the app shows now. Is the telephone's clock right? Try its next code."
            )
        )
    try:
        with transaction.atomic():
            device = Authenticator.objects.create(
                user=user, name="Authenticator app", sealed=sealed(secret, user.pk), last_step=step,
                last_used_at=timezone.now(),
            )  # fmt: skip
            codes = _renewed(device)
            _note(user, user, gettext_noop("Set up a second factor."))
    except IntegrityError:
        raise SecondFactorRefused(gettext("It is set up already.")) from None
    return device, codes


def _renewed(device: Authenticator) -> list[str]:
    codes = [new_recovery_code() for _ in range(RECOVERY_CODES)]
    device.recovery_codes.all().delete()
    RecoveryCode.objects.bulk_create(
        RecoveryCode(authenticator=device, digest=digest_of(code)) for code in codes
    )
    return codes


# --- proving it ------------------------------------------------------------------------------------------


def prove(user: User, code: str) -> Authenticator:
    """The authenticator, if this is a code of its app or a recovery code; else raises `SecondFactorRefused`.

    A code is taken once. After wrong ones there is a pause, in which none is looked at.
    """
    problem = ""
    # A wrong code is counted, so nothing may be raised before that is written.
    with transaction.atomic():
        device = Authenticator.objects.select_for_update().filter(user=user).first()
        if device is None:
            raise SecondFactorRefused(gettext("There is no second factor any more. Log in again."))
        allowed, why = device.verify_is_allowed()
        try:
            if not allowed:
                until = why["locked_until"] + timedelta(seconds=1)
                problem = gettext("Too many wrong codes. Try again at %s UTC.") % f"{until:%H:%M:%S}"
            elif not device.verify_token(plain(code)):
                problem = gettext("This code is wrong, or was used already. Try the app's next one.")
        except SecretUnreadable:
            problem = gettext(
                "Codes of the app cannot be checked since the site's secret key was changed. Use a recovery code, or "
                "ask an administrator to reset your second factor."
            )
    if problem:
        log.warning("User %s gave no valid second factor.", user.pk)
        raise SecondFactorRefused(problem)
    return cast(Authenticator, device)


@transaction.atomic
def renew_codes(user: User, device: Authenticator) -> list[str]:
    """New recovery codes in place of the old ones."""
    codes = _renewed(Authenticator.objects.select_for_update().get(pk=device.pk))
    _note(user, user, gettext_noop("Made new recovery codes."))
    return codes


@transaction.atomic
def remove(user: User, device: Authenticator) -> None:
    if settings.REQUIRE_TOTP:
        raise SecondFactorRefused(gettext("Everybody has to have one here (REQUIRE_TOTP)."))
    device.delete()
    _note(user, user, gettext_noop("Removed the second factor."))


@transaction.atomic
def reset(user: User, by: User, reason: str) -> bool:
    """Forget the person's second factor, because telephone and recovery codes are lost. Whether there was one."""
    deleted, _rows = Authenticator.objects.filter(user=user).delete()
    if deleted:
        _note(user, by, gettext_noop("Reset the second factor"), reason)
    return bool(deleted)


def _note(user: User, by: User, what: str, reason: str = "") -> None:
    """For the person's history among the users, and the log."""
    told = f"{gettext(what)}: {reason}" if reason else gettext(what)
    LogEntry.objects.log_actions(by.pk, [user], CHANGE, change_message=told, single_object=True)
    log.info("Second factor of user %s, by user %s: %s", user.pk, by.pk, what)
