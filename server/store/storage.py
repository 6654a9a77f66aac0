"""Storage of jobs and picture files: retention (deletes expired ones), retries of failed writes, disk errors."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final, Self, TypeVar

import structlog

from server.errors import InputExpiredError, JobNotFoundError, NotDoneError, ResultExpiredError, StoreTroubleError
from server.store.disk import Disk
from server.store.errors import StoreError
from server.store.input_files import INPUTS_FOLDER, InputFiles, UploadedPicture
from server.store.job_store import JobStore
from server.store.picture_files import ResultFiles
from server.store.record import JobRecord, NewJob, Picture, StoredImage

__all__ = ["ANSWER_S", "RETRY_S", "Retention", "Storage", "disk_trouble"]

_log = structlog.get_logger("server.jobs")

_T = TypeVar("_T")

RETRY_S: Final = 0.5
"""Between two tries to write what the disk did not take."""
ANSWER_S: Final = 30.0
"""A caller waits no longer for the disk."""
_RETENTION_INTERVAL_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long what has ended is kept."""

    results_s: float
    """Seconds that picture files, finished ones and inputs, are kept after their job ended."""
    results_bytes: int
    """Of all picture files together, those that jobs start from included; the oldest go first."""
    jobs_s: float
    """Seconds that a job is known at all after it ended."""


class Storage:
    """The job store and the picture files of one server. Belongs to the event loop's thread.

    Two policies for a disk that fails: `ask` gives a caller StoreTroubleError; `until_written` tries again until the
    disk takes what this process knows and must not forget (an outcome, a picture).
    """

    def __init__(
        self,
        store: JobStore,
        files: ResultFiles,
        inputs: InputFiles | None = None,
        *,
        disk: Disk | None = None,
        retry_s: float = RETRY_S,
    ) -> None:
        """Take what is open already.

        Args:
            store: the jobs.
            files: their pictures.
            inputs: what they start from; None is the usual folder beside the pictures.
            disk: where both are; None is the folder of the picture files.
            retry_s: seconds between two tries to write what the disk did not take.
        """
        self.store = store
        self.files = files
        self.inputs = inputs or InputFiles(files.folder.parent / INPUTS_FOLDER)
        self.disk = disk or Disk(files.folder)
        self._retry_s = retry_s
        self._failure: str | None = None
        self._probing: asyncio.Task[None] | None = None

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
        storage = cls(store, files)
        await asyncio.to_thread(storage.inputs.remove_unfinished, 0.0)
        await asyncio.to_thread(storage.inputs.make_folder)
        await storage.remove_unnamed_inputs()
        return storage

    async def close(self) -> None:
        """Give the folder back."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        await self.store.close()

    async def trouble(self) -> str | None:
        """Why jobs or pictures cannot be written, as far as is known; None if they can. Takes 2 s at most, and writes
        nothing.
        """
        state = await self.disk.state()
        if state.trouble is not None:
            return state.trouble
        if self.store.busy_s > ANSWER_S:
            return f"the disk has not responded for {self.store.busy_s:.0f} s"
        return self._failure

    # --- asked for by callers -----------------------------------------------------------------------------------------

    async def ask(self, operation: Awaitable[_T], *, timeout_s: float | None = ANSWER_S) -> _T:
        """Do what a caller asks for, once.

        Args:
            operation: of `store` or `files`.
            timeout_s: None waits for as long as the disk takes.

        Raises:
            StoreTroubleError: the disk fails, takes no writes, or does not answer in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await operation
        except StoreError as error:
            self._has_failed(error)
            raise disk_trouble() from error
        except TimeoutError:
            raise disk_trouble() from None

    async def add(self, new: NewJob, pictures: Sequence[UploadedPicture] = ()) -> JobRecord:
        """Keep a job, and before it the pictures that it starts from. See `JobStore.add`.

        Raises:
            StoreTroubleError: the disk takes no more; nothing of it is left.
        """
        if not pictures:
            return await self.ask(self.store.add(new), timeout_s=None)
        held: list[str] = []
        is_kept = False
        try:
            for picture in {picture.sha256: picture for picture in pictures}.values():
                await self.ask(asyncio.to_thread(self.inputs.keep, picture), timeout_s=None)
                held.append(picture.sha256)
            sizes = {picture.sha256: picture.num_bytes for picture in pictures}
            record = await self.ask(self.store.add(new, sizes), timeout_s=None)
            is_kept = record.id == new.id
            return record
        finally:
            for sha256 in held:
                self.inputs.release(sha256)
            if not is_kept:
                with contextlib.suppress(StoreError):  # housekeeping will
                    await self.remove_unnamed_inputs(held)

    async def read_inputs(self, record: JobRecord) -> Mapping[str, bytes]:
        """The files that a job starts from, by SHA-256; waits for a disk that cannot be read now.

        Raises:
            InputExpiredError: one is not kept any more.
        """
        found: dict[str, bytes] = {}
        for image in record.new.params.inputs:
            read = partial(self.inputs.read, image.sha256)
            data = await self.until_written(partial(asyncio.to_thread, read))
            if data is None:
                raise InputExpiredError("the pictures that this job starts from are not there any more")
            found[image.sha256] = data
        return found

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
            raise JobNotFoundError(f"the job has {len(record.outcome.images)} pictures, numbered from 0")
        reading = asyncio.to_thread(self.files.read, record.id, index)
        data = await self.ask(reading) if record.has_files else None
        if data is None:
            raise ResultExpiredError("the picture has expired; the same request draws it again")
        return record.outcome.images[index], data

    # --- known by this process, and not to be forgotten ---------------------------------------------------------------

    async def until_written(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        """Try until the disk takes it."""
        while True:
            try:
                return await operation()
            except StoreError as error:
                self._has_failed(error)
            await asyncio.sleep(self._retry_s)

    async def write_images(self, job_id: str, images: Sequence[Picture]) -> tuple[StoredImage, ...]:
        """Keep a job's finished pictures; a full disk delays this until there is room."""
        for index, image in enumerate(images):
            write = partial(self.files.write, job_id, index, image.data)
            await self.until_written(partial(asyncio.to_thread, write))
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
        """Remove what was written for a job that came to nothing; what cannot be removed now `tidy` removes later."""
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(self.files.delete, job_id)

    def _has_failed(self, error: StoreError) -> None:
        """Write a little now and then until it works again: where there is no room for a picture, there often is for a
        row.
        """
        if self._failure is None:
            _log.error("storage write failed, retrying", why=str(error))
        self._failure = str(error)
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe_until_written(), name="probe the disk")

    async def _probe_until_written(self) -> None:
        while True:
            await asyncio.sleep(self._retry_s)
            try:
                await self.store.check_writable()
                await asyncio.to_thread(self.files.check_writable)
            except StoreError as error:
                self._failure = str(error)
            else:
                break
        self._failure = None
        _log.info("storage writes work again")

    # --- housekeeping -------------------------------------------------------------------------------------------------

    async def run_retention(self, retention: Retention, live_ids: Callable[[], Collection[str]]) -> None:
        """Run retention at regular intervals until cancelled. See `tidy`."""
        while True:
            await self.tidy(retention, live_ids, now_s=time.time())
            await asyncio.sleep(_RETENTION_INTERVAL_S)

    async def tidy(self, retention: Retention, live_ids: Callable[[], Collection[str]], *, now_s: float) -> None:
        """Apply retention once: delete expired jobs and pictures, and every picture file without a job.

        Args:
            retention: how long that is.
            live_ids: the jobs that have not ended: their files may be written right now.
            now_s: Unix seconds.
        """
        with _warned_of_trouble():
            await self.store.expire(
                files_before=now_s - retention.results_s,
                keep_bytes=retention.results_bytes,
                jobs_before=now_s - retention.jobs_s,
            )
        with _warned_of_trouble():  # also what was given up before the disk failed
            # In this order: a job that ends meanwhile is live at the second look or in the store at the third.
            found = await asyncio.to_thread(self.files.job_ids)
            live = set(live_ids())
            kept = await self.store.ids_with_files()
            for job_id in found - live - kept:
                await asyncio.to_thread(self.files.delete, job_id)
            await asyncio.to_thread(self.inputs.remove_unfinished)
            await self.remove_unnamed_inputs()

    async def remove_unnamed_inputs(self, names: Collection[str] | None = None) -> None:
        """Remove input files that no job names.

        Args:
            names: only these; None: all there are.

        Raises:
            StoreError: not all could be removed.
        """
        with self.inputs.removal() as held:
            found = set(await asyncio.to_thread(self.inputs.names) if names is None else names)
            named = await self.store.input_names()
            for sha256 in found - named:
                await asyncio.to_thread(self.inputs.remove, sha256, held)


@contextlib.contextmanager
def _warned_of_trouble() -> Iterator[None]:
    """The next time of housekeeping does what the disk does not let it do now."""
    try:
        yield
    except StoreError as error:
        _log.warning("old results could not be deleted", why=str(error))


def disk_trouble() -> StoreTroubleError:
    """The error that a caller gets when the disk fails."""
    return StoreTroubleError(
        "the job store cannot be read or written, so no jobs are accepted; the server's log says why",
        retry_after_s=5,
    )
