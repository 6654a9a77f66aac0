"""Opens the job database: one process, one connection, integrity checked first."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from server.store.database_schema import migrate
from server.store.disk import make_durable
from server.store.errors import StoreDamagedError, StoreLockedError, StoreUnavailableError

__all__ = ["DATABASE_NAME", "LOCK_NAME", "database_opened", "is_failure_of_store", "lock_holder"]

DATABASE_NAME: Final = "jobs.sqlite3"
LOCK_NAME: Final = "lock"

_OLDEST_SQLITE: Final = (3, 37)
"""The first with STRICT tables (and with RETURNING, since 3.35)."""

_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_PRAGMAS: Final = (
    # No other process may read it meanwhile, not even the sqlite3 shell: releases of SQLite before 3.51.3 can damage a
    # WAL database that two connections write. It also does without shared memory, which network folders lack.
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    # An acknowledged commit survives a power cut, not only the end of the process.
    "synchronous = FULL",
    # The same on macOS, whose fsync alone does not reach the disk. Others ignore it.
    "fullfsync = ON",
    # What undoes one caller's part of a shared transaction stays out of /var/tmp, which may be full while we are not.
    "temp_store = MEMORY",
)


@contextlib.contextmanager
def database_opened(folder: Path, *, is_checked: bool = True) -> Iterator[sqlite3.Connection]:
    """The job database of a folder, for the thread that opens it; made if there is none yet.

    Args:
        folder: where it lies.
        is_checked: whether all of its pages are looked at: a second for 100,000 jobs.

    Raises:
        StoreLockedError: another process has it.
        StoreDamagedError: it is no sound database.
        StoreTooNewError: a later release has written it.
        StoreUnavailableError: the folder cannot be written or read.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        oldest = ".".join(map(str, _OLDEST_SQLITE))
        raise StoreUnavailableError(f"SQLite must be {oldest} or later, not {sqlite3.sqlite_version}")
    with (
        _folder_locked(folder),
        contextlib.closing(_open_sound(folder / DATABASE_NAME, is_checked=is_checked)) as connection,
    ):
        yield connection


def lock_holder(folder: Path) -> str:
    """Who holds the lock of a folder that is in use: `process 1234 on gpu1`, as it wrote into the lock's file."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return (folder / LOCK_NAME).read_text("utf-8") or "another process"
    return "another process"


def is_failure_of_store(error: BaseException) -> bool:
    """Whether an error of SQLite comes from disk or file, and not from one statement's own values."""
    return isinstance(error, sqlite3.OperationalError | sqlite3.InternalError) or type(error) is sqlite3.DatabaseError


@contextlib.contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process. The kernel gives it back when the process ends, however it ends."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(folder, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreLockedError(f"{folder} is in use by another server: stop it, or set another DATA_DIR") from error
        except OSError as error:
            raise _unusable(folder, error) from error
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _open_sound(path: Path, *, is_checked: bool) -> sqlite3.Connection:
    """Connect, check and bring up to date."""
    try:
        # For the owner alone, as its folder is: prompts are in it. The WAL beside it takes the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        # Transactions begin and end where the code says so; nobody else has the file, so there is nobody to wait for.
        connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            if is_checked:
                _refuse_damage(connection, path)
            migrate(connection)
            for folder in (path.parent, path.parent.parent):  # the names of new files, and the folder's own
                make_durable(folder)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise _as_store_error(path, error) from error
    except OSError as error:
        raise _unusable(path.parent, error) from error
    return connection


def _refuse_damage(connection: sqlite3.Connection, path: Path) -> None:
    complaint: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if complaint != "ok":
        raise _damaged(path, complaint)


def _as_store_error(path: Path, error: sqlite3.Error) -> Exception:
    # The low byte is the kind of error, the others say where it arose. Errors of Python's own module have no code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _DAMAGE:
        return _damaged(path, str(error))
    if code == sqlite3.SQLITE_BUSY:
        return StoreLockedError(f"{path} is in use by another program: stop it first")
    return StoreUnavailableError(f"{path} cannot be opened: {error}")


def _damaged(path: Path, complaint: str) -> StoreDamagedError:
    return StoreDamagedError(
        f"{path} is damaged ({' '.join(complaint.split())}): restore a backup, or move it away to start with an empty"
        " store"
    )


def _unusable(folder: Path, error: OSError) -> StoreUnavailableError:
    return StoreUnavailableError(f"{folder} cannot be used: {error.strerror}")
