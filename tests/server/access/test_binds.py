"""Who is served on which address, however the server was started: `run.sh`, `python -m server serve`, bare uvicorn."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

REPOSITORY = Path(__file__).parents[3]
SERVE = [sys.executable, "-m", "server", "serve"]
UVICORN = [sys.executable, "-m", "uvicorn", "server.main:app", "--port", "0"]
STARTS = ["run.sh", "serve", "uvicorn"]
OPEN = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
"""An address that other machines reach, and how this machine reaches it."""


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


HAS_IPV6 = _has_ipv6()
needs_ipv6 = pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")
HOSTS = ["0.0.0.0", pytest.param("::", marks=needs_ipv6)]
OWN_HOSTS = {"127.0.0.1": "127.0.0.1", "::1": "[::1]"}
"""An address that only this machine reaches, and how it is written into a URL."""

FOREIGN_NAMES = [
    "gpu.example", "gpu.example:{port}", "127.0.0.1.gpu.example:{port}", "localhost.gpu.example", "0.0.0.0:{port}",
    "[::]:{port}", "192.168.1.7:{port}", "[fd00::1]:{port}", "127.0.0.1@gpu.example", "gpu.example@127.0.0.1:{port}",
    "localhost/x", "2130706433", "",
]  # fmt: skip
FORWARDING = [
    "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server", "Forwarded", "Via", "X-Real-IP",
    "CF-Connecting-IP", "True-Client-IP",
]  # fmt: skip


def checkout(folder: Path) -> Path:
    """A checkout whose installation is the one that runs the tests, and the working directory of what is started."""
    shutil.copy2(REPOSITORY / "run.sh", folder)
    (folder / "scripts").mkdir()
    (folder / "scripts" / "bootstrap.sh").write_text("#!/bin/sh\n")
    (folder / "scripts" / "bootstrap.sh").chmod(0o755)
    (folder / ".venv").symlink_to(sys.prefix)
    for name in ("server", "engine"):
        (folder / name).symlink_to(REPOSITORY / name)
    return folder


@pytest.fixture
def house(tmp_path: Path) -> Path:
    return checkout(tmp_path)


def command(house: Path, start: str, host: str) -> tuple[list[str], dict[str, str]]:
    """What is typed, and the environment it is typed in."""
    environment = {name: value for name, value in os.environ.items() if name not in {"HOST", "API_KEY"}}
    environment |= {"MODEL_ID": "fake-engine:1", "PORT": "0", "DATA_DIR": str(house / "data")}
    if start == "uvicorn":
        return [*UVICORN, "--host", host], environment
    return [str(house / "run.sh")] if start == "run.sh" else SERVE, environment | {"HOST": host}


@contextlib.contextmanager
def begun(house: Path, start: str, host: str, **settings: str) -> Iterator[Callable[[], int]]:
    """Started, and not waited for: what is handed over waits, and tells the server's port."""
    arguments, environment = command(house, start, host)
    log = house / "log"
    with log.open("w") as out:
        process = subprocess.Popen(arguments, cwd=house, env=environment | settings, stdout=out, stderr=out)

    def port() -> int:
        deadline = time.monotonic() + 30
        while not (found := re.search(r"(?:Listening|running) on http://\S+?:(\d+)\b(?!\])", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        return int(found[1])

    try:
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == (-signal.SIGTERM if start == "uvicorn" else 0), log.read_text()


@contextlib.contextmanager
def started(house: Path, start: str, host: str, **settings: str) -> Iterator[int]:
    """The server's port."""
    with begun(house, start, host, **settings) as port:
        yield port()


@pytest.fixture(scope="module")
def own_servers(tmp_path_factory) -> Iterator[dict[tuple[str, str], Callable[[], int]]]:
    """One for each start and each address that only this machine reaches, without keys; started side by side."""
    with contextlib.ExitStack() as servers:
        yield {
            (start, host): servers.enter_context(begun(checkout(tmp_path_factory.mktemp("own")), start, host))
            for start in STARTS
            for host in OWN_HOSTS
            if host != "::1" or HAS_IPV6
        }


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


def status_with_hosts(address: str, port: int, *names: str) -> int:
    """Of a request with so many headers `Host`."""
    connection = http.client.HTTPConnection(address, port, timeout=10)
    with contextlib.closing(connection):
        connection.putrequest("GET", "/v1/queue", skip_host=True)
        for name in names:
            connection.putheader("Host", name)
        connection.endheaders()
        return connection.getresponse().status


@pytest.fixture(scope="module")
def data_with_key(tmp_path_factory) -> tuple[Path, str]:
    """A DATA_DIR with a key in its store, and the key."""
    house = checkout(tmp_path_factory.mktemp("first"))
    _, environment = command(house, "serve", "127.0.0.1")
    create = [sys.executable, "-m", "server", "keys", "create", "--name", "first", "--scope", "read"]
    made = subprocess.run(create, cwd=house, env=environment, capture_output=True, check=True, text=True, timeout=30)
    return house / "data", made.stdout.strip()


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("start", STARTS)
def test_with_a_key_in_the_store_any_address_will_do_and_everybody_needs_the_key(house, data_with_key, start, host):
    data, key = data_with_key
    shutil.copytree(data, house / "data")
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
    assert ended.stderr.startswith("error: HOST must be a loopback address while the server has no API keys")
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


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
@pytest.mark.parametrize("start", STARTS)
def test_without_keys_a_loopback_address_serves_programs_on_this_machine_by_its_own_names_alone(
    own_servers, start, host
):
    port = own_servers[start, host]()
    url = f"http://{OWN_HOSTS[host]}:{port}"
    with httpx2.Client(base_url=url) as client:

        def refused(headers: dict[str, str]) -> str:
            answer = client.get("/v1/queue", headers=headers)
            told = answer.json()
            assert (answer.status_code, told["code"]) == (401, "unauthorized"), headers
            assert "no API keys" in told["detail"]
            return told["detail"]

        assert client.get("/v1/queue").status_code == 200
        for name in ("127.0.0.1", "localhost", f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
            assert client.get("/v1/queue", headers={"Host": name}).status_code == 200, name
        for name in FOREIGN_NAMES:
            assert "Host is not a loopback name" in refused({"Host": name.format(port=port)})
        for name in FORWARDING:
            for value in ("127.0.0.1", "::1", "8.8.8.8", "http"):
                reason = refused({name: value})
                assert f"(it has the header {name.lower()})" in reason or "from another machine" in reason
        assert status_with_hosts(host, port, "localhost") == 200
        assert status_with_hosts(host, port, "localhost", "localhost") == 401
        assert client.get("/livez", headers={"Host": "gpu.example", "X-Forwarded-For": "8.8.8.8"}).status_code == 200
        assert client.get("/v1/queue").status_code == 200


def test_a_key_of_the_environment_opens_an_address_too(house):
    key = "correct horse battery staple, and two more"
    with started(house, "serve", "0.0.0.0", API_KEY=key) as port:
        url = f"http://127.0.0.1:{port}"
        assert (status(url), status(url, X_API_Key=key[:-1]), status(url, X_API_Key=key)) == (401, 401, 200)
    assert key not in (house / "log").read_text()
