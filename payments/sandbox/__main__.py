"""`python -m payments.sandbox --port N --data FILE.sqlite3`: the practice provider as a process."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from payments.sandbox.app import provider
from payments.sandbox.connection import DroppableHttp
from payments.sandbox.signing import BadSecret, key_of
from payments.sandbox.store import Store, StoreInUse

# Longer than clients keep an idle connection, so none is closed just as it is used again.
KEEP_ALIVE_S = 75
DRAIN_S = 3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m payments.sandbox", description="The practice provider.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--data", type=Path, required=True, help="the SQLite file; made when it is missing")
    options = parser.parse_args()

    api_key = os.environ.get("SANDBOX_API_KEY", "")
    webhook_url = os.environ.get("SANDBOX_WEBHOOK_URL", "")
    webhook_secret = os.environ.get("SANDBOX_WEBHOOK_SECRET", "")
    if not api_key:
        sys.exit("Set SANDBOX_API_KEY: the key that shops must send.")
    if webhook_url:
        _check_webhook(webhook_url, webhook_secret)

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    options.data.parent.mkdir(parents=True, exist_ok=True)
    try:
        store = Store(options.data)
    except StoreInUse as error:
        sys.exit(str(error))
    uvicorn.run(
        provider(store, api_key, webhook_url, webhook_secret),
        host=options.host,
        port=options.port,
        http=DroppableHttp,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    store.close()


def _check_webhook(url: str, secret: str) -> None:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        sys.exit(f"SANDBOX_WEBHOOK_URL is not an http address: {url}")
    try:
        key_of(secret)
    except BadSecret as error:
        sys.exit(f"SANDBOX_WEBHOOK_SECRET: {error}")


if __name__ == "__main__":
    main()
