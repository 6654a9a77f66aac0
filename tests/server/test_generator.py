"""What the generator makes of an executor that keeps its promises in an unusual way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from engine.params import GenerationParams
from server.executors.base import Job, JobEvent
from server.executors.fake import FakeExecutor
from server.executors.messages import ImageReady
from server.generator import ImageGenerator


class LastPictureFirst(FakeExecutor):
    """Hands a job's pictures over in reverse, as engines that draw them side by side may."""

    async def run(self, job: Job) -> AsyncGenerator[JobEvent, None]:
        events = [event async for event in FakeExecutor.run(self, job)]
        pictures = [event for event in events if isinstance(event, ImageReady)]
        for event in (*pictures[::-1], events[-1]):
            yield event


async def test_pictures_come_in_the_order_of_their_seeds_however_they_were_handed_over():
    generator = ImageGenerator(LastPictureFirst(), max_queued_requests=1, request_timeout_s=20)
    await generator.start()
    try:
        drawing = await generator.generate(GenerationParams(prompt="a cat", seed=40, num_images=3), "png")
    finally:
        await generator.stop()
    assert [(image.image_index, image.seed) for image in drawing.images] == [(0, 40), (1, 41), (2, 42)]


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


async def test_a_hang_up_in_the_turn_in_which_its_turn_comes_leaks_no_slot():
    """The task that would have drawn it is cancelled before it has taken its first step."""
    executor = OnSignal()
    generator = ImageGenerator(executor, max_queued_requests=10, request_timeout_s=20)
    await generator.start()
    params = GenerationParams(prompt="a cat", seed=1, num_images=4)
    try:
        for turns in range(12):  # whichever turn of the loop it is, one of these hang-ups is in it
            executor.go_on.clear()
            drawn = asyncio.create_task(generator.generate(params, "png"))
            hung_up = asyncio.create_task(generator.generate(params, "png"))
            await asyncio.sleep(0.05)
            executor.go_on.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            hung_up.cancel()
            await asyncio.gather(drawn, hung_up, return_exceptions=True)
            await asyncio.sleep(0.01)
            assert (generator.num_images_in_flight, generator.num_waiting) == (0, 0), f"after {turns} turns"
        assert len((await generator.generate(params, "png")).images) == 4
    finally:
        await generator.stop()
