"""ETA simulation: when jobs will be done, by a simulated gateway and engines with the engine's own scheduling."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.batch_scheduler import BatchKey, BatchScheduler
from engine.params import GenerationParams
from engine.prompts.conjunction import MAX_PARTS
from server.executors.messages import EngineInfo
from server.executors.work_times import WorkTimes

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
        engine = _SimulatedEngine(drawing.info, _Durations(times, drawing.info.rows_per_call))
        jobs += [engine.take_running(job) for job in drawing.running]
        pool.engines.append(engine)
    jobs += [pool.take_when_there_is_room(params) for params in queued]
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

    def take_when_there_is_room(self, params: GenerationParams) -> _Job:
        """Begin a job as soon as an engine has room for it."""
        while True:
            free = [engine for engine in self.engines if engine.has_room_for(params)]
            if free:
                engine = min(free, key=lambda engine: (engine.load, engine.clock_s))
                engine.clock_s = max(engine.clock_s, self._now_s)
                return engine.take_new(params)
            self._work()

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
        pair_s = times.median_s("encode", 2, 0, 0) or 0.0
        self.encode_s = {
            rows: times.median_s("encode", rows, 0, 0) or pair_s * (rows > 1) for rows in range(1, MAX_PARTS + 2)
        }
        """By rows a picture: with its negative prompt or without, and of prompts joined by `AND`."""

    def __missing__(self, size: BatchKey) -> _OfSize:
        sides = (size.height, size.width)
        rows = self._times.step_rows(*sides, otherwise=self._rows_per_call)
        step_s = self._times.median_s("step", rows, *sides) or 0.0
        alone_s = (self._times.median_s(kind, 1, *sides) or 0.0 for kind in ("decode", "encode_image", "upscale"))
        self[size] = found = _OfSize(rows, step_s, *alone_s)
        return found


@dataclass(slots=True, eq=False)
class _Job:
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

    def __init__(self, info: EngineInfo, durations: _Durations) -> None:
        self._info = info
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
        return not self._num_in_flight or params.num_images <= self._info.max_images_in_flight - self._num_in_flight

    def take_new(self, params: GenerationParams) -> _Job:
        """Begin a job."""
        if not params.legs:
            return self._enlarged(params)
        pictures = self._take(params, [params.model_calls] * params.num_images)
        # The other pictures of a job find read what is the same for all.
        first = pictures[0].legs[0]
        first.reading_s = self._durations.encode_s[first.num_rows]
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
        return _Job(params.num_images, 0, self.clock_s)

    def _take(self, params: GenerationParams, calls: Sequence[int]) -> list[_Picture]:
        job = _Job(params.num_images, len(calls))
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
                legs.insert(0, _Leg(BatchKey(leg.height, leg.width), leg.num_rows, calls))
        hires = params.hires
        if hires is not None and len(legs) > 1:
            first, second = legs[0].batch_key, legs[1]
            if hires.prompt is not None or hires.negative_prompt is not None:
                second.reading_s += self._durations.encode_s[second.num_rows]
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

    def _step(self, times: int = 1) -> None:
        pictures = self.batch_scheduler.next_step()
        self.clock_s += times * self._durations[pictures[0].batch_key].step_s
        for picture in pictures:
            picture.legs[0].calls_left -= times
            if not picture.calls_left and len(picture.legs) > 1:
                picture.legs.pop(0)
                self.clock_s += picture.legs[0].reading_s
        self.batch_scheduler.step_taken()
