"""ETA estimates: when a job will be done, when a full queue will have room (`Retry-After`). See `eta_simulation.py`."""

from __future__ import annotations

import math
import time
from typing import Final

from engine.params import GenerationParams
from server.executors.pool import EnginePool
from server.jobs.dispatcher import Dispatcher
from server.jobs.eta_simulation import Drawing, Running, Simulation, simulate_pool
from server.jobs.live_job import LiveJob

__all__ = ["Estimates"]


_PART_OF_THE_TIME: Final = 0.05
"""So much of the event loop's time, at most, goes into playing the queue through, however long it is and however many
ask: one of 5,000 jobs takes 0.1 s, so what it came to is good for 2 s."""


class Estimates:
    """ETAs of one server's jobs, in seconds; None where unknown. Belongs to the event loop's thread."""

    def __init__(self, pool: EnginePool, dispatcher: Dispatcher) -> None:
        self._pool = pool
        self._dispatcher = dispatcher
        self._simulation: Simulation | None = None
        self._ends: dict[str, float] = {}
        """Job -> when it will be done, on the clock of `time.monotonic`."""
        self._last_end = -math.inf
        self._newest_end: float | None = None
        """Of the jobs that came since the queue was played through; None while there are none."""
        self._played_at = -math.inf
        self._good_until = -math.inf

    def of_job_s(self, live: LiveJob) -> float | None:
        """Until a job that has not ended is done; None if unknown."""
        self._play_if_old()
        now = time.monotonic()
        job_id = live.record.id
        if job_id not in self._ends:
            self._put_last(job_id, live.record.new.params)
        end = self._ends.get(job_id)
        return None if end is None else max(0.0, end - now)

    def backlog_s(self) -> float | None:
        """Until everything is done that waits and runs now; None if unknown."""
        self._play_if_old()
        known = self._simulation is not None or not self._dispatcher.live
        return max(0.0, max(self._ends.values(), default=-math.inf) - time.monotonic()) if known else None

    def of_new_s(self, params: GenerationParams) -> float | None:
        """Until a job that came now would be done; None if unknown."""
        self._play_if_old()
        own_s = self._alone_s(params)
        if own_s is None or self._simulation is None:
            return None
        end = self._played_at + self._simulation.end_of_another(params)
        if self._newest_end is not None:
            end = max(end, self._newest_end + own_s)
        return max(0.0, end - time.monotonic())

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
        """Until one of a key's jobs will have ended, counted up to whole seconds; `latest_s` where that is unknown."""
        running = (live for live in self._dispatcher.running.values() if live.record.new.key_id == key_id)
        known = [seconds for live in running if (seconds := self.of_job_s(live)) is not None]
        return float(max(1, math.ceil(min(known, default=latest_s))))

    def _put_last(self, job_id: str, params: GenerationParams) -> None:
        """A job that came since the queue was played through: as if it were behind all others, until the next time."""
        own_s = self._alone_s(params)
        if own_s is not None:
            self._last_end = max(self._last_end, time.monotonic()) + own_s
            self._ends[job_id] = self._newest_end = self._last_end

    def _alone_s(self, params: GenerationParams) -> float | None:
        """Seconds that a job takes on an idle engine; None if unknown."""
        idle = simulate_pool([engine._replace(running=()) for engine in self._engines()[0]], [])
        return None if idle is None else idle.end_of_another(params)

    def _engines(self) -> tuple[list[Drawing], list[str]]:
        """The engines that draw, or did before they were lost; and the jobs that they have, in the same order."""
        seats = self._pool.drawing()
        drawing, job_ids = [], []
        for seat, info in seats:
            lives = [live for job_id in seat.job_ids if (live := self._dispatcher.running.get(job_id)) is not None]
            running = [Running(live.record.new.params, live.calls_left) for live in lives]
            drawing.append(Drawing(info, seat.executor.work_times, running, seat.executor.models))
            job_ids += [live.record.id for live in lives]
        return drawing, job_ids

    def _play_if_old(self) -> None:
        if time.monotonic() >= self._good_until:
            began = time.thread_time()
            self._play()
            self._good_until = time.monotonic() + (time.thread_time() - began) / _PART_OF_THE_TIME

    def _play(self) -> None:
        """Play through what runs and waits."""
        self._played_at = time.monotonic()
        self._ends, self._newest_end = {}, None
        order = self._dispatcher.queue.order()
        waiting = [self._dispatcher.live[job_id].record.new.params for job_id in order]
        engines, running = self._engines()
        self._simulation = simulate_pool(engines, waiting)
        if self._simulation is not None:
            job_ids = [*running, *order]
            ends = zip(job_ids, self._simulation.ends, strict=True)
            self._ends = {job_id: self._played_at + end for job_id, end in ends}
            self._last_end = max(self._ends.values(), default=self._played_at)
