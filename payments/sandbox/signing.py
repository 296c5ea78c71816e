"""Webhook signatures as the Standard Webhooks specification has them (https://www.standardwebhooks.com/).

`v1,` and the base64 of an HMAC-SHA256 over `{id}.{timestamp}.{body}`; secrets are `whsec_` and base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Iterable

PREFIX = "whsec_"


class BadSecret(ValueError):
    """A webhook secret that is not `whsec_` and base64."""


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(24)).decode()


def key_of(secret: str) -> bytes:
    """The key in a `whsec_…` secret. Raises `BadSecret`."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(PREFIX) or not key:
        raise BadSecret("A webhook secret is “whsec_” and base64.")
    return key


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()


def is_signed(secrets_: Iterable[str], message_id: str, timestamp: int, body: bytes, signatures: str) -> bool:
    """Whether any of the space-separated `signatures` is that of any of the secrets."""
    good = [signature(secret, message_id, timestamp, body).encode() for secret in secrets_]
    given = [one.encode() for one in signatures.split()]
    return any(hmac.compare_digest(a, b) for a in good for b in given)
