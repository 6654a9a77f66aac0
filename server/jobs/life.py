"""What an accepted request lives through: waiting, running, and one outcome that never changes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from server.executors.base import Job
from server.executors.messages import ImageReady

__all__ = ["AcceptedJob", "Drawing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """The pictures of one request, and where its time went, in seconds."""

    images: tuple[ImageReady, ...]
    """In the order of their seeds."""
    truncated_tokens: int
    """Tokens of prompt and negative prompt that the text encoder could not read."""
    queue_s: float
    encode_s: float
    denoise_s: float
    decode_s: float
    file_s: float


@dataclass(slots=True, kw_only=True, eq=False)
class AcceptedJob:
    """A job from the moment it was accepted. Belongs to the event loop's thread."""

    job: Job
    accepted_at: float
    """Seconds on the generator's clock."""
    outcome: asyncio.Future[Drawing]
    """The pictures, or the reason why there are none."""
    work_units_left: float
    """Falls as the job's steps are taken."""
    task: asyncio.Task[None] | None = field(default=None)
    """What draws it; None while it waits."""

    def finish(self, drawing: Drawing) -> None:
        """Hand over the pictures, if anybody still waits for them."""
        if not self.outcome.done():
            self.outcome.set_result(drawing)

    def fail(self, error: Exception) -> None:
        """Say why there are no pictures, if anybody still waits for them."""
        if not self.outcome.done():
            self.outcome.set_exception(error)
