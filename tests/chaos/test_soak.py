"""A long day: after many jobs of every kind, the gateway holds no more memory, descriptors, threads and tasks."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import statistics
import sys
import time
from pathlib import Path

import httpx2

from engine.params import GenerationParams
from server.jobs.record import LOCAL_KEY, Failure, NewJob, Outcome
from server.jobs.store import JobStore
from tests.chaos.gateway import Gateway, gateway, needs_proc, until

NUM_CALLERS = 16
WISH = {"prompt": "a cat", "num_inference_steps": 2, "height": 64, "width": 64}


@needs_proc
async def test_what_the_gateway_holds_does_not_grow_with_the_jobs_it_has_done(tmp_path, rounds, is_long, report):
    num_jobs, batch = rounds(1000, 20_000), rounds(100, 500)
    num_warm_up = rounds(200, 2000)  # until allocator and pools have the size that they keep
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
        before, rss_mb = _held(server, held_file), [_rss_mb(server)]
        for _ in range(num_jobs // batch):
            await _draw(server, batch)
            rss_mb.append(_rss_mb(server))
        after = _held(server, held_file)
    thousands = [batch * index / 1000 for index in range(len(rss_mb))]
    slope = statistics.linear_regression(thousands, rss_mb).slope
    report(f"soak, {num_jobs} jobs: memory of the gateway", f"{slope:+.2f} MB per 1,000 jobs", "<= 1 MB")
    report("soak: descriptors", f"{len(before[0])} -> {len(after[0])}", "constant")
    report("soak: tasks and threads", f"{len(before[1])} -> {len(after[1])}", "constant")
    assert after == before
    # What the allocator keeps now and then is a large slope over 1,000 jobs; over 20,000 it is none.
    assert slope <= (1 if is_long else 2)


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

    async def call(client: httpx2.AsyncClient) -> None:
        for number in numbers:
            await (_generate, _follow, _poll, _cancel)[number % 4](client)

    async with httpx2.AsyncClient(base_url=server.url, timeout=20) as client:
        await asyncio.gather(*(call(client) for _ in range(NUM_CALLERS)))
    server.wait_until_idle(10)


async def _generate(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/generate", json=WISH)
    assert answer.status_code == 200, answer.text


async def _submit(client: httpx2.AsyncClient) -> dict[str, str]:
    answer = await client.post("/v1/jobs", json=WISH)
    assert answer.status_code == 202, answer.text
    return answer.json()["links"]


async def _follow(client: httpx2.AsyncClient) -> None:
    answer = await client.get((await _submit(client))["events"])
    assert '"status":"done"' in answer.text.replace(" ", "")


async def _poll(client: httpx2.AsyncClient) -> None:
    links = await _submit(client)
    while (job := (await client.get(links["self"])).json())["status"] != "done":
        await asyncio.sleep(0.01)
    assert (await client.get(job["images"][0]["url"])).status_code == 200


async def _cancel(client: httpx2.AsyncClient) -> None:
    answer = await client.post((await _submit(client))["cancel"])
    assert answer.json()["status"] in {"cancelled", "done"}


def _held(server: Gateway, held_file: Path) -> tuple[list[str], list[str]]:
    """What file descriptors lead to, and the names of tasks and threads, once the last connections have been closed."""

    def looked() -> tuple[list[str], list[str]]:
        held_file.unlink(missing_ok=True)
        os.kill(server.process.pid, signal.SIGUSR1)
        until(held_file.exists, 5, "told")
        descriptors = list(Path(f"/proc/{server.process.pid}/fd").iterdir())
        return sorted(
            re.sub(r"\d+", "?", str(path.readlink())) for path in descriptors
        ), held_file.read_text().splitlines()

    seen = [looked()]
    for _ in range(100):
        time.sleep(0.05)
        seen.append(looked())
        if seen[-5:] == 5 * seen[-1:]:
            return seen[-1]
    raise AssertionError(f"never quiet: {seen[-1]}")


def _rss_mb(server: Gateway) -> float:
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6
