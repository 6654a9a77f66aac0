"""What starts engines on other machines (compose, Kubernetes, systemd) names settings and paths that there are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lock import RAY_LOCK, read_pins

from server.config import Settings
from server.engine_service import EngineService
from server.executors.pool import EnginePool

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose.engines.yaml"
MANIFESTS = sorted((DEPLOY / "kubernetes").iterdir())
SETTINGS = {name.upper() for name in Settings.model_fields}


def documents() -> Iterator[dict[str, Any]]:
    for path in MANIFESTS:
        yield from yaml.safe_load_all(path.read_text())


def the(kind: str) -> dict[str, Any]:
    [found] = [document for document in documents() if document["kind"] == kind]
    return found


def test_settings_of_the_pod_and_of_the_containers_exist():
    [container] = the("Deployment")["spec"]["template"]["spec"]["containers"]
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert {entry["name"] for entry in container["env"]} <= SETTINGS
    assert {name for service in services.values() for name in service["environment"]} <= SETTINGS
    assert container["args"] == services["engine"]["command"] == ["engine"]


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
async def test_probes_ask_what_an_engine_answers_without_a_token(probe: str):
    [container] = the("Deployment")["spec"]["template"]["spec"]["containers"]
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "path": container[probe]["httpGet"]["path"], "headers": []}
    await EngineService(EnginePool({}), "t" * 32)(scope, receive, send)
    assert sent[0]["status"] in {200, 503}


def test_everything_selects_the_pods_that_there_are_and_waits_for_the_drain():
    deployment = the("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert the("Service")["spec"]["selector"] == labels
    assert the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert the("ScaledObject")["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    drain_s = Settings.model_fields["drain_timeout"].default
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain_s


def test_rays_manifest_gives_the_application_what_it_takes_and_settings_that_exist():
    service = yaml.safe_load((DEPLOY / "ray" / "rayservice.yaml").read_text())["spec"]
    [application] = yaml.safe_load(service["serveConfigV2"])["applications"]
    module, _, builder = application["import_path"].partition(":")
    tree = ast.parse((DEPLOY.parent / module.replace(".", "/")).with_suffix(".py").read_text())
    defined = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    assert builder in defined
    taken = {line.target.id for line in defined["EngineArguments"].body if isinstance(line, ast.AnnAssign)}
    assert application["args"].keys() <= taken
    [worker] = service["rayClusterConfig"]["workerGroupSpecs"]
    assert worker["maxReplicas"] == application["args"]["max_replicas"]
    [container] = worker["template"]["spec"]["containers"]
    assert {entry["name"] for entry in container["env"]} <= SETTINGS
    assert container["resources"]["limits"]["nvidia.com/gpu"] == application["args"]["gpus"]
    drain_s = application["args"]["drain_timeout_s"]
    assert worker["template"]["spec"]["terminationGracePeriodSeconds"] > drain_s
    assert service["rayClusterConfig"]["rayVersion"] == read_pins(DEPLOY.parent / RAY_LOCK)["ray"]


def test_the_unit_of_engines_is_the_servers_but_for_its_command():
    unit, server = (
        (DEPLOY / "systemd" / f"semantic-bit-{name}.service").read_text().splitlines() for name in ("engine", "server")
    )
    different = {line for line in unit if line not in server and not line.startswith("#")}
    assert {line.partition("=")[0] for line in different} == {"Description", "Documentation", "ExecStart"}
    assert any(line.endswith("-m server engine") for line in different)
