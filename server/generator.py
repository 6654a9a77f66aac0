"""`ImageGenerator`, what routes use: submits a job, waits for it, finds, cancels and requeues it, drains.

Knows nothing of HTTP. Whether a job is accepted, is in `admission.py`; how far it is, in `jobs/job_state.py`; who is
next, who runs and who is tried again, in `jobs/dispatcher.py`; what is kept of it, in `store/`; where it is drawn, in
`executors/`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import structlog

from server.access.rate_limits import KeyLimits
from server.admission import Admission, Check
from server.errors import (
    DrainingError,
    JobNotFoundError,
    NotDeadError,
    NotDoneError,
    RequestTimeoutError,
    StoreTroubleError,
)
from server.executors.base import Executor
from server.executors.messages import WorkDone
from server.executors.pool import LOCAL, EnginePool
from server.jobs.dispatcher import Dispatcher
from server.jobs.estimates import Estimates
from server.jobs.failures import raise_if_failed
from server.jobs.job_state import JobState, JobStates
from server.metrics import Metrics
from server.store.input_files import UploadedPicture
from server.store.record import JobRecord, NewJob, Picture
from server.store.storage import ANSWER_S, Retention, Storage

__all__ = ["Drawn", "ImageGenerator"]

_log = structlog.get_logger("server.jobs")

_T = TypeVar("_T")

_CANCEL_ANSWER_S: Final = 2.0
"""Who cancels on a full disk waits no longer: the drawing has stopped, and more cannot be done."""
_SETTLE_S: Final = 5.0
"""What is still being written at the end gets so long."""


class Drawn(NamedTuple):
    """What `draw` came to."""

    record: JobRecord
    images: tuple[Picture, ...] | None
    """None while it is not done."""


class ImageGenerator:
    """Draws pictures for many callers with one warm model. Belongs to the event loop's thread.

    Jobs beyond what the executor takes wait, at most `max_queued_requests`. While the model loads, all wait. A job is
    in the store before anybody is told of it.
    """

    # From `start` on, and no request comes before it.
    storage: Storage
    """Where jobs and pictures are kept, for those who only read."""
    dispatcher: Dispatcher
    """The jobs that have not ended."""
    estimates: Estimates
    """When jobs will be done."""
    admission: Admission
    """Whether a job would be accepted."""
    states: JobStates
    """How far jobs are."""

    def __init__(
        self,
        executor: Executor | EnginePool,
        folder: Path,
        *,
        max_queued_requests: int,
        request_timeout_s: float,
        retention: Retention,
        limits: KeyLimits,
        price_per_work_unit: Decimal,
        check: Check,
        open_storage: Callable[[Path], Awaitable[Storage]] = Storage.open,
    ) -> None:
        self.executor = executor if isinstance(executor, EnginePool) else EnginePool({LOCAL: executor})
        """The engines."""
        self.metrics = Metrics()
        """What is counted of its jobs, and of whatever else the app does."""
        self.is_draining = False
        """Whether it has stopped to accept jobs, for good."""
        self._folder = folder
        self._max_waiting = max_queued_requests
        self._open_storage = open_storage
        self._request_timeout_s = request_timeout_s
        self._retention = retention
        self._limits = limits
        self._price_per_work_unit = price_per_work_unit
        self._check = check
        self._is_open = False
        self._housekeeping: asyncio.Task[None] | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up the jobs that are kept, and begin to load the model.

        Raises:
            StoreError: the store cannot be used.
        """
        self.storage = storage = await self._open_storage(self._folder)
        storage.store.watch_commits(self.metrics.committed)
        self.dispatcher = dispatcher = Dispatcher(self.executor, storage, self._price_per_work_unit, self.metrics)
        self.estimates = Estimates(self.executor, dispatcher)
        self.admission = Admission(
            self.executor,
            storage,
            dispatcher,
            self.estimates,
            self.metrics,
            self._limits,
            max_waiting=self._max_waiting,
            request_timeout_s=self._request_timeout_s,
            check=self._check,
        )
        self.states = JobStates(storage, dispatcher, self.estimates)
        self._is_open = True
        for record in await storage.ask(storage.store.recover(time.time()), timeout_s=None):
            if record.is_over:
                _log.error(
                    "the server crashed repeatedly while this job ran; it is held until an operator requeues it",
                    job_id=record.id,
                )
            else:
                dispatcher.enqueue(record)
        if dispatcher.live:
            _log.info("unfinished jobs resumed", jobs=len(dispatcher.live))
        self._housekeeping = asyncio.create_task(
            storage.run_retention(self._retention, lambda: dispatcher.live), name="retention"
        )
        await self.executor.start(self._work_done)
        dispatcher.hand_over()

    async def drain(self, timeout_s: float = 0.0) -> None:
        """Accept nothing more, finish what runs if it ends in time, and notify the waiting callers.

        Jobs that wait stay in the store for the next start, but those bound to a connection are cancelled.
        """
        self.is_draining = True
        if self._is_open:
            await self.dispatcher.drain(timeout_s)

    async def stop(self) -> None:
        """Drain at once, end the engine, and close the store."""
        await self.drain()
        await self.executor.stop()
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.gather(self._housekeeping, return_exceptions=True)
        if self._is_open:
            await self.dispatcher.settle(_SETTLE_S)
            with contextlib.suppress(StoreTroubleError):  # then they count as cut off, which is true of a failing disk
                await self.storage.ask(self.storage.store.put_back_all(), timeout_s=_SETTLE_S)
            await self.storage.close()

    # --- asking for pictures ------------------------------------------------------------------------------------------

    async def submit(self, new: NewJob, pictures: Sequence[UploadedPicture] = ()) -> JobState:
        """Accept a job: it is in the store when this returns. A repeat under the same idempotency key is the same job.

        Args:
            new: the job.
            pictures: what it starts from.

        Raises:
            QueueFullError: as many jobs wait as may wait.
            RateLimitedError: its key has asked for as much as it may.
            DrainingError: the server is shutting down.
            EngineFailedError: the model cannot be served.
            StoreTroubleError: it could not be written.
            IdempotencyMismatchError: the key was used for another request.
            InvalidParamsError: its model cannot draw it.
        """
        # Not cancelled with the caller: what is half written would be nobody's.
        accepting = self.dispatcher.spawn(self.admission.accept(new, pictures), f"accept {new.id}")
        return self.states.of(await _in_time(accepting))

    async def draw(
        self,
        new: NewJob,
        pictures: Sequence[UploadedPicture] = (),
        *,
        wait_s: float | None = None,
        timeout_s: float | None = None,
    ) -> Drawn:
        """Accept a job and wait for its pictures.

        Args:
            new: the job. If it is bound, cancelling this call, or running out of time, cancels the job.
            pictures: what it starts from.
            wait_s: seconds to wait, at most `timeout_s`; None: that.
            timeout_s: None: `REQUEST_TIMEOUT`.

        Returns:
            The finished job and its pictures; without any if it is not bound and has not ended in time.

        Raises:
            RequestTimeoutError: a bound job was not finished in time; it has been cancelled.
            ServerError: see `submit`; or why there are no pictures.
            EngineError: the engine could not draw this.
        """
        longest_s = self._request_timeout_s if timeout_s is None else timeout_s
        timeout_s = longest_s if wait_s is None else min(wait_s, longest_s)
        accepting = self.dispatcher.spawn(self.admission.accept(new, pictures), f"accept {new.id}")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._pictures(await asyncio.shield(accepting))
        except TimeoutError:
            if not new.is_bound:
                record = await _in_time(accepting)
                return await self._pictures(record) if record.is_over else Drawn(record, None)
            raise RequestTimeoutError(
                f"not finished within {timeout_s:g} s (queueing included); the job was cancelled",
                retry_after_s=self.estimates.until_room_s(self._request_timeout_s),
            ) from None
        finally:
            if new.is_bound:
                self.dispatcher.spawn(self._let_go(accepting), f"let go {new.id}")

    async def result(self, record: JobRecord) -> Drawn:
        """Wait for the pictures of an accepted job.

        Raises:
            ServerError: why there are none.
            EngineError: the engine could not draw this.
        """
        return await self._pictures(record)

    def let_go(self, record: JobRecord) -> None:
        """The caller of this bound job is gone: cancel it unless it has ended."""
        self.dispatcher.spawn(self._cancel_unless_over(record), f"let go {record.id}")

    async def _pictures(self, record: JobRecord) -> Drawn:
        live = self.dispatcher.live.get(record.id)
        if live is None:
            if not record.is_over:  # it has ended since it was looked up
                record = await self._get(record.id) or record
            raise_if_failed(record)
            return Drawn(record, await self._images(record))
        await live.ended.wait()
        record = live.record
        if not record.is_over:
            raise DrainingError("the server is shutting down; retry after it has restarted")
        if record.status == "failed" and live.error is not None:
            raise live.error
        raise_if_failed(record)
        return Drawn(record, live.images or await self._images(record))

    async def _let_go(self, accepting: asyncio.Task[JobRecord]) -> None:
        """The caller of this bound job hung up: cancel it unless it has ended."""
        with contextlib.suppress(Exception):  # the caller has been told
            await self._cancel_unless_over(await accepting)

    async def _cancel_unless_over(self, record: JobRecord) -> None:
        live = self.dispatcher.live.get(record.id)
        if live is not None and not live.record.is_over:
            await self.dispatcher.cancel(record.id)

    # --- finding jobs -------------------------------------------------------------------------------------------------

    async def find(self, job_id: str, key_id: str | None) -> JobRecord:
        """A job by its id.

        Args:
            job_id: its id.
            key_id: whose it must be; None for an operator, who sees all.

        Raises:
            JobNotFoundError: there is none, or it is another key's.
        """
        live = self.dispatcher.live.get(job_id)
        record = live.record if live is not None else await self._get(job_id)
        if key_id is None and record is None:
            raise JobNotFoundError(f"there is no job {job_id}")
        if record is None or (key_id is not None and record.new.key_id != key_id):
            raise JobNotFoundError("there is no such job, or it belongs to another key")
        return record

    async def _get(self, job_id: str) -> JobRecord | None:
        return await self.storage.ask(self.storage.store.get(job_id))

    async def _images(self, record: JobRecord) -> tuple[Picture, ...]:
        if record.outcome is None:
            raise NotDoneError(f"the job is {record.status}; only a finished one has pictures")
        found = [await self.storage.image(record, index) for index in range(len(record.outcome.images))]
        return tuple(Picture(stored.seed, stored.media_type, data) for stored, data in found)

    # --- changing jobs ------------------------------------------------------------------------------------------------

    async def cancel(self, record: JobRecord) -> JobRecord:
        """Cancel a job before its next step. One that has ended stays as it is.

        Raises:
            StoreTroubleError: the drawing has stopped, but that could not be written yet; it will be when it can.
        """
        cancelling = self.dispatcher.spawn(self.dispatcher.cancel(record.id), f"cancel {record.id}")
        return await _in_time(cancelling, _CANCEL_ANSWER_S) or record

    def interrupt(self, job_id: str) -> None:
        """End a job with what there is of it: whoever waits for it gets that. One that has ended stays as it is."""
        self.dispatcher.spawn(self.dispatcher.interrupt(job_id), f"interrupt {job_id}")

    def skip(self, job_id: str, batch_size: int) -> None:
        """End the batch of a job that is drawn now with what there is of it; its other batches go on.

        Args:
            job_id: its id.
            batch_size: pictures of one batch, as the caller counts them.
        """
        self.dispatcher.spawn(self.dispatcher.skip(job_id, batch_size), f"skip {job_id}")

    async def requeue(self, record: JobRecord) -> JobRecord:
        """Let a dead job be tried again from the start.

        Raises:
            NotDeadError: it is not dead.
            InputExpiredError: the pictures that it starts from are not kept any more.
        """
        return await _in_time(self.dispatcher.spawn(self._requeue(record), f"requeue {record.id}"))

    async def _requeue(self, record: JobRecord) -> JobRecord:
        is_live = record.id in self.dispatcher.live  # its death is being written down right now
        revived = None if is_live else await self.storage.ask(self.storage.store.revive(record.id), timeout_s=None)
        if revived is None:
            raise NotDeadError(f"only a dead job can be requeued; this one is {record.status}")
        self.dispatcher.enqueue(revived)
        return revived

    # --- counting -----------------------------------------------------------------------------------------------------

    def _work_done(self, item: WorkDone) -> None:
        if item.rows_by_job:  # else it is the warm-up: slow, and nobody's
            self.metrics.work_done(item.kind, item.rows, item.seconds)


async def _in_time(work: asyncio.Task[_T], timeout_s: float = ANSWER_S) -> _T:
    """Wait for something that goes on to its end, but no longer than that.

    Raises:
        StoreTroubleError: it has not ended.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(work)
    except TimeoutError:
        raise StoreTroubleError(
            "storage did not respond in time: the write goes on, and its result is not known yet",
            retry_after_s=5,
        ) from None
