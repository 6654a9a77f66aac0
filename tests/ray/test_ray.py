"""What we expect of Ray Serve before engines: streams, cancel by hang-up, 503 when full, kills and redeploys.

With the real application (`deploy/ray/app.py`) and the fake engine, on the processors of one machine, offline.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator

import httpx2
import pytest

from engine.params import GenerationParams
from server.executors.engine_protocol import DRAW, FRAMES
from server.executors.messages import (
    HEADER,
    FromEngine,
    ImageReady,
    JobDone,
    Progress,
    Submit,
    decode_from_engine,
    frame,
)
from tests.chaos.gateway import gateway, until
from tests.ray.cluster import HEADERS, TOKEN, Cluster, cluster

pytestmark = pytest.mark.ray

STEP_S = 0.05
_numbers = itertools.count(1)


@contextlib.contextmanager
def drawing(running: Cluster, num_steps: int) -> Iterator[httpx2.Response]:
    """The answer to a job, as soon as it begins."""
    params = GenerationParams(prompt="a cat", seed=1, height=64, width=64, num_inference_steps=num_steps)
    body = frame(Submit(f"job{next(_numbers)}.1", params, "png"))
    headers = HEADERS | {"Content-Type": FRAMES}
    with (
        httpx2.Client(timeout=20) as client,
        client.stream("POST", running.url + DRAW, content=body, headers=headers) as answer,
    ):
        yield answer


def events_of(answer: httpx2.Response) -> Iterator[FromEngine]:
    assert answer.status_code == 200, answer.status_code
    buffer = bytearray()
    for chunk in answer.iter_raw():
        buffer += chunk
        while len(buffer) >= HEADER.size and len(buffer) >= (end := HEADER.size + HEADER.unpack_from(buffer)[0]):
            yield decode_from_engine(bytes(buffer[HEADER.size : end]))
            del buffer[:end]


def first_step(events: Iterator[FromEngine]) -> None:
    assert any(isinstance(event, Progress) for event in events)


def is_idle(running: Cluster) -> bool:
    return running.metric("semantic_bit_engine_images_in_flight") == 0


def test_events_come_through_the_proxy_as_they_happen(running, report):
    began = time.monotonic()
    with drawing(running, 40) as answer:
        at = [(event, time.monotonic() - began) for event in events_of(answer)]
    steps = [seconds for event, seconds in at if isinstance(event, Progress)]
    report("Ray Serve: first event; all of 40 steps of 50 ms", f"{steps[0]:.3f}; {at[-1][1]:.2f} s")
    assert len(steps) == 40
    assert steps[-1] - steps[0] > 0.8 * 39 * STEP_S  # not together at the end
    assert [type(event) for event, _ in at[-2:]] == [ImageReady, JobDone]


def test_a_hang_up_cancels_in_the_replica(running, report):
    with drawing(running, 150) as answer:
        first_step(events_of(answer))
    began = time.monotonic()
    until(lambda: is_idle(running), 2, "nothing in flight after the hang-up")
    report("Ray Serve: hang-up to idle engine", f"{time.monotonic() - began:.3f} s", "<= 2 s")


def test_a_full_engine_refuses_at_once_and_still_says_how_it_is(running, report):
    with contextlib.ExitStack() as stack:
        streams = [events_of(stack.enter_context(drawing(running, 150))) for _ in range(4)]
        for events in streams:  # which must live: the end of one is a hang-up
            first_step(events)
        began = time.monotonic()
        statuses = [stack.enter_context(drawing(running, 1)).status_code for _ in range(3)]
        seconds = (time.monotonic() - began) / 3
        assert statuses == [503] * 3
        assert running.info().status_code == 200
    report("Ray Serve: refusal by a full engine", f"{seconds:.3f} s", "<= 1 s")
    assert seconds <= 1
    until(lambda: is_idle(running), 5, "nothing in flight")


def test_a_killed_replica_ends_its_stream_at_once_and_is_replaced(running, report):
    with drawing(running, 150) as answer:
        events = events_of(answer)
        first_step(events)
        running.kill("ServeReplica")
        began = time.monotonic()
        with contextlib.suppress(httpx2.HTTPError):
            assert not any(isinstance(event, JobDone) for event in events)
        seconds = time.monotonic() - began
    report("Ray Serve: kill -9 of a replica to the end of its stream", f"{seconds:.3f} s", "<= 2 s")
    assert seconds <= 2
    began = time.monotonic()
    until(running.answers, 60, "another replica")
    report("Ray Serve: until another one answers", f"{time.monotonic() - began:.1f} s", "<= 60 s")


def test_a_redeploy_waits_for_what_is_drawn(running):
    before = set(running.pids("ServeReplica"))
    with drawing(running, 100) as answer:
        events = events_of(answer)
        first_step(events)
        redeploying = threading.Thread(target=running.deploy)
        redeploying.start()
        assert any(isinstance(event, JobDone) for event in events)
    redeploying.join(60)
    until(lambda: not before & set(running.pids("ServeReplica")), 30, "the old replica's end")
    with drawing(running, 2) as answer:
        assert any(isinstance(event, JobDone) for event in events_of(answer))


def pool_settings(running: Cluster) -> dict[str, str]:
    return {
        "ENGINE_POOL_URL": running.url,
        "ENGINE_TOKEN": TOKEN,
        "MODEL_ID": "fake-engine",
        "LIMIT_JOBS": "0",
        "LIMIT_REQUESTS_PER_MINUTE": "0",
    }


def all_done(server, tmp_path, ids: list[str]) -> None:
    """Every job has one result, and the gateway answers throughout."""
    jobs = [server.ended(job_id, 120) for job_id in ids]
    assert server.get("/health").status_code == 200
    assert [job["status"] for job in jobs] == ["done"] * len(ids)
    assert len(list((tmp_path / "data" / "server" / "results").glob("*/*"))) == len(ids)


def test_no_job_is_lost_when_replicas_are_killed_and_redeployed_under_load(running, tmp_path, report):
    with gateway(tmp_path, **pool_settings(running)) as server:
        ids = []
        for disturb in (
            lambda: running.kill("ServeReplica"),
            running.deploy,
            lambda: running.kill("ServeReplica"),
            lambda: None,
        ):
            ids += [server.submit(prompt=f"wish {number}", num_inference_steps=10)["id"] for number in range(5)]
            time.sleep(0.5)
            disturb()
            assert server.get("/health").status_code == 200
            until(running.answers, 60, "a replica")
        all_done(server, tmp_path, ids)
        again = sum(server.job(job_id)["attempt"] > 1 for job_id in ids)
    report("20 jobs, 2 replicas killed, 1 redeploy", f"20 done, {again} tried again", "all done")


def test_engines_are_added_under_load_and_taken_away_after_it(running, tmp_path, report):
    running.deploy(max_replicas=3, upscale_delay_s=0.5, downscale_delay_s=2)
    with gateway(tmp_path, **pool_settings(running)) as server:
        ids = [server.submit(prompt=f"wish {number}", num_inference_steps=60)["id"] for number in range(100)]
        until(lambda: running.num_running() == 3, 90, "three engines")
        all_done(server, tmp_path, ids)
        until(lambda: running.num_running() == 1, 60, "one engine again")
    report("100 jobs, 1 to 3 replicas and back", "100 done", "all done")


@pytest.mark.parametrize("victim", ["raylet", "gcs_server"])
def test_the_gateway_outlives_the_cluster_and_goes_on_with_the_next(ray_python, tmp_path, victim, report):
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(cluster(ray_python))
        first.deploy()
        server = stack.enter_context(gateway(tmp_path, **pool_settings(first)))
        ids = [server.submit(prompt=f"wish {number}", num_inference_steps=20)["id"] for number in range(8)]
        time.sleep(0.5)
        first.kill(f"/{victim}")
        for _ in range(20):
            assert server.get("/health").status_code == 200
            time.sleep(0.1)
        done = sum(server.job(job_id)["status"] == "done" for job_id in ids)
        port = int(first.url.rpartition(":")[2])
        first.end()
        second = stack.enter_context(cluster(ray_python, port=port))
        second.deploy()
        all_done(server, tmp_path, ids)
    report(f"kill -9 of Ray's {victim}, then another cluster", f"8 done, {done} of them before", "all done")
