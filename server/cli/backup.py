"""The commands `backup` and `restore`: jobs, pictures and API keys into one file, while the server runs, and back."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from server.access.operator_socket import socket_path
from server.cli.archive import Contents, pack, unpack
from server.cli.errors import UNREACHABLE, CommandError
from server.cli.lock_holder import lock_holder
from server.cli.running_server import running_server
from server.config import StartError, load_settings
from server.jobs.database import DATABASE_NAME, LOCK_NAME, database_opened
from server.jobs.snapshot import take_snapshot
from server.jobs.store_errors import StoreError, StoreLockedError

__all__ = ["backup", "restore"]

_RESTORING: Final = ".restoring-"
"""Begins the name of a folder in `DATA_DIR` in which a restore is at work, or was when it was killed."""
_RESTORING_LOCK: Final = "lock"

_PIPE: Final = "-"
"""In place of a file's name: standard output or input."""


def backup(arguments: argparse.Namespace) -> None:
    """Write a backup of the running server, or of the folder of one that does not run."""
    folder = _server_folder()
    with _told_as_command_errors():
        if not folder.is_dir():
            raise CommandError(f"no server has ever run with its data in {folder}; is DATA_DIR right?", UNREACHABLE)
        with _output(arguments.file) as (out, room), tempfile.TemporaryDirectory(dir=room) as near:
            database = Path(near) / DATABASE_NAME
            with _snapshot(folder) as snapshot, database.open("wb") as copy:
                shutil.copyfileobj(snapshot, copy)
            contents = pack(out, database, folder / "results")
    _tell(f"backed up {_told(contents)}")


def restore(arguments: argparse.Namespace) -> None:
    """Make the folder of a server that has never run from a backup: wholly, or not at all."""
    folder = _server_folder()
    with _told_as_command_errors():
        _refuse_unless_empty(folder)
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _staging(folder.parent) as staging:
            with _input(arguments.file) as source:
                contents = unpack(source, staging)
            for path in (staging / DATABASE_NAME, staging):  # pictures are made durable as they are written
                _make_durable(path)
            _refuse_unless_empty(folder)  # not to be clear, but to be told well: the renaming itself refuses
            staging.rename(folder)
            for path in (folder.parent, folder.parent.parent):
                _make_durable(path)
    _tell(f"restored {_told(contents)} into {folder}")
    _tell("Jobs that ran or waited then go on at the next start; API keys are what they were then.")


@contextlib.contextmanager
def _snapshot(folder: Path) -> Iterator[BinaryIO]:
    """A copy of the job store, of whoever has it."""
    server = running_server(folder)
    with _own_snapshot(folder) if server is None else server.backup() as file:
        yield file


@contextlib.contextmanager
def _own_snapshot(folder: Path) -> Iterator[BinaryIO]:
    try:
        with database_opened(folder) as connection, take_snapshot(connection, folder) as file:
            yield file
    except StoreLockedError:
        holder = lock_holder(folder / LOCK_NAME)
        raise CommandError(
            f"{holder} has the job store open and does not listen at {socket_path(folder)}: it is starting or ending, "
            "or was not started by `python -m server serve`",
            UNREACHABLE,
        ) from None


@contextlib.contextmanager
def _output(name: str) -> Iterator[tuple[BinaryIO, Path | None]]:
    """What to write to, and a folder that has room; a file appears only when it is whole and on the disk."""
    if name == _PIPE:
        yield sys.stdout.buffer, None
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    if path.exists():
        raise CommandError(f"{path} is there already: remove it, or choose another name")
    descriptor, half_made = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, path.parent
            file.flush()
            os.fsync(descriptor)
        Path(half_made).rename(path)
    except BaseException:
        Path(half_made).unlink()
        raise
    _make_durable(path.parent)


@contextlib.contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    """An empty folder to make things in and to move them from, after what killed restores left is removed."""
    for left_over in parent.glob(f"{_RESTORING}*"):
        with contextlib.suppress(OSError), _held(left_over):  # another restore may be at work in it
            shutil.rmtree(left_over)
    with tempfile.TemporaryDirectory(prefix=_RESTORING, dir=parent) as near, _held(Path(near)):
        staging = Path(near) / "server"
        staging.mkdir(mode=0o700)
        yield staging


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Have a folder for this process alone. The kernel gives it back when the process ends, however it ends.

    Raises:
        BlockingIOError: another one has it.
    """
    with (folder / _RESTORING_LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _input(name: str) -> contextlib.AbstractContextManager[BinaryIO]:
    return contextlib.nullcontext(sys.stdin.buffer) if name == _PIPE else Path(name).open("rb")


def _refuse_unless_empty(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        if running_server(folder) is not None:
            holder = lock_holder(folder / LOCK_NAME)
            raise CommandError(f"a server runs with its data in {folder} ({holder}): stop it first")
        raise CommandError(f"{folder} is not empty: move it away, or set another DATA_DIR; nothing is overwritten")


def _make_durable(path: Path) -> None:
    """Let a file's content, or a folder's names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _told_as_command_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise CommandError("whoever reads the backup has gone") from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise CommandError(f"{where}{error.strerror or error}") from None
    except StoreError as error:
        raise CommandError(str(error)) from None


def _server_folder() -> Path:
    try:
        return load_settings().server_folder
    except StartError as error:
        raise CommandError(str(error)) from None


def _told(contents: Contents) -> str:
    told = f"{contents.jobs:,} jobs and {contents.pictures:,} pictures of {contents.created_at}"
    return told if not contents.missing else f"{told} ({contents.missing:,} more pictures were gone or damaged)"


def _tell(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201 -- for whoever typed the command; standard output may be the backup
