"""What the generator makes of an executor that keeps its promises in an unusual way."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator

from engine.params import GenerationParams
from server.executors.base import Job, JobEvent
from server.executors.fake import FakeExecutor
from server.executors.messages import ImageReady
from server.generator import ImageGenerator
from server.jobs.keeping import Retention
from server.jobs.record import LOCAL_KEY, NewJob


class LastPictureFirst(FakeExecutor):
    """Hands a job's pictures over in reverse, as engines that draw them side by side may."""

    async def run(self, job: Job) -> AsyncGenerator[JobEvent, None]:
        events = [event async for event in FakeExecutor.run(self, job)]
        pictures = [event for event in events if isinstance(event, ImageReady)]
        for event in (*pictures[::-1], events[-1]):
            yield event


@contextlib.asynccontextmanager
async def running(executor, folder, max_queued_requests=10):
    retention = Retention(results_s=3600, results_bytes=2**30, jobs_s=3600)
    generator = ImageGenerator(
        executor, folder, max_queued_requests=max_queued_requests, request_timeout_s=20, retention=retention
    )
    await generator.start()
    try:
        yield generator
    finally:
        await generator.stop()


def wish(**wishes):
    return NewJob(
        id=secrets.token_hex(8),
        key_id=LOCAL_KEY,
        user=None,
        params=GenerationParams(**{"prompt": "a cat", "seed": 1} | wishes),
        output_format="png",
        is_bound=True,
        idempotency_key=None,
        request_digest=b"",
        created_at=time.time(),
    )


async def test_pictures_come_in_the_order_of_their_seeds_however_they_were_handed_over(tmp_path):
    async with running(LastPictureFirst(), tmp_path) as generator:
        _, images = await generator.draw(wish(seed=40, num_images=3))
    assert [(image.image_index, image.seed) for image in images] == [(0, 40), (1, 41), (2, 42)]


class OnSignal(FakeExecutor):
    """Ends every job when it is told to, and not before."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def run(self, job: Job) -> AsyncGenerator[JobEvent, None]:
        events = [event async for event in FakeExecutor.run(self, job)]
        await self.go_on.wait()
        for event in events:
            yield event


async def test_a_hang_up_in_the_turn_in_which_its_turn_comes_leaks_no_slot(tmp_path):
    """The task that would have drawn it is cancelled before it has taken its first step."""
    executor = OnSignal()
    async with running(executor, tmp_path) as generator:
        for turns in range(12):  # whichever turn of the loop it is, one of these hang-ups is in it
            executor.go_on.clear()
            drawn = asyncio.create_task(generator.draw(wish(num_images=4)))
            hung_up = asyncio.create_task(generator.draw(wish(num_images=4)))
            await asyncio.sleep(0.05)
            executor.go_on.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            hung_up.cancel()
            await asyncio.gather(drawn, hung_up, return_exceptions=True)
            async with asyncio.timeout(5):
                while (generator.num_images_in_flight, generator.num_waiting) != (0, 0):
                    await asyncio.sleep(0.005)
        _, images = await generator.draw(wish(num_images=4))
        assert len(images) == 4


async def test_whoever_begins_to_listen_just_after_the_end_of_a_job_is_told_its_end(tmp_path):
    """Between looking a job up and following it, an event stream waits for its turn; a short job ends meanwhile."""
    async with running(FakeExecutor(), tmp_path) as generator:
        looked_up = (await generator.submit(wish())).record
        assert [state async for state in generator.watch(looked_up, keep_alive_s=5)][-1].record.status == "done"
        states = [state async for state in generator.watch(looked_up, keep_alive_s=5)]
    assert [state.record.status for state in states] == ["done"]
