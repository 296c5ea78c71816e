"""The practice provider as a real process on a free port, and a shop that receives its webhooks."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2

from payments.sandbox.signing import new_secret

ROOT = Path(__file__).parents[2]
STARTS_WITHIN_S = 30


@dataclass
class SandboxProcess:
    """A running provider. `kill` is SIGKILL; `restart` comes back at the same address with the same store."""

    data_path: Path
    webhook_url: str
    port: int
    api_key: str = "practice-key"
    webhook_secret: str = field(default_factory=new_secret)
    proc: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.proc = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "payments.sandbox",
                "--port",
                str(self.port),
                "--data",
                str(self.data_path),
            ],
            cwd=ROOT,
            env=os.environ
            | {
                "SANDBOX_API_KEY": self.api_key,
                "SANDBOX_WEBHOOK_URL": self.webhook_url,
                "SANDBOX_WEBHOOK_SECRET": self.webhook_secret,
            },
        )
        give_up_at = time.monotonic() + STARTS_WITHIN_S
        with self.client() as client:
            while time.monotonic() < give_up_at:
                if self.proc.poll() is not None:
                    raise RuntimeError(f"The practice provider ended with code {self.proc.returncode}.")
                try:
                    if client.get("/health", timeout=1).status_code == 200:
                        return
                except httpx2.HTTPError:
                    time.sleep(0.02)
        self.kill()
        raise RuntimeError("The practice provider did not start.")

    def stop(self) -> int:
        """Ask it to end (SIGTERM); its exit code."""
        self.proc.terminate()
        return self.proc.wait(timeout=20)

    def kill(self) -> None:
        self.proc.send_signal(signal.SIGKILL)
        self.proc.wait(timeout=20)

    def restart(self) -> None:
        """Start again, after `stop` or `kill`; stops it first if it runs."""
        if self.proc.poll() is None:
            self.stop()
        self.start()

    def client(self) -> httpx2.Client:
        """The provider for a program that has the API key."""
        headers = {"Authorization": f"Bearer {self.api_key}"}
        # Plain HTTP on the loopback: loading certificates would cost more than a test.
        return httpx2.Client(base_url=self.url, headers=headers, timeout=20, trust_env=False, verify=False)

    def faults(self, **faults: object) -> None:
        """Switch on exactly these faults; none clears them."""
        with self.client() as client:
            client.put("/faults", json=faults).raise_for_status()


@contextmanager
def sandbox(data_path: Path, webhook_url: str = "") -> Iterator[SandboxProcess]:
    """A provider with its store at `data_path`, for as long as the block runs."""
    process = SandboxProcess(data_path, webhook_url, _free_port())
    process.start()
    try:
        yield process
    finally:
        if process.proc.poll() is None:
            process.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class ReceivedWebhook:
    headers: dict[str, str]
    body: bytes


class WebhookReceiver:
    """A shop's webhook address. `answers` are the statuses of the next webhooks; then it answers 204."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[int] = []
        self.received: queue.Queue[ReceivedWebhook] = queue.Queue()

    def next(self) -> ReceivedWebhook:
        """The next webhook, waiting for it."""
        return self.received.get(timeout=20)


@contextmanager
def webhook_receiver() -> Iterator[WebhookReceiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
            self.send_header("Content-Length", "0")
            self.end_headers()
            receiver.received.put(ReceivedWebhook(dict(self.headers), body))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = WebhookReceiver(f"http://127.0.0.1:{server.server_port}/webhooks")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
