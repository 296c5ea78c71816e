"""The pages on how to extend the shop, done as they say: in a copy of it, where orders are then driven through."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.docs.extended.stand_ins import Accounting, AcmePay, ParcelPost, running

ROOT = Path(__file__).parents[2]
PARTS = ("manage.py", "pyproject.toml", "shop", "payments", "orders", "templates", "tests")
NEW_FILES = {
    "add-a-gateway": "payments/gateways/acme.py",
    "add-a-carrier": "orders/carriers/parcel_post.py",
    "add-a-saga-step": "orders/services/invoices.py",
}
# Behind which lines of the settings the pages' lines go.
AFTER = {"add-a-gateway": "# Requests a second to each provider", "add-a-carrier": "# --- payments ---"}


def blocks(page: str, language: str) -> list[tuple[str, str]]:
    """The page's code of this language, each with the file that was named last before it."""
    found, file = [], ""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    for fence, code, named in re.findall(
        r"^```(\w+)\n(.*?)^```|`([\w/]+\.py)`", text, re.MULTILINE | re.DOTALL
    ):
        if named and (ROOT / named.partition("/")[0]).exists():
            file = named
        elif fence == language:
            found.append((file, code))
    return found


def change(file: Path, diff: str) -> None:
    """Make the changes. A line that ends in … stands for all lines that begin so."""
    lines = file.read_text().splitlines()
    for hunk in diff.split("@@\n"):
        marks = [(line[:1] or " ", line[1:]) for line in hunk.splitlines()]
        old = [text for mark, text in marks if mark in " -"]
        starts = [
            at for at in range(len(lines)) if all(map(_is, lines[at:], old)) and at + len(old) <= len(lines)
        ]
        assert len(starts) == 1, f"{file} has {len(starts)} places for:\n{hunk}"
        at = starts[0]
        new, here = [], iter(lines[at : at + len(old)])
        for mark, text in marks:
            if mark == "+":
                new.append(text)
            elif mark == "-":
                next(here)
            else:
                new.append(next(here))
        lines[at : at + len(old)] = new
    file.write_text("\n".join(lines) + "\n")


def _is(line: str, shown: str) -> bool:
    return line.startswith(shown[:-1]) if shown.endswith("…") else line == shown


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop with all that the pages add."""
    folder: Path = tmp_path_factory.mktemp("extended")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    for page, name in NEW_FILES.items():
        code = blocks(page, "python")
        assert code[0][0] == name
        assert not (folder / name).exists()
        (folder / name).write_text(code[0][1])
        for file, more in code[1:]:
            assert file == "shop/settings.py"
            settings = (folder / file).read_text()
            assert settings.count(AFTER[page]) == 1
            (folder / file).write_text(settings.replace(AFTER[page], more + AFTER[page]))
        for file, diff in blocks(page, "diff"):
            change(folder / file, diff)
    shutil.copy(folder / "tests/docs/extended/added.py", folder / "tests/orders/test_added.py")
    return folder


def run(copy: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DATABASE_URL", "PYTEST_CURRENT_TEST")
    }
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=copy,
        env=kept | env,
        capture_output=True,
        text=True,
        timeout=500,
    )


@pytest.mark.timeout(600)
def test_orders_go_through_what_the_pages_add(copy: Path) -> None:
    with ExitStack() as running_sides:
        acme, post, accounting = (
            running_sides.enter_context(running(side)) for side in (AcmePay(), ParcelPost(), Accounting())
        )
        ran = run(
            copy, "pytest", "-q", "-p", "no:cacheprovider", "tests/orders/test_added.py",
            ACME_URL=acme, ACME_API_KEY="key", ACME_WEBHOOK_SECRET="secret", PARCEL_POST_URL=post,
            INVOICES_URL=accounting, NO_PROXY="127.0.0.1",
        )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.timeout(300)
def test_orders_under_way_replay_with_the_new_step_but_not_without_its_patch(copy: Path) -> None:
    replay = ("pytest", "-q", "-p", "no:cacheprovider", "tests/orders/test_replay.py")
    ran = run(copy, *replay)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    saga = copy / "orders/workflows/saga.py"
    patched = saga.read_text()
    saga.write_text(patched.replace('workflow.patched("invoice")', "True"))
    try:
        ran = run(copy, *replay, "-k", "completed or rolled_back_only")
    finally:
        saga.write_text(patched)
    assert ran.returncode == 1
    for name in ("completed", "rolled_back_only"):
        assert f"test_recorded_history_is_replayed[{name}]" in ran.stdout


def test_what_the_pages_add_is_as_tidy_as_the_rest(copy: Path) -> None:
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."]):
        ran = run(copy, *command)
        assert ran.returncode == 0, ran.stdout + ran.stderr
