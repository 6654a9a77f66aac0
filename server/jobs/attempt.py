"""One attempt at a job: its pictures, or the error."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

from server.errors import EngineLostError
from server.executors.base import Executor
from server.executors.messages import ImageReady, JobDone, Preview, Progress, WorkDone
from server.jobs.live_job import LiveJob
from server.store.record import Picture
from server.store.storage import Storage

__all__ = ["Pictures", "draw", "has_begun"]


class Pictures(NamedTuple):
    """What an attempt made."""

    images: tuple[Picture, ...]
    done: JobDone


async def draw(
    executor: Executor, live: LiveJob, storage: Storage, beginning: asyncio.Task[int | None]
) -> Pictures | Exception | None:
    """What the engine made, or why it made nothing; None: the attempt never began."""
    images: dict[int, Picture] = {}
    done: JobDone | None = None
    try:
        async with contextlib.aclosing(executor.run(live.job(await storage.read_inputs(live.record)))) as events:
            async for event in events:
                if not await has_begun(beginning):
                    return None
                if isinstance(event, Progress | Preview):
                    live.take(event)
                elif isinstance(event, ImageReady):
                    images[event.image_index] = Picture(event.seed, event.media_type, event.data)
                    live.take(event)
                elif isinstance(event, WorkDone):
                    live.engine_s += event.seconds_of(live.record.id)
                else:
                    done = event
    except Exception as error:  # noqa: BLE001 -- one job's failure, of whatever kind, never ends another's
        return error
    if done is None or len(images) != live.record.new.params.num_images:
        return EngineLostError("the engine finished without delivering every picture")
    return Pictures(tuple(image for _, image in sorted(images.items())), done)


async def has_begun(beginning: asyncio.Task[int | None]) -> bool:
    """Whether an attempt is written down; waits until that is known."""
    if not beginning.done():
        await asyncio.wait([beginning])
    return beginning.result() is not None
