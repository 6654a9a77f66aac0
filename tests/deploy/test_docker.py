"""The image and the compose file keep what they promise: no root, no secrets, nothing writable, nobody from outside."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from server.config import Settings

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
SECRET = re.compile(r"key|token|secret|password", re.IGNORECASE)


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its arguments, lines that go on joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def arguments_of(name: str) -> list[str]:
    return [arguments for instruction, arguments in instructions() if instruction == name]


def environment() -> dict[str, str]:
    pairs = [pair for arguments in arguments_of("ENV") for pair in shlex.split(arguments)]
    return dict(pair.split("=", 1) for pair in pairs)


def seen_by_the_build(path: str) -> bool:
    """Whether a path of the repository gets past `.dockerignore`: the last rule that fits it or a parent decides."""
    is_seen = True
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        rule = line.removeprefix("!")
        if not rule or rule.startswith("#"):
            continue
        parts = Path(path).parts
        names = ["/".join(parts[: number + 1]) for number in range(len(parts))]
        fits = any(fnmatch.fnmatch(name, rule) or fnmatch.fnmatch(f"/{name}", rule) for name in names)
        if fits or (line.startswith("!") and rule.startswith(f"{path}/")):
            is_seen = line.startswith("!")
    return is_seen


def test_everything_that_is_copied_is_there_and_is_seen_by_the_build():
    copied = [arguments.split()[:-1] for arguments in arguments_of("COPY") if not arguments.startswith("--from=")]
    sources = [source for sources in copied for source in sources]
    assert {"engine", "server", "models"} <= set(sources)
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert seen_by_the_build(source), source
    assert seen_by_the_build("models/dreamlet/unet/config.json")
    assert seen_by_the_build("server/static/app/index.html")


@pytest.mark.parametrize(
    "path", [".env", "var/server/jobs.sqlite3", ".git/config", "server/__pycache__/main.pyc", "deploy/env/compose.env"]
)
def test_what_is_nobody_elses_business_is_not_seen_by_the_build(path):
    assert not seen_by_the_build(path)


def test_the_base_is_one_release_and_both_targets_are_there():
    [base] = [default for default in arguments_of("ARG") if default.startswith("PYTHON_IMAGE=")]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.1[123]\.\d+-slim-bookworm", base)
    stages = dict(reversed(arguments.split(" AS ")) for arguments in arguments_of("FROM"))
    assert stages["cpu"] == stages["cuda"] == "house"
    assert set(stages.values()) == {"${PYTHON_IMAGE}", "packages", "house"}
    assert list(stages)[-1] == "cpu"


def test_it_runs_as_a_numbered_user_that_is_not_root():
    assert arguments_of("USER") == ["10001:10001"]


def test_no_layer_holds_a_secret_or_something_fetched_from_an_address():
    assert not arguments_of("ADD")
    names = [arguments.split("=")[0] for arguments in arguments_of("ARG")] + list(environment())
    assert not [name for name in names if SECRET.search(name)]
    assert "https://" not in DOCKERFILE.read_text()


def test_what_the_image_sets_are_settings_with_values_that_are_taken():
    ours = {name: value for name, value in environment().items() if name.lower() in Settings.model_fields}
    assert ours.keys() == {"DATA_DIR", "HOST", "PORT", "LOG_FORMAT"}
    settings = Settings(_env_file=None, **{name.lower(): value for name, value in ours.items()})
    assert str(settings.data_dir) in arguments_of("VOLUME")[0]
    assert arguments_of("EXPOSE") == [str(settings.port)]


def test_the_health_check_is_our_own_command():
    [check] = arguments_of("HEALTHCHECK")
    assert check.endswith('CMD ["python", "-m", "server", "health"]')


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_has_nothing_to_say_against_the_dockerfile():
    told = subprocess.run(["hadolint", str(DOCKERFILE)], capture_output=True, text=True, check=False, timeout=60)
    assert (told.returncode, told.stdout) == (0, "")


COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
GPU = yaml.safe_load((DEPLOY / "compose.gpu.yaml").read_text())
SERVICES = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_locked_in(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "caddy" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert "privileged" not in service
    assert re.search(r":(cpu|cuda|v?\d+\.\d+\.\d+(-alpine)?)$", service["image"])


def test_only_caddy_is_reached_from_other_machines():
    for name, service in SERVICES.items():
        if name != "caddy":
            assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name


def test_what_stands_in_the_compose_file_is_no_secret():
    for service in SERVICES.values():
        for name, value in (service.get("environment") or {}).items():
            assert not SECRET.search(name) or value.startswith("/run/secrets/"), name


def test_every_folder_and_file_that_is_mounted_is_there():
    for service in SERVICES.values():
        for volume in service["volumes"]:
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
            elif not source.startswith("$"):
                assert source in COMPOSE["volumes"]


def test_the_server_is_given_the_time_that_it_takes_to_drain():
    seconds = int(SERVICES["server"]["stop_grace_period"].removesuffix("s"))
    assert seconds >= Settings.model_fields["drain_timeout"].default + 25


def test_the_server_believes_caddy_alone():
    address = SERVICES["caddy"]["networks"]["inside"]["ipv4_address"]
    assert SERVICES["server"]["environment"]["TRUSTED_PROXIES"] == address
    [network] = COMPOSE["networks"]["inside"]["ipam"]["config"]
    assert ipaddress.ip_address(address) in ipaddress.ip_network(network["subnet"])
    assert ipaddress.ip_address(address) not in ipaddress.ip_network(network["ip_range"])


def test_what_the_compose_file_sets_are_settings():
    assert {name.lower() for name in SERVICES["server"]["environment"]} <= Settings.model_fields.keys()


def test_the_gpu_is_reserved_for_the_server_of_the_other_target():
    server = GPU["services"]["server"]
    assert server["build"]["target"] == "cuda"
    [device] = server["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_prometheus_in_a_container_follows_the_one_beside_it():
    alone = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    inside = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.compose.yml").read_text())
    for configuration in (alone, inside):
        [job] = configuration["scrape_configs"]
        del job["static_configs"], job["authorization"]
    assert inside == alone
