"""The image and the compose file keep what they promise: no root, no secrets, nothing writable, nobody from outside."""

from __future__ import annotations

import fnmatch
import ipaddress
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from server.config import Settings
from tests.deploy.unit_file import values_of

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
SERVER = DEPLOY / "docker" / "Dockerfile"
SITE = DEPLOY / "docker" / "Dockerfile.site"
DOCKERFILES = sorted((DEPLOY / "docker").iterdir())
SECRET = re.compile(r"key|token|secret|password", re.IGNORECASE)

each_dockerfile = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Each instruction and its arguments, lines that go on joined."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def arguments_of(name: str, dockerfile: Path = SERVER) -> list[str]:
    return [arguments for instruction, arguments in instructions(dockerfile) if instruction == name]


def environment(dockerfile: Path = SERVER) -> dict[str, str]:
    pairs = [pair for arguments in arguments_of("ENV", dockerfile) for pair in shlex.split(arguments)]
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


def test_there_is_an_image_for_the_server_and_one_for_the_site():
    assert DOCKERFILES == [SERVER, SITE]


def copied_by(dockerfile: Path) -> set[str]:
    """What it takes from the repository."""
    copied = [line.split()[:-1] for line in arguments_of("COPY", dockerfile) if not line.startswith("--from=")]
    return {source for sources in copied for source in sources}


@each_dockerfile
def test_everything_that_is_copied_is_there_and_is_seen_by_the_build(dockerfile):
    sources = copied_by(dockerfile)
    assert sources > ({"engine", "server", "models"} if dockerfile == SERVER else {"newdreamflow", "client"})
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert seen_by_the_build(source), source


def test_what_lies_deeper_in_what_is_copied_is_seen_by_the_build_too():
    assert seen_by_the_build("models/dreamlet/unet/config.json")
    assert seen_by_the_build("server/static/app/index.html")
    assert seen_by_the_build("newdreamflow/manage.py")
    assert seen_by_the_build("client/semantic_bit_client/models.py")


def test_the_image_of_the_site_holds_no_engine_and_no_torch():
    assert not copied_by(SITE) & {"engine", "server", "models"}
    [install] = [line for line in arguments_of("RUN", SITE) if "pip install" in line]
    assert "pip install -c requirements.lock.txt -r site.txt" in install
    site = set(project_of(REPOSITORY)["optional-dependencies"]["site"])
    assert not [package for package in site if re.match("(torch|diffusers|transformers)", package)]
    assert site >= set(project_of(REPOSITORY / "client")["dependencies"]), "the client is copied, and not installed"


def project_of(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    "path",
    [
        ".env", "var/server/jobs.sqlite3", "var/site/site.sqlite3", ".git/config", "server/__pycache__/main.pyc",
        "deploy/env/compose.env", "deploy/env/compose.site.env", "deploy/.env", "newdreamflow/.env",
        "newdreamflow/dreams/__pycache__/models.pyc", "client/semantic_bit_client.egg-info/PKG-INFO",
        "tests/conftest.py",
    ],
)  # fmt: skip
def test_what_is_nobody_elses_business_is_not_seen_by_the_build(path):
    assert not seen_by_the_build(path)


@each_dockerfile
def test_the_base_is_one_release(dockerfile):
    [base] = [default for default in arguments_of("ARG", dockerfile) if default.startswith("PYTHON_IMAGE=")]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.1[123]\.\d+-slim-bookworm", base)
    assert {line.split(" AS ")[0] for line in arguments_of("FROM", dockerfile)} <= {
        "${PYTHON_IMAGE}",
        *stages(dockerfile),
    }


def stages(dockerfile: Path) -> dict[str, str]:
    """Each stage that has a name, and what it begins with."""
    return dict(reversed(line.split(" AS ")) for line in arguments_of("FROM", dockerfile) if " AS " in line)


def test_both_targets_are_there_and_the_last_stage_is_what_is_made_without_one():
    assert stages(SERVER)["cpu"] == stages(SERVER)["cuda"] == "house"
    assert list(stages(SERVER))[-1] == "cpu"
    assert arguments_of("FROM", SITE)[-1] == "${PYTHON_IMAGE}"


def test_it_runs_as_a_numbered_user_that_is_not_root():
    users = [arguments_of("USER", dockerfile) for dockerfile in (SERVER, SITE)]
    assert users == [["10001:10001"], ["10002:10002"]], "two, so that neither reads the other's files"


@each_dockerfile
def test_no_layer_holds_a_secret_or_something_fetched_from_an_address(dockerfile):
    assert not arguments_of("ADD", dockerfile)
    names = [arguments.split("=")[0] for arguments in arguments_of("ARG", dockerfile)] + list(environment(dockerfile))
    assert not [name for name in names if SECRET.search(name)]
    assert "https://" not in dockerfile.read_text()


def test_what_the_image_sets_are_settings_with_values_that_are_taken():
    ours = {name: value for name, value in environment().items() if name.lower() in Settings.model_fields}
    assert ours.keys() == {"DATA_DIR", "HOST", "PORT", "LOG_FORMAT"}
    settings = Settings(_env_file=None, **{name.lower(): value for name, value in ours.items()})
    assert str(settings.data_dir) in arguments_of("VOLUME")[0]
    assert arguments_of("EXPOSE") == [str(settings.port)]


def test_what_the_image_of_the_site_sets_are_its_settings():
    python = {"PATH", "PYTHONPATH", "PYTHONUNBUFFERED", "HOME"}
    ours = {name: value for name, value in environment(SITE).items() if name not in python and name[:4] != "PIP_"}
    assert ours == {"DATA_DIR": "/var/lib/newdreamflow", "SITE_PORT": "8001"}
    assert ours.keys() <= settings_of_the_site()
    assert arguments_of("VOLUME", SITE) == ['["/var/lib/newdreamflow"]']
    assert arguments_of("EXPOSE", SITE) == ["8001"]


def settings_of_the_site() -> set[str]:
    """As its page tells of them; another test compares that with what is read."""
    page = (REPOSITORY / "docs" / "site.md").read_text()
    return set(re.findall(r"^\| `([A-Z_]+)` \|", page, flags=re.MULTILINE))


def test_the_health_check_is_our_own_command():
    [check] = arguments_of("HEALTHCHECK")
    assert check.endswith('CMD ["python", "-m", "server", "health"]')


def test_the_sites_health_check_asks_for_its_health_at_its_own_port():
    [check] = arguments_of("HEALTHCHECK", SITE)
    assert "http://127.0.0.1:{os.environ[" in check
    assert "/healthz" in check
    program = json.loads(check.partition("CMD ")[2])
    assert program[:2] == ["python", "-c"]
    compile(program[2], "health check", "exec")


def test_the_site_is_served_for_proxies_that_its_settings_name_and_for_no_others():
    [command] = arguments_of("CMD", SITE)
    program = shlex.split(json.loads(command)[2])
    assert "--no-proxy-headers" in program, "uvicorn would believe whoever asks"
    assert REPOSITORY.joinpath("newdreamflow", "config", "asgi.py").is_file()
    assert {"migrate", "collectstatic", "newdreamflow.config.asgi:application", "$SITE_PORT"} <= set(program)


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
@each_dockerfile
def test_hadolint_has_nothing_to_say_against_the_dockerfile(dockerfile):
    told = subprocess.run(["hadolint", str(dockerfile)], capture_output=True, text=True, check=False, timeout=60)
    assert (told.returncode, told.stdout) == (0, "")


COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
GPU = yaml.safe_load((DEPLOY / "compose.gpu.yaml").read_text())
SITES = yaml.safe_load((DEPLOY / "compose.site.yaml").read_text())
ENGINES = yaml.safe_load((DEPLOY / "compose.engines.yaml").read_text())


def merged(below: dict, above: dict) -> dict:
    """What Compose makes of two files: what has a name is merged, mounts by their target; of lists, the sum."""
    both = {**below, **above}
    for name in below.keys() & above.keys():
        if name == "volumes" and isinstance(below[name], list):
            mounts = {target_of(volume): volume for volume in (*below[name], *above[name])}
            both[name] = list(mounts.values())
        elif isinstance(below[name], dict) and isinstance(above[name] or {}, dict):
            both[name] = merged(below[name], above[name] or {})
        elif isinstance(below[name], list):
            both[name] = [*below[name], *above[name]]
    return both


def target_of(volume: dict | str) -> str:
    return volume["target"] if isinstance(volume, dict) else volume.split(":")[1]


WITH_SITE = merged(COMPOSE, SITES)
SERVICES = merged(WITH_SITE, ENGINES)["services"]


def test_every_compose_file_is_one_of_these():
    assert sorted(path.name for path in DEPLOY.glob("*.yaml")) == [
        "compose.engines.yaml", "compose.gpu.yaml", "compose.site.yaml", "compose.yaml",
    ]  # fmt: skip
    assert SITES["services"].keys() == {"site", "site-worker", "postgres", "caddy"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_locked_in(name):
    service = SERVICES[name]
    if name != "postgres":  # its image begins as root, gives its folder away and becomes another user
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "caddy" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert "privileged" not in service
    assert "max-size" in service["logging"]["options"]
    assert "build" in service or re.search(r":v?\d+\.\d+(\.\d+)?(-alpine)?$", service["image"])


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "build" in service])
def test_what_is_built_is_built_from_the_repository(name):
    build = SERVICES[name]["build"]
    assert (DEPLOY / build["context"]).resolve() == REPOSITORY
    dockerfile = REPOSITORY / build["dockerfile"]
    assert dockerfile in DOCKERFILES
    assert build.get("target", "house") in {*stages(dockerfile), "house"}


def test_only_caddy_is_reached_from_other_machines():
    for name, service in SERVICES.items():
        if name != "caddy":
            assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert service["networks"] in (["inside"], {"inside": {"ipv4_address": "172.30.87.2"}})
    assert "ports" not in SERVICES["postgres"]


def test_what_stands_in_the_compose_files_is_no_secret():
    for service in SERVICES.values():
        for name, value in (service.get("environment") or {}).items():
            is_named_elsewhere = value.startswith("/run/secrets/") or re.fullmatch(r"\$\{[A-Z_]+:\?\}", value)
            assert is_named_elsewhere or not SECRET.search(name), name
            assert re.fullmatch(r"[a-z]+://([a-z]+:\$\{[A-Z_]+:\?\}@)?[a-z:0-9]+(/[a-z]+)?", value) or "//" not in value


def test_every_folder_and_file_that_is_mounted_is_there():
    for service in SERVICES.values():
        for volume in service["volumes"]:
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
            elif not source.startswith("$"):
                assert source in WITH_SITE["volumes"]


def test_what_is_waited_for_is_there_and_tells_how_it_is():
    for service in SERVICES.values():
        waited_for = service.get("depends_on", [])
        assert set(waited_for) <= SERVICES.keys()
        for name in waited_for if isinstance(waited_for, dict) else []:
            assert waited_for[name] == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[name] or arguments_of("HEALTHCHECK", SITE)


def test_the_server_is_given_the_time_that_it_takes_to_drain():
    seconds = int(SERVICES["server"]["stop_grace_period"].removesuffix("s"))
    assert seconds >= Settings.model_fields["drain_timeout"].default + 25


@pytest.mark.parametrize(("name", "unit"), [("site", "newdreamflow-site"), ("site-worker", "newdreamflow-worker")])
def test_the_site_is_given_the_time_that_its_units_have(name, unit):
    [seconds] = values_of(DEPLOY / "systemd" / f"{unit}.service", "TimeoutStopSec")
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= int(seconds)


def test_server_and_site_believe_caddy_alone():
    address = SERVICES["caddy"]["networks"]["inside"]["ipv4_address"]
    assert SERVICES["server"]["environment"]["TRUSTED_PROXIES"] == address
    for name in ("site", "site-worker"):
        assert SERVICES[name]["environment"]["SITE_TRUSTED_PROXIES"] == address
    [network] = COMPOSE["networks"]["inside"]["ipam"]["config"]
    assert ipaddress.ip_address(address) in ipaddress.ip_network(network["subnet"])
    assert ipaddress.ip_address(address) not in ipaddress.ip_network(network["ip_range"])


def test_the_site_asks_the_server_and_its_own_database_and_keeps_its_files_where_the_image_says():
    for name in ("site", "site-worker"):
        settings = SERVICES[name]["environment"]
        assert settings.keys() <= settings_of_the_site()
        assert settings["GPU_SERVER_URL"] == f"http://server:{SERVICES['server']['environment']['PORT']}"
        postgres = SERVICES["postgres"]["environment"]
        assert settings["DATABASE_URL"] == (
            f"postgres://{postgres['POSTGRES_USER']}:{postgres['POSTGRES_PASSWORD']}@postgres/{postgres['POSTGRES_DB']}"
        )
        assert {"DATA_DIR": settings["DATA_DIR"], "SITE_PORT": settings["SITE_PORT"]} == {
            name: environment(SITE)[name] for name in ("DATA_DIR", "SITE_PORT")
        }
        assert f"site:{settings['DATA_DIR']}" in SERVICES[name]["volumes"]
        assert SERVICES[name]["env_file"] == [{"path": "env/compose.site.env", "required": True}]
    assert (DEPLOY / "env" / "compose.site.env.example").is_file()
    assert SERVICES["site"]["ports"][0].endswith(f":{environment(SITE)['SITE_PORT']}")


def test_the_sites_worker_is_a_command_that_there_is():
    *_, manage, command = SERVICES["site-worker"]["command"]
    assert (REPOSITORY / manage).is_file()
    assert list((REPOSITORY / "newdreamflow").glob(f"*/management/commands/{command}.py"))


def test_caddy_shows_the_site_and_no_more_the_server():
    caddy = SERVICES["caddy"]
    assert [volume for volume in caddy["volumes"] if target_of(volume) == "/etc/caddy/Caddyfile"] == [
        "./Caddyfile.site:/etc/caddy/Caddyfile:ro"
    ]
    assert caddy["environment"]["NEWDREAMFLOW_UPSTREAM"] == f"site:{environment(SITE)['SITE_PORT']}"
    asked_for = re.findall(r"\{\$([A-Z_]+)", (DEPLOY / "Caddyfile.site").read_text())
    assert set(asked_for) == SITES["services"]["caddy"]["environment"].keys()


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
