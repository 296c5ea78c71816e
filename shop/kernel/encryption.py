"""Payloads as Temporal keeps them: encrypted, so that its operator and its database hold nothing to read.

AES-256 in GCM-SIV mode (RFC 8452), with a random nonce. Plain GCM is safe for 2^32 random nonces a key, which 1,000
sagas a second use up in days; GCM-SIV is safe for far more, and two equal nonces would show no more than that two
payloads are equal. The key's name is authenticated with the content.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

ENCODING = b"binary/encrypted"
KEY_NAME = "encryption-key-id"
KEY_BYTES = 32
NONCE_BYTES = 12


class KeysInvalid(ValueError):
    """TEMPORAL_PAYLOAD_KEYS is no list of keys; the message is a sentence for people."""


class PayloadUnreadable(Exception):
    """A payload cannot be decrypted by this process; the message says what to set."""


def parse_keys(texts: Sequence[str]) -> dict[str, bytes]:
    """Keys by name, in their order, from texts `name:key`, the key as 32 bytes in base64; raises `KeysInvalid`."""
    keys: dict[str, bytes] = {}
    for position, text in enumerate(texts, 1):
        name, _, encoded = (part.strip() for part in text.partition(":"))
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            key = b""
        # The text is not repeated: it is a secret.
        if not name or len(key) != KEY_BYTES:
            raise KeysInvalid(
                f"TEMPORAL_PAYLOAD_KEYS: key {position} is not of the form name:key with 32 bytes in base64. "
                "Make one with: openssl rand -base64 32"
            )
        if name in keys:
            raise KeysInvalid(f"TEMPORAL_PAYLOAD_KEYS: there are two keys of the name “{name}”.")
        keys[name] = key
    return keys


class Encryption(PayloadCodec):
    """Encrypts with the first key, decrypts with any. What was not encrypted passes as it is, so that encryption
    can be switched on while workflows run."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        self._first = next(iter(keys))
        self._ciphers = {name: AESGCMSIV(key) for name, key in keys.items()}

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._encrypted(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Raises `PayloadUnreadable`."""
        return [self._decrypted(p) if p.metadata.get("encoding") == ENCODING else p for p in payloads]

    def _encrypted(self, payload: Payload) -> Payload:
        nonce, name = os.urandom(NONCE_BYTES), self._first.encode()
        sealed = self._ciphers[self._first].encrypt(nonce, payload.SerializeToString(), name)
        return Payload(metadata={"encoding": ENCODING, KEY_NAME: name}, data=nonce + sealed)

    def _decrypted(self, payload: Payload) -> Payload:
        name = payload.metadata.get(KEY_NAME, b"")
        shown = name.decode(errors="replace")
        cipher = self._ciphers.get(shown)
        if cipher is None:
            raise PayloadUnreadable(
                f"A payload was encrypted with the key “{shown}”, which this process does not have. "
                "Add it to TEMPORAL_PAYLOAD_KEYS, after the first, and start the process again."
            )
        nonce, sealed = payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:]
        try:
            return Payload.FromString(cipher.decrypt(nonce, sealed, name))
        except (InvalidTag, ValueError):
            raise PayloadUnreadable(
                f"A payload cannot be decrypted with the key “{shown}” of TEMPORAL_PAYLOAD_KEYS: it is another key of "
                "that name than the one it was encrypted with, or the payload was changed."
            ) from None
