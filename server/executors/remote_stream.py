"""What comes over the stream of one attempt at a remote engine, bounded and checked before anybody believes it.

An engine elsewhere may be broken, of another version, or not ours. Whatever it sends, the worst that follows is that
the attempt counts as lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from server.errors import EngineLostError
from server.executors.base import Job
from server.executors.engine_protocol import MAX_REMOTE_FRAME_BYTES
from server.executors.messages import (
    HEADER,
    ImageReady,
    JobDone,
    JobFailed,
    Pong,
    Preview,
    Progress,
    WorkDone,
    decode_from_engine,
)

__all__ = ["DrawStream"]

_SLOWEST_BYTES_A_S: Final = 2**16
_MAX_PREVIEW_BYTES: Final = 2**20
_MAX_QUIET_S: Final = 600.0
"""Of an engine that says nothing but that it lives: as long as a phase of loading may take."""
_MIN_FRAMES: Final = 10_000
_FRAMES_A_STEP: Final = 20
"""A step brings `Progress`, `Preview` and the work items of everybody who was in the batch meanwhile."""

Event = Progress | Preview | ImageReady | WorkDone | JobDone | JobFailed


class DrawStream:
    """Turns chunks of bytes into a job's events. Belongs to one attempt."""

    def __init__(self, job: Job, allowed_silence_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._job = job
        self._allowed_silence_s = allowed_silence_s
        self._now = now
        self._buffer = bytearray()
        self._frame_began = self._last_event = now()
        self._steps: dict[int, int] = {}
        self._images: set[int] = set()
        self.may_be_partial = False
        """Whether the job may end without all its pictures: it was asked for them early."""
        params = job.params
        self._frames_left = max(_MIN_FRAMES, _FRAMES_A_STEP * params.num_images * params.progress_steps)

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that a chunk completes.

        Raises:
            EngineLostError: the engine says what it must not say, or too slowly.
        """
        self._buffer += chunk
        while len(self._buffer) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._buffer)
            if length > MAX_REMOTE_FRAME_BYTES:
                raise EngineLostError(f"the engine sent a frame of {length} bytes")
            if len(self._buffer) < HEADER.size + length:
                break
            body = bytes(self._buffer[HEADER.size : HEADER.size + length])
            del self._buffer[: HEADER.size + length]
            self._frame_began = self._now()
            event = self._checked(body)
            if event is not None:
                self._last_event = self._now()
                yield event
        self._check_pace()

    def _check_pace(self) -> None:
        now = self._now()
        if self._buffer and now - self._frame_began > self._allowed_silence_s + len(self._buffer) / _SLOWEST_BYTES_A_S:
            raise EngineLostError("the engine sent a message too slowly")
        if now - self._last_event > max(_MAX_QUIET_S, self._allowed_silence_s):
            raise EngineLostError(f"the engine made no progress for {now - self._last_event:.0f} s")

    def _checked(self, body: bytes) -> Event | None:
        self._frames_left -= 1
        if not self._frames_left:
            raise EngineLostError("the engine sent more messages than the job can have")
        try:
            message = decode_from_engine(body)
        except msgspec.DecodeError as error:
            raise EngineLostError(f"the engine sent a message that cannot be read: {error}") from None
        match message:
            case Pong():
                return None
            case WorkDone():
                self._check(self._job.attempt_id in message.rows_by_job, "work")
                self._check(message.seconds >= 0 and all(rows > 0 for rows in message.rows_by_job.values()), "work")
                return message
            case Progress() | Preview() | ImageReady() | JobDone() | JobFailed():
                if message.job_id != self._job.attempt_id:
                    raise EngineLostError("the engine sent a message of another attempt")
                self._check_event(message)
                return message
            case _:
                raise EngineLostError(f"the engine sent a message that has no place here: {type(message).__name__}")

    def _check_event(self, event: Progress | Preview | ImageReady | JobDone | JobFailed) -> None:
        params = self._job.params
        match event:
            case Progress(_, index, step):
                self._check(index in range(params.num_images), "progress")
                self._check(self._steps.get(index, 0) < step <= params.progress_steps, "progress")
                self._steps[index] = step
            case Preview(_, index, _, data, media_type):
                self._check(index in range(params.num_images) and media_type.startswith("image/"), "preview")
                self._check(len(data) <= _MAX_PREVIEW_BYTES, "preview")
            case ImageReady(_, index, _, _, media_type):
                self._check(index in range(params.num_images) and index not in self._images, "picture")
                self._check(media_type == f"image/{self._job.output_format}", "picture")
                self._images.add(index)
            case JobDone():
                self._check(self.may_be_partial or len(self._images) == params.num_images, "end")

    def _check(self, is_possible: bool, what: str) -> None:  # noqa: FBT001 -- reads as an assertion
        if not is_possible:
            raise EngineLostError(f"the engine sent an impossible message ({what})")
