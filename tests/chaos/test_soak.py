"""A long day: after many jobs of every kind, the gateway holds no more memory, descriptors, threads and tasks."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import sys
import time
from pathlib import Path

import httpx2

from tests.chaos.gateway import Gateway, gateway, needs_proc, until

NUM_CALLERS = 16
WISH = {"prompt": "a cat", "num_inference_steps": 2, "height": 64, "width": 64}


@needs_proc
async def test_what_the_gateway_holds_does_not_grow_with_the_jobs_it_has_done(tmp_path, rounds, is_long, report):
    num_jobs, batch = rounds(1000, 20_000), rounds(100, 500)
    num_warm_up = rounds(200, 3000)  # until allocator, caches and pools have the size that they keep
    held_file = tmp_path / "held"
    settings = {
        "MODEL_ID": "fake-engine:1",
        "MAX_CONCURRENT_REQUESTS": "16",
        "HELD_FILE": str(held_file),
        "LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "tests.chaos.watched_serve"]
    with gateway(tmp_path, command=command, **settings) as server:
        await _draw(server, num_warm_up)
        held, rss_mb = [], []
        for _ in range(num_jobs // batch):
            held.append(_held(server, held_file))
            rss_mb.append(_rss_mb(server))
            await _draw(server, batch)
        held.append(_held(server, held_file))
        rss_mb.append(_rss_mb(server))
    thousands = [batch * index / 1000 for index in range(len(rss_mb))]
    slope = statistics.linear_regression(thousands, rss_mb).slope
    report(f"soak, {num_jobs} jobs: memory of the gateway", f"{slope:+.2f} MB per 1,000 jobs", "<= 1 MB")
    (descriptors, tasks), (descriptors_after, tasks_after) = held[0], held[-1]
    report("soak: descriptors", f"{descriptors} -> {descriptors_after}", "constant")
    report("soak: tasks and threads", f"{len(tasks)} -> {len(tasks_after)}", "constant")
    assert held[-1] == held[0]
    # A page more or less of the allocator's is a large slope over 1,000 jobs; over 20,000 it is not.
    assert slope <= (1 if is_long else 2)


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


def _held(server: Gateway, held_file: Path) -> tuple[int, list[str]]:
    """Number of file descriptors, and the names of tasks and threads, once the last connections have been closed."""

    def looked() -> tuple[int, list[str]]:
        held_file.unlink(missing_ok=True)
        os.kill(server.process.pid, signal.SIGUSR1)
        until(held_file.exists, 5, "told")
        return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())), held_file.read_text().splitlines()

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
