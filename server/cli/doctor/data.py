"""Storage checks: free disk space, permissions, an intact job store, and no other process that has it open."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from server.access.operator_socket import socket_path
from server.cli.doctor.finding import Finding, gib
from server.store.database import DATABASE_NAME, LOCK_NAME, lock_holder

__all__ = ["look_at_data", "looked_into"]

_LEAST_FREE_BYTES = 64 * 2**20
"""Below this the next pictures and the store's own log may not fit."""

MOUNTS = Path("/proc/self/mounts")
_NETWORK = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs", "lustre")
"""Beginnings of the names of file systems on which a lock may not hold, or a commit not last."""


def look_at_data(folder: Path, keep_results_bytes: int, *, mounts: Path = MOUNTS) -> Iterator[Finding]:
    """Look at the server's folder and what is in it.

    Args:
        folder: `DATA_DIR/server`; need not be there yet.
        keep_results_bytes: what the picture files may take (KEEP_RESULTS_MIB).
        mounts: the table of what is mounted where.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    fault = _fault_of_writing(there)
    if fault is not None:
        yield Finding(
            "data", "FAIL", f"{there} cannot be written: {fault}", "give this user write permission, or set DATA_DIR"
        )
    else:
        yield Finding("data", "ok", f"{folder} is writable" if there == folder else f"{folder} will be created")
    yield from _look_at_disk(there, keep_results_bytes, mounts)
    if there == folder:
        yield from _look_at_rights(folder)
        yield from _look_at_store(folder)


def _fault_of_writing(folder: Path) -> str | None:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"doctor")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return None


def _look_at_disk(folder: Path, keep_results_bytes: int, mounts: Path) -> Iterator[Finding]:
    free_bytes = shutil.disk_usage(folder).free
    found = f"{gib(free_bytes)} free at {folder}"
    if free_bytes < _LEAST_FREE_BYTES:
        yield Finding("disk", "FAIL", found, "free some space: no jobs are accepted while the disk is full")
    elif free_bytes < keep_results_bytes:
        remedy = "free some space or lower KEEP_RESULTS_MIB, so that old pictures are deleted before the disk is full"
        yield Finding("disk", "warn", f"{found}; kept pictures may take {gib(keep_results_bytes)}", remedy)
    else:
        yield Finding("disk", "ok", found)
    kind = _file_system_of(folder, mounts)
    if kind is not None and kind.startswith(_NETWORK):
        yield Finding(
            "disk", "warn", f"{folder} is on a network file system ({kind})", "set DATA_DIR to a folder on a local disk"
        )


def _file_system_of(folder: Path, mounts: Path) -> str | None:
    """The kind of the file system that a folder is on, as the table of mounts names it."""
    with contextlib.suppress(OSError):
        fields = [line.split() for line in mounts.read_text().splitlines()]
        resolved = folder.resolve()
        # Of mounts over one another, the longest path is the folder's own, and of equal ones the last.
        on_the_way = [(len(point), kind) for _, point, kind, *_ in fields if resolved.is_relative_to(point)]
        if on_the_way:
            return max(enumerate(on_the_way), key=lambda numbered: (numbered[1][0], numbered[0]))[1][1]
    return None


def _look_at_rights(folder: Path) -> Iterator[Finding]:
    """Permissions: others must not read prompts and pictures, nor open the operator's socket."""
    too_open = [
        path
        for path in (folder, folder / DATABASE_NAME, socket_path(folder))
        if path.exists() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    ]
    # Nobody gets past a closed folder, whatever the rights of what is in it.
    if folder in too_open:
        yield Finding("rights", "warn", f"other users can read {folder}", f"chmod 700 {folder}")
    elif folder.stat().st_uid != os.geteuid():
        yield Finding(
            "rights", "warn", f"{folder} belongs to another user", "run this as the user that the server runs as"
        )
    else:
        yield Finding("rights", "ok", f"only this user can read {folder}")


def _look_at_store(folder: Path) -> Iterator[Finding]:
    database, lock = folder / DATABASE_NAME, folder / LOCK_NAME
    if not database.exists():
        yield Finding("store", "ok", "there is no job store yet")
        return
    try:
        with lock.open("rb") as file:
            # Shared, and only for the look: as long as it lasts, a server that starts here would find the store in use.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            complaint = _complaint_about(database)
    except FileNotFoundError:
        complaint = _complaint_about(database)
    except BlockingIOError:
        yield Finding("store", "ok", f"{lock_holder(folder)} has it open and checked it at its start")
        return
    except OSError as error:
        yield Finding("store", "FAIL", f"{lock} cannot be used: {error.strerror}", "give this user permission to it")
        return
    if complaint is None:
        yield Finding("store", "ok", "the job store is intact and not in use")
    else:
        yield Finding(
            "store",
            "FAIL",
            f"{database}: {complaint}",
            "restore a backup, or move it away to start with an empty store",
        )


def _complaint_about(database: Path) -> str | None:
    """What SQLite's integrity check finds in a store that is not open; None: nothing. Changes no file."""
    try:
        with looked_into(database) as connection:
            complaint: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except sqlite3.Error as error:
        return str(error)
    return None if complaint == "ok" else " ".join(complaint.split())


@contextlib.contextmanager
def looked_into(database: Path) -> Iterator[sqlite3.Connection]:
    """A store that is not open elsewhere, opened read-only. Changes no file."""
    log = database.with_name(f"{database.name}-wal")
    with contextlib.ExitStack() as left_behind:
        uri = f"{database.as_uri()}?immutable=1"
        if log.exists():
            # Its server was killed, and whoever opens it, even to read, takes up its log and may empty it: take a copy.
            elsewhere = left_behind.enter_context(tempfile.TemporaryDirectory())
            copy, _ = (Path(shutil.copy(path, elsewhere)) for path in (database, log))
            uri = copy.as_uri()
        yield left_behind.enter_context(contextlib.closing(sqlite3.connect(uri, uri=True)))
