"""An unfinished job in memory: its progress, its preview, and the callers that wait for it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

from server.executors.base import Job
from server.executors.messages import ImageReady, Preview, Progress
from server.store.record import JobRecord, Picture

__all__ = ["LiveJob"]


@dataclass(slots=True, kw_only=True, eq=False)
class LiveJob:
    """A job between its acceptance and its end. Belongs to the event loop's thread."""

    record: JobRecord
    """As the store last told."""
    accepted_at: float
    """Seconds on the generator's clock."""
    context: contextvars.Context
    """Of its tasks: what they log carries its id, and that of the request that asked for it."""
    is_cancelled: bool = False
    """Whether it is not to be drawn any more, though that may not be written down yet."""
    is_interrupted: bool = False
    """Whether its caller wants what there is, and no more."""
    skipped: set[int] = field(default_factory=set)
    """Places of the pictures of which its caller wants what there is, and no more."""
    finish_early: Callable[[Collection[int] | None], Awaitable[bool]] | None = None
    """Asks the engine that draws it for these pictures, or all, as far as they are; None while none draws it."""
    is_left: bool = False
    """Whether this process will not go on with it: the server shuts down."""
    preview: Preview | None = None
    """What the picture looks like so far."""
    version: int = 0
    """Grows with every change that is told."""
    task: asyncio.Task[None] | None = None
    """What draws it; None while it waits."""
    lost_by: set[str] = field(default_factory=set)
    """Names of the engines that were lost while they drew it."""
    held_since: float | None = None
    """When it could have begun but for the model that it needs, on the clock of `ModelTurns`; None: it could not."""
    engine_s: float = 0.0
    """Seconds that the engine has spent on it, in all attempts of this process."""
    images: tuple[Picture, ...] = ()
    """The finished pictures, for whoever waits for them right now."""
    error: Exception | None = None
    """Why it failed, with all that its record does not keep."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it has ended, or will not go on in this process."""
    _steps: dict[int, int] = field(default_factory=dict)
    _finished: set[int] = field(default_factory=set)
    """Places of the pictures that were delivered."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def step(self) -> int:
        """Model calls taken so far, all its pictures together."""
        return sum(self._steps.values())

    @property
    def is_skipping(self) -> bool:
        """Whether pictures that were skipped are still to come."""
        return bool(self.skipped - self._finished)

    def present_batch(self, batch_size: int) -> range:
        """Places of the pictures that are drawn now: of the first batch that has begun and is not finished.

        Args:
            batch_size: pictures of one batch, as the caller counts them.
        """
        begun = self._steps.keys() - self._finished - self.skipped
        first = min(begun, default=0) // batch_size * batch_size
        return range(first, min(first + batch_size, self.record.new.params.num_images)) if begun else range(0)

    @property
    def is_cut_short(self) -> bool:
        """Whether its caller ended it, or pictures of it, before their last step."""
        params = self.record.new.params
        return (self.is_interrupted or bool(self.skipped)) and self.step < params.progress_steps * params.num_images

    @property
    def calls_left(self) -> list[int]:
        """Model calls that are still to be taken, of each picture that is not finished."""
        params = self.record.new.params
        unfinished = [index for index in range(params.num_images) if index not in self._finished]
        # Reading a picture and enlarging it count as steps, and take none of the model's calls.
        return [min(params.model_calls, params.progress_steps - self._steps.get(index, 0)) for index in unfinished]

    def job(self, attempt: int, inputs: Mapping[str, bytes]) -> Job:
        """What an executor is asked for, with the files that it starts from."""
        new = self.record.new
        return Job(
            id=new.id,
            attempt=attempt,
            params=new.params,
            alone=self.record.is_last_attempt,
            output_format=new.output_format,
            inputs=inputs,
            image_metadata=new.image_metadata,
            output_quality=new.output_quality,
        )

    def begin_anew(self) -> None:
        """Forget what came of the attempt before."""
        self._steps.clear()
        self._finished.clear()
        self.skipped.clear()
        self.preview = None
        self.images = ()
        self.error = None

    def take(self, event: Progress | Preview | ImageReady) -> None:
        """Store a progress report or preview of the engine, or that a picture is finished, and notify watchers."""
        if isinstance(event, Progress):
            self._steps[event.image_index] = event.step
        elif isinstance(event, ImageReady):
            self._finished.add(event.image_index)
        else:
            self.preview = event
        self.notify()

    def now_is(self, record: JobRecord) -> None:
        """The store knows it as this now. The first terminal record ends the job."""
        self.record = record
        if record.is_over:
            self.ended.set()
        self.notify()

    def leave(self) -> None:
        """This process will not go on with it; if it has not ended, the next one will."""
        self.is_left = True
        self.ended.set()
        self.notify()

    def notify(self) -> None:
        """Notify watchers of a change."""
        self.version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def change(self, since: int, timeout_s: float) -> None:
        """Return as soon as the version is not `since` any more, or after so long."""
        if self.version != since:
            return
        changed = self._changed
        try:
            async with asyncio.timeout(timeout_s):
                await changed.wait()
        except TimeoutError:
            pass
