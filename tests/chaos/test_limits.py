"""Limits under 200 clients at once, on real sockets against a real server process: all that is allowed, and no more."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import httpx2

from tests.chaos.gateway import gateway, until

KEY = "a key of forty characters or even a little more"
CLIENTS = 200
REQUESTS = 500
"""That may be sent in a minute."""
JOBS = 20
"""That may wait and run."""
WISH = {"prompt": "a cat", "num_inference_steps": 56, "height": 512, "width": 512}
"""Costs two work units."""


async def ask_from_everywhere(url: str, method: str, path: str, times: int, **options) -> list[tuple[float, int, int]]:
    """Ask so often from every client at once: when each answer came, its status, and `Retry-After` or 0."""
    answers: list[tuple[float, int, int]] = []

    async def one_client() -> None:
        async with httpx2.AsyncClient(base_url=url, headers={"X-API-Key": KEY}, timeout=60) as client:
            for _ in range(times):
                answer = await client.request(method, path, **options)
                answers.append((time.monotonic(), answer.status_code, int(answer.headers.get("Retry-After", 0))))

    await asyncio.gather(*(one_client() for _ in range(CLIENTS)))
    return answers


async def test_200_clients_of_one_key_get_all_the_requests_it_is_allowed_and_not_one_more(tmp_path, report):
    settings = {"API_KEY": KEY, "LIMIT_REQUESTS_PER_MINUTE": str(REQUESTS), "LOG_LEVEL": "warning"}
    with gateway(tmp_path, command=None, **settings) as server:
        began = time.monotonic()
        answers = await ask_from_everywhere(server.url, "GET", "/v1/queue", times=5)
        took_s = time.monotonic() - began
        assert took_s < 60, "nobody's minute may be over meanwhile"
        statuses = Counter(status for _, status, _ in answers)
        assert statuses.keys() == {200, 429}
        report("limits: requests admitted for 200 clients", f"{statuses[200]} of {REQUESTS}", "95 % to 100 %")
        report("limits: requests a second, refusals included", f"{len(answers) / took_s:.0f}", "")
        assert 0.95 * REQUESTS <= statuses[200] <= REQUESTS
        # The oldest request's minute ends first, and everybody is told that moment.
        ends = [at + wait_s for at, status, wait_s in answers if status == 429]
        assert all(began + 60 - 1 <= end <= began + 60 + 1 + took_s for end in ends)


async def test_200_clients_of_one_key_get_just_as_many_jobs_as_it_may_have(tmp_path, report):
    settings = {"API_KEY": KEY, "LIMIT_JOBS": str(JOBS), "MODEL_ID": "fake-engine:1000", "LOG_LEVEL": "warning"}
    with gateway(tmp_path, command=None, **settings) as server:
        answers = await ask_from_everywhere(server.url, "POST", "/v1/jobs", times=1, json=WISH)
        statuses = Counter(status for _, status, _ in answers)
        report("limits: jobs admitted for 200 clients", f"{statuses[202]} of {JOBS}", "95 % to 100 %")
        assert statuses == {202: JOBS, 429: CLIENTS - JOBS}


async def test_200_clients_of_one_key_get_just_as_many_work_units_as_it_may_have(tmp_path, report):
    settings = {"API_KEY": KEY, "LIMIT_WORK_UNITS_PER_HOUR": "41", "LIMIT_JOBS": "0", "MODEL_ID": "fake-engine:1000"}
    with gateway(tmp_path, command=None, **settings) as server:
        answers = await ask_from_everywhere(server.url, "POST", "/v1/jobs", times=1, json=WISH)
        statuses = Counter(status for _, status, _ in answers)
        report("limits: work units admitted for 200 clients", f"{2 * statuses[202]} of 41", "95 % to 100 %")
        assert statuses == {202: 20, 429: CLIENTS - 20}


def test_what_was_drawn_is_counted_exactly_through_kill_9(tmp_path, rounds):
    wish = {"num_inference_steps": 2, "user": "ada"}
    accepted = []
    for _ in range(rounds(4, 20)):
        with gateway(tmp_path, command=None, MODEL_ID="fake-engine:10", PRICE_PER_WORK_UNIT="1000") as server:
            accepted += [server.submit(**wish)["id"] for _ in range(10)]
            time.sleep(0.1)  # some have ended, some are being drawn, some wait
            server.kill()
    with gateway(tmp_path, command=None, MODEL_ID="fake-engine:1", PRICE_PER_WORK_UNIT="1000") as server:
        until(lambda: all(server.job(job_id)["status"] == "done" for job_id in accepted), 60, "done")
        total = server.get("/v1/usage?user=ada").json()["total"]
        assert total["jobs"] == {"done": len(accepted), "failed": 0, "cancelled": 0, "dead": 0}
        assert total["images"] == len(accepted)
        costs = [server.job(job_id)["cost"] for job_id in accepted]
        assert total["price"] == f"{sum(round(float(cost['price']) * 1e9) for cost in costs) / 1e9:.9f}".rstrip("0")
