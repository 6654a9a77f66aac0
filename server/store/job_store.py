"""The job store: accepted jobs, on disk before they are acknowledged. SQL is in `job_table.py`, the thread in
`group_commit.py`, the tables in `database_schema.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final, Self

from server.store import job_table, key_table, options_table, usage_table
from server.store.api_keys import ApiKey
from server.store.database import database_opened
from server.store.group_commit import StoreThread
from server.store.options_table import Option
from server.store.record import Failure, JobQuery, JobRecord, NewJob, Outcome
from server.store.snapshot import take_snapshot
from server.store.usage_table import Usage, UsageQuestion

__all__ = ["JobStore"]

_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


class JobStore:
    """Every job and every API key that is kept, in one SQLite database. Belongs to the event loop that opened it.

    Whatever a method answers is on the disk by then. Each may raise StoreUnavailableError: the disk is full, fails or
    takes no writes; then nothing was changed, and the same call works again when the disk does. A change whose caller
    is cancelled while it waits is made all the same, and before every change that is asked for later.
    """

    def __init__(self, thread: StoreThread) -> None:
        self._thread = thread

    @classmethod
    async def open(cls, folder: Path) -> Self:
        """Open a folder's store, made when missing, readable by this user only.

        Raises:
            StoreLockedError: another process has it.
            StoreDamagedError: its database is not sound.
            StoreTooNewError: a later release has written it.
            StoreUnavailableError: the folder cannot be written or read.
        """
        thread = StoreThread(partial(database_opened, folder))
        await thread.start()
        return cls(thread)

    async def close(self) -> None:
        """Finish what was asked so far and give the folder back."""
        await self._thread.close()

    @property
    def last_commit_seconds(self) -> float:
        """What the latest transaction took, the wait for the disk included; 0 before the first."""
        return self._thread.last_commit_seconds

    @property
    def busy_s(self) -> float:
        """Seconds since the disk was asked for what it has not answered yet; 0 if it has."""
        return self._thread.busy_s

    def watch_commits(self, on_commit: Callable[[float], None]) -> None:
        """Have every transaction's seconds reported, on the event loop."""
        self._thread.on_commit = on_commit

    async def add(self, new: NewJob, inputs: Mapping[str, int] = _NOTHING) -> JobRecord:
        """Accept a job. A record with another id is an earlier job with the same idempotency key and digest.

        Args:
            new: the job.
            inputs: SHA-256 of each file that it starts from -> bytes of the file.

        Raises:
            IdempotencyMismatchError: the key was used with another digest.
        """
        return await self._thread.write(partial(job_table.add, new=new, inputs=inputs))

    async def find_repeat(self, new: NewJob) -> JobRecord | None:
        """The earlier job with this one's idempotency key; None if it would be a new one.

        Raises:
            IdempotencyMismatchError: the key was used with another digest.
        """
        return await self._thread.read(partial(job_table.find_repeat, new=new))

    async def begin(self, job_id: str, at: float) -> int | None:
        """From queued to running, at Unix seconds `at`; the attempt's number, from 1. None: it does not wait."""
        return await self._thread.write(partial(job_table.begin, job_id=job_id, at=at))

    async def put_back(self, job_id: str, attempt: int, *, is_loss: bool = True) -> bool:
        """From running with that attempt to queued. False: that attempt runs no more; nothing changed.

        Args:
            job_id: which job.
            attempt: which attempt.
            is_loss: whether its engine was lost, and not merely full.
        """
        return await self._thread.write(partial(job_table.put_back, job_id=job_id, attempt=attempt, is_loss=is_loss))

    async def put_back_all(self) -> None:
        """From running to queued, for an orderly end of the server: nothing was lost."""
        await self._thread.write(job_table.put_back_all)

    async def finish(self, job_id: str, attempt: int, outcome: Outcome) -> bool:
        """From running with that attempt to a terminal state. False: that attempt runs no more; nothing changed."""
        return await self._thread.write(partial(job_table.finish, job_id=job_id, attempt=attempt, outcome=outcome))

    async def fail_queued(self, job_id: str, outcome: Outcome) -> bool:
        """From queued to a terminal state. False: it does not wait; nothing changed."""
        return await self._thread.write(partial(job_table.fail_queued, job_id=job_id, outcome=outcome))

    async def cancel(self, job_id: str, at: float, failure: Failure, engine_s: float = 0.0) -> JobRecord | None:
        """From queued or running to cancelled. The job as it is then, however it ended; None: unknown.

        Args:
            job_id: which.
            at: Unix seconds.
            failure: what is told of it.
            engine_s: seconds that the engine has spent on it, as far as known.
        """
        cancel = partial(job_table.cancel, job_id=job_id, at=at, failure=failure, engine_s=engine_s)
        return await self._thread.write(cancel)

    async def revive(self, job_id: str) -> JobRecord | None:
        """From dead to queued, its attempts forgotten. None: it is not dead; nothing changed.

        Raises:
            InputExpiredError: the pictures that it starts from are not kept any more.
        """
        return await self._thread.write(partial(job_table.revive, job_id=job_id))

    async def take_over(self, from_key: str, to_key: str) -> None:
        """Let the jobs of one key that have ended be another's. What they cost stays counted where it was."""
        await self._thread.write(partial(job_table.take_over, from_key=from_key, to_key=to_key))

    async def get(self, job_id: str) -> JobRecord | None:
        """The job, if it is kept."""
        return await self._thread.read(partial(job_table.get, job_id=job_id))

    async def page(self, query: JobQuery) -> list[JobRecord]:
        """The jobs that are asked for, newest first."""
        return await self._thread.read(partial(job_table.page, query=query))

    async def usage(self, question: UsageQuestion) -> list[Usage]:
        """What was drawn for whom, a row a group, in the order of the groups. Jobs that are not kept any more count."""
        return await self._thread.read(partial(usage_table.sums, question=question))

    async def recover(self, at: float) -> list[JobRecord]:
        """Take up what the last process left, once, before anything else is asked.

        Jobs that were bound to a connection are cancelled (`server_restarted`). Running ones become queued, and one
        that ran when the server ended for the third time becomes dead: it may be the reason.

        Returns:
            Every queued job, oldest first; then those that have become dead.
        """
        return await self._thread.write(partial(job_table.recover, at=at))

    async def expire(self, *, files_before: float, keep_bytes: int, jobs_before: float) -> None:
        """Give up files and jobs that are kept long enough, in portions between which others have their turn.

        The files themselves belong to no job then: `ids_with_files` and `input_names` tell which still do.

        Args:
            files_before: files of jobs that finished before then (Unix seconds) are given up.
            keep_bytes: of the others, the oldest, until the rest fits in here; inputs and finished pictures together.
            jobs_before: jobs that finished before then are removed, with their idempotency keys.
        """
        expire = partial(job_table.expire, files_before=files_before, keep_bytes=keep_bytes, jobs_before=jobs_before)
        while await self._thread.write(expire):
            pass

    async def ids_with_files(self) -> set[str]:
        """The jobs whose files are kept."""
        return await self._thread.read(job_table.ids_with_files)

    async def input_names(self) -> set[str]:
        """The input files that jobs name, by SHA-256."""
        return await self._thread.read(job_table.input_names)

    async def keys(self) -> list[ApiKey]:
        """Every API key that was ever made, oldest first."""
        return await self._thread.read(key_table.keys)

    async def put_key(self, key: ApiKey) -> None:
        """Keep an API key, new or changed."""
        await self._thread.write(partial(key_table.put, key=key))

    async def note_key_uses(self, uses: Mapping[str, float]) -> None:
        """Keep when API keys were last used: id -> Unix seconds."""
        await self._thread.write(partial(key_table.note_uses, uses=uses))

    async def options_of(self, key_id: str) -> dict[str, Option]:
        """What a key has set; nothing, if it never did."""
        return await self._thread.read(partial(options_table.options_of, key_id=key_id))

    async def put_options(self, key_id: str, changes: Mapping[str, Option]) -> dict[str, Option]:
        """Keep options of a key beside those that it has set before; all of them."""
        return await self._thread.write(partial(options_table.put_options, key_id=key_id, changes=changes))

    async def snapshot(self, folder: Path) -> BinaryIO:
        """A copy of the whole database as it is now, an open file; there is room for it in `folder`."""
        return await self._thread.read(partial(take_snapshot, folder=folder))

    async def check_writable(self) -> None:
        """Write something and commit it. Returns if that works."""
        await self._thread.write(job_table.probe)
