"""ETA simulation: when jobs will be done, by a simulated gateway and engines with the engine's own scheduling."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.batch_scheduler import BatchKey, BatchScheduler
from engine.params import GenerationParams
from engine.prompt_limits import usual_chunks
from server.executors.messages import EngineInfo, ModelsChanged
from server.executors.work_times import WorkTimes
from server.jobs.model_turns import turn_seconds
from server.jobs.simulated_memory import SimulatedMemory

__all__ = ["Drawing", "Running", "Simulation", "simulate", "simulate_pool"]


@dataclass(frozen=True, slots=True)
class Running:
    """A job that the engine is drawing."""

    params: GenerationParams
    calls_left: Sequence[int]
    """Model calls that are still to be taken, of each picture that is not finished."""


class Drawing(NamedTuple):
    """One engine that draws."""

    info: EngineInfo
    times: WorkTimes
    """How long its work items take; encodes and decodes count from the first one seen."""
    running: Sequence[Running]
    """What it draws, oldest first."""
    models: ModelsChanged | None = None
    """Which of several models are in memory."""

    @property
    def has_stepped(self) -> bool:
        """Whether it is known how long a step takes."""
        info = self.info
        return self.times.median_s("step", info.rows_per_call, info.native_height, info.native_width) is not None


def simulate(
    running: Sequence[Running], queued: Sequence[GenerationParams], info: EngineInfo, times: WorkTimes
) -> Simulation | None:
    """Play through when each job will be done by one engine. See `simulate_pool`."""
    return simulate_pool([Drawing(info, times, running)], queued)


def simulate_pool(engines: Sequence[Drawing], queued: Sequence[GenerationParams]) -> Simulation | None:
    """Play through when each job will be done, if nothing comes that overtakes them.

    Args:
        engines: those that draw. One that has never taken a step counts as fast as another.
        queued: what waits, in order.

    Returns:
        None while no step was seen.
    """
    known = next((engine for engine in engines if engine.has_stepped), None)
    if known is None:
        return None
    pool = _SimulatedPool([])
    jobs = []
    for drawing in engines:
        times = drawing.times if drawing.has_stepped else known.times
        memory = None if drawing.models is None else SimulatedMemory(drawing.models)
        engine = _SimulatedEngine(drawing.info, _Durations(times, drawing.info.rows_per_call), memory)
        jobs += [engine.take_running(job) for job in drawing.running]
        pool.engines.append(engine)
    jobs += pool.take_all(queued)
    before_another = pool.branched()
    pool.work_to_the_end()
    return Simulation([job.end_s for job in jobs], before_another)


class Simulation:
    """When jobs will be done, and any one that came after them, without playing them through again."""

    def __init__(self, ends: list[float], before_another: _SimulatedPool) -> None:
        self.ends = ends
        """Seconds until each job will be done: those that run, engine by engine, then those that wait."""
        self._before_another = before_another
        """As it will be when the last of them has just been begun."""

    def end_of_another(self, params: GenerationParams) -> float:
        """Seconds until a job will be done that comes after all these, from when they were played through."""
        pool = self._before_another.branched()
        job = pool.take_when_there_is_room(params)
        pool.work_to_the_end(job)
        return job.end_s


class _SimulatedPool:
    """Engines, each with its own clock. A job goes to the one that can begin it first."""

    def __init__(self, engines: list[_SimulatedEngine], now_s: float = 0.0) -> None:
        self.engines = engines
        self._now_s = now_s

    def branched(self) -> _SimulatedPool:
        """The same engines once more, to go on in another way."""
        return _SimulatedPool([engine.branched() for engine in self.engines], self._now_s)

    def take_all(self, queued: Sequence[GenerationParams]) -> list[_Job]:
        """Begin jobs: in order, but where not all models fit into memory those models take turns."""
        if all(engine.memory is None for engine in self.engines):
            return [self.take_when_there_is_room(params) for params in queued]
        waiting: dict[str, deque[int]] = {}
        for index, params in enumerate(queued):
            waiting.setdefault(params.model, deque()).append(index)
        taken: dict[int, _Job] = {}
        held_since: dict[int, float] = {}
        while waiting:
            found = self._next_turn(queued, sorted(indices[0] for indices in waiting.values()), held_since)
            if found is None:
                self._work()
                continue
            index, engine = found
            taken[index] = self._taken(engine, queued[index])
            model = queued[index].model
            waiting[model].popleft()
            if not waiting[model]:
                del waiting[model]
        return [taken[index] for index in range(len(queued))]

    def _next_turn(
        self, queued: Sequence[GenerationParams], firsts: Sequence[int], held_since: dict[int, float]
    ) -> tuple[int, _SimulatedEngine] | None:
        """The rule of `ModelTurns`, of the first waiting job of each model; None: none begins now."""
        head = firsts[0]
        model = queued[head].model
        if (engine := self._free(queued[head], keeps=True)) is not None:
            return head, engine
        changing = [engine for engine in self.engines if not engine.keeps_models_for(model)]
        if not changing:
            return None
        since = held_since.setdefault(head, self._now_s)
        turn_s = max(turn_seconds(engine.load_s(model)) for engine in changing)
        if self._now_s - since < turn_s:
            for index in firsts[1:]:
                if (engine := self._free(queued[index], keeps=True)) is not None:
                    return index, engine
        engine = self._free(queued[head])
        return None if engine is None else (head, engine)

    def take_when_there_is_room(self, params: GenerationParams) -> _Job:
        """Begin a job as soon as an engine has room for it."""
        while (engine := self._free(params)) is None:
            self._work()
        return self._taken(engine, params)

    def _free(self, params: GenerationParams, *, keeps: bool = False) -> _SimulatedEngine | None:
        """The engine that begins a job now, if `keeps` only without a model that leaves for it."""
        free = [engine for engine in self.engines if engine.has_room_for(params)]
        free = [engine for engine in free if not keeps or engine.keeps_models_for(params.model)]
        return min(free, key=lambda engine: (engine.load, engine.clock_s), default=None)

    def _taken(self, engine: _SimulatedEngine, params: GenerationParams) -> _Job:
        engine.clock_s = max(engine.clock_s, self._now_s)
        return engine.take_new(params)

    def work_to_the_end(self, job: _Job | None = None) -> None:
        """Draw everything, or until one job is done."""
        while (job is None or not job.end_s) and any(engine.has_work for engine in self.engines):
            self._work()

    def _work(self) -> None:
        """Let the engine that is furthest behind do a work item."""
        engine = min((engine for engine in self.engines if engine.has_work), key=lambda engine: engine.clock_s)
        engine.work()
        self._now_s = max(self._now_s, engine.clock_s)


class _OfSize(NamedTuple):
    step_rows: int
    """Rows that the calls of a size have."""
    step_s: float
    """A call of that many rows."""
    decode_s: float
    encode_image_s: float
    upscale_s: float
    """Enlarging to it without drawing."""


class _Durations(dict[BatchKey, _OfSize]):
    """Seconds that the work items of a size take, looked up once: one simulation calculates with the same throughout.

    A size is height and width in pixels.
    """

    def __init__(self, times: WorkTimes, rows_per_call: int) -> None:
        super().__init__()
        self._times = times
        self._rows_per_call = rows_per_call
        self._encode_s: dict[tuple[int, str], float] = {}

    def encode_s(self, num_rows: int, key: BatchKey) -> float:
        """Of the texts of a picture's rows: with its negative prompt or without, and of prompts joined by `AND`."""
        rows = num_rows * key.num_chunks
        if (rows, key.model) not in self._encode_s:
            pair_s = self._times.median_s("encode", 2, 0, 0, key.model) or 0.0
            found_s = self._times.median_s("encode", rows, 0, 0, key.model)
            self._encode_s[rows, key.model] = found_s or pair_s * (rows > 1)
        return self._encode_s[rows, key.model]

    def __missing__(self, size: BatchKey) -> _OfSize:
        sides, model = (size.height, size.width), size.model
        rows = self._times.step_rows(*sides, model=model, otherwise=self._rows_per_call)
        step_s = self._times.median_s("step", rows, *sides, model) or 0.0
        kinds = ("decode", "encode_image", "upscale")
        alone_s = (self._times.median_s(kind, 1, *sides, model) or 0.0 for kind in kinds)
        self[size] = found = _OfSize(rows, step_s, *alone_s)
        return found


@dataclass(slots=True, eq=False)
class _Job:
    model: str
    num_images: int
    images_left: int
    """Not decoded yet."""
    end_s: float = 0.0
    """0.0 until it has ended."""


@dataclass(slots=True)
class _Leg:
    batch_key: BatchKey
    num_rows: int
    calls_left: int
    reading_s: float = 0.0
    """What is done for this picture alone before its first call: prompts and pictures are read."""


@dataclass(slots=True, eq=False)
class _Picture:
    job: _Job
    legs: list[_Leg]
    """Those that are not over; at least one."""

    @property
    def batch_key(self) -> BatchKey:
        return self.legs[0].batch_key

    @property
    def num_rows(self) -> int:
        return self.legs[0].num_rows

    @property
    def calls_left(self) -> int:
        """Of this leg."""
        return self.legs[0].calls_left

    @property
    def is_denoised(self) -> bool:
        return not self.calls_left and len(self.legs) == 1


class _SimulatedEngine:
    """Does the work items that an engine would do, in no time."""

    def __init__(self, info: EngineInfo, durations: _Durations, memory: SimulatedMemory | None) -> None:
        self._info = info
        self.memory = memory
        self._durations = durations
        self.clock_s = 0.0
        """Seconds since the simulation began."""
        self._num_in_flight = 0
        """Pictures of all jobs that have not ended."""
        self.batch_scheduler: BatchScheduler[_Picture] = BatchScheduler(
            rows_per_call=info.rows_per_call, max_images_in_flight=info.max_images_in_flight
        )

    def branched(self) -> _SimulatedEngine:
        """The same engine once more, to go on in another way. Takes time with what is in flight, not with the queue."""
        other = copy.copy(self)
        other.batch_scheduler = copy.deepcopy(self.batch_scheduler)
        other.memory = None if self.memory is None else self.memory.branched()
        return other

    @property
    def has_work(self) -> bool:
        return self.batch_scheduler.has_work

    @property
    def load(self) -> float:
        """0.0 while idle."""
        return self._num_in_flight / self._info.max_images_in_flight

    def has_room_for(self, params: GenerationParams) -> bool:
        """Whether the gateway would hand this over; one that never fits with others runs alone."""
        has_memory = self.memory is None or self.memory.has_memory_for(params.model)
        num_free = self._info.max_images_in_flight - self._num_in_flight
        return has_memory and (not self._num_in_flight or params.num_images <= num_free)

    def keeps_models_for(self, model: str) -> bool:
        """Whether no model has to leave memory for this one."""
        return self.memory is None or self.memory.keeps_models_for(model)

    def load_s(self, model: str) -> float:
        """Seconds that a model takes to load."""
        return 0.0 if self.memory is None else self.memory.load_s(model)

    def take_new(self, params: GenerationParams) -> _Job:
        """Begin a job."""
        if not params.legs:
            return self._enlarged(params)
        pictures = self._take(params, [params.model_calls] * params.num_images)
        # The other pictures of a job find read what is the same for all.
        first = pictures[0].legs[0]
        first.reading_s = self._durations.encode_s(first.num_rows, first.batch_key)
        if params.image is not None:
            first.reading_s += self._durations[first.batch_key].encode_image_s
        return pictures[0].job

    def take_running(self, job: Running) -> _Job:
        """Go on with a job, which has not ended: its last picture is decoded at the least."""
        if not job.params.legs:
            return self._enlarged(job.params)
        return self._take(job.params, job.calls_left or [0])[0].job

    def _enlarged(self, params: GenerationParams) -> _Job:
        """A job that draws nothing: done as soon as it is begun, tile by tile between the steps of others."""
        self.clock_s += self._durations[BatchKey(params.height, params.width)].upscale_s
        return _Job(params.model, params.num_images, 0, self.clock_s)

    def _take(self, params: GenerationParams, calls: Sequence[int]) -> list[_Picture]:
        if self.memory is not None:  # others may go on drawing while it loads, at an unknown speed
            self.clock_s += self.memory.take(params.model)
        job = _Job(params.model, params.num_images, len(calls))
        pictures = [_Picture(job, self._legs(params, calls_left)) for calls_left in calls]
        for leg in pictures[0].legs:
            self.batch_scheduler.row_limits[leg.batch_key] = self._durations[leg.batch_key].step_rows
        self.batch_scheduler.waiting.extend(picture for picture in pictures if not picture.is_denoised)
        self.batch_scheduler.denoised.extend(picture for picture in pictures if picture.is_denoised)
        self._num_in_flight += params.num_images
        return pictures

    def _legs(self, params: GenerationParams, calls_left: int) -> list[_Leg]:
        """The legs of a picture that has so many calls left: the last one's are taken last."""
        legs: list[_Leg] = []
        for leg in reversed(params.legs):
            calls = min(calls_left, leg.model_calls)
            calls_left -= calls
            if calls or not legs:
                key = BatchKey(leg.height, leg.width, usual_chunks(leg), params.model)
                legs.insert(0, _Leg(key, leg.num_rows, calls))
        hires = params.hires
        if hires is not None and len(legs) > 1:
            first, second = legs[0].batch_key, legs[1]
            if hires.prompt is not None or hires.negative_prompt is not None:
                second.reading_s += self._durations.encode_s(second.num_rows, second.batch_key)
            if params.enlarges_pixels:
                second.reading_s += self._durations[first].decode_s
                second.reading_s += self._durations[second.batch_key].encode_image_s
        return legs

    def work(self) -> None:
        """Decode a picture, or take a step; with none to decode, all steps up to the first that may be a last one."""
        self.clock_s += sum(picture.legs[0].reading_s for picture in self.batch_scheduler.admit())
        picture = self.batch_scheduler.next_decode()
        if picture is not None:
            self._decode(picture)
            return
        if not self.batch_scheduler.denoised:
            sharing = self.batch_scheduler.sharing()
            rounds = min(picture.calls_left for pictures in sharing.values() for picture in pictures) - 1
            if rounds:
                for _ in sharing:
                    self._step(rounds)
        self._step()

    def _decode(self, picture: _Picture) -> None:
        self.batch_scheduler.denoised.remove(picture)
        self.clock_s += self._durations[picture.batch_key].decode_s
        job = picture.job
        job.images_left -= 1
        if not job.images_left:
            job.end_s = self.clock_s
            self._num_in_flight -= job.num_images
            if self.memory is not None:
                self.memory.leave(job.model)

    def _step(self, times: int = 1) -> None:
        pictures = self.batch_scheduler.next_step()
        self.clock_s += times * self._durations[pictures[0].batch_key].step_s
        for picture in pictures:
            picture.legs[0].calls_left -= times
            if not picture.calls_left and len(picture.legs) > 1:
                picture.legs.pop(0)
                self.clock_s += picture.legs[0].reading_s
        self.batch_scheduler.step_taken()
