"""`make tour`: every stop can be reached, and has its picture and its place on the page."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tour import page
from tests.tour.stops import BEFORE_OPENING, STOPS

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)
def test_every_stop_of_the_tour_is_reached(chromium_path: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.tour", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"CHROMIUM": chromium_path},
        capture_output=True,
        text=True,
        timeout=850,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    pictures = {path.stem: path.stat().st_size for path in (tmp_path / "tour").glob("*.png")}
    assert set(pictures) == {stop.name for stop in (*BEFORE_OPENING, *STOPS)}
    assert sum(pictures.values()) < 3_000_000


def test_page_of_the_tour_is_that_of_its_stops() -> None:
    assert (ROOT / "docs" / "tour.md").read_text() == page.text(), "make tour writes it"
    for stop in (*BEFORE_OPENING, *STOPS):
        assert (ROOT / "docs" / "tour" / f"{stop.name}.png").exists(), "make tour takes it"
