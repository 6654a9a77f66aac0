"""What the generator makes of an executor that keeps its promises in an unusual way."""

from __future__ import annotations

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
