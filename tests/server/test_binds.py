"""Who is served on which address, however the server was started: `run.sh`, `python -m server serve`, bare uvicorn."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

REPOSITORY = Path(__file__).parents[2]
SERVE = [sys.executable, "-m", "server", "serve"]
UVICORN = [sys.executable, "-m", "uvicorn", "server.main:app", "--port", "0"]
STARTS = ["run.sh", "serve", "uvicorn"]
OPEN = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
"""An address that other machines reach, and how this machine reaches it."""


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


HOSTS = ["0.0.0.0", pytest.param("::", marks=pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6"))]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A checkout whose installation is the one that runs the tests, and the working directory of what is started."""
    shutil.copy2(REPOSITORY / "run.sh", tmp_path)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "bootstrap.sh").write_text("#!/bin/sh\n")
    (tmp_path / "scripts" / "bootstrap.sh").chmod(0o755)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    for name in ("server", "engine"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    return tmp_path


def command(house: Path, start: str, host: str) -> tuple[list[str], dict[str, str]]:
    """What is typed, and the environment it is typed in."""
    environment = {name: value for name, value in os.environ.items() if name not in {"HOST", "API_KEY"}}
    environment |= {"MODEL_ID": "fake-engine:1", "PORT": "0", "DATA_DIR": str(house / "data")}
    if start == "uvicorn":
        return [*UVICORN, "--host", host], environment
    return [str(house / "run.sh")] if start == "run.sh" else SERVE, environment | {"HOST": host}


@contextlib.contextmanager
def started(house: Path, start: str, host: str, **settings: str) -> Iterator[int]:
    """The server's port."""
    arguments, environment = command(house, start, host)
    log = house / "log"
    with log.open("w") as out:
        process = subprocess.Popen(arguments, cwd=house, env=environment | settings, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 30
        while not (found := re.search(r"(?:Listening|running) on http://\S+?:(\d+)\b(?!\])", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield int(found[1])
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == (-signal.SIGTERM if start == "uvicorn" else 0), log.read_text()


def own_address(host: str) -> str | None:
    """An address of this machine as others see it, for a URL; None if it has none of that family."""
    family, elsewhere = (socket.AF_INET6, "fd00:ffff::1") if host == "::" else (socket.AF_INET, "192.0.2.1")
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as unsent:
        unsent.connect((elsewhere, 9))  # sends nothing: the system only looks up which way it would go
        address: str = unsent.getsockname()[0]
        return f"[{address}]" if host == "::" else address
    return None


def status(url: str, **headers: str) -> int:
    answer = httpx2.get(f"{url}/v1/queue", headers={name.replace("_", "-"): value for name, value in headers.items()})
    return answer.status_code


def key_made_in(house: Path) -> str:
    _, environment = command(house, "serve", "127.0.0.1")
    create = [sys.executable, "-m", "server", "keys", "create", "--name", "first", "--scope", "read"]
    made = subprocess.run(create, cwd=house, env=environment, capture_output=True, check=True, text=True, timeout=30)
    return made.stdout.strip()


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("start", STARTS)
def test_with_a_key_in_the_store_any_address_will_do_and_everybody_needs_the_key(house, start, host):
    key = key_made_in(house)
    with started(house, start, host) as port:
        for name in filter(None, (OPEN[host], own_address(host))):
            url = f"http://{name}:{port}"
            assert status(url) == 401
            assert status(url, Authorization=f"Bearer {key[:-1]}") == 401
            assert status(url, Authorization=f"Bearer {key}") == 200
            assert status(url, X_API_Key=key, Host="gpu.example", X_Forwarded_For="8.8.8.8", Via="1.1 x") == 200
            assert httpx2.get(f"{url}/livez").status_code == 200
    assert key.rsplit("_", 1)[1] not in (house / "log").read_text()


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("start", ["run.sh", "serve"])
def test_without_keys_an_open_address_is_not_listened_on(house, start, host):
    arguments, environment = command(house, start, host)
    ended = subprocess.run(
        arguments, cwd=house, env=environment, capture_output=True, check=False, text=True, timeout=30
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: HOST must be a loopback address as long as the server has no API keys")
    assert "python -m server keys create" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (house / "data").exists()


@pytest.mark.parametrize("host", HOSTS)
def test_without_keys_bare_uvicorn_serves_this_machine_alone_whatever_it_listens_on(house, host):
    with started(house, "uvicorn", host) as port:
        url = f"http://{OPEN[host]}:{port}"
        assert status(url) == 200
        assert status(url, Host="gpu.example") == 401
        assert status(url, Host=f"0.0.0.0:{port}") == 401
        assert status(url, X_Forwarded_For="127.0.0.1") == 401
        assert httpx2.get(f"{url}/livez", headers={"Host": "gpu.example"}).status_code == 200
        if (address := own_address(host)) is not None:
            outside = f"http://{address}:{port}"
            assert (status(outside), status(outside, Host="127.0.0.1")) == (401, 401)
            assert httpx2.get(f"{outside}/livez").status_code == 200


def test_a_key_of_the_environment_opens_an_address_too(house):
    key = "correct horse battery staple, and two more"
    with started(house, "serve", "0.0.0.0", API_KEY=key) as port:
        url = f"http://127.0.0.1:{port}"
        assert (status(url), status(url, X_API_Key=key[:-1]), status(url, X_API_Key=key)) == (401, 401, 200)
    assert key not in (house / "log").read_text()
