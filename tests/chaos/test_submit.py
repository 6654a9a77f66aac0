"""An idle server gets a job: how soon does the engine take its first step?"""

from __future__ import annotations

import math
import statistics
import time

from tests.chaos.loopback import Connection
from tests.processes import server_process

MOST_P50_MS = 15.0
MAX_TRIES = 5
WISH = {"prompt": "a cat", "num_inference_steps": 5, "height": 64, "width": 64}


async def test_a_job_is_written_down_and_takes_its_first_step_almost_at_once(tmp_path, rounds, report):
    """
    From the request to the event that tells of a step: two durable commits, a step of 1 ms and a second request are
    between them.
    """
    jobs = rounds(50, 500)
    p50_ms: list[float] = []
    with server_process(tmp_path, MODEL_ID="fake-engine:1") as server:
        server.wait_until_ready()
        async with Connection.to(server.url) as connection:
            await first_step_ms(connection)
            # More tries than one, for other programs may keep the machine busy for as long as that takes.
            while len(p50_ms) < MAX_TRIES and min(p50_ms, default=math.inf) > MOST_P50_MS:
                p50_ms.append(statistics.median([await first_step_ms(connection) for _ in range(jobs)]))
    told = ", ".join(f"{value:.1f}" for value in p50_ms)
    report("submit to first step on an idle server, p50", f"{told} ms", f"<= {MOST_P50_MS:g} ms")
    assert min(p50_ms) <= MOST_P50_MS


async def first_step_ms(connection: Connection) -> float:
    """Submit a job, hear of its first step, and wait until it is done: the next one finds the server idle."""
    began = time.perf_counter()
    answer = await connection.post("/v1/jobs", WISH)
    assert answer.status == 202, answer
    first_step_at = None
    async for snapshot in connection.events(answer.json["links"]["events"]):
        if first_step_at is None and snapshot["step"] >= 1:
            first_step_at = time.perf_counter()
    assert snapshot["status"] == "done"
    assert first_step_at is not None
    return 1000 * (first_step_at - began)
