"""Records the histories that `test_replay` replays, anew, from real runs: one for each way in which a workflow ends.

    python -m tests.orders.record_histories [--into DIR]

Run it after a change of the workflows that is meant to change histories, and only then: a release that cannot
replay the histories of the one before breaks the orders that are waiting. Without `--into` it writes to
tests/histories. It needs what the tests need, because it runs as one.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest

STORIES = Path(__file__).with_name("histories.py")
HISTORIES = Path(__file__).parents[1] / "histories"


def main() -> int:
    parser = argparse.ArgumentParser(description="Record the histories of the order workflows anew.")
    parser.add_argument("--into", type=Path, default=HISTORIES, help="folder (default: tests/histories)")
    os.environ["HISTORIES_INTO"] = str(parser.parse_args().into.resolve())
    return pytest.main(["--quiet", "--show-capture=no", str(STORIES)])


if __name__ == "__main__":
    sys.exit(main())
