"""Takes accepted jobs from the queue to the executor and back: who runs, who is tried again, who has ended."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import time
from collections import Counter
from collections.abc import Coroutine
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
import structlog

from engine.errors import DeviceError, EngineError
from engine.params import GenerationParams
from server.errors import EngineFailedError, EngineLostError, ServerError, kind_of
from server.executors.base import Executor
from server.executors.messages import ImageReady, JobDone, Preview, Progress, WorkDone
from server.jobs.fair_queue import FairQueue
from server.jobs.keeping import RETRY_S, Keeping
from server.jobs.life import MAX_ATTEMPTS, LiveJob
from server.jobs.price import price_of
from server.jobs.record import Failure, JobRecord, Outcome, Timings
from server.metrics import Metrics
from server.telemetry_logs import job_context

__all__ = ["Dispatcher"]

_log = structlog.get_logger("server.jobs")

_T = TypeVar("_T")


class Dispatcher:
    """Every job that has not ended: those that wait, in fair order, and those that are being drawn.

    Belongs to the event loop's thread. Pictures *in flight* are with the executor, at most as many as it says.
    """

    def __init__(self, executor: Executor, keeping: Keeping, price_per_work_unit: Decimal, metrics: Metrics) -> None:
        self._executor = executor
        self._keeping = keeping
        self._metrics = metrics
        self._price_per_work_unit = price_per_work_unit
        self.queue = FairQueue()
        self.live: dict[str, LiveJob] = {}
        """Every job that has not ended, by id."""
        self._num_live: Counter[str] = Counter()
        """Key id -> its jobs that have not ended."""
        self.running: dict[str, LiveJob] = {}
        """Those that the executor is drawing, and those whose outcome is being written."""
        self._is_draining = False
        self._watch: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._pause_until = 0.0

    @property
    def num_images_in_flight(self) -> int:
        """Pictures that the executor is drawing."""
        return sum(live.record.new.params.num_images for live in self.running.values())

    def oldest_s(self) -> float:
        """How long the job has waited that has waited longest; 0 if none waits."""
        # In the order of their acceptance, and few are being drawn.
        oldest = next((live for job_id, live in self.live.items() if job_id not in self.running), None)
        return 0.0 if oldest is None else time.monotonic() - oldest.accepted_at

    def would_start_at_once(self, params: GenerationParams) -> bool:
        """Whether a job that came now would not wait."""
        return len(self.queue) == 0 and self._has_room_for(params.num_images)

    @property
    def num_free_places(self) -> int:
        """Jobs for one picture that would start at once if they came now."""
        info = self._executor.info
        if info is None or len(self.queue) or not self._has_room_for(1):
            return 0
        return max(1, info.max_images_in_flight - self.num_images_in_flight)

    def num_jobs_of(self, key_id: str) -> int:
        """A key's jobs that have not ended."""
        return self._num_live[key_id]

    # --- in and out ---------------------------------------------------------------------------------------------------

    def enqueue(self, record: JobRecord) -> LiveJob:
        """Let a job that is in the store wait its turn, and begin it if that has come."""
        live = LiveJob(record=record, accepted_at=time.monotonic(), context=job_context(record.id))
        self.live[record.id] = live
        self._num_live[record.new.key_id] += 1
        self._put(live)
        if self._is_draining:  # that began while it was written down
            live.leave()
        self.hand_over()
        return live

    async def cancel(self, job_id: str) -> JobRecord | None:
        """Cancel a job before its next step; one that has ended stays as it is. The job as it is then.

        Not to be cancelled itself: see `spawn`.
        """
        live = self.live.get(job_id)
        if live is not None:
            # Out of the queue at once, so that a place is free before the disk has answered.
            self.queue.remove(job_id)
            self.hand_over()
        record = await self._keeping.cancel(job_id, 0.0 if live is None else live.engine_s)
        if record is not None and live is not None:
            self._has_become(live, record)
            if live.task is not None:
                live.task.cancel()
        return record

    async def drain(self, timeout_s: float) -> None:
        """Begin nothing more, and let what runs finish if it does in time. The rest is left to the next start."""
        self._is_draining = True
        if self._watch is not None:
            self._watch.cancel()
        for job_id, live in self.live.items():
            if job_id not in self.running:
                live.leave()
        tasks = [live.task for live in self.running.values() if live.task is not None]
        if tasks and timeout_s > 0:
            await asyncio.wait(tasks, timeout=timeout_s)
        for live in list(self.running.values()):
            live.leave()
            if live.task is not None:
                live.task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settle(self, timeout_s: float) -> None:
        """Wait until nothing is being written any more, at most so long: a full disk is not waited for."""
        if self._background:
            _, unfinished = await asyncio.wait(self._background, timeout=timeout_s)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    def spawn(
        self, work: Coroutine[Any, Any, _T], name: str, context: contextvars.Context | None = None
    ) -> asyncio.Task[_T]:
        """Do something that goes on whatever becomes of whoever asked for it. Without a context, in the caller's."""
        task = asyncio.create_task(work, name=name, context=context)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    # --- handing over -------------------------------------------------------------------------------------------------

    def hand_over(self) -> None:
        """Give the executor what it has room for, in order."""
        if self._is_draining:
            return
        if self._executor.state in {"failed", "stopped"}:
            self._fail_bound()
            return
        if self._executor.state == "loading":
            self._watch_loading()
            return
        while (job_id := self.queue.peek()) is not None:
            live = self.live[job_id]
            if not self._has_room_for(live.record.new.params.num_images, alone=live.is_last_attempt):
                return
            self.queue.pop()
            self.running[job_id] = live
            live.task = asyncio.create_task(self._run(live), name=f"draw {job_id}", context=live.context)
            # Not in the task's own `finally`: a task that is cancelled before its first turn never gets there.
            live.task.add_done_callback(functools.partial(self._has_stopped, live), context=live.context)

    def engine_failed(self) -> EngineFailedError:
        """Why nothing is drawn, in words for a caller."""
        return EngineFailedError(f"the model cannot be served: {self._executor.failure or 'the engine has ended'}")

    def _put(self, live: LiveJob, *, first: bool = False) -> None:
        new = live.record.new
        self.queue.put(new.id, key_id=new.key_id, user=new.user, work_units=new.params.work_units, first=first)

    def _has_room_for(self, num_images: int, *, alone: bool = False) -> bool:
        info = self._executor.info
        if self._executor.state != "ready" or info is None or time.monotonic() < self._pause_until:
            return False
        if not self.running:
            # A job for more pictures than fit together runs alone: the engine draws them in turn.
            return True
        if alone or any(live.is_last_attempt for live in self.running.values()):
            return False
        return num_images <= info.max_images_in_flight - self.num_images_in_flight

    def _watch_loading(self) -> None:
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._hand_over_when_ready(), name="wait until the model is warm")

    async def _hand_over_when_ready(self) -> None:
        with contextlib.suppress(EngineError):  # the executor's state tells it to everybody who asks
            await self._executor.wait_until_ready()
        # In the next turn of the loop this task has ended, and a new one could watch a new start.
        asyncio.get_running_loop().call_soon(self.hand_over)

    def _fail_bound(self) -> None:
        """The model cannot be served: tell those who wait on their connection. The others wait for the operator."""
        for job_id in list(self.queue.order()):
            live = self.live[job_id]
            if live.record.new.is_bound:
                self.queue.remove(job_id)
                self.spawn(self._fail(live, self.engine_failed()), f"fail {job_id}", live.context)

    async def _fail(self, live: LiveJob, error: Exception) -> None:
        live.error = error
        await self._keeping.fail_queued(live.record.id, _failed(error, live.engine_s))
        await self._reread(live)

    # --- one attempt --------------------------------------------------------------------------------------------------

    async def _run(self, live: LiveJob) -> None:
        queue_s = time.monotonic() - live.accepted_at
        # The engine sets to work while the disk does. Nobody is told of either before the disk has answered.
        beginning = self.spawn(self._begin(live, queue_s), f"begin {live.record.id}", live.context)
        outcome = await self._outcome(live, beginning, queue_s)
        attempt = await beginning
        if outcome is not None and attempt is not None:
            # Known now: must be written even if somebody cancels meanwhile (the store decides which of the two it was).
            await asyncio.shield(self.spawn(self._end(live, attempt, outcome), f"end {live.record.id}"))

    async def _begin(self, live: LiveJob, queue_s: float) -> int | None:
        """Write down that a job is being drawn. The attempt's number; None: it was cancelled meanwhile."""
        job_id, started_at = live.record.id, time.time()
        attempt = await self._keeping.begin(job_id, started_at)
        if attempt is None:
            await self._reread(live)
            if live.record.status != "running":
                return None
            attempt = live.record.attempt  # a commit was made that had been reported as failed
        if live.record.is_over:  # cancelled right after it, and told so already
            return None
        live.begin_anew()
        if attempt == 1:
            self._metrics.job_began(queue_s)
        live.now_is(msgspec.structs.replace(live.record, status="running", attempt=attempt, started_at=started_at))
        return attempt

    def _rest(self) -> None:
        """Begin nothing for a moment."""
        self._pause_until = time.monotonic() + RETRY_S
        asyncio.get_running_loop().call_later(RETRY_S, self.hand_over)

    async def _outcome(
        self, live: LiveJob, beginning: asyncio.Task[int | None], queue_s: float
    ) -> Outcome | EngineLostError | None:
        """How an attempt ended; None: it never began."""
        try:
            drawn = await self._draw(live, beginning)
            if drawn is None:
                return None
            images, done = drawn
            stored = await self._keeping.write_images(live.record.id, images)
        except (EngineLostError, DeviceError) as error:
            return EngineLostError(str(error))
        except Exception as error:  # noqa: BLE001 -- one job's failure, of whatever kind, never ends another's
            if not isinstance(error, EngineError):
                _log.exception("drawing a job failed")
            if not await _has_begun(beginning):
                return None
            live.error = error
            return _failed(error, live.engine_s)
        live.images = images
        work_units = live.record.new.params.work_units
        timings = Timings(
            queue_s=queue_s,
            encode_s=done.encode_s,
            denoise_s=done.denoise_s,
            decode_s=done.decode_s,
            file_s=done.file_s,
        )
        return Outcome(
            status="done",
            finished_at=time.time(),
            images=stored,
            truncated_tokens=done.truncated_tokens,
            timings=timings,
            engine_s=live.engine_s,
            work_units=work_units,
            price=price_of(work_units, self._price_per_work_unit),
        )

    async def _draw(
        self, live: LiveJob, beginning: asyncio.Task[int | None]
    ) -> tuple[tuple[ImageReady, ...], JobDone] | None:
        """What the engine made; None: the attempt never began."""
        images: dict[int, ImageReady] = {}
        done: JobDone | None = None
        async with contextlib.aclosing(self._executor.run(live.job)) as events:
            async for event in events:
                if not await _has_begun(beginning):
                    return None
                if isinstance(event, Progress | Preview):
                    live.take(event)
                elif isinstance(event, ImageReady):
                    images[event.image_index] = event
                elif isinstance(event, WorkDone):
                    live.engine_s += event.seconds_of(live.record.id)
                else:
                    done = event
        if done is None or len(images) != live.record.new.params.num_images:
            raise EngineLostError("the engine ended without handing over every picture")
        return tuple(image for _, image in sorted(images.items())), done

    async def _end(self, live: LiveJob, attempt: int, outcome: Outcome | EngineLostError) -> None:
        """Write down how an attempt ended."""
        job_id = live.record.id
        num_losses = live.record.losses + 1
        if isinstance(outcome, EngineLostError) and num_losses < MAX_ATTEMPTS:
            _log.warning("a job has lost its engine and will be tried again", attempt=attempt)
            await self._keeping.put_back(job_id, attempt)
            await self._reread(live)
            return
        if isinstance(outcome, EngineLostError):
            _log.error("a job has lost its engine and is given up", attempt=attempt)
            detail = f"the engine was lost {num_losses} times while it drew this, the last time alone: {outcome}"
            failure = Failure(code="job_dead", detail=detail)
            outcome = Outcome(status="dead", finished_at=time.time(), failure=failure, engine_s=live.engine_s)
        if await self._keeping.finish(job_id, attempt, outcome):
            has_files = len(outcome.images) > 0
            ended = msgspec.structs.replace(live.record, status=outcome.status, outcome=outcome, has_files=has_files)
            self._has_become(live, ended)
        else:  # cancelled meanwhile
            await self._keeping.delete_images(job_id)
            await self._reread(live)

    async def _reread(self, live: LiveJob) -> None:
        """The job is now what the store says."""
        record = await self._keeping.read_again(live.record.id)
        if record is None:
            raise AssertionError(f"job {live.record.id} has vanished from the store while it was alive")
        self._has_become(live, record)

    def _has_become(self, live: LiveJob, record: JobRecord) -> None:
        if record.is_over:
            if self.live.pop(record.id, None) is not None:
                self._num_live -= Counter([record.new.key_id])  # forgets a key at 0: they come and go for years
                self._metrics.job_ended(record, time.monotonic() - live.accepted_at)
            # A write that failed, or an engine that was lost, may have put it there again while it was cancelled.
            self.queue.remove(record.id)
        elif record.status == "queued":
            live.begin_anew()
        live.now_is(record)

    def _has_stopped(self, live: LiveJob, task: asyncio.Task[None]) -> None:
        job_id = live.record.id
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the attempt at a job broke off", exc_info=error)
            self._rest()
        self.running.pop(job_id, None)
        live.task = None
        if live.record.status == "queued" and job_id in self.live and job_id not in self.queue:
            if self._is_draining:
                live.leave()
            else:
                self._put(live, first=True)
        if not self.running and len(self.queue) == 0:
            self.queue.forgive()
        self.hand_over()


async def _has_begun(beginning: asyncio.Task[int | None]) -> bool:
    """Whether an attempt is written down; waits until that is known."""
    if not beginning.done():
        await asyncio.wait([beginning])
    return beginning.result() is not None


def _failed(error: Exception, engine_s: float) -> Outcome:
    if isinstance(error, EngineError | ServerError):
        failure = Failure(code=kind_of(error).code, detail=str(error))
    else:
        failure = Failure(
            code="internal_error", detail="something went wrong that should not; the server's log has more"
        )
    return Outcome(status="failed", finished_at=time.time(), failure=failure, engine_s=engine_s)
