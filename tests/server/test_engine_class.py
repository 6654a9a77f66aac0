"""A request may demand a class of engine: what it says in answers, 409 where none is, and who waits for whom."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator

import httpx2
import pytest
import uvicorn

from server.access.connections import guarded_config
from server.draining_server import bound_socket
from server.engine_service import EngineService
from server.executors.base import Executor
from server.executors.pool import EnginePool
from server.executors.remote import EngineAddress, RemoteEngine
from server.worker.fake_executor import FakeExecutor
from server.worker.fake_pictures import fake_info

TWO, FOUR = (fake_info("fake", places).engine_class for places in (2, 4))
"""The fake engine's classes with so many places."""
WISH = {"prompt": "a cat", "seed": 5, "num_inference_steps": 4, "height": 64, "width": 64}


@contextlib.contextmanager
def elsewhere(*executors: Executor) -> Iterator[RemoteEngine]:
    """Engines behind HTTP, in a thread of their own, as a gateway sees them."""
    pool = EnginePool({f"e{number}": executor for number, executor in enumerate(executors)})
    listener = bound_socket("127.0.0.1", 0)
    server = uvicorn.Server(guarded_config(EngineService(pool, None)))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield RemoteEngine(EngineAddress(f"http://127.0.0.1:{listener.getsockname()[1]}"))
    finally:
        server.should_exit = True
        thread.join(20)


@contextlib.contextmanager
def gateway(serve, **engines: Executor) -> Iterator[httpx2.Client]:
    """A server with these engines, all of them ready."""
    server = serve(EnginePool(engines))
    with httpx2.Client(base_url=server.url, timeout=20) as client:
        deadline = time.monotonic() + 20
        while {engine["state"] for engine in client.get("/health").json()["engines"]} != {"ready"}:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield client


def ended(client: httpx2.Client, job_id: str) -> dict[str, object]:
    deadline = time.monotonic() + 20
    while (job := client.get(f"/v1/jobs/{job_id}").json())["status"] in {"queued", "running"}:
        assert time.monotonic() < deadline, job
        time.sleep(0.01)
    return job


@pytest.mark.parametrize("wanted", [TWO, FOUR])
def test_local_and_remote_engines_draw_what_demands_their_class_and_answers_name_it(serve, wanted):
    local, far = FakeExecutor(max_images_in_flight=2), FakeExecutor(max_images_in_flight=4)
    with elsewhere(far) as remote, gateway(serve, local=local, remote=remote) as client:
        engines = client.get("/health").json()["engines"]
        assert [engine["engine_class"] for engine in engines] == [TWO, FOUR]
        ids = [client.post("/v1/jobs", json=WISH | {"engine_class": wanted}).json()["id"] for _ in range(3)]
        assert [ended(client, job_id)["engine_class"] for job_id in ids] == [wanted] * 3
        answer = client.post("/generate", json=WISH | {"engine_class": wanted})
        assert (answer.status_code, answer.headers["X-Engine-Class"]) == (200, wanted)
    assert (len(local.started), len(far.started)) == ((4, 0) if wanted == TWO else (0, 4))


@pytest.mark.parametrize("path", ["/generate", "/v1/jobs"])
def test_a_class_that_no_engine_has_is_answered_with_409(serve, path):
    with (
        elsewhere(FakeExecutor(max_images_in_flight=4)) as remote,
        gateway(serve, a=FakeExecutor(), b=remote) as client,
    ):
        answer = client.post(path, json=WISH | {"engine_class": "0" * 16})
        assert (answer.status_code, answer.json()["code"]) == (409, "engine_class_not_found")
        assert "engine_class" in answer.json()["detail"]
        assert client.post(path, json=WISH | {"engine_class": "any"}).status_code == 422
        assert client.get("/v1/jobs").json()["jobs"] == []


def test_the_same_request_is_the_same_bytes_on_two_engines_of_one_class(serve):
    a, b = FakeExecutor(step_s=0.05), FakeExecutor(step_s=0.05)
    with elsewhere(a) as first, elsewhere(b) as second, gateway(serve, a=first, b=second) as client:
        ids = [client.post("/v1/jobs", json=WISH | {"engine_class": TWO}).json()["id"] for _ in range(2)]
        jobs = [ended(client, job_id) for job_id in ids]
        files = {client.get(job["images"][0]["url"]).content for job in jobs}
    assert (len(a.started), len(b.started)) == (1, 1)
    assert len(files) == 1
    assert [job["engine_class"] for job in jobs] == [TWO, TWO]


def test_engines_of_several_classes_at_one_address_have_none(serve):
    unlike = FakeExecutor(max_images_in_flight=2), FakeExecutor(max_images_in_flight=4)
    with elsewhere(*unlike) as remote, gateway(serve, remote=remote) as client:
        deadline = time.monotonic() + 20
        while client.get("/health").json()["engines"][0]["max_images_in_flight"] != 6:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert client.get("/health").json()["engines"][0]["engine_class"] is None
        assert client.post("/v1/jobs", json=WISH | {"engine_class": TWO}).status_code == 409
        job = ended(client, client.post("/v1/jobs", json=WISH).json()["id"])
    assert job["engine_class"] in {TWO, FOUR}  # who drew it knows


def test_others_do_not_wait_for_a_job_that_waits_for_its_class(serve):
    busy, idle = FakeExecutor(step_s=60, max_images_in_flight=2), FakeExecutor(max_images_in_flight=4)
    with gateway(serve, busy=busy, idle=idle) as client:
        for _ in range(3):
            waiting = client.post("/v1/jobs", json=WISH | {"engine_class": TWO}).json()["id"]
        others = [client.post("/v1/jobs", json=WISH).json()["id"] for _ in range(3)]
        assert {ended(client, job_id)["status"] for job_id in others} == {"done"}
        assert client.get(f"/v1/jobs/{waiting}").json()["status"] == "queued"
    assert len(idle.started) == 3
