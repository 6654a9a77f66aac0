"""Many drawings through a proxy that misbehaves: each is drawn once at most, and ends in its picture or in a reason."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from semantic_bit_client import AsyncClient, Client, Picture, Retries, SemanticBitError

from tests.client.proxy import Proxy, by_chance, proxied
from tests.conftest import RunningServer

__all__ = ["Outcome", "draw_many"]

WISH = {"num_inference_steps": 3, "height": 64, "width": 64}

RETRIES = Retries(attempts=12, time_s=60, first_s=0.05, most_s=1)
READ_TIMEOUT_S = 2.0
"""Less than a stall."""


@dataclass(slots=True)
class Outcome:
    pictures: dict[int, Picture] = field(default_factory=dict)
    """By number of the drawing, which is its seed."""
    errors: dict[int, SemanticBitError] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    """What the proxy did, how often."""


def draw_many(server: RunningServer, number: int, *, share: float, seed: int, at_once: int = 24) -> Outcome:
    """Ask for `number` drawings, half of them with threads and half with tasks, and look at what the server drew.

    Every request meets a fault with the probability `share`. Stalls take 5 s.
    """
    outcome = Outcome()
    with proxied(server.url, by_chance(seed, share)) as proxy:
        tasks = threading.Thread(
            target=asyncio.run, args=(_with_tasks(proxy, range(0, number, 2), at_once // 2, outcome),)
        )
        tasks.start()
        _with_threads(proxy, range(1, number, 2), at_once // 2, outcome)
        tasks.join()
    outcome.faults.update(seen.fault.kind for seen in proxy.seen if seen.fault)
    _check(server, number, outcome)
    return outcome


def _with_threads(proxy: Proxy, numbers: range, at_once: int, outcome: Outcome) -> None:
    with Client(proxy.url, retries=RETRIES, read_timeout_s=READ_TIMEOUT_S) as client:

        def draw(number: int) -> None:
            try:
                outcome.pictures[number] = client.generate(f"drawing {number}", seed=number, **WISH)
            except SemanticBitError as error:
                outcome.errors[number] = error

        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(draw, numbers))


async def _with_tasks(proxy: Proxy, numbers: range, at_once: int, outcome: Outcome) -> None:
    places = asyncio.Semaphore(at_once)
    async with AsyncClient(proxy.url, retries=RETRIES, read_timeout_s=READ_TIMEOUT_S) as client:

        async def draw(number: int) -> None:
            async with places:
                try:
                    outcome.pictures[number] = await client.generate(f"drawing {number}", seed=number, **WISH)
                except SemanticBitError as error:
                    outcome.errors[number] = error

        await asyncio.gather(*map(draw, numbers))


def _check(server: RunningServer, number: int, outcome: Outcome) -> None:
    assert outcome.pictures.keys() | outcome.errors.keys() == set(range(number)), "none is lost"
    assert not outcome.pictures.keys() & outcome.errors.keys()
    drawn = Counter(job.params.prompt for job in server.executor.started)
    assert {prompt: times for prompt, times in drawn.items() if times > 1} == {}, "none is drawn twice"
    with Client(server.url) as client:
        for seed, picture in outcome.pictures.items():
            assert picture.seed == seed
            [kept] = client.job(picture.job_id).images()
            assert kept.bytes == picture.bytes, "every byte has arrived"
            assert client.job(picture.job_id).state.params.prompt == f"drawing {seed}"
    assert all(drawn[f"drawing {seed}"] == 1 for seed in outcome.pictures)
    for error in outcome.errors.values():
        assert error.detail, "there is a reason"
