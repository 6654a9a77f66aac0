"""The shipped Caddyfile is valid, and behind it all is as without it: pictures, events at once, hang-ups."""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from server.worker.fake_executor import FakeExecutor
from tests.processes import caddy_process, free_port

CADDYFILE = Path(__file__).parents[2] / "deploy" / "Caddyfile"
KEY = "a-key-for-tests-that-is-long-enough-0123456789"
WISH = {"prompt": "a cat", "num_inference_steps": 10}

pytestmark = pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed (Debian's package caddy)")


def test_it_is_valid_and_written_as_caddy_would_write_it(tmp_path):
    environment = {**os.environ, "SEMANTIC_BIT_HOST": "gpu.example", "XDG_DATA_HOME": str(tmp_path)}
    for command in ("validate --adapter caddyfile --config", "fmt --diff"):
        checked = subprocess.run(
            ["caddy", *command.split(), CADDYFILE],
            env=environment,
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert not [line for line in checked.stdout.splitlines() if line.startswith(("+", "-"))]


@dataclass
class Proxied:
    server: object
    url: str
    context: ssl.SSLContext


@pytest.fixture(scope="module")
def proxied(module_serve, tmp_path_factory) -> Iterator[Proxied]:
    server = module_serve(FakeExecutor(step_s=0.1), api_key=KEY, trusted_proxies="127.0.0.1", hsts_seconds=60)
    with caddy(tmp_path_factory.mktemp("caddy"), server.port) as (url, context):
        yield Proxied(server, url, context)


@contextlib.contextmanager
def caddy(folder: Path, upstream_port: int) -> Iterator[tuple[str, ssl.SSLContext]]:
    """Caddy with the shipped file, and besides only what leaves this machine as it was: other ports, no trust store."""
    https, http = free_port(), free_port()
    environment = {"SEMANTIC_BIT_HOST": "localhost", "SEMANTIC_BIT_UPSTREAM": f"127.0.0.1:{upstream_port}"}
    options = f"http_port {http}\n https_port {https}"
    with caddy_process(folder, f"import {CADDYFILE}", options=options, environment=environment) as process:
        root = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        url = f"https://localhost:{https}"
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(httpx2.TransportError, OSError, ssl.SSLError):
                context = ssl.create_default_context(cafile=root)
                httpx2.get(f"{url}/livez", verify=context)
                break
            assert process.poll() is None, (folder / "caddy.log").read_text()
            assert time.monotonic() < deadline, (folder / "caddy.log").read_text()
            time.sleep(0.1)
        yield url, context


@pytest.fixture
def client(proxied):
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx2.Client(base_url=proxied.url, verify=proxied.context, headers=headers, timeout=20) as client:
        yield client


def test_a_picture_comes_through_to_who_has_a_key(proxied, client):
    drawn = client.post("/generate", json=WISH)
    assert drawn.status_code == 200
    assert drawn.content.startswith(b"\x89PNG")
    assert "server" not in drawn.headers
    refused = httpx2.post(f"{proxied.url}/generate", json=WISH, verify=proxied.context)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")


def test_the_server_knows_that_it_was_https_and_a_caller_cannot_say_otherwise(client):
    answer = client.get("/livez", headers={"X-Forwarded-Proto": "http"})
    assert answer.headers["strict-transport-security"] == "max-age=60"


def test_events_come_one_by_one_as_they_happen(client):
    job = client.post("/v1/jobs", json=WISH).json()
    with client.stream("GET", job["links"]["events"]) as events:
        arrivals = [time.monotonic() for line in events.iter_lines() if line.startswith("data:")]
    assert len(arrivals) > 5
    assert arrivals[-1] - arrivals[0] > 0.5
    assert arrivals[len(arrivals) // 2] - arrivals[0] > 0.1


def test_who_hangs_up_on_caddy_has_hung_up_on_the_server(client):
    with pytest.raises(httpx2.ReadTimeout):
        client.post("/generate", json={**WISH, "num_inference_steps": 150}, timeout=0.5)
    deadline = time.monotonic() + 5
    while client.get("/v1/queue").json()["running"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_body_that_is_too_large_is_told_so_by_the_server_and_beyond_that_cut_off_by_caddy(client):
    def status_of(megabytes: int) -> int:
        body = b"x" * megabytes * 2**20
        return client.post("/generate", content=body, headers={"Content-Type": "application/json"}).status_code

    assert status_of(33) == 413
    assert status_of(40) in {413, 502}  # whoever is first; Caddy before 2.7 calls its own limit a 502


def test_where_no_server_is_the_answer_is_a_problem_document(tmp_path):
    with caddy(tmp_path, free_port()) as (url, context):
        answer = httpx2.get(f"{url}/v1/jobs", verify=context)
    assert answer.status_code == 502
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "proxy_error"
    assert answer.json()["status"] == 502
