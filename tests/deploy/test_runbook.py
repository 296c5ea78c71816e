"""The runbook and the page of the settings say what they have to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALERTS = (
    "VorkassePaymentTimeoutRate",
    "VorkasseCompensationFailureRate",
    "VorkasseWorkflowExecutionTime",
    "VorkasseTaskQueueBacklog",
    "VorkasseDeadLetterOld",
    "VorkasseBatchRunMissing",
    "VorkasseOutboxLag",
)


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_explained(alert: str) -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    section = text.partition(f"## {alert}\n")[2].partition("\n## ")[0]
    for part in ("**Means:**", "**Look at:**", "**Do:**"):
        assert part in section


def test_every_setting_is_explained() -> None:
    settings = (ROOT / "shop" / "settings.py").read_text()
    names = set(re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', settings))
    explained = (ROOT / "docs" / "settings.md").read_text()
    assert names
    assert {name for name in names if name not in explained} == set()


def test_replay_is_a_gate_of_its_own_in_ci() -> None:
    assert "\nmake replay\n" in (ROOT / ".ci" / "run").read_text()
    assert "tests/orders/test_replay.py" in (ROOT / "Makefile").read_text()
