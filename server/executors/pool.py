"""Several engines behind one gateway: which of them takes the next job, and which are left out for a while.

Knows nothing of how an engine is reached. (Who is next, is in `jobs/dispatcher.py`; one engine's losses are in
`seat.py`.)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, get_args

import msgspec
import structlog

from engine.errors import EngineError
from engine.params import GenerationParams
from server.executors.base import EngineVitals, Executor, ExecutorState, RestartReason
from server.executors.messages import EngineInfo, WorkDone
from server.executors.seat import Seat

__all__ = ["LOCAL", "EnginePool"]

_log = structlog.get_logger("server.engine")

LOCAL = "local"
"""Name of the only engine of a server that has one."""


class EnginePool:
    """Engines, and the jobs that each has. Belongs to the event loop's thread.

    With one engine it is that engine: every reading is its own, and it is never left out.
    """

    def __init__(
        self,
        executors: Mapping[str, Executor],
        *,
        follow: Callable[[EnginePool], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """Take engines that have not been started.

        Args:
            executors: by the names that an operator sees.
            follow: adds and removes engines while the pool runs; None: it keeps those.
        """
        self._follow = follow
        self._following: asyncio.Task[None] | None = None
        self.on_change: Callable[[], None] = lambda: None
        """Called when there may be room that there was not."""
        self._on_work: Callable[[WorkDone], None] = lambda _: None
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._is_started = False
        self._seats: dict[str, Seat] = {}
        for name, executor in executors.items():
            self._seats[name] = Seat(name, executor)

    @property
    def seats(self) -> Sequence[Seat]:
        """Every engine, in the order that they were named."""
        return list(self._seats.values())

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self, on_work: Callable[[WorkDone], None]) -> None:
        """Begin to load every engine's model.

        Args:
            on_work: called with every work item of every engine that has ended.
        """
        self._is_started = True
        self._on_work = on_work
        for seat in self.seats:
            seat.executor.work_times.on_item = on_work
            await seat.executor.start()
        if self._follow is not None:
            self._following = asyncio.create_task(self._follow(self), name="follow engines")

    async def stop(self) -> None:
        """End every engine and wait for it."""
        self.stop_watching()
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await asyncio.gather(*(seat.executor.stop() for seat in self.seats))

    async def add(self, name: str, executor: Executor) -> None:
        """Take one more engine while others draw."""
        self._seats[name] = Seat(name, executor)
        if self._is_started:
            executor.work_times.on_item = self._on_work
            await executor.start()
            self.watch_loading()

    async def remove(self, name: str) -> None:
        """End an engine that has no job any more."""
        seat = self._seats.pop(name)
        watch = self._watches.pop(name, None)
        if watch is not None:
            watch.cancel()
        await seat.executor.stop()

    def watch_loading(self) -> None:
        """Tell of a change when an engine that loads is ready, or cannot be."""
        for seat in self.seats:
            watch = self._watches.get(seat.name)
            if seat.executor.state == "loading" and (watch is None or watch.done()):
                self._watches[seat.name] = asyncio.create_task(
                    self._tell_when_ready(seat.executor), name=f"wait until {seat.name} is ready"
                )

    def stop_watching(self) -> None:
        """Tell of no change any more."""
        for watch in self._watches.values():
            watch.cancel()

    async def _tell_when_ready(self, executor: Executor) -> None:
        with contextlib.suppress(EngineError):  # the executor's state tells it to everybody who asks
            await executor.wait_until_ready()
        # In the next turn of the loop this task has ended, and a new one could watch a new start.
        asyncio.get_running_loop().call_soon(self.on_change)

    # --- places -------------------------------------------------------------------------------------------------------

    def place_for(
        self,
        params: GenerationParams,
        *,
        alone: bool = False,
        lost_by: Collection[str] = (),
        admits: Callable[[Seat], bool] = lambda _: True,
        engine_class: str | None = None,
    ) -> Seat | None:
        """The engine that would have a job's pictures soonest; None: none has room now.

        An idle one first, then one that draws this size only (a call of one size is padded anyway: company costs
        nothing), then the least loaded.

        Args:
            params: what is to be drawn.
            alone: whether no other job may be with it: the last attempt of a job that may end engines.
            lost_by: names of engines that were lost with this job. The last attempt goes to another one if there is
                one that draws, the others if they have room.
            admits: whether an engine may get it at all.
            engine_class: only an engine of this class; None: any.
        """
        usable = [seat for seat in self.usable_seats if seat.is_of(engine_class)]
        elsewhere = [seat for seat in usable if seat.name not in lost_by]
        if alone and elsewhere:
            usable = elsewhere
        free = [seat for seat in usable if seat.has_room_for(params.num_images, alone=alone) and admits(seat)]
        size = (params.height, params.width)
        return min(
            free,
            key=lambda seat: (seat.name in lost_by, bool(seat.sizes - {size}), seat.load),
            default=None,
        )

    def has_class(self, engine_class: str) -> bool:
        """Whether an engine of this class draws now."""
        return any(seat.is_of(engine_class) for seat in self.seats if self._is_ready(seat))

    def num_free_places(self, params: GenerationParams) -> int:
        """Jobs for one picture that would start at once if they came now; 0 where this one would wait."""
        if self.place_for(params) is None:
            return 0
        return max(1, sum(seat.num_free for seat in self.usable_seats))

    def lost(self, seat: Seat, job_id: str) -> None:
        """An engine was lost while it drew a job; left out for a while if that is its own fault, not the job's."""
        pause_s = seat.lost(job_id)
        if pause_s and len(self._seats) > 1:
            _log.warning("the engine lost different jobs in a row, pausing it", engine=seat.name, pause_s=pause_s)
            self.leave_out(seat, pause_s)

    def leave_out(self, seat: Seat, seconds: float) -> None:
        """Give an engine nothing for so long."""
        seat.pause(seconds)
        asyncio.get_running_loop().call_later(seconds, self.on_change)

    @property
    def usable_seats(self) -> list[Seat]:
        """The engines that may get a job now, if they have room."""
        return [seat for seat in self.seats if self._is_usable(seat)]

    def _is_usable(self, seat: Seat) -> bool:
        return self._is_ready(seat) and not seat.is_paused

    @staticmethod
    def _is_ready(seat: Seat) -> bool:
        return seat.executor.state == "ready" and not seat.is_leaving

    def drawing(self) -> list[tuple[Seat, EngineInfo]]:
        """The engines that are ready, with what they run; if none is, those that were once."""
        known = [(seat, info) for seat in self.seats if (info := seat.executor.info) is not None]
        return [(seat, info) for seat, info in known if seat.executor.state == "ready"] or known

    # --- all engines as one -------------------------------------------------------------------------------------------

    @property
    def _first(self) -> Executor | None:
        """The engine that stands for all where only one can: the first that is ready, else the first."""
        seats = self.seats
        ready = (seat.executor for seat in seats if seat.executor.state == "ready")
        return next(ready, seats[0].executor if seats else None)

    @property
    def state(self) -> ExecutorState:
        """That of the engine which is best off: one that is ready is enough to draw."""
        states = {seat.executor.state for seat in self.seats}
        order: tuple[ExecutorState, ...] = ("ready", "loading", "failed", "stopped")
        return next((state for state in order if state in states), "loading")

    @property
    def failure(self) -> str | None:
        """Why nothing can be drawn; None unless `failed`."""
        return next((seat.executor.failure for seat in self.seats if seat.executor.failure), None)

    @property
    def load_trouble(self) -> str | None:
        """See `Executor.load_trouble`; of the first engine that has any."""
        return next((seat.executor.load_trouble for seat in self.seats if seat.executor.load_trouble), None)

    @property
    def info(self) -> EngineInfo | None:
        """What runs; with several engines, of the first, with the places of all that are ready."""
        known = [info for _, info in self.drawing()]
        if len(known) > 1:
            classes = {info.engine_class for info in known}
            return msgspec.structs.replace(
                known[0],
                max_images_in_flight=sum(info.max_images_in_flight for info in known),
                engine_class=known[0].engine_class if len(classes) == 1 else "",
            )
        return known[0] if known else None

    @property
    def silence_s(self) -> float:
        """Of the engine that has been silent longest."""
        return max((seat.executor.silence_s for seat in self.seats), default=0.0)

    @property
    def allowed_silence_s(self) -> float:
        """See `Executor.allowed_silence_s`; of the engine that has been silent longest."""
        silent = max(self.seats, key=lambda seat: seat.executor.silence_s, default=None)
        return 0.0 if silent is None else silent.executor.allowed_silence_s

    @property
    def load_seconds(self) -> dict[str, float]:
        """See `Executor.load_seconds`; of the first."""
        return {} if self._first is None else self._first.load_seconds

    @property
    def load_phase(self) -> str | None:
        """See `Executor.load_phase`; of the first that does something."""
        return next((seat.executor.load_phase for seat in self.seats if seat.executor.load_phase), None)

    @property
    def restarts(self) -> int:
        """Of all engines."""
        return sum(seat.executor.restarts for seat in self.seats)

    @property
    def process_ids(self) -> list[int]:
        """Of the engines that are processes of this machine."""
        ids = (seat.executor.vitals.process_id for seat in self.seats)
        return [process_id for process_id in ids if process_id is not None]

    @property
    def vitals(self) -> EngineVitals:
        """How the engines are: counts are of all, the rest is the first one's."""
        all_vitals = [seat.executor.vitals for seat in self.seats]
        restarts: Counter[RestartReason] = Counter(dict.fromkeys(get_args(RestartReason), 0))
        out_of_memory: Counter[str] = Counter()
        for vitals in all_vitals:
            restarts.update(vitals.restarts)
            out_of_memory.update(vitals.out_of_memory)
        return EngineVitals(
            process_id=next((vitals.process_id for vitals in all_vitals if vitals.process_id is not None), None),
            restarts=restarts,
            out_of_memory=out_of_memory,
            device_memory=next((vitals.device_memory for vitals in all_vitals if vitals.device_memory), None),
        )

    @property
    def last_work_at(self) -> float | None:
        """When the latest work item of any engine ended, on `time.monotonic`; None before the first."""
        ends = [seat.executor.work_times.last_at for seat in self.seats]
        return max((end for end in ends if end is not None), default=None)
