"""When a job will be done, and when the full queue will have room: from what the engine's own work has taken so far."""

from __future__ import annotations

import math
import time
from typing import Final

from engine.params import GenerationParams
from server.executors.base import Executor
from server.jobs.cost_model import CostModel, Running
from server.jobs.dispatcher import Dispatcher
from server.jobs.life import LiveJob

__all__ = ["Estimates"]


_GOOD_FOR_S: Final = 0.25
"""Playing a long queue through takes milliseconds, and hundreds may follow their jobs at once."""


class Estimates:
    """Seconds, as far as anybody can know. Belongs to the event loop's thread."""

    def __init__(self, executor: Executor, dispatcher: Dispatcher) -> None:
        self._executor = executor
        self._dispatcher = dispatcher
        self._cost = CostModel(executor.work_times)
        self._ends: dict[str, float] = {}
        """Job -> when it will be done, on the clock of `time.monotonic`."""
        self._last_end = -math.inf
        self._played_at = -math.inf

    def of_job_s(self, live: LiveJob) -> float | None:
        """Until a job that has not ended is done; None if unknown."""
        now = time.monotonic()
        job_id = live.record.id
        if now - self._played_at > _GOOD_FOR_S or not self._ends:
            self._play()
        elif job_id not in self._ends:
            self._put_last(job_id, live.record.new.params)
        end = self._ends.get(job_id)
        return None if end is None else max(0.0, end - now)

    def of_new_s(self, params: GenerationParams) -> float | None:
        """Until a job that came now would be done; None if unknown."""
        info = self._executor.info
        if info is None:
            return None
        waiting = [self._dispatcher.live[job_id].record.new.params for job_id in self._dispatcher.queue.order()]
        return self._cost.eta_s(self._running(), waiting, params, info)

    def until_room_s(self, latest_s: float) -> float:
        """Until a new job will find a place to wait, counted up to whole seconds.

        That is when one of those that run is done; at the latest, when the oldest that waits has run out of time.

        Args:
            latest_s: how long a caller waits at most.
        """
        now = time.monotonic()
        oldest = min((live.accepted_at for live in self._dispatcher.live.values()), default=now)
        left_s = max(0.0, latest_s - (now - oldest)) or latest_s
        known = [seconds for live in self._dispatcher.running.values() if (seconds := self.of_job_s(live)) is not None]
        return float(max(1, math.ceil(min([left_s, *known]))))

    def until_end_of_s(self, key_id: str, latest_s: float) -> float:
        """Until one of a key's jobs will have ended, counted up to whole seconds; `latest_s` where nobody knows."""
        running = (live for live in self._dispatcher.running.values() if live.record.new.key_id == key_id)
        known = [seconds for live in running if (seconds := self.of_job_s(live)) is not None]
        return float(max(1, math.ceil(min(known, default=latest_s))))

    def _running(self) -> list[Running]:
        return [Running(live.record.new.params, live.steps - live.step) for live in self._dispatcher.running.values()]

    def _put_last(self, job_id: str, params: GenerationParams) -> None:
        """A job that came since the queue was played through: as if it were behind all others, until the next time."""
        info = self._executor.info
        own_s = None if info is None else self._cost.engine_seconds(params, info.rows_per_call)
        if own_s is not None:
            self._last_end = max(self._last_end, time.monotonic()) + own_s
            self._ends[job_id] = self._last_end

    def _play(self) -> None:
        """Play through what runs and waits."""
        self._played_at = time.monotonic()
        self._ends = {}
        info = self._executor.info
        if info is None:
            return
        order = self._dispatcher.queue.order()
        waiting = [self._dispatcher.live[job_id].record.new.params for job_id in order]
        ends = self._cost.finish_times_s(self._running(), waiting, info)
        if ends is not None:
            job_ids = [*self._dispatcher.running, *order]
            self._ends = {job_id: self._played_at + end for job_id, end in zip(job_ids, ends, strict=True)}
            self._last_end = max(self._ends.values(), default=self._played_at)
