"""The compose file, against the schema of the Compose specification and against what the shop needs."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from shop import worker

DEPLOY = Path(__file__).parents[2] / "deploy"
FILE = DEPLOY / "compose.yaml"
OURS = ("migrate", "web", "worker-orders", "worker-payment-checks")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]
    return found


def test_it_is_a_compose_file() -> None:
    check = Path(sysconfig.get_path("scripts")) / "check-jsonschema"
    said = subprocess.run(
        [check, "--builtin-schema", "vendor.compose-spec", FILE], capture_output=True, text=True
    )
    assert said.returncode == 0, said.stdout


def test_every_queue_has_a_worker_that_may_drain_to_its_end(services: dict[str, dict[str, Any]]) -> None:
    for queue in worker.QUEUES:
        command = services[f"worker-{queue}"]["command"]
        assert command[:5] == ["python", "manage.py", "runworker", "--queue", queue]
        grace = int(services[f"worker-{queue}"]["stop_grace_period"].removesuffix("s"))
        assert grace > worker.LONGEST_DRAIN.total_seconds()


def test_ours_are_one_image_that_can_write_nowhere_and_become_nobody_else(
    services: dict[str, dict[str, Any]],
) -> None:
    assert len({services[name]["image"] for name in OURS}) == 1
    for name in OURS:
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]


def test_every_setting_can_be_made_in_one_file(services: dict[str, dict[str, Any]]) -> None:
    assert all(services[name]["env_file"] == [".env"] for name in OURS)


def test_nothing_starts_before_what_it_needs(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for other, on in service.get("depends_on", {}).items():
            if on["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for {other}, which nobody asks"
            if on["condition"] == "service_completed_successfully":
                assert services[other].get("restart", "no") != "unless-stopped"
    for name in OURS[1:]:
        assert "migrate" in services[name]["depends_on"]


def test_images_are_pinned_and_doors_open_on_the_loopback_address_only(
    services: dict[str, dict[str, Any]],
) -> None:
    for service in services.values():
        assert re.search(r":(\$\{\w+:-)?[\w.-]*(\d|local)[\w.-]*\}?$", service["image"]), service["image"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_every_variable_is_explained_and_secrets_have_no_default() -> None:
    text = FILE.read_text()
    used = set(re.findall(r"\$\{(\w+)", text)) - {"VERSION", "TEMPORAL_VERSION", "TEMPORAL_UI_VERSION"}
    explained = set(re.findall(r"^(\w+)=", (DEPLOY / "compose.env.example").read_text(), re.MULTILINE))
    assert used <= explained
    # The rest is handed on as it is, so it has to be a setting.
    settings = (DEPLOY.parent / "docs" / "settings.md").read_text()
    assert {name for name in explained - used if f"`{name}`" not in settings} == set()
    for name in ("SECRET_KEY", "POSTGRES_PASSWORD"):
        assert set(re.findall(rf"\$\{{{name}([^}}]*)\}}", text)) <= {":?set it in deploy/.env", ""}


def test_files_that_are_mounted_are_there_and_are_shell() -> None:
    assert (DEPLOY / "temporal" / "dynamic-config.yaml").exists()
    assert yaml.safe_load((DEPLOY / "temporal" / "dynamic-config.yaml").read_text())
    for script in ("schema.sh", "namespace.sh"):
        subprocess.run(["sh", "-n", DEPLOY / "temporal" / script], check=True)
