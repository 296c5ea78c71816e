"""`manage.py up` as the drill's shop, and what is done to it from outside: commands, the API, the provider."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from temporalio.client import Client

from shop.up import datadir, ports, postgres
from shop.up.processes import last_lines, spawn
from tests.drill.staff import Staff
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
PATIENCE = 180  # seconds, on a machine that does other things too
METRICS_TOKEN = "drill-metrics"
PARTS_WITH_PORTS = ("temporal", "temporal_ui", "provider", "worker", "postgres")
# Nothing else of the caller's environment: a shop that is set up there is not the one of the drill.
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")


@dataclass(frozen=True)
class RunningShop:
    """The shop while it runs. `up` is what `up.json` says."""

    data_dir: Path
    env: dict[str, str]
    up: dict[str, Any]

    def manage(self, *command: str) -> subprocess.CompletedProcess[str]:
        """`manage.py`, called beside the running shop as its people call it."""
        return subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def staff(self, role: str) -> Staff:
        return Staff(self.up["web"], role, self.up["accounts"][role])

    # --- the shop's frontend -----------------------------------------------------------------------------

    def api(self) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.up['api_key']}"}
        return plain_http(self.up["web"], headers)

    def place(self, sku: str, customer: str) -> str:
        """Order one piece; the order's number. `customer` is a mail address."""
        order = {
            "customer": {"name": "Ada Lovelace", "email": customer},
            "shipping_address": {
                "name": "Ada Lovelace", "street": "Row 1", "postal_code": "10115", "city": "Berlin", "country": "DE",
            },
            "currency": "EUR",
            "payment_method": "sandbox",
            "lines": [{"sku": sku, "quantity": 1}],
        }  # fmt: skip
        with self.api() as api:
            number: str = api.post("/api/orders/", json=order).raise_for_status().json()["number"]
        return number

    def orders(self, numbers: list[str]) -> list[dict[str, Any]]:
        with self.api() as api:
            return [api.get(f"/api/orders/{number}/").raise_for_status().json() for number in numbers]

    def until(self, numbers: list[str], reached: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """The orders, once each has got there."""

        def all_have() -> list[dict[str, Any]] | None:
            found = self.orders(numbers)
            if all(map(reached, found)):
                return found
            time.sleep(0.2)  # the machine is small, and the shop is on it
            return None

        return wait_until(all_have, PATIENCE)

    def available(self, sku: str) -> int:
        with self.api() as api:
            products = api.get("/api/products/").raise_for_status().json()["items"]
        (pieces,) = [product["available"] for product in products if product["sku"] == sku]
        return int(pieces)

    def metric(self, name: str) -> float:
        """As Prometheus would scrape it from the web server."""
        with plain_http(self.up["web"], {"Authorization": f"Bearer {METRICS_TOKEN}"}) as http:
            page = http.get("/metrics").raise_for_status().text
        (value,) = [line.split()[1] for line in page.splitlines() if line.startswith(f"{name} ")]
        return float(value)

    # --- the world around it -----------------------------------------------------------------------------

    def provider(self) -> httpx2.Client:
        """The practice provider, which is the carrier too."""
        return plain_http(self.up["provider"], {"Authorization": f"Bearer {self.env['SANDBOX_API_KEY']}"})

    def pay(self, orders: list[dict[str, Any]]) -> None:
        """Each customer pays all of it, at the provider."""
        with self.provider() as http:
            for order in orders:
                http.post(f"/customer/{order['payment']['reference']}/pay", json={}).raise_for_status()

    def carrier_refuses_cancellations(self, refuses: bool) -> None:
        faults = {"cancel_shipment": {"refuse_rate": 1}} if refuses else {}
        with self.provider() as http:
            http.put("/faults", json=faults).raise_for_status()

    def parcels(self, number: str) -> list[str]:
        """The states of the order's parcels in the carrier's books."""
        with self.provider() as http:
            found = http.get("/shipments", params={"merchant_reference": number}).raise_for_status().json()
        return [parcel["status"] for parcel in found["shipments"]]

    def payments(self, number: str) -> list[tuple[int, int]]:
        """What was captured and refunded of each of the order's payments, in the provider's books."""
        with self.provider() as http:
            found = http.get("/payments", params={"merchant_reference": number}).raise_for_status().json()
        return [(payment["captured"], payment["refunded"]) for payment in found["payments"]]

    def terminate(self, workflow_id: str, reason: str) -> None:
        """What the button of that name does in Temporal's UI."""

        async def ask() -> None:
            client = await Client.connect(self.up["temporal"])
            await client.get_workflow_handle(workflow_id).terminate(reason=reason)

        asyncio.run(ask())


def plain_http(base_url: str, headers: dict[str, str] | None = None, **options: Any) -> httpx2.Client:
    """Of loopback addresses only: proxies and certificates are none of its business."""
    return httpx2.Client(
        base_url=base_url, headers=headers, timeout=60, trust_env=False, verify=False, **options
    )


@contextmanager
def running_shop(data_dir: Path, **settings: str) -> Iterator[RunningShop]:
    """The whole shop, until the block ends; raises if it does not start, or does not end well."""
    env = {name: os.environ[name] for name in INHERITED if name in os.environ}
    env |= {
        "DATA_DIR": str(data_dir),
        "PORT": str(ports.any_free()),
        "CARRIER": "practice",
        "METRICS_TOKEN": METRICS_TOKEN,
        **settings,
    }
    # Else shops that start side by side would all choose the same ones, and find them taken a moment later.
    datadir.write(data_dir / "ports.json", {part: ports.any_free() for part in PARTS_WITH_PORTS})
    log, note = data_dir / "up.log", data_dir / "up.json"
    with log.open("wb") as output:
        argv = [sys.executable, "manage.py", "up", "--no-demo"]
        process = spawn(argv, output, env=env, cwd=ROOT, death_signal=signal.SIGTERM)
    try:
        wait_until(lambda: note.exists() or process.poll() is not None, PATIENCE)
        if process.poll() is not None:
            raise RuntimeError("The shop did not start:\n" + "\n".join(last_lines(log)))
        settled = json.loads((data_dir / "settings.json").read_text())
        yield RunningShop(data_dir, settled | env, json.loads(note.read_text()))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
        postgres.remove(data_dir)
    if process.returncode != 0:
        raise RuntimeError("The shop did not end well:\n" + "\n".join(last_lines(log)))
