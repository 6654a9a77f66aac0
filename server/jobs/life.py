"""An accepted job that has not ended yet, as it lives in this process: its steps, its preview, and who waits for it."""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import dataclass, field

from server.executors.base import Job
from server.executors.messages import ImageReady, Preview, Progress
from server.jobs.record import JobRecord

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
    is_left: bool = False
    """Whether this process will not go on with it: the server shuts down."""
    preview: Preview | None = None
    """What the picture looks like so far."""
    version: int = 0
    """Grows with every change that is told."""
    task: asyncio.Task[None] | None = None
    """What draws it; None while it waits."""
    engine_s: float = 0.0
    """Seconds that the engine has spent on it, in all attempts of this process."""
    images: tuple[ImageReady, ...] = ()
    """The finished pictures, for whoever waits for them right now."""
    error: Exception | None = None
    """Why it failed, with all that its record does not keep."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it has ended, or will not go on in this process."""
    _steps: dict[int, int] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def step(self) -> int:
        """Model calls taken so far, all its pictures together."""
        return sum(self._steps.values())

    @property
    def steps(self) -> int:
        """Model calls of all its pictures."""
        params = self.record.new.params
        return params.model_calls * params.num_images

    @property
    def job(self) -> Job:
        """What an executor is asked for."""
        new = self.record.new
        return Job(id=new.id, params=new.params, output_format=new.output_format)

    @property
    def is_last_attempt(self) -> bool:
        """Whether the attempt that runs, or comes next, is the last one; such a job runs alone."""
        return self.record.losses + 1 >= MAX_ATTEMPTS

    def begin_anew(self) -> None:
        """Forget what came of the attempt before."""
        self._steps.clear()
        self.preview = None
        self.images = ()
        self.error = None

    def take(self, event: Progress | Preview) -> None:
        """Remember what the engine told, and tell whoever watches."""
        if isinstance(event, Progress):
            self._steps[event.image_index] = event.step
        else:
            self.preview = event
        self.tell()

    def now_is(self, record: JobRecord) -> None:
        """The store knows it as this now. The first terminal record ends the job."""
        self.record = record
        if record.is_over:
            self.ended.set()
        self.tell()

    def leave(self) -> None:
        """This process will not go on with it; if it has not ended, the next one will."""
        self.is_left = True
        self.ended.set()
        self.tell()

    def tell(self) -> None:
        """Wake whoever watches."""
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


MAX_ATTEMPTS = 3
"""A job whose engine was lost this many times is given up: it may be the reason."""
