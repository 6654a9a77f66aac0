"""Several users with backlogs on one running server: the engine is shared by work, not by who asks most."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from statistics import mean
from typing import Any
from urllib.parse import quote

from tests.chaos.loopback import TERMINAL, Connection, all_jobs, idle_after_s, unix_s
from tests.processes import ServerProcess, server_process

SMALL = {"prompt": "a cat", "height": 64, "width": 64}
LOADING_MS = 2500
"""While the model loads nothing is drawn, so that all backlogs are there when the first job is."""


async def test_users_with_backlogs_share_the_engine_by_work(tmp_path, rounds, report):
    steps_each = rounds(192, 1920)
    users = {f"user-{number}": (8, 16, 32)[number % 3] for number in range(8)}  # steps of one of their jobs
    with server_process(tmp_path, MODEL_ID=f"fake-engine:4:{LOADING_MS}", MAX_QUEUED_REQUESTS="5000") as server:
        # One user after the other, the whole backlog at once: the order of arrival is as unfair as can be.
        for user, steps in users.items():
            await submit(server, steps_each // steps, SMALL | {"user": user, "num_inference_steps": steps})
        jobs = await finished(server)
    served = Counter(dict.fromkeys(users, 0.0))
    half = sum(job["work_units"] for job in jobs) / 2
    for job in jobs:
        if served.total() >= half:
            break
        served[job["user"]] += job["work_units"]
    index = jain(list(served.values()))
    report("fairness: Jain index of 8 users' work in the first half", f"{index:.4f}", ">= 0.95")
    assert index >= 0.95


async def test_a_user_with_many_jobs_does_not_double_the_wait_of_one_with_ten(tmp_path, report):
    """
    Against the wait beside a neighbour who has ten as well: more than its half nobody gets, however much it asks for.
    """
    many = 1000
    waits = {}
    with server_process(tmp_path, MODEL_ID="fake-engine:10", MAX_QUEUED_REQUESTS="5000", DRAIN_TIMEOUT="0") as server:
        server.wait_until_ready()
        wish = SMALL | {"num_inference_steps": 20}
        for others in (0, 10, many):
            await submit(server, others, wish | {"user": "many"})
            await submit(server, 10, wish | {"user": f"ten beside {others}"})
            async with Connection.to(server.url) as connection:
                waits[others] = await mean_wait_s(connection, f"ten beside {others}")
                if others < many:
                    await idle_after_s(connection)
    report("fairness: mean wait of ten jobs, alone", f"{waits[0]:.2f} s")
    report("fairness: the same beside ten of another user", f"{waits[10]:.2f} s")
    report(f"fairness: the same beside {many}", f"{waits[many]:.2f} s", f"< {2 * waits[10]:.2f} s")
    assert waits[many] < 2 * waits[10]


async def submit(server: ServerProcess, number: int, wish: dict[str, Any]) -> None:
    left = iter(range(number))

    async def one_connection() -> None:
        async with Connection.to(server.url) as connection:
            for _ in left:
                answer = await connection.post("/v1/jobs", wish)
                assert answer.status == 202, answer

    await asyncio.gather(*(one_connection() for _ in range(10)))


async def finished(server: ServerProcess) -> list[dict[str, Any]]:
    """All jobs, in the order in which they were finished."""
    async with Connection.to(server.url) as connection:
        await idle_after_s(connection, timeout_s=60)
        jobs = await all_jobs(connection)
    assert {job["status"] for job in jobs} == {"done"}
    return sorted(jobs, key=lambda job: job["finished_at"])


async def mean_wait_s(connection: Connection, user: str) -> float:
    """Mean time from acceptance to the end of this user's jobs."""
    path = f"/v1/jobs?limit=100&user={quote(user)}"
    jobs = (await connection.get(path)).json["jobs"]
    async with asyncio.timeout(60):
        while not all(job["status"] in TERMINAL for job in jobs):
            await asyncio.sleep(0.05)
            jobs = (await connection.get(path)).json["jobs"]
    assert len(jobs) == 10
    return mean(unix_s(job["finished_at"]) - unix_s(job["created_at"]) for job in jobs)


def jain(shares: Sequence[float]) -> float:
    """1 if all are equal, 1 / n if one has everything (Jain, Chiu and Hawe 1984)."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))
