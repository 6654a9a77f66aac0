"""Dispatcher: every job that has not ended, and which is next. (One attempt at one of them is in `attempts.py`.)"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
from collections import Counter
from collections.abc import Coroutine
from decimal import Decimal
from typing import Any, TypeVar

import structlog

from engine.params import GenerationParams
from server.errors import EngineFailedError
from server.executors.pool import EnginePool
from server.executors.seat import Seat
from server.jobs.attempts import Attempts
from server.jobs.failures import failed
from server.jobs.fair_queue import FairQueue
from server.jobs.live_job import LiveJob
from server.jobs.model_turns import ModelTurns
from server.log_format import job_context
from server.metrics import Metrics
from server.store.record import Failure, JobRecord
from server.store.storage import RETRY_S, Storage

__all__ = ["Dispatcher"]

_log = structlog.get_logger("server.jobs")

_T = TypeVar("_T")


class Dispatcher:
    """Every job that has not ended: those that wait, in fair order, and those that are being drawn.

    Belongs to the event loop's thread. Pictures *in flight* are with the engines, at most as many as each says.
    """

    def __init__(self, pool: EnginePool, storage: Storage, price_per_work_unit: Decimal, metrics: Metrics) -> None:
        self._pool = pool
        self._storage = storage
        self._store = storage.store
        self._metrics = metrics
        self._attempts = Attempts(
            pool, storage, price_per_work_unit, metrics, spawn=self.spawn, has_become=self._has_become
        )
        pool.on_change = self.hand_over
        self.queue = FairQueue()
        self._turns = ModelTurns(pool)
        self.live: dict[str, LiveJob] = {}
        """Every job that has not ended, by id."""
        self._num_live: Counter[str] = Counter()
        """Key id -> its jobs that have not ended."""
        self.running: dict[str, LiveJob] = {}
        """Those that an engine is drawing, and those whose outcome is being written."""
        self.is_draining = False
        """Whether it begins nothing more."""
        self._background: set[asyncio.Task[Any]] = set()
        self._pause_until = 0.0

    @property
    def num_waiting(self) -> int:
        """Jobs that wait their turn."""
        return len(self.queue)

    @property
    def num_running(self) -> int:
        """Jobs that engines are drawing."""
        return len(self.running)

    @property
    def num_images_in_flight(self) -> int:
        """Pictures that engines are drawing."""
        return sum(live.record.new.params.num_images for live in self.running.values())

    def oldest_s(self) -> float:
        """How long the job has waited that has waited longest; 0 if none waits."""
        # In the order of their acceptance, and few are being drawn.
        waiting = (live for job_id, live in self.live.items() if job_id not in self.running and not live.is_cancelled)
        oldest = next(waiting, None)
        return 0.0 if oldest is None else time.monotonic() - oldest.accepted_at

    def num_free_places(self, params: GenerationParams) -> int:
        """Jobs for one picture that would start at once if they came now; 0 where this one would wait."""
        return 0 if len(self.queue) or self._is_resting else self._pool.num_free_places(params)

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

    async def interrupt(self, job_id: str) -> None:
        """End a job with what there is of it: `done` if it is being drawn, else `cancelled`.

        Its pictures are decoded as far as they are; if nothing shows of any, or the engine cannot be asked, it is
        ended at once.
        """
        live = self.live.get(job_id)
        if live is None or live.is_interrupted or live.is_cancelled:
            return
        live.is_interrupted = True
        task = live.task
        if live.record.status != "running" or task is None:
            await self.cancel(job_id)
        elif not (live.step and live.finish_early is not None and await live.finish_early(None)):
            task.cancel()  # does nothing if it has ended meanwhile

    async def skip(self, job_id: str, batch_size: int) -> None:
        """End the batch of a job that is drawn now with what there is of it; its other batches go on.

        Args:
            job_id: its id; nothing happens if none of it is being drawn.
            batch_size: pictures of one batch.
        """
        live = self.live.get(job_id)
        if live is None or live.is_interrupted or live.is_cancelled or live.finish_early is None:
            return
        batch = live.present_batch(batch_size)
        live.skipped.update(batch)  # at once: its pictures may come before the answer does
        if batch and not await live.finish_early(batch):
            live.skipped.difference_update(batch)

    async def drain(self, timeout_s: float) -> None:
        """Begin nothing more, and let what runs finish if it does in time. The rest is left to the next start."""
        self.is_draining = True
        self._pool.stop_watching()
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
        """Give the engines what they have room for, in order."""
        if self.is_draining:
            return
        if self._pool.state in {"failed", "stopped"}:
            self._fail_bound()
            return
        self._pool.watch_loading()
        while not self._is_resting:
            found = self._turns.next(self.live[job_id] for job_id in self.queue.upcoming())
            if found is None:
                return
            live, seat = found
            job_id, live.held_since = live.record.id, None
            self.queue.take(job_id)
            self.running[job_id] = live
            seat.take(job_id, live.record.new.params, alone=live.record.is_last_attempt)
            live.task = asyncio.create_task(self._attempts.run(live, seat), name=f"draw {job_id}", context=live.context)
            # Not in the task's own `finally`: a task that is cancelled before its first turn never gets there.
            live.task.add_done_callback(functools.partial(self._has_stopped, live, seat), context=live.context)

    def engine_failed(self) -> EngineFailedError:
        """Why nothing is drawn, in words for a caller."""
        return EngineFailedError(f"the model cannot be served: {self._pool.failure or 'the engine has ended'}")

    def _put(self, live: LiveJob, *, first: bool = False) -> None:
        new = live.record.new
        self.queue.put(new.id, key_id=new.key_id, user=new.user, work_units=new.params.work_units, first=first)

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
        await self._attempts.reread(live)

    @property
    def _is_resting(self) -> bool:
        return time.monotonic() < self._pause_until

    def _rest(self) -> None:
        """Begin nothing for a moment."""
        self._pause_until = time.monotonic() + RETRY_S
        asyncio.get_running_loop().call_later(RETRY_S, self.hand_over)

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

    def _has_stopped(self, live: LiveJob, seat: Seat, task: asyncio.Task[None]) -> None:
        job_id = live.record.id
        seat.leave(job_id)
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
