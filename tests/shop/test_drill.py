"""`make drill`, and that it tells when something goes wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.drill.story import StepFailed, Story

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)
def test_drill_ends_with_all_closed_and_books_that_agree() -> None:
    drill = subprocess.run(
        [sys.executable, "-m", "tests.drill"], cwd=ROOT, capture_output=True, text=True, timeout=800
    )
    assert drill.returncode == 0, drill.stdout + drill.stderr
    told = [line for line in drill.stdout.splitlines() if "manage.py reconcile" in line]
    assert [line.partition("exit code ")[2][0] for line in told] == ["0", "1", "0", "0"]
    assert "× rollback failed”; the signature of the webhook is right" in drill.stdout


def test_step_that_fails_ends_the_story_and_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StepFailed, match="The carrier is repaired"), Story().step("The carrier is repaired"):
        raise AssertionError("It is not.")
    assert "FAILED after 0.0 s: It is not." in capsys.readouterr().out
