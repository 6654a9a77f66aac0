"""A long day: after many jobs of every kind, the gateway holds no more memory, descriptors, threads and tasks."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import msgspec

from engine.params import GenerationParams
from server.store.job_store import JobStore
from server.store.record import LOCAL_KEY, Failure, NewJob, Outcome
from tests.chaos.gateway import Gateway, gateway, needs_proc, until
from tests.chaos.loopback import Connection
from tests.chaos.watched_serve import Told

NUM_CALLERS = 16
WISH = {"prompt": "a cat", "num_inference_steps": 2, "height": 64, "width": 64}


@needs_proc
async def test_what_the_gateway_holds_does_not_grow_with_the_jobs_it_has_done(tmp_path, rounds, report):
    num_jobs, batch = rounds(1000, 20_000), rounds(50, 500)
    num_warm_up = rounds(600, 2000)  # until allocator and pools have the size that they keep
    held_file = tmp_path / "held"
    settings = {
        "MODEL_ID": "fake-engine:1",
        "MAX_CONCURRENT_REQUESTS": "16",
        "HELD_FILE": str(held_file),
        "LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "tests.chaos.watched_serve"]
    await _fill_database(tmp_path / "data" / "server")
    with gateway(tmp_path, command=command, **settings) as server:
        await _draw(server, num_warm_up)
        before, resident_mb = _quiet(server, held_file), [_told(server, held_file).resident_mb]
        for _ in range(num_jobs // batch):
            await _draw(server, batch)
            resident_mb.append(_told(server, held_file).resident_mb)
        after = _quiet(server, held_file)
    slope = _slope([batch * index / 1000 for index in range(len(resident_mb))], resident_mb)
    report(f"soak, {num_jobs} jobs: memory of the gateway", f"{slope:+.2f} MB per 1,000 jobs", "<= 1 MB")
    report("soak: descriptors", f"{before.descriptors.total()} -> {after.descriptors.total()}", "constant")
    report("soak: threads", f"{before.threads.total()} -> {after.threads.total()}", "constant")
    report("soak: tasks", f"{before.tasks.total()} -> {after.tasks.total()}", "constant")
    assert after.descriptors == before.descriptors
    assert after.threads == before.threads
    assert after.tasks == before.tasks
    assert slope <= 1


async def _fill_database(folder: Path) -> None:
    """Jobs of other days, more than SQLite's cache of 2 MB holds, so that its growth is not taken for a leak."""
    store = await JobStore.open(folder)
    params = GenerationParams(prompt="a cat", seed=7)
    outcome = Outcome(status="failed", finished_at=time.time(), failure=Failure(code="internal_error", detail="?"))

    async def add(number: int) -> None:
        new = NewJob(
            id=f"{number:016x}",
            key_id=LOCAL_KEY,
            user=None,
            params=params,
            output_format="png",
            is_bound=False,
            idempotency_key=None,
            request_digest=bytes(32),
            created_at=time.time(),
        )
        await store.add(new)
        await store.fail_queued(new.id, outcome)

    await asyncio.gather(*(add(number) for number in range(4000)))
    await store.close()


async def _draw(server: Gateway, number: int) -> None:
    """So many jobs of every kind; returns when all are over and nobody is connected."""
    numbers = iter(range(number))

    async def call() -> None:
        async with Connection.to(server.url) as connection:
            for number in numbers:
                await (_generate, _follow, _poll, _cancel)[number % 4](connection)

    await asyncio.gather(*(call() for _ in range(NUM_CALLERS)))
    server.wait_until_idle(10)


async def _generate(connection: Connection) -> None:
    answer = await connection.post("/generate", WISH)
    assert answer.status == 200, answer


async def _submit(connection: Connection) -> dict[str, str]:
    answer = await connection.post("/v1/jobs", WISH)
    assert answer.status == 202, answer
    return answer.json["links"]


async def _follow(connection: Connection) -> None:
    statuses = [snapshot["status"] async for snapshot in connection.events((await _submit(connection))["events"])]
    assert statuses[-1] == "done"


async def _poll(connection: Connection) -> None:
    links = await _submit(connection)
    while (job := (await connection.get(links["self"])).json)["status"] != "done":
        await asyncio.sleep(0.01)
    assert (await connection.get(job["images"][0]["url"])).status == 200


async def _cancel(connection: Connection) -> None:
    answer = await connection.post((await _submit(connection))["cancel"])
    assert answer.json["status"] in {"cancelled", "done"}


class _Held(NamedTuple):
    """What the gateway holds. All is counted: a second one of the same name is one more."""

    descriptors: Counter[str]
    """By what they lead to."""
    threads: Counter[str]
    """But for those of the event loop's pool, which come as chance will have it."""
    tasks: Counter[str]
    resident_mb: float


def _quiet(server: Gateway, held_file: Path) -> _Held:
    """What it holds once the last connections have been closed."""
    seen = [_told(server, held_file)]
    for _ in range(100):
        time.sleep(0.05)
        seen.append(_told(server, held_file))
        if len(seen) >= 5 and all(held[:3] == seen[-1][:3] for held in seen[-5:]):
            return seen[-1]
    raise AssertionError(f"never quiet: {seen[-1]}")


def _told(server: Gateway, held_file: Path) -> _Held:
    held_file.unlink(missing_ok=True)
    os.kill(server.process.pid, signal.SIGUSR1)
    until(held_file.exists, 5, "told")
    told = msgspec.json.decode(held_file.read_bytes(), type=Told)
    assert told.num_pool_threads <= told.most_pool_threads
    links = (str(path.readlink()) for path in Path(f"/proc/{server.process.pid}/fd").iterdir())
    descriptors = Counter(re.sub(r"\d+", "?", link) for link in links)
    return _Held(descriptors, Counter(told.threads), Counter(told.tasks), told.resident_bytes / 1e6)


def _slope(at: Sequence[float], values: Sequence[float]) -> float:
    """The median of the slopes between any two (Theil and Sen): one leap of the allocator is no slope."""
    pairs = combinations(zip(at, values, strict=True), 2)
    return statistics.median((y - y_before) / (x - x_before) for (x_before, y_before), (x, y) in pairs)
