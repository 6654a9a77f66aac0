"""A flood of posts against a small queue: refused quickly, honestly, and at no cost in memory."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.chaos.loopback import Connection, unix_s
from tests.processes import ServerProcess, server_process

CONNECTIONS = 50
WAITING = 100
SLOTS = 4
STEPS = 60
"""Of 0.1 s each: on a quiet machine nobody is finished while the flood lasts."""

WISH = {"prompt": "a cat", "num_inference_steps": STEPS, "height": 64, "width": 64}


class Refusal(NamedTuple):
    problem: dict[str, Any]
    asked_at: float
    answered_at: float
    """The server has told it between these two."""
    retry_after_s: float


CLOCK_S = 0.25
"""How far off `Retry-After` may be beside its rounding: a step under way counts whole, and other programs run here."""

MOST_P99_MS = 50.0
"""Where nothing else runs. `./test.sh` may run beside anything: there the best of five may take twice as long."""


async def test_a_flood_is_refused_at_the_cap_quickly_and_with_a_true_retry_after(
    tmp_path_factory, is_long, rounds, report
):
    posts, most_p99_ms = rounds(1000, 5000), MOST_P99_MS if is_long else 2 * MOST_P99_MS
    seen = [await one_flood(tmp_path_factory.mktemp("flood"), posts)]
    while not seen[-1].is_good(most_p99_ms) and len(seen) < (3 if is_long else 5):
        seen.append(await one_flood(tmp_path_factory.mktemp("flood"), posts))
    last = seen[-1]  # quick and true at once, or the test fails: what other floods were does not help
    report(
        "flood: accepted of the posts", f"{last.accepted} of {posts}", f"<= {WAITING + SLOTS} and those done meanwhile"
    )
    told = f"{last.earliest_s:+.2f} to {last.latest_s:+.2f} s"
    report("flood: Retry-After less the true time", told, f"0 to 1 s, give or take {CLOCK_S:g} s")
    p99_ms = ", ".join(f"{flood.p99_ms:.1f}" for flood in seen)
    report("flood: time inside the server, p99", f"{p99_ms} ms", f"<= {most_p99_ms:.0f} ms")
    report("flood: processor time of the gateway, a post", f"{1000 * last.processor_s / posts:.2f} ms", "")
    growth = max(flood.growth for flood in seen)
    report("flood: growth of the gateway's memory", f"{growth / 2**20:.1f} MB", "<= 50 MB")
    assert last.p99_ms <= most_p99_ms
    assert growth <= 50 * 2**20
    # Rounded up to whole seconds: whoever comes back at the time told finds that somebody has just left.
    assert last.earliest_s >= -CLOCK_S
    assert last.latest_s <= 1 + CLOCK_S


class Flood(NamedTuple):
    accepted: int
    earliest_s: float
    """From the first free place to the return of the refused who comes back first; negative: he comes in vain."""
    latest_s: float
    """The same of the last, had each been told the moment he asked."""
    p99_ms: float
    processor_s: float
    growth: int

    def is_good(self, most_p99_ms: float) -> bool:
        """Whether this one flood was refused both quickly and with a true `Retry-After`."""
        return self.p99_ms <= most_p99_ms and self.error_s <= CLOCK_S

    @property
    def error_s(self) -> float:
        """How far `Retry-After` was outside of its second."""
        return max(-self.earliest_s, self.latest_s - 1)


async def one_flood(folder: Path, posts: int) -> Flood:
    """Flood a fresh server, and check what each was told."""
    settings = {"MODEL_ID": "fake-engine:100", "MAX_QUEUED_REQUESTS": str(WAITING), "DRAIN_TIMEOUT": "0"}
    with server_process(folder, **settings, MAX_CONCURRENT_REQUESTS=str(SLOTS)) as server:
        server.wait_until_ready()
        async with Connection.to(server.url) as connection:
            # Teaches the server how long a picture takes; until then it can promise nothing.
            assert (await connection.post("/generate", WISH | {"num_inference_steps": 2})).status == 200
        before, processor_s = resident_bytes(server), cpu_seconds(server)
        accepted, refusals = await flood(server, posts)
        flood_ended_at = time.time()
        growth, processor_s = resident_bytes(server) - before, cpu_seconds(server) - processor_s
        async with Connection.to(server.url) as connection:
            ends = await ends_of_pictures(connection)
            if flood_ended_at < ends[0]:  # else one of its later posts has taken the place
                first_back_at = min(refusal.answered_at + refusal.retry_after_s for refusal in refusals)
                await asyncio.sleep(first_back_at + CLOCK_S - time.time())
                assert (await connection.post("/v1/jobs", WISH)).status == 202
    assert WAITING <= accepted <= WAITING + SLOTS + sum(end < flood_ended_at for end in ends)
    assert len(refusals) == posts - accepted
    assert {refusal.problem["code"] for refusal in refusals} == {"queue_full"}
    assert all(refusal.problem["retry_after"] == refusal.retry_after_s for refusal in refusals)
    # Later, others have taken the first place that was free.
    in_time = [refusal for refusal in refusals if refusal.answered_at < ends[0]]
    earliest_s = min(refusal.answered_at + refusal.retry_after_s for refusal in in_time) - ends[0]
    latest_s = max(refusal.asked_at + refusal.retry_after_s for refusal in in_time) - ends[0]
    durations = durations_ms(server.log)
    assert len(durations) >= posts
    return Flood(accepted, earliest_s, latest_s, statistics.quantiles(durations, n=100)[98], processor_s, growth)


async def flood(server: ServerProcess, posts: int) -> tuple[int, list[Refusal]]:
    """How many were accepted, and what the others were told."""
    refusals: list[Refusal] = []
    left = iter(range(posts))

    async def one_connection() -> int:
        accepted = 0
        async with Connection.to(server.url) as connection:
            for _ in left:
                asked_at = time.time()
                answer = await connection.post("/v1/jobs", WISH)
                if answer.status == 202:
                    accepted += 1
                else:
                    assert answer.status == 503, answer
                    refusals.append(Refusal(answer.json, asked_at, time.time(), float(answer.headers["retry-after"])))
        return accepted

    return sum(await asyncio.gather(*(one_connection() for _ in range(CONNECTIONS)))), refusals


async def ends_of_pictures(connection: Connection) -> list[float]:
    """When the jobs of the flood that are done were done, in order; waits for the first."""
    async with asyncio.timeout(30):
        while True:
            done = (await connection.get("/v1/jobs?status=done&limit=100")).json["jobs"]
            if ends := [unix_s(job["finished_at"]) for job in done if job["steps"] >= STEPS]:
                return sorted(ends)
            await asyncio.sleep(0.05)


def durations_ms(log: Path) -> list[float]:
    """Time that each post to /v1/jobs spent in the server, as its log tells."""
    lines = (json.loads(line) for line in log.read_text().splitlines() if line.startswith("{"))
    return [line["duration_ms"] for line in lines if line.get("path") == "/v1/jobs" and line["method"] == "POST"]


def resident_bytes(server: ServerProcess) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def cpu_seconds(server: ServerProcess) -> float:
    """Processor time that the gateway has used, in Python and in the kernel."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
