"""Group commit: one thread, one connection, and one transaction for all the writes that have piled up.

Knows nothing of jobs. While a commit waits for the disk, further asks gather; the next transaction carries them all, so
many callers share one wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from server.store.database import is_failure_of_store
from server.store.errors import StoreUnavailableError

__all__ = ["StoreThread"]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Ask(Generic[T]):
    """Something to do with the connection, and who waits for it."""

    act: Callable[[sqlite3.Connection], T]
    is_read: bool
    waiter: asyncio.Future[T]
    result: T | None = field(default=None, init=False)
    error: Exception | None = field(default=None, init=False)

    def carry_out(self, connection: sqlite3.Connection) -> None:
        """Act; keep what came of it. Only failures of the store itself are raised: they concern the neighbours too."""
        self.error = None
        try:
            self.result = self.act(connection)
        except Exception as error:
            if is_failure_of_store(error):
                raise
            self.error = error

    def answer(self) -> None:
        """Give the waiter its result, on its own thread, unless it has gone."""
        if self.waiter.done():
            return
        if self.error is not None:
            self.waiter.set_exception(self.error)
        else:
            self.waiter.set_result(self.result)  # type: ignore[arg-type] # T, as no error means that act returned


class StoreThread:
    """The thread that owns the connection. Its methods belong to the event loop that made it.

    What was asked is carried out in the order of the asking, even when its caller has been cancelled since; only reads
    may fall behind later writes, as they see nothing but what is committed.
    """

    def __init__(self, connect: Callable[[], AbstractContextManager[sqlite3.Connection]]) -> None:
        self.last_commit_seconds = 0.0
        """What the latest transaction took, from its first statement until it was safe on the disk (or failed)."""
        self.on_commit: Callable[[float], None] | None = None
        """Called with the same seconds after every transaction."""
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._busy_since: float | None = None
        self._asks: queue.SimpleQueue[_Ask[object] | None] = queue.SimpleQueue()
        self._is_closed = False
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        # A daemon: a store that nobody closed does not keep the process alive, and loses nothing acknowledged.
        self._thread = threading.Thread(target=self._live, name="job store", daemon=True)

    @property
    def busy_s(self) -> float:
        """Seconds since the thread began what it is doing; 0 while it has nothing to do."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    async def start(self) -> None:
        """Open the connection. Whatever `connect` raises, this raises."""
        self._thread.start()
        try:
            await asyncio.shield(self._opened)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Do what was asked so far, close the connection and end the thread. A second call waits for the first."""
        if not self._is_closed:
            self._is_closed = True
            self._asks.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()

    async def write(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """Call `act` within a transaction, and return its result once that is committed.

        It may be called twice, the first call undone: it changes nothing but the database.

        Raises:
            StoreUnavailableError: the commit failed; nothing was changed.
            Exception: whatever `act` raises; then its own changes are undone, and only those.
        """
        return await self._ask(act, is_read=False)

    async def read(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """Call `act`, which changes nothing, on what is committed.

        Raises:
            StoreUnavailableError: the database could not be read.
        """
        return await self._ask(act, is_read=True)

    async def _ask(self, act: Callable[[sqlite3.Connection], T], *, is_read: bool) -> T:
        if self._is_closed:
            raise StoreUnavailableError("the job store is closed")
        waiter: asyncio.Future[T] = self._loop.create_future()
        self._asks.put(_Ask(act, is_read, waiter))  # type: ignore[arg-type] # the thread needs no more than object
        return await waiter

    # --- on the thread ---

    def _live(self) -> None:
        is_open = False
        try:
            with self._connect() as connection:
                is_open = True
                self._on_loop(_resolve, self._opened, None)
                for asks in self._batches():
                    self._busy_since = time.monotonic()
                    if writes := [ask for ask in asks if not ask.is_read]:
                        self._commit(connection, writes)
                    if reads := [ask for ask in asks if ask.is_read]:
                        self._read(connection, reads)
                    self._busy_since = None
        except BaseException as error:
            if is_open:
                raise
            self._on_loop(_resolve, self._opened, error)  # to be raised by `start`
        finally:
            self._on_loop(self._end)

    def _batches(self) -> Iterator[list[_Ask[object]]]:
        """Everything that has piled up, again and again, until the end is asked for."""
        is_last = False
        while not is_last:
            asks = [self._asks.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    asks.append(self._asks.get_nowait())
            is_last = None in asks  # nothing is ever asked after it
            yield [ask for ask in asks if ask is not None]

    def _commit(self, connection: sqlite3.Connection, writes: Sequence[_Ask[object]]) -> None:
        began = time.perf_counter()
        try:
            connection.execute("BEGIN IMMEDIATE")
            if not _carried_out(connection, writes):
                connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
                _carry_out_apart(connection, writes)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            # After some errors SQLite has rolled back by itself. If this fails too, the next BEGIN fails and ends here.
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            for ask in writes:
                ask.error = _unavailable(error)
        self._on_loop(self._committed, writes, time.perf_counter() - began)

    def _read(self, connection: sqlite3.Connection, reads: Sequence[_Ask[object]]) -> None:
        for ask in reads:
            try:
                ask.carry_out(connection)
            except sqlite3.Error as error:
                ask.error = _unavailable(error)
        self._on_loop(_answer_all, reads)

    def _on_loop(self, call: Callable[..., None], *arguments: object) -> None:
        # A loop that was closed without closing the store has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)

    # --- on the loop ---

    def _committed(self, writes: Sequence[_Ask[object]], seconds: float) -> None:
        self.last_commit_seconds = seconds
        _answer_all(writes)
        if self.on_commit is not None:
            self.on_commit(seconds)

    def _end(self) -> None:
        """The thread has ended: fail every waiting call."""
        self._is_closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                ask = self._asks.get_nowait()
                if ask is not None:
                    ask.error = StoreUnavailableError("the job store is closed")
                    ask.answer()
        _resolve(self._ended, None)


def _carried_out(connection: sqlite3.Connection, writes: Sequence[_Ask[object]]) -> bool:
    """Carry out each until one fails; whether none did."""
    for ask in writes:
        ask.carry_out(connection)
        if ask.error is not None:
            return False
    return True


def _carry_out_apart(connection: sqlite3.Connection, writes: Sequence[_Ask[object]]) -> None:
    """Carry out each so that nothing of those that fail is left.

    Not done before one fails: every statement waits for the interpreter, which a busy loop lends to nobody for long.
    """
    for ask in writes:
        connection.execute("SAVEPOINT ask")
        ask.carry_out(connection)
        if ask.error is not None:
            connection.execute("ROLLBACK TO ask")
        connection.execute("RELEASE ask")


def _answer_all(asks: Sequence[_Ask[object]]) -> None:
    for ask in asks:
        ask.answer()


def _resolve(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _unavailable(error: sqlite3.Error) -> StoreUnavailableError:
    unavailable = StoreUnavailableError(f"the job store cannot be used now: {error}")
    unavailable.__cause__ = error
    return unavailable
