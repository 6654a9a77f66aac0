"""What outlives this process: jobs and their pictures, written before anybody is told, and a disk's troubles."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, Self, TypeVar

import structlog

from server.errors import JobNotFoundError, NotDoneError, ResultExpiredError, StoreTroubleError
from server.executors.messages import ImageReady
from server.jobs.files import ResultFiles
from server.jobs.record import Failure, JobRecord, JobStatus, NewJob, Outcome, StoredImage
from server.jobs.store import JobStore
from server.jobs.store_errors import StoreError, StoreUnavailableError
from server.jobs.usage import Usage, UsageQuestion

__all__ = ["Keeping", "Retention"]

_log = structlog.get_logger("server.jobs")

_T = TypeVar("_T")

RETRY_S: Final = 0.5
"""Between two tries to write what the disk did not take."""
_RETENTION_INTERVAL_S: Final = 300.0
_CHECK_INTERVAL_S: Final = 1.0
"""How long the answer to 'can anything be written' is good for."""
_LOOK_INTERVAL_S: Final = 0.1
"""How long a look at the folder is good for. In a flood each would lend the interpreter to another thread, for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long what has ended is kept."""

    results_s: float
    """Seconds that picture files are kept after their job ended."""
    results_bytes: int
    """Of all picture files together; the oldest go first."""
    jobs_s: float
    """Seconds that a job is known at all after it ended."""


class Keeping:
    """The job store and the picture files of one server. Belongs to the event loop's thread.

    What a caller asks for fails with StoreTroubleError when the disk takes nothing. What this process knows and must
    not forget (an outcome, a picture) is tried again until the disk takes it.
    """

    def __init__(self, store: JobStore, files: ResultFiles) -> None:
        self._store = store
        self._files = files
        self._trouble: str | None = None
        self._checked_at = -math.inf
        self._looked_at = -math.inf

    @classmethod
    async def open(cls, folder: Path) -> Self:
        """Open a folder, and remove files that an interrupted write or delete has left.

        Raises:
            StoreError: it cannot be used.
        """
        store = await JobStore.open(folder)
        files = ResultFiles(folder / "results")
        kept = await store.ids_with_files()
        await asyncio.to_thread(files.sweep, kept.__contains__)
        await asyncio.to_thread(files.make_folders)
        return cls(store, files)

    async def close(self) -> None:
        """Give the folder back."""
        await self._store.close()

    @property
    def store(self) -> JobStore:
        """Where the jobs are, for what else is kept there."""
        return self._store

    async def trouble(self) -> str | None:
        """Why jobs or pictures cannot be written; None if they can. Looks at most once a second."""
        if time.monotonic() - self._checked_at > _CHECK_INTERVAL_S:
            self._checked_at = time.monotonic()
            try:
                await self._store.check_writable()
                await asyncio.to_thread(self._files.check_writable)
            except StoreError as error:
                self._is_in_trouble(error)
            else:
                self._trouble = None
        return self._trouble

    async def known_trouble(self) -> str | None:
        """What `trouble` says, if a write has failed since it last said None; costs nothing on good days."""
        return None if self._trouble is None else await self.trouble()

    # --- asked for by callers -----------------------------------------------------------------------------------------

    async def recover(self) -> list[JobRecord]:
        """Every job that waits, oldest first, after what ran when the last process ended was put back."""
        return await self._told(self._store.recover(time.time()))

    async def add(self, new: NewJob) -> JobRecord:
        """Accept a job, or find the one that its idempotency key names."""
        self._look_at_folder()
        if await self.known_trouble() is not None:
            raise _trouble_to_tell()  # its row may well find room, but not its pictures
        return await self._told(self._store.add(new))

    def _look_at_folder(self) -> None:
        """Notice a folder that was made read-only: the database, open since the start, goes on and does not."""
        now = time.monotonic()
        if now - self._looked_at > _LOOK_INTERVAL_S:
            self._looked_at = now
            if not self._files.may_be_written():
                self._is_in_trouble(StoreUnavailableError("the folder of the picture files is read-only or gone"))

    async def find_repeat(self, new: NewJob) -> JobRecord | None:
        """The job that this one's idempotency key names."""
        return await self._told(self._store.find_repeat(new))

    async def get(self, job_id: str) -> JobRecord | None:
        """A job, if it is kept."""
        return await self._told(self._store.get(job_id))

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
        return await self._told(
            self._store.page(key_id=key_id, user=user, statuses=statuses, before_seq=before_seq, limit=limit)
        )

    async def usage(self, question: UsageQuestion) -> list[Usage]:
        """What was drawn for whom; see `JobStore.usage`."""
        return await self._told(self._store.usage(question))

    async def snapshot(self, folder: Path) -> BinaryIO:
        """A copy of the job database as it is now; see `JobStore.snapshot`."""
        return await self._told(self._store.snapshot(folder))

    async def revive(self, job_id: str) -> JobRecord | None:
        """Dead -> queued. None: it is not dead."""
        return await self._told(self._store.revive(job_id))

    async def image(self, record: JobRecord, index: int) -> tuple[StoredImage, bytes]:
        """One finished picture of a job.

        Raises:
            NotDoneError: the job is not done.
            JobNotFoundError: it has no such picture.
            ResultExpiredError: its file is not kept any more.
            StoreTroubleError: the disk cannot be read.
        """
        if record.outcome is None or record.status != "done":
            raise NotDoneError(f"the job is {record.status}; only a finished one has pictures")
        if not 0 <= index < len(record.outcome.images):
            raise JobNotFoundError(f"the job has {len(record.outcome.images)} pictures, counted from 0")
        reading = asyncio.to_thread(self._files.read, record.id, index)
        data = await self._told(reading) if record.has_files else None
        if data is None:
            raise ResultExpiredError("the picture is not kept any more; the same request draws it again")
        return record.outcome.images[index], data

    async def _told(self, operation: Awaitable[_T]) -> _T:
        try:
            return await operation
        except StoreError as error:
            self._is_in_trouble(error)
            raise _trouble_to_tell() from error

    # --- known by this process, and not to be forgotten ---------------------------------------------------------------

    async def begin(self, job_id: str, at: float) -> int | None:
        """Queued -> running. The new attempt's number; None: it does not wait."""
        return await self._until_written(lambda: self._store.begin(job_id, at))

    async def finish(self, job_id: str, attempt: int, outcome: Outcome) -> bool:
        """Running with that attempt -> ended. False: that attempt does not run any more."""
        return await self._until_written(lambda: self._store.finish(job_id, attempt, outcome))

    async def put_back(self, job_id: str, attempt: int) -> bool:
        """Running with that attempt -> queued. False: that attempt does not run any more."""
        return await self._until_written(lambda: self._store.put_back(job_id, attempt))

    async def fail_queued(self, job_id: str, outcome: Outcome) -> bool:
        """Queued -> ended. False: it does not wait."""
        return await self._until_written(lambda: self._store.fail_queued(job_id, outcome))

    async def cancel(self, job_id: str, engine_s: float) -> JobRecord | None:
        """Queued or running -> cancelled, after so much of the engine's time. The job as it is then; None: unknown."""
        failure = Failure(code="cancelled", detail="the job was cancelled")
        at = time.time()
        return await self._until_written(lambda: self._store.cancel(job_id, at, failure, engine_s))

    async def read_again(self, job_id: str) -> JobRecord | None:
        """A job as the store knows it now."""
        return await self._until_written(lambda: self._store.get(job_id))

    async def write_images(self, job_id: str, images: Collection[ImageReady]) -> tuple[StoredImage, ...]:
        """Keep a job's finished pictures; a full disk delays this until there is room."""
        for image in images:
            write = partial(self._files.write, job_id, image.image_index, image.data)
            await self._until_written(partial(asyncio.to_thread, write))
        return tuple(
            StoredImage(
                seed=image.seed,
                media_type=image.media_type,
                num_bytes=len(image.data),
                sha256=sha256(image.data).hexdigest(),
            )
            for image in images
        )

    async def delete_images(self, job_id: str) -> None:
        """Remove what was written for a job that came to nothing; the next start removes what cannot be removed now."""
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(self._files.delete, job_id)

    async def _until_written(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        while True:
            try:
                return await operation()
            except StoreError as error:
                self._is_in_trouble(error)
            await asyncio.sleep(RETRY_S)

    def _is_in_trouble(self, error: StoreError) -> None:
        # Ended by `trouble` alone: where there is no room for a picture, there often is for a row.
        if self._trouble is None:
            _log.error("the disk does not take what must be written", why=str(error))
        self._trouble = str(error)

    # --- housekeeping -------------------------------------------------------------------------------------------------

    async def keep_house(self, retention: Retention) -> None:
        """Delete what need not be kept any longer, now and then, for ever."""
        while True:
            now = time.time()
            try:
                expired = await self._store.expire(
                    files_before=now - retention.results_s,
                    keep_bytes=retention.results_bytes,
                    jobs_before=now - retention.jobs_s,
                )
                for job_id in expired:
                    await asyncio.to_thread(self._files.delete, job_id)
            except StoreError as error:
                _log.warning("old results could not be deleted", why=str(error))
            await asyncio.sleep(_RETENTION_INTERVAL_S)


def _trouble_to_tell() -> StoreTroubleError:
    return StoreTroubleError(
        "the job store cannot be written or read right now, so nothing is accepted; the server's log says why",
        retry_after_s=5,
    )
