"""The Kubernetes manifests, against Kubernetes' own schemas and against what the shop needs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from shop import health, worker

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
# The oldest with all that is used, and the newest that the package knows.
VERSIONS = ("1.34", "1.37")
Manifest = dict[str, Any]


def read() -> list[Manifest]:
    names = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    return [found for name in names for found in yaml.safe_load_all((FOLDER / name).read_text())]


MANIFESTS = read()
NAMES = [f"{found['kind']}/{found['metadata']['name']}" for found in MANIFESTS]
POD_OWNERS = [found for found in MANIFESTS if found["kind"] in ("Deployment", "Job")]
WORKERS = {queue: f"vorkasse-worker-{queue}" for queue in worker.QUEUES}


def of(kind: str, name: str) -> Manifest:
    return MANIFESTS[NAMES.index(f"{kind}/{name}")]


def pod(owner: Manifest) -> Manifest:
    found: Manifest = owner["spec"]["template"]["spec"]
    return found


def containers(owner: Manifest) -> list[Manifest]:
    return [*pod(owner)["containers"], *pod(owner).get("initContainers", [])]


def selected(selector: dict[str, str]) -> list[Manifest]:
    return [
        owner
        for owner in POD_OWNERS
        if selector.items() <= owner["spec"]["template"]["metadata"]["labels"].items()
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", [m for m in MANIFESTS if "keda" not in m["apiVersion"]], ids=str)
def test_kubernetes_knows_every_field(manifest: Manifest, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_every_file_is_used_and_no_name_twice() -> None:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in FOLDER.glob("*.yaml"))
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
def test_kustomize_builds_it_and_sets_the_image() -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", FOLDER], capture_output=True, text=True, check=True
    ).stdout
    assert len(list(yaml.safe_load_all(built))) == len(MANIFESTS)
    assert "image: vorkasse\n" not in built


@pytest.mark.parametrize("owner", POD_OWNERS, ids=lambda owner: owner["metadata"]["name"])
def test_pods_can_write_nowhere_and_become_nobody_else(owner: Manifest) -> None:
    assert pod(owner)["securityContext"]["runAsNonRoot"] is True
    assert pod(owner)["securityContext"]["runAsUser"] == 10001
    assert pod(owner)["automountServiceAccountToken"] is False
    for container in containers(owner):
        assert container["image"] == "vorkasse"
        inside = container["securityContext"]
        assert inside["readOnlyRootFilesystem"] is True
        assert inside["allowPrivilegeEscalation"] is False
        assert inside["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"] == {
            "requests": {"cpu": "500m", "memory": "512Mi"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        }
    tmp = {mount["mountPath"] for mount in pod(owner)["containers"][0]["volumeMounts"]}
    assert tmp == {"/tmp"}


@pytest.mark.parametrize("queue", worker.QUEUES)
def test_every_queue_has_workers_that_are_probed_from_outside_and_drain_to_their_end(queue: str) -> None:
    deployment = of("Deployment", WORKERS[queue])
    (container,) = pod(deployment)["containers"]
    arguments = container["args"]
    assert arguments[arguments.index("--queue") + 1] == queue
    assert arguments[arguments.index("--health-address") + 1] == "0.0.0.0"
    (port,) = container["ports"]
    assert arguments[arguments.index("--health-port") + 1] == str(port["containerPort"])
    assert container["readinessProbe"]["httpGet"] == {"path": "/health", "port": port["name"]}
    assert container["livenessProbe"]["httpGet"] == {"path": "/health/live", "port": port["name"]}
    assert pod(deployment)["terminationGracePeriodSeconds"] > worker.LONGEST_DRAIN.total_seconds()


def test_web_is_probed_where_it_answers_and_ends_without_dropping_requests() -> None:
    deployment = of("Deployment", "vorkasse-web")
    (container,) = pod(deployment)["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in health.PATHS
    assert health.PATHS[container["livenessProbe"]["httpGet"]["path"]] is health.live
    containerfile = (FOLDER.parent / "Containerfile").read_text()
    assert '"--timeout-graceful-shutdown", "20"' in containerfile
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(deployment)["terminationGracePeriodSeconds"] > before + 20
    service = of("Service", "vorkasse-web")["spec"]
    assert selected(service["selector"]) == [deployment]
    assert service["ports"][0]["targetPort"] == container["ports"][0]["name"]


def test_nothing_of_a_release_starts_before_its_migrations_are_done() -> None:
    for owner in (found for found in MANIFESTS if found["kind"] == "Deployment"):
        (waits,) = pod(owner)["initContainers"]
        assert waits["command"] == ["python", "manage.py", "migrate", "--check"]
    (job,) = pod(of("Job", "vorkasse-migrate"))["containers"]
    assert job["command"] == ["python", "manage.py", "migrate", "--noinput"]


def test_each_deployment_gives_up_one_pod_at_a_time() -> None:
    for owner in (found for found in MANIFESTS if found["kind"] == "Deployment"):
        budget = of("PodDisruptionBudget", owner["metadata"]["name"])["spec"]
        assert selected(budget["selector"]["matchLabels"]) == [owner]
        assert budget["maxUnavailable"] == 1


@pytest.mark.parametrize("queue", worker.QUEUES)
def test_workers_are_scaled_by_the_backlog_of_their_own_queue_and_never_to_none(queue: str) -> None:
    scaled = of("ScaledObject", WORKERS[queue])
    spec = scaled["spec"]
    assert spec.keys() <= {
        *("scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "fallback", "advanced"),
        "triggers",
    }
    assert spec["scaleTargetRef"] == {"name": WORKERS[queue]}
    assert "replicas" not in of("Deployment", WORKERS[queue])["spec"]
    assert 1 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
    (trigger,) = spec["triggers"]
    assert trigger["type"] == "temporal"
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    settings = of("ConfigMap", "vorkasse-settings")["data"]
    assert trigger["metadata"]["taskQueue"] == queue
    assert trigger["metadata"]["endpoint"] == settings["TEMPORAL_ADDRESS"]
    assert trigger["metadata"]["namespace"] == settings["TEMPORAL_NAMESPACE"]
    assert set(trigger["metadata"]["queueTypes"].split(",")) == {"workflow", "activity"}


def test_only_the_proxy_and_prometheus_get_in_and_only_where_they_have_to() -> None:
    ports = {"vorkasse-web-in": 8000, "vorkasse-worker-in": 9100}
    for name, port in ports.items():
        (rule,) = of("NetworkPolicy", name)["spec"]["ingress"]
        assert [entry["port"] for entry in rule["ports"]] == [port]
        assert rule["from"]
    everyone = of("NetworkPolicy", "vorkasse-out")["spec"]
    assert set(everyone["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in everyone
    assert selected(everyone["podSelector"]["matchLabels"]) == POD_OWNERS
    in_values = of("NetworkPolicy", "vorkasse-worker-in")["spec"]["podSelector"]["matchExpressions"][0][
        "values"
    ]
    assert {f"vorkasse-{value}" for value in in_values} == set(WORKERS.values())


def test_no_secret_is_among_the_settings() -> None:
    for name in of("ConfigMap", "vorkasse-settings")["data"]:
        assert not any(word in name for word in ("SECRET", "KEY", "PASSWORD", "DATABASE_URL", "EMAIL_URL"))
