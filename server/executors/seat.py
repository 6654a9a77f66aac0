"""One engine of a pool: the jobs that it has, and whether its losses are its own fault."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Set
from typing import Final, NamedTuple

from engine.params import GenerationParams
from server.executors.base import Executor
from server.executors.remote import RemoteEngine

__all__ = ["Seat"]

FIRST_PAUSE_S: Final = 1.0
MAX_PAUSE_S: Final = 60.0


class _Taken(NamedTuple):
    """A job's place at the engine."""

    params: GenerationParams
    alone: bool
    number: int
    """Grows from job to job."""


class Seat:
    """An engine and what the gateway remembers of it. Belongs to the event loop's thread."""

    def __init__(self, name: str, executor: Executor, now: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        """As an operator sees it."""
        self.executor = executor
        self.is_leaving = False
        """Whether it gets no job any more: it has been taken off the list of engines."""
        self.last_fault: str | None = None
        """Why it lost a job last."""
        self._now = now
        self._taken: dict[str, _Taken] = {}
        self._numbers = itertools.count()
        self._lost_before = 0
        """Jobs with a lower number were with the engine that was lost last."""
        self._suspects: set[str] | None = None
        """Jobs that were there at every loss since the last job that ended well; None: there was none."""
        self._pause_s = FIRST_PAUSE_S
        self._paused_until = 0.0

    @property
    def is_remote(self) -> bool:
        """Whether it is on another machine."""
        return isinstance(self.executor, RemoteEngine)

    def is_of(self, engine_class: str | None) -> bool:
        """Whether it is of this class; None: any is."""
        info = self.executor.info
        return engine_class is None or (info is not None and info.engine_class == engine_class)

    @property
    def is_silent(self) -> bool:
        """Whether it has not responded for longer than it may."""
        return self.executor.silence_s > self.executor.allowed_silence_s

    # --- places -------------------------------------------------------------------------------------------------------

    def take(self, job_id: str, params: GenerationParams, *, alone: bool) -> None:
        """A job has a place here until `leave`."""
        self._taken[job_id] = _Taken(params, alone, next(self._numbers))

    def leave(self, job_id: str) -> None:
        """Its place is free again."""
        del self._taken[job_id]

    @property
    def job_ids(self) -> Set[str]:
        """The jobs that are here."""
        return self._taken.keys()

    @property
    def num_images(self) -> int:
        """Pictures of all jobs that are here."""
        return sum(taken.params.num_images for taken in self._taken.values())

    @property
    def num_free(self) -> int:
        """Pictures that would be drawn at once."""
        info = self.executor.info
        if info is None or any(taken.alone for taken in self._taken.values()):
            return 0
        return max(0, info.max_images_in_flight - self.num_images)

    @property
    def sizes(self) -> set[tuple[int, int]]:
        """Heights and widths, in pixels, that are being drawn."""
        return {(taken.params.height, taken.params.width) for taken in self._taken.values()}

    def keeps_models_for(self, model: str) -> bool:
        """Whether a job of a model could begin here without another model having to leave memory for it."""
        models = self.executor.models
        if models is None or model in models.resident or model in self._models_in_use:
            return True
        return models.fits({*models.resident, *self._models_in_use, model})

    def has_memory_for(self, model: str) -> bool:
        """Whether a job of a model could begin here before a job of another model has ended."""
        models = self.executor.models
        return models is None or not self._taken or models.fits({*self._models_in_use, model})

    def load_s(self, model: str) -> float:
        """See `ModelsChanged.load_s`."""
        return 0.0 if self.executor.models is None else self.executor.models.load_s(model)

    @property
    def _models_in_use(self) -> set[str]:
        return {taken.params.model for taken in self._taken.values()}

    @property
    def load(self) -> float:
        """0.0 while idle, 1.0 when it has as many pictures as it draws together."""
        info = self.executor.info
        return self.num_images / max(1, 1 if info is None else info.max_images_in_flight)

    def has_room_for(self, num_images: int, *, alone: bool) -> bool:
        """Whether it would begin a job at once.

        Args:
            num_images: of the job. One for more pictures than fit together runs alone: the engine draws them in turn.
            alone: whether no other job may be with it.
        """
        if self.executor.info is None:
            return False
        if not self._taken:
            return True
        return not alone and num_images <= self.num_free

    # --- losses -------------------------------------------------------------------------------------------------------

    def worked(self) -> None:
        """A job has ended here as jobs should: whatever was suspected, the engine can draw."""
        self._suspects = None
        self._pause_s = FIRST_PAUSE_S

    def lost(self, job_id: str) -> float:
        """The engine was lost while it drew a job. Call it for every job that was lost, before `leave`.

        One job that ends every engine is not the engine's fault: it was there at each loss. If no job was, the engine
        loses whatever it is given.

        Returns:
            Seconds to leave it out; 0.0: it may go on.
        """
        if self._taken[job_id].number < self._lost_before:
            return 0.0  # lost together with one that has been counted
        self._lost_before = next(self._numbers)
        self._suspects = set(self._taken) if self._suspects is None else self._suspects & set(self._taken)
        if self._suspects:
            return 0.0
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, MAX_PAUSE_S)
        return pause_s

    def pause(self, seconds: float) -> None:
        """Leave it out for so long."""
        self._paused_until = max(self._paused_until, self._now() + seconds)

    @property
    def is_paused(self) -> bool:
        """Whether it is left out."""
        return self._now() < self._paused_until
