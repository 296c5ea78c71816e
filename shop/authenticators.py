"""Second factors of staff: an authenticator app (TOTP, RFC 6238), and codes for the day when it is lost.

The app's secret has to be read again, so it is encrypted under a key derived from SECRET_KEY and bound to its person.
Recovery codes are kept as hashes.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from base64 import b32encode
from typing import ClassVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django_otp.models import Device, ThrottlingMixin
from django_otp.oath import TOTP

SECRET_BYTES = 20  # RFC 4226, section 4
NONCE_BYTES = 12
TOLERANCE = 1  # steps of 30 s that a telephone's clock may be off
# Of wrong codes in a row: a pause doubles with each, and ends at 2^10 s (17 minutes).
MOST_COUNTED = 11


class SecretUnreadable(Exception):
    """SECRET_KEY was changed, and the one before is not among SECRET_KEY_FALLBACKS."""


class Authenticator(ThrottlingMixin, Device):  # type: ignore[misc]  # they have no types
    """The app of one person. `last_step` is the time step of the last code that was taken: none is taken twice."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="authenticator"
    )
    sealed = models.BinaryField(editable=False)
    last_step = models.BigIntegerField(default=-1, editable=False)
    created_at = models.DateTimeField(_("set up"), auto_now_add=True)
    last_used_at = models.DateTimeField(_("last used"), null=True, editable=False)

    class Meta:
        verbose_name = _("second factor")
        verbose_name_plural = _("second factors")
        default_permissions: ClassVar = ()
        permissions: ClassVar = [("reset_authenticator", "Can reset the second factor of others")]

    def __str__(self) -> str:
        return str(gettext("second factor of %s") % self.user)

    def get_throttle_factor(self) -> int:
        return 1

    def throttle_increment(self, commit: bool = True) -> None:
        super().throttle_increment(commit=False)
        self.throttling_failure_count: int = min(self.throttling_failure_count, MOST_COUNTED)
        if commit:
            self.save()

    def verify_token(self, token: str) -> bool:
        """Whether it is a code of the app or a recovery code, which is used up. Under the row's lock, and only if
        `verify_is_allowed`; raises `SecretUnreadable`."""
        right = self._is_of_app(token) if len(token) == 6 else self._is_recovery(token)
        if right:
            self.last_used_at = timezone.now()
            self.throttle_reset()
        else:
            self.throttle_increment()
        return right

    def _is_of_app(self, token: str) -> bool:
        secret = opened(bytes(self.sealed), self.user_id)
        step = matching_step(secret, token, self.last_step + 1)
        if step is None:
            return False
        self.last_step = step
        self.sealed = sealed(secret, self.user_id)  # under the present key, if SECRET_KEY was changed
        return True

    def _is_recovery(self, token: str) -> bool:
        unused = self.recovery_codes.filter(digest=digest_of(token), used_at=None)
        return bool(unused.update(used_at=timezone.now()))


class RecoveryCode(models.Model):
    """One code, good once. Only its SHA-256 is stored: the code itself has 80 bits of randomness."""

    authenticator = models.ForeignKey(Authenticator, on_delete=models.CASCADE, related_name="recovery_codes")
    digest = models.CharField(max_length=64, editable=False)
    used_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = _("recovery code")
        verbose_name_plural = _("recovery codes")
        default_permissions: ClassVar = ()
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["authenticator", "digest"], name="recovery_code_once")
        ]

    def __str__(self) -> str:
        return gettext("recovery code %s") % self.pk


# --- codes -----------------------------------------------------------------------------------------------


def matching_step(secret: bytes, code: str, earliest: int = 0) -> int | None:
    """The time step of which this is the code, at `earliest` or later; None if it is of none about now."""
    if not (code.isascii() and code.isdigit()):
        return None
    totp = TOTP(secret)
    totp.time = time.time()
    return totp.t() if totp.verify(int(code), TOLERANCE, earliest) else None


def new_recovery_code() -> str:
    """Four groups of four: `abcd-efgh-ijkl-mnop`."""
    text = b32encode(secrets.token_bytes(10)).decode().lower()
    return "-".join(text[i : i + 4] for i in range(0, 16, 4))


def plain(code: str) -> str:
    """As it is compared: people type spaces, dashes and capitals."""
    return "".join(code.split()).replace("-", "").lower()


def digest_of(code: str) -> str:
    return hashlib.sha256(plain(code).encode("utf-8", "surrogatepass")).hexdigest()


# --- the secret at rest ----------------------------------------------------------------------------------


def sealed(secret: bytes, user_pk: int) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + _cipher(settings.SECRET_KEY).encrypt(nonce, secret, _bound_to(user_pk))


def opened(sealed: bytes, user_pk: int) -> bytes:
    """Raises `SecretUnreadable`."""
    nonce, rest = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        try:
            return _cipher(key).decrypt(nonce, rest, _bound_to(user_pk))
        except InvalidTag:
            continue
    raise SecretUnreadable


def _cipher(key: str) -> AESGCMSIV:
    return AESGCMSIV(HKDF(SHA256(), 32, salt=None, info=b"vorkasse second factor").derive(key.encode()))


def _bound_to(user_pk: int) -> bytes:
    return f"user {user_pk}".encode()
