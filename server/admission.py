"""Admission of jobs: full queue (`Retry-After`), rate limits, disk failure, repeats of an idempotency key.

Two requests under one idempotency key are the same job, even if both come at the same moment.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from engine.params import GenerationParams
from server.access.rate_limits import KeyLimits, Reservation
from server.errors import DrainingError, EngineClassError, QueueFullError, RateLimitedError
from server.executors.pool import EnginePool
from server.jobs.dispatcher import Dispatcher
from server.jobs.estimates import Estimates
from server.metrics import Metrics
from server.store.input_files import UploadedPicture
from server.store.record import JobRecord, NewJob
from server.store.storage import Storage, disk_trouble

__all__ = ["Admission", "Check"]

Check = Callable[[GenerationParams], Awaitable[None]]
"""Raises `InvalidParamsError` where a request's model cannot draw it."""

_ONE_PICTURE: Final = GenerationParams(prompt="?", seed=0)


class Admission:
    """Accepts jobs, at most as many as may wait beyond what the executor takes. Belongs to the event loop's thread."""

    def __init__(
        self,
        executor: EnginePool,
        storage: Storage,
        dispatcher: Dispatcher,
        estimates: Estimates,
        metrics: Metrics,
        limits: KeyLimits,
        *,
        max_waiting: int,
        request_timeout_s: float,
        check: Check,
    ) -> None:
        self.max_waiting = max_waiting
        """Jobs that may wait."""
        self._executor = executor
        self._storage = storage
        self._dispatcher = dispatcher
        self._estimates = estimates
        self._metrics = metrics
        self._limits = limits
        self._request_timeout_s = request_timeout_s
        self._check = check
        self._accepting: Counter[str] = Counter()
        """Key id -> its jobs that are being written to the store right now: they have a place already."""

    async def is_open(self) -> bool:
        """Whether a job for one picture that came now would be accepted, as far as is known."""
        is_down = self._dispatcher.is_draining or self._executor.state in {"failed", "stopped"}
        return not is_down and not self._is_full_for(_ONE_PICTURE) and await self._storage.trouble() is None

    def refuse_when_full(self) -> None:
        """Refuse a job of which nothing is known yet: in a flood, reading each to its end would slow everybody down.

        Raises:
            QueueFullError: as many jobs wait as may wait.
        """
        if self._is_full_for(_ONE_PICTURE):
            raise self._queue_full()

    async def accept(self, new: NewJob, pictures: Sequence[UploadedPicture] = ()) -> JobRecord:
        """Write a job to the store and let it wait its turn, or find the one that it repeats.

        Not to be cancelled: what is half written would be nobody's.

        Args:
            new: the job.
            pictures: what it starts from.

        Raises:
            ServerError: see `ImageGenerator.submit`.
            InvalidParamsError: its model cannot draw it.
        """
        if self._dispatcher.is_draining:
            raise DrainingError("the server is shutting down; retry after it has restarted")
        if self._executor.state in {"failed", "stopped"}:
            raise self._dispatcher.engine_failed()
        # Before a place is held: a repeat needs none, and somebody else would be refused for it.
        repeat = await self._repeat_of(new)
        if repeat is not None:
            return repeat
        await self._check(new.params)
        if new.engine_class is not None and not self._executor.has_class(new.engine_class):
            raise EngineClassError(
                "must be the class of an engine that draws now, as GET /health names it", field="engine_class"
            )
        if await self._storage.trouble() is not None:
            raise disk_trouble()  # its row may well find room, but not its pictures
        with contextlib.ExitStack() as places:
            try:
                reservation = places.enter_context(self._place_for(new))
            except (QueueFullError, RateLimitedError):
                # The last place may have gone to the same job, asked for at the same moment.
                repeat = await self._repeat_of(new)
                if repeat is None:
                    raise
                return repeat
            record = await self._storage.add(new, pictures)
            if record.id == new.id:
                reservation.keep()
                self._metrics.job_accepted()
                self._dispatcher.enqueue(record)
            return record

    async def _repeat_of(self, new: NewJob) -> JobRecord | None:
        # Without a key there is nothing to look up, and a flood must not wait for the disk to be refused.
        return await self._storage.ask(self._storage.store.find_repeat(new)) if new.idempotency_key else None

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
            num_jobs=self._dispatcher.num_jobs_of(new.key_id) + self._accepting[new.key_id],
            next_end_s=lambda: self._estimates.until_end_of_s(new.key_id, self._request_timeout_s),
        ) as reservation:
            one = Counter([new.key_id])
            self._accepting += one
            try:
                yield reservation
            finally:
                self._accepting -= one  # which forgets a key that has none

    def _queue_full(self) -> QueueFullError:
        num_waiting = self._dispatcher.num_waiting + self._accepting.total()
        return QueueFullError(
            f"the queue is full ({num_waiting} jobs waiting)",
            retry_after_s=self._estimates.until_room_s(self._request_timeout_s),
        )

    def _is_full_for(self, params: GenerationParams) -> bool:
        # Those that are being written down will wait, but for as many as the engine has room for now.
        num_free = self._dispatcher.num_free_places(params)
        return self._dispatcher.num_waiting + self._accepting.total() >= self.max_waiting + num_free
