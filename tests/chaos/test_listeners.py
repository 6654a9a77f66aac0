"""Many who listen to few jobs: everybody hears enough, in time, and whoever comes back hears the newest and the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from tests.chaos.loopback import Connection
from tests.processes import ServerProcess, server_process

EVENTS = 25


async def test_many_listeners_hear_every_job_to_its_end(tmp_path, report):
    listeners, jobs = 200, 4
    wish = {"prompt": "a cat", "num_inference_steps": 40, "height": 64, "width": 64}
    with server_process(tmp_path, MODEL_ID="fake-engine:150") as server:
        server.wait_until_ready()
        async with Connection.to(server.url) as connection:
            ids = [(await connection.post("/v1/jobs", wish)).json["id"] for _ in range(jobs)]
            began = time.monotonic()
            heard = await asyncio.gather(*(all_events(server, ids[number % jobs]) for number in range(listeners)))
            seconds = time.monotonic() - began
    for number, snapshots in enumerate(heard):
        assert {snapshot["job_id"] for snapshot in snapshots} == {ids[number % jobs]}
        steps = [snapshot["step"] for snapshot in snapshots]
        assert steps == sorted(steps)
        last = snapshots[-1]
        assert (last["status"], last["step"], len(last["images"])) == ("done", 40, 1)
    fewest = min(map(len, heard))
    report(f"{listeners} listeners: fewest events, and seconds for all", f"{fewest}, {seconds:.1f} s", "25, <= 10 s")
    assert fewest >= EVENTS
    assert seconds <= 10


async def test_whoever_listens_again_hears_the_newest_snapshot_and_then_the_end(tmp_path):
    wish = {"prompt": "a cat", "num_inference_steps": 30, "height": 64, "width": 64}
    with server_process(tmp_path, MODEL_ID="fake-engine:50") as server:
        server.wait_until_ready()
        async with Connection.to(server.url) as connection:
            job_id = (await connection.post("/v1/jobs", wish)).json["id"]
            left_at = await step_at_hang_up(server, job_id, 5)
            async with asyncio.timeout(10):
                while (now := (await connection.get(f"/v1/jobs/{job_id}")).json)["step"] < left_at + 5:
                    await asyncio.sleep(0.01)
            again = await all_events(server, job_id)
    assert again[0]["step"] >= now["step"] >= left_at + 5  # none of what was missed is told again
    assert [snapshot["status"] for snapshot in again][-2:] == ["running", "done"]
    assert len(again[-1]["images"]) == 1


async def all_events(server: ServerProcess, job_id: str) -> list[dict[str, Any]]:
    async with Connection.to(server.url) as connection:
        return [snapshot async for snapshot in connection.events(f"/v1/jobs/{job_id}/events")]


async def step_at_hang_up(server: ServerProcess, job_id: str, step: int) -> int:
    """Listen until this step, and hang up in the middle of the stream."""
    path = f"/v1/jobs/{job_id}/events"
    async with Connection.to(server.url) as connection, contextlib.aclosing(connection.events(path)) as snapshots:
        async for snapshot in snapshots:
            if snapshot["step"] >= step:
                return snapshot["step"]
    raise AssertionError("the job ended before anybody could hang up")
