"""The one object that routes ask for pictures: accepts, waits, tells how far a job is, cancels, drains.

Knows nothing of HTTP. What a job is, is in `jobs/record.py`; what is kept of it is written by `jobs/keeping.py`; who is
next, who runs and who is tried again, is in `jobs/dispatcher.py`; where it is drawn is in `executors/`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Collection, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, Final

import structlog

from engine.params import GenerationParams
from server.access.limits import KeyLimits, Reservation
from server.errors import (
    DrainingError,
    JobCancelledError,
    JobDeadError,
    JobFailedError,
    JobNotFoundError,
    NotDeadError,
    NotDoneError,
    QueueFullError,
    RateLimitedError,
    RequestTimeoutError,
    StoreTroubleError,
)
from server.executors.base import Executor
from server.executors.messages import ImageReady, Preview, WorkDone
from server.jobs.dispatcher import Dispatcher
from server.jobs.estimates import Estimates
from server.jobs.keeping import Keeping, Retention
from server.jobs.record import JobRecord, JobStatus, NewJob, StoredImage
from server.jobs.store import JobStore
from server.jobs.usage import Usage, UsageQuestion
from server.metrics import Metrics

__all__ = ["ImageGenerator", "JobState"]

_log = structlog.get_logger("server.jobs")

_QUEUE_REFRESH_S: Final = 1.0
"""How often a waiting job's position is looked up for those who watch it."""
_ONE_PICTURE: Final = GenerationParams(prompt="?", seed=0)
_SETTLE_S: Final = 5.0
"""What is still being written at the end gets so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """A job at one moment: what is kept of it, and what only this process knows."""

    record: JobRecord
    step: int
    """Model calls taken so far, all its pictures together."""
    steps: int
    queue_position: int | None = None
    """0 is next; None unless it waits."""
    eta_s: float | None = None
    """Seconds until it is done; None if that is unknown, or over."""
    preview: Preview | None = None
    is_left: bool = False
    """Whether this process will not go on with it, though it has not ended: the server shuts down."""


class ImageGenerator:
    """Draws pictures for many callers with one warm model. Belongs to the event loop's thread.

    Jobs beyond what the executor takes wait, at most `max_queued_requests`. While the model loads, all wait. A job is
    in the store before anybody is told of it.
    """

    def __init__(
        self,
        executor: Executor,
        folder: Path,
        *,
        max_queued_requests: int,
        request_timeout_s: float,
        retention: Retention,
        limits: KeyLimits,
        price_per_work_unit: Decimal,
    ) -> None:
        self.executor = executor
        self.max_waiting = max_queued_requests
        """Jobs that may wait."""
        self.metrics = Metrics()
        """What is counted of its jobs, and of whatever else the app does."""
        self._folder = folder
        self._request_timeout_s = request_timeout_s
        self._retention = retention
        self._limits = limits
        self._price_per_work_unit = price_per_work_unit
        self._opened: tuple[Keeping, Dispatcher, Estimates] | None = None
        self._housekeeping: asyncio.Task[None] | None = None
        self._num_accepting = 0
        """Jobs that are being written to the store right now: they have a place already."""
        self._is_draining = False

    # --- what it is doing ---------------------------------------------------------------------------------------------

    @property
    def is_draining(self) -> bool:
        """Whether it has stopped to accept jobs, for good."""
        return self._is_draining

    @property
    def num_waiting(self) -> int:
        """Jobs that wait their turn."""
        return len(self._dispatcher.queue)

    @property
    def num_running(self) -> int:
        """Jobs that the executor is drawing."""
        return len(self._dispatcher.running)

    @property
    def num_images_in_flight(self) -> int:
        """Pictures that the executor is drawing."""
        return self._dispatcher.num_images_in_flight

    @property
    def oldest_s(self) -> float:
        """How long the job has waited, in seconds, that has waited longest."""
        return self._dispatcher.oldest_s()

    async def is_accepting(self) -> bool:
        """Whether a job for one picture that came now would be accepted, as far as is known."""
        is_down = self._is_draining or self.executor.state in {"failed", "stopped"}
        is_down = is_down or await self._keeping.known_trouble() is not None
        return not is_down and not self._is_full_for(_ONE_PICTURE)

    @property
    def store(self) -> JobStore:
        """Where the jobs are, for what else is kept there. Only after `start`."""
        return self._keeping.store

    async def trouble(self) -> str | None:
        """Why nothing can be written; None if it can."""
        return await self._keeping.trouble()

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up the jobs that are kept, and begin to load the model.

        Raises:
            StoreError: the store cannot be used.
        """
        keeping = await Keeping.open(self._folder)
        keeping.store.watch_commits(self.metrics.committed)
        self.executor.work_times.on_item = self._work_done
        dispatcher = Dispatcher(self.executor, keeping, self._price_per_work_unit, self.metrics)
        self._opened = keeping, dispatcher, Estimates(self.executor, dispatcher)
        for record in await keeping.recover():
            dispatcher.enqueue(record)
        if dispatcher.live:
            _log.info("jobs taken up again", jobs=len(dispatcher.live))
        self._housekeeping = asyncio.create_task(keeping.keep_house(self._retention), name="retention")
        await self.executor.start()
        dispatcher.hand_over()

    async def drain(self, timeout_s: float = 0.0) -> None:
        """Accept nothing more, finish what runs if it ends in time, and tell whoever waits.

        Jobs that wait stay in the store for the next start, but those bound to a connection are cancelled.
        """
        self._is_draining = True
        if self._opened is not None:
            await self._dispatcher.drain(timeout_s)

    async def stop(self) -> None:
        """Drain at once, end the engine, and close the store."""
        await self.drain()
        await self.executor.stop()
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.gather(self._housekeeping, return_exceptions=True)
        if self._opened is not None:
            await self._dispatcher.settle(_SETTLE_S)
            await self._keeping.close()

    # --- asking for pictures ------------------------------------------------------------------------------------------

    async def submit(self, new: NewJob) -> JobState:
        """Accept a job: it is in the store when this returns. A repeat under the same idempotency key is the same job.

        Raises:
            QueueFullError: as many jobs wait as may wait.
            RateLimitedError: its key has asked for as much as it may.
            DrainingError: the server is shutting down.
            EngineFailedError: the model cannot be served.
            StoreTroubleError: it could not be written.
            IdempotencyMismatchError: the key was used for another request.
        """
        # Not cancelled with the caller: what is half written would be nobody's.
        accepting = self._dispatcher.spawn(self._accept(new), f"accept {new.id}")
        return self.state_of(await asyncio.shield(accepting))

    def refuse_when_full(self) -> None:
        """Refuse a job of which nothing is known yet: in a flood, reading each to its end would slow everybody down.

        Raises:
            QueueFullError: as many jobs wait as may wait.
        """
        if self._is_full_for(_ONE_PICTURE):
            raise self._queue_full()

    async def draw(
        self, new: NewJob, *, wait_s: float | None = None
    ) -> tuple[JobRecord, tuple[ImageReady, ...]] | JobState:
        """Accept a job and wait for its pictures.

        Args:
            new: the job. If it is bound, cancelling this call, or running out of time, cancels the job.
            wait_s: seconds to wait, at most `REQUEST_TIMEOUT`; None: that.

        Returns:
            The finished job and its pictures; or its state, if it is not bound and has not ended in time.

        Raises:
            RequestTimeoutError: a bound job was not finished in time; it has been cancelled.
            ServerError: see `submit`; or why there are no pictures.
            EngineError: the engine could not draw this.
        """
        timeout_s = self._request_timeout_s if wait_s is None else min(wait_s, self._request_timeout_s)
        accepting = self._dispatcher.spawn(self._accept(new), f"accept {new.id}")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._pictures(await asyncio.shield(accepting))
        except TimeoutError:
            if not new.is_bound:
                record = await asyncio.shield(accepting)
                return await self._pictures(record) if record.is_over else self.state_of(record)
            raise RequestTimeoutError(
                f"not finished within {timeout_s:g} s of waiting and drawing; it has been cancelled",
                retry_after_s=self._estimates.until_room_s(self._request_timeout_s),
            ) from None
        finally:
            if new.is_bound:
                self._dispatcher.spawn(self._let_go(accepting), f"let go {new.id}")

    async def _pictures(self, record: JobRecord) -> tuple[JobRecord, tuple[ImageReady, ...]]:
        live = self._dispatcher.live.get(record.id)
        if live is None:
            if not record.is_over:  # it has ended since it was looked up
                record = await self._keeping.get(record.id) or record
            raise_if_failed(record)
            return record, await self._images(record)
        await live.ended.wait()
        record = live.record
        if not record.is_over:
            raise DrainingError("the server is shutting down; ask again when it is back")
        if record.status == "failed" and live.error is not None:
            raise live.error
        raise_if_failed(record)
        return record, live.images or await self._images(record)

    async def _accept(self, new: NewJob) -> JobRecord:
        if self._is_draining:
            raise DrainingError("the server is shutting down; ask again when it is back")
        if self.executor.state in {"failed", "stopped"}:
            raise self._dispatcher.engine_failed()
        # Before a place is held: a repeat needs none, and somebody else would be refused for it.
        repeat = await self._repeat_of(new)
        if repeat is not None:
            return repeat
        with contextlib.ExitStack() as places:
            try:
                reservation = places.enter_context(self._place_for(new))
            except (QueueFullError, RateLimitedError):
                # The last place may have gone to the same job, asked for at the same moment.
                repeat = await self._repeat_of(new)
                if repeat is None:
                    raise
                return repeat
            record = await self._keeping.add(new)
            if record.id == new.id:
                reservation.keep()
                self.metrics.job_accepted()
                self._dispatcher.enqueue(record)
            return record

    async def _repeat_of(self, new: NewJob) -> JobRecord | None:
        # Without a key there is nothing to look up, and a flood must not wait for the disk to be refused.
        return await self._keeping.find_repeat(new) if new.idempotency_key else None

    @contextlib.contextmanager
    def _place_for(self, new: NewJob) -> Iterator[Reservation]:
        """Hold a place for a job until it is written down.

        Raises:
            QueueFullError: as many jobs wait as may wait.
            RateLimitedError: its key has asked for as much as it may.
        """
        if self._is_full_for(new.params):
            raise self._queue_full()
        with self._limits.reserved(
            new.key_id,
            new.params.work_units,
            num_jobs=self._dispatcher.num_jobs_of(new.key_id),
            next_end_s=lambda: self._estimates.until_end_of_s(new.key_id, self._request_timeout_s),
        ) as reservation:
            self._num_accepting += 1
            try:
                yield reservation
            finally:
                self._num_accepting -= 1

    def _queue_full(self) -> QueueFullError:
        return QueueFullError(
            f"{self.num_waiting} jobs wait already, and no more may wait",
            retry_after_s=self._estimates.until_room_s(self._request_timeout_s),
        )

    def _is_full_for(self, params: GenerationParams) -> bool:
        # Those that are being written down will wait, but for as many as the engine has room for now.
        num_free = self._dispatcher.num_free_places if self._dispatcher.would_start_at_once(params) else 0
        return self.num_waiting + self._num_accepting >= self.max_waiting + num_free

    async def _let_go(self, accepting: asyncio.Task[JobRecord]) -> None:
        """Nobody waits for this bound job any more: cancel it unless it has ended."""
        with contextlib.suppress(Exception):  # the caller has been told
            record = await accepting
            live = self._dispatcher.live.get(record.id)
            if live is not None and not live.record.is_over:
                await self._dispatcher.cancel(record.id)

    # --- following jobs -----------------------------------------------------------------------------------------------

    async def find(self, job_id: str, key_id: str | None) -> JobRecord:
        """A job by its id.

        Args:
            job_id: its id.
            key_id: whose it must be; None for an operator, who sees all.

        Raises:
            JobNotFoundError: there is none, or it is another key's.
        """
        live = self._dispatcher.live.get(job_id)
        record = live.record if live is not None else await self._keeping.get(job_id)
        if record is None or (key_id is not None and record.new.key_id != key_id):
            raise JobNotFoundError("there is no such job, or it is another key's")
        return record

    async def page(
        self,
        *,
        key_id: str | None,
        user: str | None,
        statuses: Collection[JobStatus],
        before_seq: int | None,
        limit: int,
    ) -> list[JobRecord]:
        """Jobs, newest first; see `JobStore.page`."""
        return await self._keeping.page(key_id=key_id, user=user, statuses=statuses, before_seq=before_seq, limit=limit)

    async def usage(self, question: UsageQuestion) -> list[Usage]:
        """What was drawn for whom; see `JobStore.usage`."""
        return await self._keeping.usage(question)

    def state_of(self, record: JobRecord) -> JobState:
        """What is known of a job now."""
        params = record.new.params
        steps = params.model_calls * params.num_images
        live = self._dispatcher.live.get(record.id)
        if live is None:
            return JobState(record=record, step=steps if record.status == "done" else 0, steps=steps)
        return JobState(
            record=live.record,
            step=live.step,
            steps=steps,
            queue_position=self._dispatcher.queue.position(record.id),
            eta_s=self._estimates.of_job_s(live),
            preview=live.preview,
            is_left=live.is_left,
        )

    async def watch(self, record: JobRecord, keep_alive_s: float) -> AsyncGenerator[JobState | None, None]:
        """A job's state now and at every change, the last one terminal; None whenever nothing changed for so long.

        Whoever reads slowly gets the newest state and misses those between.
        """
        live = self._dispatcher.live.get(record.id)
        if live is not None:
            record = live.record
        elif not record.is_over:  # it has ended since it was looked up
            record = await self._keeping.get(record.id) or record
        seen = 0 if live is None else live.version
        state = self.state_of(record)
        yield state
        told_at = time.monotonic()
        while live is not None and not state.record.is_over and not state.is_left:
            quiet_s = max(0.0, keep_alive_s - (time.monotonic() - told_at))
            await live.change(seen, min(quiet_s, _QUEUE_REFRESH_S) if state.queue_position is not None else quiet_s)
            # Before the state: what changes while the reader of a `yield` takes its time must not be slept through.
            seen = live.version
            before, state = state, self.state_of(live.record)
            if _visible(before) != _visible(state):
                told_at = time.monotonic()
                yield state
            elif time.monotonic() - told_at >= keep_alive_s:
                told_at = time.monotonic()
                yield None

    async def image(self, record: JobRecord, index: int) -> tuple[StoredImage, bytes]:
        """One finished picture of a job; see `Keeping.image`."""
        return await self._keeping.image(record, index)

    async def _images(self, record: JobRecord) -> tuple[ImageReady, ...]:
        if record.outcome is None:
            raise NotDoneError(f"the job is {record.status}; only a finished one has pictures")
        found = [await self._keeping.image(record, index) for index in range(len(record.outcome.images))]
        return tuple(
            ImageReady(record.id, index, stored.seed, data, stored.media_type)
            for index, (stored, data) in enumerate(found)
        )

    async def snapshot(self) -> BinaryIO:
        """A copy of the job database as it is now, an open file: what was acknowledged before is in it.

        Raises:
            StoreTroubleError: there is no room for it.
        """
        return await self._keeping.snapshot(self._folder)

    # --- changing jobs ------------------------------------------------------------------------------------------------

    async def cancel(self, record: JobRecord) -> JobRecord:
        """Cancel a job before its next step. One that has ended stays as it is."""
        cancelling = self._dispatcher.spawn(self._dispatcher.cancel(record.id), f"cancel {record.id}")
        return await asyncio.shield(cancelling) or record

    async def requeue(self, record: JobRecord) -> JobRecord:
        """Let a dead job be tried again from the start.

        Raises:
            NotDeadError: it is not dead.
        """
        return await asyncio.shield(self._dispatcher.spawn(self._requeue(record), f"requeue {record.id}"))

    async def _requeue(self, record: JobRecord) -> JobRecord:
        is_live = record.id in self._dispatcher.live  # its death is being written down right now
        revived = None if is_live else await self._keeping.revive(record.id)
        if revived is None:
            raise NotDeadError(f"only a dead job can be requeued; this one is {record.status}")
        self._dispatcher.enqueue(revived)
        return revived

    # --- estimates ----------------------------------------------------------------------------------------------------

    def eta_of_new_s(self, params: GenerationParams) -> float | None:
        """Seconds until a job that came now would be finished; None if unknown."""
        return self._estimates.of_new_s(params)

    # --- counting -----------------------------------------------------------------------------------------------------

    def _work_done(self, item: WorkDone) -> None:
        if self.executor.state == "ready":  # the first calls of a start are slow, and nobody's
            self.metrics.work_done(item)

    # --- parts --------------------------------------------------------------------------------------------------------

    @property
    def _keeping(self) -> Keeping:
        return self._parts[0]

    @property
    def _dispatcher(self) -> Dispatcher:
        return self._parts[1]

    @property
    def _estimates(self) -> Estimates:
        return self._parts[2]

    @property
    def _parts(self) -> tuple[Keeping, Dispatcher, Estimates]:
        if self._opened is None:
            raise StoreTroubleError("the job store is not open yet", retry_after_s=1)
        return self._opened


def raise_if_failed(record: JobRecord) -> None:
    """Say over again why a job that has ended has no pictures.

    Raises:
        ServerError: with the code that its failure had.
    """
    failure = record.outcome.failure if record.outcome else None
    detail = failure.detail if failure else f"the job is {record.status}"
    if record.status == "cancelled":
        raise JobCancelledError(detail)
    if record.status == "dead":
        raise JobDeadError(detail)
    if record.status == "failed":
        raise JobFailedError(detail, failure.code if failure else "internal_error")


def _visible(state: JobState) -> tuple[object, ...]:
    """What makes a new snapshot worth sending. The ETA alone does not."""
    return (state.record.status, state.record.attempt, state.step, state.queue_position, state.preview, state.is_left)
