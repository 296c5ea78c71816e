"""The audit of dependencies, against a database of vulnerabilities that a test has written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

AUDIT = Path(__file__).resolve().parents[2] / ".ci" / "audit"


@contextmanager
def osv(vulnerable: str = "") -> Iterator[str]:
    """A database that knows one vulnerability of the package `vulnerable`; its address."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = [{"id": "PYSEC-2026-1", "summary": "Bad", "affected": []}]
            body = json.dumps({"vulns": found} if asked["package"]["name"] == vulnerable else {}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        server.server_close()


def audit(url: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OSV_URL": url, "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, str(AUDIT)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )


def test_a_known_vulnerability_of_a_locked_package_fails() -> None:
    with osv("django") as url:
        done = audit(url)
    assert done.returncode == 1
    assert "PYSEC-2026-1" in done.stdout


def test_without_a_known_vulnerability_it_passes() -> None:
    with osv() as url:
        done = audit(url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No known vulnerabilities found" in done.stderr


def test_offline_it_says_so_in_one_line_and_passes() -> None:
    with osv() as url:
        pass  # it has answered, and is gone
    done = audit(url)
    assert done.returncode == 0
    assert done.stdout.startswith("Audit of dependencies skipped:")
    assert done.stdout.count("\n") == 1
