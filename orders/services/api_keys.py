"""Keys of the API. A key is shown once, when it is made; the database holds only its SHA-256."""

from __future__ import annotations

import hashlib
import secrets

from django.utils import timezone

from orders.models import ApiKey

PREFIX = "vk_"


def create(name: str) -> str:
    """A new key for `name`. It cannot be shown again."""
    key = PREFIX + secrets.token_urlsafe(32)
    ApiKey.objects.create(name=name, digest=_digest(key))
    return key


def ensure(name: str, key: str) -> ApiKey:
    """Make `key` known if it is not. One that was revoked stays revoked."""
    return ApiKey.objects.get_or_create(digest=_digest(key), defaults={"name": name})[0]


def find(key: str) -> ApiKey | None:
    """Whose key this is; None if it is unknown or revoked. The digest is what is compared, never the key."""
    return ApiKey.objects.filter(digest=_digest(key), revoked_at=None).first()


def revoke(api_key: ApiKey) -> None:
    """From now on the key is refused."""
    ApiKey.objects.filter(pk=api_key.pk, revoked_at=None).update(revoked_at=timezone.now())
    api_key.refresh_from_db()


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
