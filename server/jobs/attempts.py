"""One attempt at a job, on one engine: it is written down, drawn, and its end is written down."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from decimal import Decimal
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import structlog

from engine.errors import DeviceError, EngineError
from server.errors import EngineLostError, InputExpiredError
from server.executors.base import EngineBusyError, Job
from server.executors.messages import ImageReady, JobDone, Preview, Progress, WorkDone
from server.executors.pool import EnginePool
from server.executors.seat import Seat
from server.jobs.blank_picture import blank_picture
from server.jobs.failures import failed
from server.jobs.live_job import LiveJob
from server.metrics import Metrics
from server.store.price import price_of
from server.store.record import MAX_ATTEMPTS, Failure, JobRecord, Outcome, Picture, Timings
from server.store.storage import Storage
from server.thumbnails import enlarged

__all__ = ["Attempts"]

_log = structlog.get_logger("server.jobs")

_T = TypeVar("_T")


class Spawn(Protocol):
    """Starts a task that outlives its caller."""

    def __call__(self, work: Coroutine[Any, Any, _T], name: str, context: Context | None = None) -> asyncio.Task[_T]:
        """The task. Without a context, in the caller's."""
        ...


class _Pictures(NamedTuple):
    """What an attempt made."""

    images: tuple[Picture, ...]
    done: JobDone
    is_partial: bool = False
    """Whether it was interrupted."""


class Attempts:
    """Makes attempts. Belongs to the event loop's thread. Knows nothing of the queue."""

    def __init__(
        self,
        pool: EnginePool,
        storage: Storage,
        price_per_work_unit: Decimal,
        metrics: Metrics,
        *,
        spawn: Spawn,
        has_become: Callable[[LiveJob, JobRecord], None],
    ) -> None:
        """Make it.

        Args:
            pool: is told which engines were lost.
            storage: where jobs and pictures are kept.
            price_per_work_unit: of a job that is done.
            metrics: counts first attempts.
            spawn: for what must be written even if the attempt is cancelled.
            has_become: called with what the store knows of a job after each change.
        """
        self._pool = pool
        self._storage = storage
        self._store = storage.store
        self._price_per_work_unit = price_per_work_unit
        self._metrics = metrics
        self._spawn = spawn
        self._has_become = has_become

    async def run(self, live: LiveJob, seat: Seat) -> None:
        """Make one attempt at a job that waits, on that engine."""
        queue_s = time.monotonic() - live.accepted_at
        attempt = live.record.attempt + 1
        # The engine sets to work while the disk does. Nothing of either is visible before the disk has answered.
        beginning = self._spawn(self._begin(live, attempt, queue_s), f"begin {live.record.id}", live.context)
        images: dict[int, Picture] = {}
        drawn = await self._draw(live, attempt, seat, beginning, images)
        live.finish_early = None
        if drawn is None:
            return
        self._judge(seat, live, drawn)
        if live.is_interrupted and isinstance(drawn, EngineLostError | DeviceError):
            drawn = await _as_far_as_it_came(live, images)  # its caller does not want it drawn anew
        if await _has_begun(beginning):
            # Known now: must be written even if the job is cancelled meanwhile (the store decides which of the two it
            # was). Nor may the writing of a picture be cut off: its file would belong to no job.
            await asyncio.shield(self._spawn(self._end(live, attempt, drawn, queue_s), f"end {live.record.id}"))

    async def reread(self, live: LiveJob) -> None:
        """The job is now what the store says."""
        record = await self._storage.until_written(lambda: self._store.get(live.record.id))
        if record is None:
            raise AssertionError(f"job {live.record.id} has vanished from the store while it was alive")
        self._has_become(live, record)

    async def _draw(
        self,
        live: LiveJob,
        attempt: int,
        seat: Seat,
        beginning: asyncio.Task[bool],
        images: dict[int, Picture],
    ) -> _Pictures | Exception | None:
        """What the engine made, or why it made nothing; None: the attempt never began. Puts pictures into `images`."""
        done: JobDone | None = None
        try:
            job = live.job(attempt, await self._storage.read_inputs(live.record))
            live.finish_early = functools.partial(seat.executor.finish_early, job)
            async with contextlib.aclosing(seat.executor.run(job)) as events:
                async for event in events:
                    if not await _has_begun(beginning):
                        return None
                    if isinstance(event, JobDone):
                        done = event
                    else:
                        _take(event, live, job, images)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not live.is_interrupted or live.is_cancelled or live.is_left or task is None:
                raise
            task.uncancel()
            return await _as_far_as_it_came(live, images)
        except Exception as error:  # noqa: BLE001 -- one job's failure, of whatever kind, never ends another's
            return error
        if done is not None and live.is_cut_short:
            return _Pictures(await _what_there_is(live, images), done, is_partial=True)
        if done is None or len(images) != live.record.new.params.num_images:
            return EngineLostError("the engine finished without delivering every picture")
        return _checked_class(live, _Pictures(tuple(image for _, image in sorted(images.items())), done), seat)

    def _judge(self, seat: Seat, live: LiveJob, drawn: _Pictures | Exception) -> None:
        """What this attempt says of its engine."""
        match drawn:
            case EngineLostError() | DeviceError():
                live.lost_by.add(seat.name)
                seat.last_fault = str(drawn)
                self._pool.lost(seat, live.record.id)
            case EngineBusyError(retry_after_s=seconds):
                if drawn.is_fault:
                    live.lost_by.add(seat.name)
                    seat.last_fault = str(drawn)
                    self._pool.lost(seat, live.record.id)
                self._pool.leave_out(seat, seconds)
            case _:
                seat.worked()

    async def _begin(self, live: LiveJob, number: int, queue_s: float) -> bool:
        """Write down that a job is being drawn, by the attempt of this number. False: it was cancelled meanwhile."""
        job_id, started_at = live.record.id, time.time()
        attempt = await self._storage.until_written(lambda: self._store.begin(job_id, started_at))
        if attempt is None:
            await self.reread(live)
            if live.record.status != "running":
                return False
            attempt = live.record.attempt  # a commit was made that had been reported as failed
        if live.record.is_over:  # cancelled right after it, and told so already
            return False
        if attempt != number:
            raise AssertionError(f"attempt {number} of job {job_id} was written down as {attempt}")
        live.begin_anew()
        if attempt == 1:
            self._metrics.job_began(queue_s)
        live.now_is(msgspec.structs.replace(live.record, status="running", attempt=attempt, started_at=started_at))
        return True

    async def _end(self, live: LiveJob, attempt: int, drawn: _Pictures | Exception, queue_s: float) -> None:
        """Write down how an attempt ended."""
        job_id = live.record.id
        if isinstance(drawn, EngineBusyError):
            await self._storage.until_written(lambda: self._store.put_back(job_id, attempt, is_loss=False))
            await self.reread(live)
            return
        num_losses = live.record.losses + 1
        if isinstance(drawn, EngineLostError | DeviceError) and num_losses < MAX_ATTEMPTS:
            _log.warning("the engine failed during a job, retrying", attempt=attempt)
            await self._storage.until_written(lambda: self._store.put_back(job_id, attempt))
            await self.reread(live)
            return
        if isinstance(drawn, EngineLostError | DeviceError):
            _log.error(
                "the engine failed during a job too often; it is held until an operator requeues it", attempt=attempt
            )
            detail = (
                f"the engine failed {num_losses} times during this job, the last time with no other job: {drawn};"
                " it is held until an operator requeues it"
            )
            failure = Failure(code="job_dead", detail=detail)
            outcome = Outcome(status="dead", finished_at=time.time(), failure=failure, engine_s=live.engine_s)
        else:
            outcome = await self._outcome(live, drawn, queue_s)
        if await self._storage.until_written(lambda: self._store.finish(job_id, attempt, outcome)):
            has_files = len(outcome.images) > 0
            ended = msgspec.structs.replace(live.record, status=outcome.status, outcome=outcome, has_files=has_files)
            self._has_become(live, ended)
        else:  # cancelled meanwhile
            await self._storage.delete_images(job_id)
            await self.reread(live)

    async def _outcome(self, live: LiveJob, drawn: _Pictures | Exception, queue_s: float) -> Outcome:
        """The end of a job whose engine was not lost; its pictures are written."""
        if isinstance(drawn, Exception):
            if not isinstance(drawn, EngineError | InputExpiredError):
                _log.error("drawing a job failed", exc_info=drawn)
            live.error = drawn
            return failed(drawn, live.engine_s)
        images, done, is_partial = drawn
        try:
            stored = await self._storage.write_images(live.record.id, images)
        except Exception as error:  # noqa: BLE001 -- as of the engine's: one job's failure is its own
            _log.exception("writing a job's pictures failed")
            live.error = error
            await self._storage.delete_images(live.record.id)
            return failed(error, live.engine_s)
        live.images = images
        params = live.record.new.params
        share = live.step / (params.progress_steps * params.num_images) if is_partial else 1.0
        work_units = params.work_units * min(1.0, share)
        return Outcome(
            status="done",
            is_interrupted=is_partial,
            finished_at=time.time(),
            images=stored,
            truncated_tokens=done.truncated_tokens,
            timings=Timings(
                queue_s=queue_s,
                encode_s=done.encode_s,
                denoise_s=done.denoise_s,
                decode_s=done.decode_s,
                file_s=done.file_s,
            ),
            engine_s=live.engine_s,
            work_units=work_units,
            price=price_of(work_units, self._price_per_work_unit),
            engine_class=done.engine_class,
        )


def _take(
    event: Progress | Preview | ImageReady | WorkDone, live: LiveJob, job: Job, images: dict[int, Picture]
) -> None:
    """What the engine reported while it drew."""
    if isinstance(event, WorkDone):
        live.engine_s += event.seconds_of(job.attempt_id)
        return
    if isinstance(event, ImageReady):
        images[event.image_index] = Picture(event.seed, event.media_type, event.data)
    live.take(event)


async def _as_far_as_it_came(live: LiveJob, images: Mapping[int, Picture]) -> _Pictures:
    """An interrupted job that its engine did not bring to an end."""
    done = JobDone(live.record.id, 0.0, 0.0, 0.0, 0.0, 0)
    return _Pictures(await _what_there_is(live, images), done, is_partial=True)


def _checked_class(live: LiveJob, drawn: _Pictures, seat: Seat) -> _Pictures | EngineBusyError:
    """What was drawn, with the class of the engine, which says it itself if it is elsewhere. Not if it must be another:
    the engine was replaced meanwhile.
    """
    info, wanted, drawn_by = seat.executor.info, live.record.new.engine_class, drawn.done.engine_class
    if not drawn_by and info is not None:
        drawn_by = info.engine_class
    if wanted not in {None, drawn_by}:
        return EngineBusyError("the engine is of another class now", retry_after_s=0.0)
    return drawn._replace(done=msgspec.structs.replace(drawn.done, engine_class=drawn_by))


async def _what_there_is(live: LiveJob, images: Mapping[int, Picture]) -> tuple[Picture, ...]:
    """The pictures of an interrupted job: those that the engine sent, else the preview of one, but at least one."""
    if images:
        return tuple(image for _, image in sorted(images.items()))
    params, preview = live.record.new.params, live.preview
    height, width = params.answer_size
    if preview is not None:
        file = await asyncio.to_thread(enlarged, preview.data, width, height)
        return (Picture(params.seeds[preview.image_index], "image/png", file),)
    return (blank_picture(params.seed, width, height),)


async def _has_begun(beginning: asyncio.Task[bool]) -> bool:
    """Whether an attempt is written down; waits until that is known."""
    if not beginning.done():
        await asyncio.wait([beginning])
    return beginning.result()
