"""The job store: what was promised, on disk before the promise is made. SQL is in `statements.py`, the thread in
`store_thread.py`, the tables in `schema.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self

from server.access import key_table
from server.access.keys import ApiKey
from server.jobs import statements, usage
from server.jobs.database import database_opened
from server.jobs.record import Failure, JobRecord, JobStatus, NewJob, Outcome
from server.jobs.snapshot import take_snapshot
from server.jobs.store_errors import StoreUnavailableError
from server.jobs.store_thread import StoreThread
from server.jobs.usage import Usage, UsageQuestion

__all__ = ["JobStore"]


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

    def watch_commits(self, on_commit: Callable[[float], None]) -> None:
        """Have every transaction's seconds told, on the event loop."""
        self._thread.on_commit = on_commit

    async def add(self, new: NewJob) -> JobRecord:
        """Accept a job. A record with another id is an earlier job with the same idempotency key and digest.

        Raises:
            IdempotencyMismatchError: the key was used with another digest.
        """
        return await self._thread.write(partial(statements.add, new=new))

    async def find_repeat(self, new: NewJob) -> JobRecord | None:
        """The earlier job with this one's idempotency key; None if it would be a new one.

        Raises:
            IdempotencyMismatchError: the key was used with another digest.
        """
        return await self._thread.read(partial(statements.find_repeat, new=new))

    async def begin(self, job_id: str, at: float) -> int | None:
        """From queued to running, at Unix seconds `at`; the attempt's number, from 1. None: it does not wait."""
        return await self._thread.write(partial(statements.begin, job_id=job_id, at=at))

    async def put_back(self, job_id: str, attempt: int) -> bool:
        """From running with that attempt to queued. False: that attempt runs no more; nothing changed."""
        return await self._thread.write(partial(statements.put_back, job_id=job_id, attempt=attempt))

    async def finish(self, job_id: str, attempt: int, outcome: Outcome) -> bool:
        """From running with that attempt to a terminal state. False: that attempt runs no more; nothing changed."""
        return await self._thread.write(partial(statements.finish, job_id=job_id, attempt=attempt, outcome=outcome))

    async def fail_queued(self, job_id: str, outcome: Outcome) -> bool:
        """From queued to a terminal state. False: it does not wait; nothing changed."""
        return await self._thread.write(partial(statements.fail_queued, job_id=job_id, outcome=outcome))

    async def cancel(self, job_id: str, at: float, failure: Failure, engine_s: float = 0.0) -> JobRecord | None:
        """From queued or running to cancelled. The job as it is then, however it ended; None: unknown.

        Args:
            job_id: which.
            at: Unix seconds.
            failure: what is told of it.
            engine_s: seconds that the engine has spent on it, as far as known.
        """
        cancel = partial(statements.cancel, job_id=job_id, at=at, failure=failure, engine_s=engine_s)
        return await self._thread.write(cancel)

    async def revive(self, job_id: str) -> JobRecord | None:
        """From dead to queued, its attempts forgotten. None: it is not dead; nothing changed."""
        return await self._thread.write(partial(statements.revive, job_id=job_id))

    async def get(self, job_id: str) -> JobRecord | None:
        """The job, if it is kept."""
        return await self._thread.read(partial(statements.get, job_id=job_id))

    async def page(
        self,
        *,
        key_id: str | None,
        user: str | None = None,
        statuses: Collection[JobStatus] = (),
        before_seq: int | None = None,
        limit: int,
    ) -> list[JobRecord]:
        """At most `limit` jobs, newest first.

        Args:
            key_id: whose; None: everybody's, for the operator.
            user: of that key; None: all of them.
            statuses: only these; none: all.
            before_seq: only jobs accepted before that one: the `seq` of the page before's last.
            limit: how many at most.
        """
        return await self._thread.read(
            partial(statements.page, key_id=key_id, user=user, statuses=statuses, before_seq=before_seq, limit=limit)
        )

    async def usage(self, question: UsageQuestion) -> list[Usage]:
        """What was drawn for whom, a row a group, in the order of the groups. Jobs that are not kept any more count."""
        return await self._thread.read(partial(usage.sums, question=question))

    async def recover(self, at: float) -> list[JobRecord]:
        """Take up what the last process left, once, before anything else is asked.

        Jobs that were bound to a connection are cancelled (`server_restarted`); running ones become queued.

        Returns:
            Every queued job, oldest first.
        """
        return await self._thread.write(partial(statements.recover, at=at))

    async def expire(self, *, files_before: float, keep_bytes: int, jobs_before: float) -> list[str]:
        """Give up files and jobs that are kept long enough, in portions between which others have their turn.

        Args:
            files_before: files of jobs that finished before then (Unix seconds) are given up.
            keep_bytes: of the others, the oldest, until the rest fits in here.
            jobs_before: jobs that finished before then are removed, with their idempotency keys.

        Returns:
            The jobs whose files are to be deleted now, the removed ones first. If the disk fails on the way, those that
            were given up so far. If the deleting is interrupted, `ids_with_files` tells at the next start what is left.
        """
        expire = partial(statements.expire, files_before=files_before, keep_bytes=keep_bytes, jobs_before=jobs_before)
        ids: list[str] = []
        is_more = True
        while is_more:
            try:
                portion, is_more = await self._thread.write(expire)
            except StoreUnavailableError:
                if ids:
                    break  # these files are nobody's already
                raise
            ids += portion
        return ids

    async def ids_with_files(self) -> set[str]:
        """The jobs whose files are kept; for `ResultFiles.sweep`, before anything is drawn."""
        return await self._thread.read(statements.ids_with_files)

    async def keys(self) -> list[ApiKey]:
        """Every API key that was ever made, oldest first."""
        return await self._thread.read(key_table.keys)

    async def put_key(self, key: ApiKey) -> None:
        """Keep an API key, new or changed."""
        await self._thread.write(partial(key_table.put, key=key))

    async def note_key_uses(self, uses: Mapping[str, float]) -> None:
        """Keep when API keys were last used: id -> Unix seconds."""
        await self._thread.write(partial(key_table.note_uses, uses=uses))

    async def snapshot(self, folder: Path) -> BinaryIO:
        """A copy of the whole database as it is now, an open file; there is room for it in `folder`."""
        return await self._thread.read(partial(take_snapshot, folder=folder))

    async def check_writable(self) -> None:
        """Write something and commit it. Returns if that works."""
        await self._thread.write(statements.probe)
