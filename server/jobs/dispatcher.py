"""Dispatcher: starts queued jobs on the executor, retries them after an engine failure, ends them."""

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
from server.errors import EngineFailedError, EngineLostError, InputExpiredError
from server.executors.base import Executor
from server.jobs.attempt import Pictures, draw, has_begun
from server.jobs.failures import failed
from server.jobs.fair_queue import FairQueue
from server.jobs.live_job import LiveJob
from server.log_format import job_context
from server.metrics import Metrics
from server.store.price import price_of
from server.store.record import MAX_ATTEMPTS, Failure, JobRecord, Outcome, Timings
from server.store.storage import RETRY_S, Storage

__all__ = ["Dispatcher"]

_log = structlog.get_logger("server.jobs")

_T = TypeVar("_T")


class Dispatcher:
    """Every job that has not ended: those that wait, in fair order, and those that are being drawn.

    Belongs to the event loop's thread. Pictures *in flight* are with the executor, at most as many as it says.
    """

    def __init__(self, executor: Executor, storage: Storage, price_per_work_unit: Decimal, metrics: Metrics) -> None:
        self._executor = executor
        self._storage = storage
        self._store = storage.store
        self._metrics = metrics
        self._price_per_work_unit = price_per_work_unit
        self.queue = FairQueue()
        self.live: dict[str, LiveJob] = {}
        """Every job that has not ended, by id."""
        self._num_live: Counter[str] = Counter()
        """Key id -> its jobs that have not ended."""
        self.running: dict[str, LiveJob] = {}
        """Those that the executor is drawing, and those whose outcome is being written."""
        self.is_draining = False
        """Whether it begins nothing more."""
        self._watch: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._pause_until = 0.0

    @property
    def num_waiting(self) -> int:
        """Jobs that wait their turn."""
        return len(self.queue)

    @property
    def num_running(self) -> int:
        """Jobs that the executor is drawing."""
        return len(self.running)

    @property
    def num_images_in_flight(self) -> int:
        """Pictures that the executor is drawing."""
        return sum(live.record.new.params.num_images for live in self.running.values())

    def oldest_s(self) -> float:
        """How long the job has waited that has waited longest; 0 if none waits."""
        # In the order of their acceptance, and few are being drawn.
        waiting = (live for job_id, live in self.live.items() if job_id not in self.running and not live.is_cancelled)
        oldest = next(waiting, None)
        return 0.0 if oldest is None else time.monotonic() - oldest.accepted_at

    def num_free_places(self, params: GenerationParams) -> int:
        """Jobs for one picture that would start at once if they came now; 0 where this one would wait."""
        info = self._executor.info
        if info is None or len(self.queue) or not self._has_room_for(params.num_images):
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
        if self.is_draining:  # that began while it was written down
            live.leave()
        self.hand_over()
        return live

    async def cancel(self, job_id: str) -> JobRecord | None:
        """Cancel a job before its next step; one that has ended stays as it is. The job as it is then.

        The drawing stops at once; returns when that is written down, which a full disk delays. Not to be cancelled
        itself: see `spawn`.
        """
        live = self.live.get(job_id)
        if live is not None:
            live.is_cancelled = True
            self.queue.remove(job_id)
            if live.task is not None:
                live.task.cancel()
            self.hand_over()
        failure = Failure(code="cancelled", detail="the job was cancelled")
        at, engine_s = time.time(), 0.0 if live is None else live.engine_s
        record = await self._storage.until_written(lambda: self._store.cancel(job_id, at, failure, engine_s))
        if record is not None and live is not None:
            self._has_become(live, record)
        return record

    async def drain(self, timeout_s: float) -> None:
        """Begin nothing more, and let what runs finish if it does in time. The rest is left to the next start."""
        self.is_draining = True
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
        """Start a task that outlives the caller that asked for it. Without a context, in the caller's."""
        task = asyncio.create_task(work, name=name, context=context)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    # --- handing over -------------------------------------------------------------------------------------------------

    def hand_over(self) -> None:
        """Give the executor what it has room for, in order."""
        if self.is_draining:
            return
        if self._executor.state in {"failed", "stopped"}:
            self._fail_bound()
            return
        if self._executor.state == "loading":
            self._watch_loading()
            return
        while (job_id := self.queue.peek()) is not None:
            live = self.live[job_id]
            if not self._has_room_for(live.record.new.params.num_images, alone=live.record.is_last_attempt):
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
        if alone or any(live.record.is_last_attempt for live in self.running.values()):
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
        """The model cannot be served: fail the jobs whose callers hold a connection. Others wait for the operator."""
        for job_id in list(self.queue.order()):
            live = self.live[job_id]
            if live.record.new.is_bound:
                self.queue.remove(job_id)
                self.spawn(self._fail(live, self.engine_failed()), f"fail {job_id}", live.context)

    async def _fail(self, live: LiveJob, error: Exception) -> None:
        live.error = error
        job_id, outcome = live.record.id, failed(error, live.engine_s)
        await self._storage.until_written(lambda: self._store.fail_queued(job_id, outcome))
        await self._reread(live)

    # --- one attempt --------------------------------------------------------------------------------------------------

    async def _run(self, live: LiveJob) -> None:
        queue_s = time.monotonic() - live.accepted_at
        # The engine sets to work while the disk does. Nothing of either is visible before the disk has answered.
        beginning = self.spawn(self._begin(live, queue_s), f"begin {live.record.id}", live.context)
        drawn = await draw(self._executor, live, self._storage, beginning)
        if drawn is not None and await has_begun(beginning):
            # Known now: must be written even if the job is cancelled meanwhile (the store decides which of the two it
            # was). Nor may the writing of a picture be cut off: its file would belong to no job.
            attempt = beginning.result() or 0
            await asyncio.shield(self.spawn(self._end(live, attempt, drawn, queue_s), f"end {live.record.id}"))

    async def _begin(self, live: LiveJob, queue_s: float) -> int | None:
        """Write down that a job is being drawn. The attempt's number; None: it was cancelled meanwhile."""
        job_id, started_at = live.record.id, time.time()
        attempt = await self._storage.until_written(lambda: self._store.begin(job_id, started_at))
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

    async def _end(self, live: LiveJob, attempt: int, drawn: Pictures | Exception, queue_s: float) -> None:
        """Write down how an attempt ended."""
        job_id = live.record.id
        num_losses = live.record.losses + 1
        if isinstance(drawn, EngineLostError | DeviceError) and num_losses < MAX_ATTEMPTS:
            _log.warning("the engine failed during a job, retrying", attempt=attempt)
            await self._storage.until_written(lambda: self._store.put_back(job_id, attempt))
            await self._reread(live)
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
            await self._reread(live)

    async def _outcome(self, live: LiveJob, drawn: Pictures | Exception, queue_s: float) -> Outcome:
        """The end of a job whose engine was not lost; its pictures are written."""
        if isinstance(drawn, Exception):
            if not isinstance(drawn, EngineError | InputExpiredError):
                _log.error("drawing a job failed", exc_info=drawn)
            live.error = drawn
            return failed(drawn, live.engine_s)
        images, done = drawn
        try:
            stored = await self._storage.write_images(live.record.id, images)
        except Exception as error:  # noqa: BLE001 -- as of the engine's: one job's failure is its own
            _log.exception("writing a job's pictures failed")
            live.error = error
            await self._storage.delete_images(live.record.id)
            return failed(error, live.engine_s)
        live.images = images
        work_units = live.record.new.params.work_units
        return Outcome(
            status="done",
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
        )

    async def _reread(self, live: LiveJob) -> None:
        """The job is now what the store says."""
        record = await self._storage.until_written(lambda: self._store.get(live.record.id))
        if record is None:
            raise AssertionError(f"job {live.record.id} has vanished from the store while it was alive")
        self._has_become(live, record)

    def _has_become(self, live: LiveJob, record: JobRecord) -> None:
        if record.is_over:
            if self.live.pop(record.id, None) is not None:
                self._num_live -= Counter([record.new.key_id])  # forgets a key at 0: they come and go for years
                failure = record.outcome.failure if record.outcome else None
                self._metrics.job_ended(
                    record.status,
                    record.new.params,
                    time.monotonic() - live.accepted_at,
                    failure.code if failure else None,
                )
            # A write that failed, or an engine that was lost, may have put it there again while it was cancelled.
            self.queue.remove(record.id)
        elif record.status == "queued":
            live.begin_anew()
        live.now_is(record)

    def _has_stopped(self, live: LiveJob, task: asyncio.Task[None]) -> None:
        job_id = live.record.id
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the attempt at a job was aborted", exc_info=error)
            self._rest()
        self.running.pop(job_id, None)
        live.task = None
        is_waiting = live.record.status == "queued" and not live.is_cancelled
        if is_waiting and job_id in self.live and job_id not in self.queue:
            if self.is_draining:
                live.leave()
            else:
                self._put(live, first=True)
        if not self.running and len(self.queue) == 0:
            self.queue.forgive()
        self.hand_over()
