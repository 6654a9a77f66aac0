"""Job progress: snapshots of a job from its stored record and its live state, and a stream of them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from server.executors.messages import Preview
from server.jobs.dispatcher import Dispatcher
from server.jobs.estimates import Estimates
from server.store.record import JobRecord
from server.store.storage import Storage

__all__ = ["JobState", "JobStates"]

_QUEUE_REFRESH_S: Final = 1.0
"""How often a waiting job's position is looked up for those who watch it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """A job at one moment: what is kept of it, and what only this process knows."""

    record: JobRecord
    step: int
    """Model calls taken so far, all its pictures together."""
    steps: int
    queue_position: int | None = None
    """0 is next; None unless it waits."""
    eta_s: float | None = None
    """Seconds until it is done; None if that is unknown, or over."""
    preview: Preview | None = None
    is_left: bool = False
    """Whether this process will not go on with it, though it has not ended: the server shuts down."""


class JobStates:
    """Looks at jobs. Belongs to the event loop's thread."""

    def __init__(self, storage: Storage, dispatcher: Dispatcher, estimates: Estimates) -> None:
        self._storage = storage
        self._dispatcher = dispatcher
        self._estimates = estimates

    def of(self, record: JobRecord) -> JobState:
        """What is known of a job now."""
        params = record.new.params
        steps = params.progress_steps * params.num_images
        live = self._dispatcher.live.get(record.id)
        if live is None:
            return JobState(record=record, step=steps if record.status == "done" else 0, steps=steps)
        return JobState(
            record=live.record,
            step=live.step,
            steps=steps,
            queue_position=self._dispatcher.queue.position(record.id),
            eta_s=self._estimates.of_job_s(live),
            preview=live.preview,
            is_left=live.is_left,
        )

    async def watch(self, record: JobRecord, keep_alive_s: float) -> AsyncGenerator[JobState | None, None]:
        """A job's state now and at every change, the last one terminal; None whenever nothing changed for so long.

        A slow reader gets the newest state and misses those between.
        """
        live = self._dispatcher.live.get(record.id)
        if live is not None:
            record = live.record
        elif not record.is_over:  # it has ended since it was looked up
            ended = await self._storage.ask(self._storage.store.get(record.id))
            record = ended or record
        seen = 0 if live is None else live.version
        state = self.of(record)
        yield state
        sent_at = time.monotonic()
        while live is not None and not state.record.is_over and not state.is_left:
            quiet_s = max(0.0, keep_alive_s - (time.monotonic() - sent_at))
            await live.change(seen, min(quiet_s, _QUEUE_REFRESH_S) if state.queue_position is not None else quiet_s)
            # Before the state: what changes while the reader of a `yield` takes its time must not be slept through.
            seen = live.version
            before, state = state, self.of(live.record)
            if _visible(before) != _visible(state):
                sent_at = time.monotonic()
                yield state
            elif time.monotonic() - sent_at >= keep_alive_s:
                sent_at = time.monotonic()
                yield None


def _visible(state: JobState) -> tuple[object, ...]:
    """What makes a new snapshot worth sending. The ETA alone does not."""
    return (state.record.status, state.record.attempt, state.step, state.queue_position, state.preview, state.is_left)
