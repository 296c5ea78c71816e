"""What `up` keeps in the data folder: a lock, secrets and ports, and `up.json` while the shop is ready."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ACCOUNTS = ("admin", "orders", "payments", "ops", "viewer")


class AlreadyRunning(Exception):
    """Another `up` works on this data folder."""


@contextlib.contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the data folder for this process alone; the kernel lets go of it however the process ends.

    Raises `AlreadyRunning`.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            address = read(data_dir / "up.json").get("web")
            where = f"at {address}" if address else "and is about to be ready"
            raise AlreadyRunning(
                f"Vorkasse already runs on {data_dir}, {where}. Stop it first, or set another DATA_DIR."
            ) from None
        yield


def read(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty when there is no such file."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return content


def write(path: Path, content: dict[str, Any]) -> None:
    """Replace a file in one step, readable by its owner only."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def load_secrets(data_dir: Path) -> dict[str, Any]:
    """The secrets of this installation: made once, then kept in `secrets.json`."""
    path = data_dir / "secrets.json"
    known = read(path)
    fresh = {
        "secret_key": secrets.token_urlsafe(48),
        "sandbox_api_key": "sandbox_" + secrets.token_urlsafe(24),
        # The form of Standard Webhooks: a prefix, then 32 random bytes in base64.
        "sandbox_webhook_secret": "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
        "api_key": "vk_" + secrets.token_urlsafe(24),
        "accounts": {name: _readable_password() for name in ACCOUNTS},
    }
    kept = {**fresh, **known}
    if kept != known:
        write(path, kept)
    return kept


def _readable_password() -> str:
    """Like `rilo-gaku-4821`: easy to type; it opens practice accounts on the loopback address only."""

    def word() -> str:
        return "".join(secrets.choice("bdfgklmnprstvz") + secrets.choice("aeiou") for _ in range(2))

    return f"{word()}-{word()}-{secrets.randbelow(9000) + 1000}"
