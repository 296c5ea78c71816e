"""Payload encryption: nothing to read for others, keys that change, and sentences where a key is missing."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError

from shop.kernel import temporal
from shop.kernel.encryption import KEY_NAME, Encryption, KeysInvalid, PayloadUnreadable, parse_keys

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
SECRET = {"order_number": "2026-000001"}


def encode(codec: Encryption, value: Any = SECRET) -> Payload:
    (payload,) = asyncio.run(codec.encode(DataConverter.default.payload_converter.to_payloads([value])))
    return payload


def decode(codec: Encryption, payload: Payload) -> Any:
    (plain,) = asyncio.run(codec.decode([payload]))
    (value,) = DataConverter.default.payload_converter.from_payloads([plain])
    return value


def test_what_temporal_keeps_shows_nothing_and_is_read_back() -> None:
    codec = Encryption({"a": OLD})
    sealed = encode(codec)
    assert b"2026-000001" not in sealed.SerializeToString()
    assert b"json/plain" not in sealed.SerializeToString()
    assert sealed != encode(codec)
    assert decode(codec, sealed) == SECRET


def test_rotation_reads_the_old_and_writes_with_the_first() -> None:
    sealed = encode(Encryption({"old": OLD}))
    rotated = Encryption({"new": NEW, "old": OLD})
    assert decode(rotated, sealed) == SECRET
    assert encode(rotated).metadata[KEY_NAME] == b"new"


def test_what_was_sent_before_encryption_is_still_read() -> None:
    plain = DataConverter.default.payload_converter.to_payloads([SECRET])[0]
    assert decode(Encryption({"a": OLD}), plain) == SECRET


def test_missing_wrong_or_swapped_key_is_said_in_a_sentence() -> None:
    sealed = encode(Encryption({"2026-10": OLD}))
    with pytest.raises(PayloadUnreadable, match="key “2026-10”, which this process does not have"):
        decode(Encryption({"2026-11": NEW}), sealed)
    with pytest.raises(PayloadUnreadable, match="another key of that name"):
        decode(Encryption({"2026-10": NEW}), sealed)
    sealed.metadata[KEY_NAME] = b"2026-11"  # the name is authenticated
    with pytest.raises(PayloadUnreadable, match="another key of that name"):
        decode(Encryption({"2026-11": OLD}), sealed)
    sealed.data = b"short"
    with pytest.raises(PayloadUnreadable):
        decode(Encryption({"2026-11": OLD}), sealed)


def test_messages_of_errors_are_encrypted_too(settings: Any) -> None:
    settings.TEMPORAL_PAYLOAD_KEYS = {"a": OLD}
    from temporalio.api.failure.v1 import Failure

    async def there_and_back() -> tuple[bytes, BaseException]:
        failure = Failure()
        await temporal.data_converter().encode_failure(
            ApplicationError("ada@example.com was refused"), failure
        )
        sent = failure.SerializeToString()
        return sent, await temporal.data_converter().decode_failure(failure)

    sent, error = asyncio.run(there_and_back())
    assert b"ada@example.com" not in sent
    assert "ada@example.com was refused" in str(error)


def test_keys_are_read_in_their_order_or_refused_without_repeating_them() -> None:
    text = base64.b64encode(OLD).decode()
    assert parse_keys([f"b:{text}", f" a : {text} "]) == {"b": OLD, "a": OLD}
    assert list(parse_keys([f"b:{text}", f"a:{text}"])) == ["b", "a"]
    for wrong in (text, f":{text}", f"a:{text[:20]}", "a:not base64 at all", "a:"):
        with pytest.raises(KeysInvalid, match="key 2 is not of the form name:key") as refused:
            parse_keys([f"first:{text}", wrong])
        assert text[:20] not in str(refused.value)
    with pytest.raises(KeysInvalid, match="two keys of the name “a”"):
        parse_keys([f"a:{text}", f"a:{text}"])
