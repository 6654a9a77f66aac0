"""What the command line can do while no server runs: read and change the job store itself, under its lock."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

from server.access.operator_socket import socket_path
from server.cli.errors import UNREACHABLE, CommandError
from server.cli.lock_holder import lock_holder
from server.generator import JobState
from server.job_schemas import JobView
from server.jobs.database import LOCK_NAME
from server.jobs.record import Failure, JobRecord, JobStatus
from server.jobs.store import JobStore
from server.jobs.store_errors import StoreError, StoreLockedError

__all__ = ["StoppedServer", "stopped_server", "store_opened"]

_T = TypeVar("_T")


@contextlib.contextmanager
def stopped_server(folder: Path, model_id: str) -> Iterator[StoppedServer]:
    """The store of `folder`, opened; nobody else can open it meanwhile.

    Raises:
        CommandError: somebody has it open, it is not there, or it is damaged.
    """
    if not folder.is_dir():
        raise CommandError(f"no server has ever run with its data in {folder}; is DATA_DIR right?", UNREACHABLE)
    with store_opened(folder) as (store, runner):
        yield StoppedServer(store, runner, model_id)


@contextlib.contextmanager
def store_opened(folder: Path) -> Iterator[tuple[JobStore, asyncio.Runner]]:
    """The store of `folder`, made when missing, and the loop that it belongs to.

    Raises:
        CommandError: somebody has it open, or it is damaged.
    """
    with asyncio.Runner() as runner:
        try:
            store = runner.run(JobStore.open(folder))
        except StoreLockedError:
            holder = lock_holder(folder / LOCK_NAME)
            raise CommandError(
                f"{holder} has the job store open and does not listen at {socket_path(folder)}: it is starting or "
                "ending, or was not started by `python -m server serve`",
                UNREACHABLE,
            ) from None
        except StoreError as error:
            raise CommandError(str(error)) from None
        try:
            yield store, runner
        finally:
            runner.run(store.close())


class StoppedServer:
    """The jobs of a server that does not run."""

    def __init__(self, store: JobStore, runner: asyncio.Runner, model_id: str) -> None:
        self._store = store
        self._runner = runner
        self._model_id = model_id

    def page(self, *, statuses: list[str], user: str | None, limit: int) -> list[dict[str, Any]]:
        """See `JobDesk.page`."""
        wanted = [status for status in get_args(JobStatus) if status in statuses]
        records = self._done(self._store.page(key_id=None, user=user, statuses=wanted, limit=limit))
        return [self._told(record) for record in records]

    def show(self, job_id: str) -> dict[str, Any]:
        """See `JobDesk.show`."""
        return self._told(self._found(job_id))

    def cancel(self, job_id: str) -> dict[str, Any]:
        """See `JobDesk.cancel`."""
        failure = Failure(code="cancelled", detail="the job was cancelled")
        record = self._done(self._store.cancel(job_id, time.time(), failure))
        return self._told(record or self._found(job_id))

    def requeue(self, job_id: str) -> dict[str, Any]:
        """See `JobDesk.requeue`."""
        record = self._done(self._store.revive(job_id))
        if record is None:
            raise CommandError(f"only a dead job can be requeued; this one is {self._found(job_id).status}")
        return self._told(record)

    def _found(self, job_id: str) -> JobRecord:
        record = self._done(self._store.get(job_id))
        if record is None:
            raise CommandError("there is no such job")
        return record

    def _told(self, record: JobRecord) -> dict[str, Any]:
        params = record.new.params
        steps = params.model_calls * params.num_images
        state = JobState(
            record=record,
            step=steps if record.status == "done" else 0,
            steps=steps,
            queue_position=None,
            eta_s=None,
            preview=None,
        )
        return JobView.of(state, self._model_id).model_dump(mode="json")

    def _done(self, operation: Coroutine[Any, Any, _T]) -> _T:
        try:
            return self._runner.run(operation)
        except StoreError as error:
            raise CommandError(str(error)) from None
