"""Callers who hang up or cancel at any instant: their places are free at once, and nothing of them stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from pathlib import Path

from tests.chaos.loopback import TERMINAL, Answer, Connection, all_jobs, ended, idle_after_s
from tests.processes import ServerProcess, server_process

SMALL = {"prompt": "a cat", "height": 64, "width": 64}


async def test_clients_that_hang_up_at_random_free_their_slots_within_one_step(tmp_path, rounds, report):
    """
    The gateway's at once; the engine's when the step ends that is under way, and then a new picture begins.
    """
    clients, step_s = 200, 0.8
    chance = random.Random(1)
    wish = SMALL | {"num_inference_steps": 100}
    with server_process(tmp_path, MODEL_ID=f"fake-engine:{1000 * step_s:.0f}", MAX_QUEUED_REQUESTS="1000") as server:
        server.wait_until_ready()
        async with Connection.to(server.url) as connection:
            assert (await connection.post("/generate", SMALL | {"num_inference_steps": 1})).status == 200
            descriptors = num_descriptors(server)
            gateway_s, engine_s = [], []
            for _ in range(rounds(1, 10)):
                # The first one's picture begins the first step. It is the last to hang up, in the middle of the third:
                # on the border of two steps nobody could say how many are too many.
                last = asyncio.create_task(hang_up_after(server, wish, 2.5 * step_s))
                await begun(connection)
                others = (hang_up_after(server, wish, chance.uniform(0, 2.3 * step_s)) for _ in range(clients - 1))
                await asyncio.gather(last, *others)
                began = time.monotonic()
                await idle_after_s(connection)
                gateway_s.append(time.monotonic() - began)
                picture = await connection.post("/generate", SMALL | {"num_inference_steps": 1})
                assert picture.status == 200, picture
                engine_s.append(time.monotonic() - began - denoise_s(picture))
            jobs = await all_jobs(connection)
            # What was being written when its caller hung up is cancelled a moment later.
            assert {job["status"] for job in jobs if job["steps"] > 1} == {"cancelled"}
            leaked = num_descriptors(server) - descriptors
    report("hang-ups: slots free after the last one", f"{max(gateway_s):.2f} s", f"<= one step, {step_s} s")
    report("hang-ups: a new picture is begun after the last one", f"{max(engine_s):.2f} s", f"<= one step, {step_s} s")
    report("hang-ups: descriptors left behind", leaked, "0")
    assert leaked <= 0
    assert max(gateway_s) <= step_s
    assert max(engine_s) <= step_s


async def test_each_job_that_is_cancelled_at_a_random_instant_gets_one_terminal_state(tmp_path, rounds, report):
    number, clients = rounds(500, 2000), 25
    chance = random.Random(2)
    seen: dict[str, str] = {}
    with server_process(tmp_path, MODEL_ID="fake-engine:5", MAX_QUEUED_REQUESTS="5000") as server:
        server.wait_until_ready()

        async def client() -> None:
            async with Connection.to(server.url) as connection:
                for _ in range(number // clients):
                    job_id = (await connection.post("/v1/jobs", SMALL | {"num_inference_steps": 4})).json["id"]
                    watching = asyncio.create_task(last_event(server, job_id)) if chance.random() < 0.2 else None
                    # Up to half a job's whole stay: many are waiting, many are being drawn, many are done.
                    await asyncio.sleep(chance.choice([0, chance.uniform(0, 0.06), chance.uniform(0, 0.5)]))
                    answer = await connection.post(f"/v1/jobs/{job_id}/cancel")
                    assert answer.status == 200, answer
                    seen[job_id] = answer.json["status"]
                    if watching is not None:
                        assert await watching == seen[job_id]

        await asyncio.gather(*(client() for _ in range(clients)))
        async with Connection.to(server.url) as connection:
            await idle_after_s(connection)
            kept = {job["id"]: job for job in await all_jobs(connection)}
            after = (await connection.post("/v1/jobs", SMALL | {"num_inference_steps": 4})).json["id"]
            assert (await ended(connection, after))["status"] == "done"
    assert {job_id: job["status"] for job_id, job in kept.items()} == seen
    assert all((job["status"] == "done") == bool(job["images"]) for job in kept.values())
    statuses = list(seen.values())
    done, cancelled = statuses.count("done"), statuses.count("cancelled")
    report("cancels at random instants: one terminal state each", f"{cancelled} cancelled, {done} done", f"{number}")
    assert done + cancelled == number
    assert min(done, cancelled) >= number / 50, "the instants were not random enough to try both"


async def hang_up_after(server: ServerProcess, wish: dict[str, object], seconds: float) -> None:
    async with Connection.to(server.url) as connection:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                raise AssertionError(await connection.post("/generate", wish))


async def begun(connection: Connection) -> None:
    """Return when the engine has something to draw."""
    async with asyncio.timeout(5):
        while not (await connection.get("/health")).json["queue"]["images_in_flight"]:
            await asyncio.sleep(0.005)


def denoise_s(picture: Answer) -> float:
    """What the picture's own step took, as the server tells."""
    told = re.search(r"denoise;dur=([0-9.]+)", picture.headers["server-timing"])
    assert told is not None, picture.headers
    return float(told[1]) / 1000


async def last_event(server: ServerProcess, job_id: str) -> str:
    """The status with which the job's event stream ends, having been the only terminal one."""
    async with Connection.to(server.url) as connection:
        statuses = [snapshot["status"] async for snapshot in connection.events(f"/v1/jobs/{job_id}/events")]
    assert [status for status in statuses if status in TERMINAL] == statuses[-1:]
    return statuses[-1]


def num_descriptors(server: ServerProcess) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
