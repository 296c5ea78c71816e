"""The settings as a process reads them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def check(code: str = "pass", **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if k not in ("DEBUG", "SECRET_KEY", "PAYMENT_WINDOW")}
    return subprocess.run(
        [sys.executable, "-c", f"import django; django.setup(); {code}"],
        env=inherited | {"DJANGO_SETTINGS_MODULE": "shop.settings"} | env,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_site_refuses_to_start_without_a_secret_of_its_own() -> None:
    for env in ({}, {"SECRET_KEY": "practice-only-secret-key-that-is-public"}):
        refused = check(DEBUG="off", **env)
        assert refused.returncode != 0
        assert "SECRET_KEY is not set" in refused.stderr
    assert check(DEBUG="off", SECRET_KEY="x" * 50).returncode == 0
    assert check(DEBUG="on").returncode == 0


def test_payment_window_that_is_no_duration_is_named() -> None:
    refused = check(DEBUG="on", PAYMENT_WINDOW="two weeks")
    assert refused.returncode != 0
    assert "'two weeks' is not a duration" in refused.stderr


def test_cron_that_is_an_interval_is_refused_with_what_to_set_instead() -> None:
    refused = check(DEBUG="on", PAYMENT_CHECK_CRON="@every 5m")
    assert refused.returncode != 0
    assert "set PAYMENT_CHECK_INTERVAL" in refused.stderr
