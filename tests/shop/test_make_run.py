"""`make run` in a fresh clone, as a new user does it, through `up.json` to a shipped order and back again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from shop.up import ports
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
INSTALLS = 600  # seconds that pip may take
ADDRESS = {"name": "Ada", "street": "Row 1", "postal_code": "10115", "city": "Berlin", "country": "DE"}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed tree and what is not committed yet, without anything that this checkout has built."""
    folder = Path(tmp_path_factory.mktemp("fresh")) / "vorkasse"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@contextmanager
def running(clone: Path, **env: str) -> Iterator[dict[str, Any]]:
    """`make run` until the block ends, then Ctrl-C; gives what `up.json` says."""
    note = clone / ".data" / "up.json"
    log = clone / "run.log"
    own = {"DATABASE_URL", "TEMPORAL_ADDRESS", "DEBUG", "EMAIL_URL", "SECRET_KEY", "DATA_DIR", "PORT"}
    inherited = {k: v for k, v in os.environ.items() if k not in own and not k.startswith("DJANGO")}
    with log.open("ab") as output:
        make = subprocess.Popen(
            ["make", "run"],
            cwd=clone,
            env=inherited | env,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until(lambda: note.exists() or make.poll() is not None, INSTALLS)
        assert make.poll() is None, log.read_text()[-3000:]
        yield json.loads(note.read_text())
    finally:
        os.killpg(make.pid, signal.SIGINT)  # what Ctrl-C in a terminal does
        make.wait(60)
    assert not note.exists()


class Shop:
    def __init__(self, up: dict[str, Any]) -> None:
        self.up = up
        headers = {"Authorization": f"Bearer {up['api_key']}"}
        self.http = httpx2.Client(base_url=up["web"], headers=headers, timeout=20, trust_env=False)

    def place(self) -> str:
        product = wait_until(lambda: self.http.get("/api/products/").json()["items"], 60)[0]
        order = {
            "customer": {"name": "Ada", "email": "ada@example.com"},
            "shipping_address": ADDRESS,
            "currency": product["currency"],
            "payment_method": "sandbox",
            "lines": [{"sku": product["sku"], "quantity": 1}],
        }
        answer = self.http.post("/api/orders/", json=order)
        assert answer.status_code == 201, answer.text
        number: str = answer.json()["number"]
        return number

    def order(self, number: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.http.get(f"/api/orders/{number}/").json()
        return answer

    def until(self, number: str, status: str) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            order = self.order(number)
            return order if order["saga"]["status"] == status else None

        found: dict[str, Any] = wait_until(reached, 60)
        return found

    def pay(self, number: str) -> None:
        reference = self.order(number)["payment"]["reference"]
        httpx2.post(
            f"{self.up['provider']}/customer/{reference}/pay", json={}, trust_env=False
        ).raise_for_status()


@pytest.mark.timeout(1200)
def test_make_run_ships_an_order_and_finds_its_state_again(clone: Path) -> None:
    taken = ports.any_free()
    with running(clone, PORT=str(taken)) as up:
        shop = Shop(up)
        paid, waiting = shop.place(), shop.place()
        shop.until(paid, "waiting")
        shop.until(waiting, "waiting")
        shop.pay(paid)
        order = shop.until(paid, "completed")
        assert order["status"] == "completed"
        assert order["amount_received"] == order["total"]
        assert [step["step"] for step in order["saga"]["steps"]] == [
            "inventory", "payment_hold", "payment_captured", "shipping", "confirmation",
        ]  # fmt: skip
        with psycopg.connect(up["database_url"]) as database:
            (kept,) = database.execute(
                "SELECT count(*) FROM orders_mail WHERE state = 'sent' AND kind = 'confirmed'"
            ).fetchone() or (0,)
        assert kept >= 1
        assert {"admin"} <= set(up["accounts"])
        # Every demo order has come to its end through the engine.
        marker = clone / ".data" / "demo-is-seeded"
        wait_until(marker.exists, 120)
        # `manage.py` beside it works on that shop.
        beside = {k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}
        books = subprocess.run(
            [".venv/bin/python", "manage.py", "reconcile"],
            cwd=clone, env=beside, capture_output=True, text=True,
        )  # fmt: skip
        assert (books.returncode, books.stdout) == (0, "The books agree.\n"), books.stderr

    with running(clone) as up:
        shop = Shop(up)
        assert shop.order(paid)["saga"]["status"] == "completed"
        assert shop.order(waiting)["saga"]["status"] == "waiting"
        shop.pay(waiting)
        shop.until(waiting, "completed")
