"""The whole road with the built-in model: HTTP, queue, engine process, picture files; and never the network."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from tests.processes import ServerProcess, server_process

# Loaded by every Python process of the server before anything else: no socket may be connected or name looked up.
NO_NETWORK = """
import os, sys

def refuse(event, arguments):
    if event == "socket.getaddrinfo" and arguments[0] == "127.0.0.1":
        return  # where it listens
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        with open(os.environ["NETWORK_LOG"], "a") as log:
            print(event, arguments, file=log)
        raise OSError("this process has no network")

sys.addaudithook(refuse)
"""


@pytest.fixture(scope="module")
def network_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("network") / "attempts"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, network_log: Path) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    settings = {"MODEL_ID": "models/dreamlet", "PYTHONPATH": str(folder), "NETWORK_LOG": str(network_log)}
    # Two pictures in flight, so that requests meet between steps.
    with server_process(folder, ROWS_PER_CALL="4", MAX_CONCURRENT_REQUESTS="3", **settings) as running:
        running.wait_until_ready()
        yield running


def generate(server: ServerProcess, body: dict[str, object]) -> bytes:
    answer = httpx2.post(f"{server.url}/generate", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.content


SAMPLERS = ["DPM++ 2M Karras", "Euler", "Euler a", "DDIM"]
BODIES: list[dict[str, object]] = [
    {
        "prompt": f"a {('red', 'blue', 'green')[i % 3]} ball",
        "negative_prompt": ("", "blurry")[i % 2],
        "seed": i,
        "sampler": SAMPLERS[i % 4],
        "num_inference_steps": 2 + i % 3,
        "guidance_scale": (7.0, 1.0, 3.5)[i % 3],
        "height": (64, 80, 64)[i % 3],
        "width": (64, 64, 80)[i % 3],
    }
    for i in range(12)
]


def test_twelve_requests_give_the_same_files_alone_and_all_at_once_in_any_order(server: ServerProcess):
    alone = [generate(server, body) for body in BODIES]
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(lambda body: generate(server, body), BODIES)) == alone
        backwards = list(pool.map(lambda body: generate(server, body), reversed(BODIES)))
    assert backwards[::-1] == alone
    assert len(set(alone)) == len(alone)


def test_the_readmes_picture_is_a_picture(server: ServerProcess):
    """At the default settings: neither noise nor a flat area."""
    data = generate(server, {"prompt": "a cat on a mat, digital art"})
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        assert (image.mode, image.size) == ("RGB", (256, 256))
        assert np.asarray(image).std() > 10


def test_a_size_that_the_model_cannot_draw_is_refused_with_the_models_own_rule(server: ServerProcess):
    answer = httpx2.post(f"{server.url}/generate", json={"prompt": "a cat", "height": 256, "width": 200})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": "width", "rule": "must be a multiple of 16", "value": 200}]
    assert httpx2.get(server.url).json()["limits"]["size_multiple"] == 16


def test_a_sampler_in_a_combination_that_cannot_be_is_told_by_the_gateway(server: ServerProcess):
    answer = httpx2.post(f"{server.url}/generate", json={"prompt": "x", "sampler": "DDIM", "noise_schedule": "karras"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "noise_schedule"


def test_nothing_has_tried_to_reach_the_network(server: ServerProcess, network_log: Path):
    """Runs last: after loading, drawing, and a look at every page."""
    for path in ("/", "/docs", "/openapi.json", "/health", "/readyz"):
        assert httpx2.get(server.url + path).status_code == 200
    generate(server, BODIES[0])
    assert not network_log.exists(), network_log.read_text()
