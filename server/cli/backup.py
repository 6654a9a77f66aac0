"""The commands `backup` and `restore`: jobs, pictures and API keys in one tar file, made while the server runs.

    jobs.sqlite3              the job store at one moment: jobs, API keys (hashed), usage
    results/3f/3f0c…9a.0      each finished picture; its length and SHA-256 are in the database
    inputs/8a1f…77.png        each picture that a job starts from; a PNG file carries sums of its own
    end.json                  without it, the archive was cut off

Written and read from front to back, so that it can go through a pipe. On the way back everything is checked against its
sums, and the database against that of `end.json`; a member that the database does not know, or that is
not a plain file, is refused, and no name in the archive ever becomes a path.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import shutil
import sqlite3
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from server.cli.errors import UNREACHABLE, CommandError
from server.cli.output import say_note
from server.cli.server_client import command_settings, refuse_locked, running_server
from server.store.database import DATABASE_NAME, database_opened, lock_holder
from server.store.disk import make_durable
from server.store.errors import StoreError
from server.store.input_files import INPUTS_FOLDER, InputFiles, is_whole_png
from server.store.picture_files import ResultFiles
from server.store.record import Outcome, StoredImage
from server.store.snapshot import take_snapshot

__all__ = ["backup", "restore"]

_PIPE: Final = "-"
"""In place of a file's name: standard output or input."""
_END: Final = "end.json"
_LONGEST_END: Final = 2**16
_CHUNK: Final = 2**20
_LONGEST_INPUT: Final = 2**26
"""Bytes of the largest picture that is taken in, if nothing of it could be compressed."""


class _Result(NamedTuple):
    """A finished picture that the database knows."""

    job_id: str
    place: int
    """Among the job's pictures."""
    image: StoredImage

    def is_whole(self, data: bytes) -> bool:
        return len(data) == self.image.num_bytes and hashlib.sha256(data).hexdigest() == self.image.sha256


class _Input(NamedTuple):
    """A picture that a job starts from."""

    sha256: str

    def is_whole(self, data: bytes) -> bool:
        return is_whole_png(data)


class _Folders(NamedTuple):
    """Where the pictures of one server lie."""

    results: ResultFiles
    inputs: InputFiles

    @classmethod
    def of(cls, folder: Path) -> _Folders:
        return cls(ResultFiles(folder / "results"), InputFiles(folder / INPUTS_FOLDER))

    def read(self, picture: _Result | _Input) -> bytes | None:
        if isinstance(picture, _Input):
            return self.inputs.read(picture.sha256)
        return self.results.read(picture.job_id, picture.place)

    def write(self, picture: _Result | _Input, data: bytes) -> None:
        if isinstance(picture, _Input):
            self.inputs.write(picture.sha256, data)
        else:
            self.results.write(picture.job_id, picture.place, data)


_Pictures = dict[str, _Result | _Input]
"""Name in the archive -> what it is."""


class _End(msgspec.Struct, frozen=True, kw_only=True):
    """The archive's last member."""

    created_at: str
    """ISO 8601; when the database was copied."""
    database_sha256: str
    jobs: int
    pictures: int
    missing: int
    """Pictures that the database knows and whose files were not there, or not whole, when it was written."""

    def __str__(self) -> str:
        contents = f"{self.jobs:,} jobs and {self.pictures:,} pictures of {self.created_at}"
        return f"{contents} ({self.missing:,} more pictures were gone or damaged)" if self.missing else contents


def backup(arguments: argparse.Namespace) -> None:
    """Write a backup of the running server, or of the folder of one that does not run."""
    folder = command_settings().server_folder
    if not folder.is_dir():
        raise CommandError(f"there is no server data in {folder}; is DATA_DIR correct?", UNREACHABLE)
    with _errors(), _output(arguments.file) as (out, room), tempfile.TemporaryDirectory(dir=room) as near:
        created_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        database = Path(near) / DATABASE_NAME
        with database.open("wb") as copy:
            _copy_database(folder, copy)
        end = _pack(out, database, _Folders.of(folder), created_at)
    say_note(f"backed up {end}")


def restore(arguments: argparse.Namespace) -> None:
    """Make the folder of a server that has never run from a backup: wholly, or not at all."""
    folder = command_settings().server_folder
    with _errors():
        _refuse_unless_empty(folder)
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=".restoring-", dir=folder.parent) as near,
            _input(arguments.file) as source,
        ):
            staging = Path(near) / "server"
            staging.mkdir(mode=0o700)
            try:
                with tarfile.open(fileobj=source, mode="r|") as archive:
                    end = _unpack(archive, staging)
            except (tarfile.TarError, EOFError, msgspec.DecodeError) as error:
                raise _damaged(str(error) or type(error).__name__) from None
            for path in (staging / DATABASE_NAME, staging):  # pictures are made durable as they are written
                make_durable(path)
            _refuse_unless_empty(folder)  # for the message: the renaming itself refuses
            staging.rename(folder)
            for path in (folder.parent, folder.parent.parent):
                make_durable(path)
    say_note(f"restored {end} into {folder}")
    say_note("Jobs that ran or waited then go on at the next start; API keys are what they were then.")


def _copy_database(folder: Path, copy: BinaryIO) -> None:
    """The job store at one moment: of the server that runs, or, while none does, from its folder."""
    with running_server(folder) as server:
        if server is not None:
            server.download("/v1/backup", copy)
            return
    with (
        refuse_locked(folder),
        database_opened(folder) as connection,
        take_snapshot(connection, folder) as snapshot,
    ):
        shutil.copyfileobj(snapshot, copy)


def _pack(out: BinaryIO, database: Path, folders: _Folders, created_at: str) -> _End:
    num_packed = 0
    with contextlib.closing(sqlite3.connect(f"file:{database}?immutable=1", uri=True)) as connection:
        num_jobs, pictures = _contents(connection)
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive, database.open("rb") as file:
        archive.addfile(_member(DATABASE_NAME, database.stat().st_size), file)
        for name, picture in sorted(pictures.items(), key=lambda member: member[0]):
            data = folders.read(picture)
            if data is not None and picture.is_whole(data):
                archive.addfile(_member(name, len(data)), io.BytesIO(data))
                num_packed += 1
        file.seek(0)
        end = _End(
            created_at=created_at,
            database_sha256=hashlib.file_digest(file, "sha256").hexdigest(),
            jobs=num_jobs,
            pictures=num_packed,
            missing=len(pictures) - num_packed,
        )
        encoded = msgspec.json.encode(end)
        archive.addfile(_member(_END, len(encoded)), io.BytesIO(encoded))
    return end


def _unpack(archive: tarfile.TarFile, folder: Path) -> _End:
    """Read an archive into an empty folder, checking everything.

    Raises:
        CommandError: it is not a backup, damaged, or of a later release.
    """
    members = _plain_files(archive)
    member, content = next(members, (None, None))
    if member is None or content is None or member.name != DATABASE_NAME:
        raise CommandError(
            f"this is not a backup of the server, or it is damaged: it does not begin with {DATABASE_NAME}"
        )
    digest = hashlib.sha256()
    with os.fdopen(os.open(folder / DATABASE_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
    try:
        with database_opened(folder) as connection:
            num_jobs, missing = _contents(connection)
    except StoreError as error:
        raise CommandError(f"the database in the backup cannot be used: {error}") from None
    num_pictures = len(missing)
    folders = _Folders.of(folder)
    for member, content in members:
        if member.name == _END:
            end = msgspec.json.decode(content.read(_LONGEST_END), type=_End)
            if digest.hexdigest() != end.database_sha256:
                raise _damaged("its database has a wrong checksum")
            found = (num_jobs, num_pictures - len(missing), len(missing))
            if found != (end.jobs, end.pictures, end.missing):
                raise _damaged(f"it holds {found[0]} jobs and {found[1]} pictures, and should hold {end}")
            return end
        if member.name not in missing:
            raise _damaged(f"unexpected file {member.name!r}")
        picture = missing.pop(member.name)
        data = content.read() if member.size <= _longest(picture) else b""
        if not picture.is_whole(data):
            raise _damaged(f"{member.name} has a wrong size or checksum")
        folders.write(picture, data)
    raise _damaged("it is incomplete: its end is missing")


def _plain_files(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, BinaryIO]]:
    for member in archive:
        # A sparse member's length is whatever it says: some bytes that are there could fill the disk.
        is_plain = member.type == tarfile.REGTYPE and not member.issparse()
        content = archive.extractfile(member) if is_plain else None
        if content is None:
            raise _damaged(f"{member.name!r} is not a plain file")
        yield member, content  # type: ignore[misc]  # extractfile is declared as IO[bytes], and is a BufferedReader


def _contents(connection: sqlite3.Connection) -> tuple[int, _Pictures]:
    num_jobs: int = connection.execute("SELECT count(*) FROM jobs").fetchone()[0]
    rows = connection.execute("SELECT id, outcome FROM jobs WHERE has_files")
    results = {
        f"results/{job_id[:2]}/{job_id}.{index}": _Result(job_id, index, image)
        for job_id, outcome in rows
        for index, image in enumerate(msgspec.json.decode(outcome, type=Outcome).images)
    }
    named = connection.execute("SELECT DISTINCT sha256 FROM job_inputs")
    return num_jobs, {**results, **{f"{INPUTS_FOLDER}/{sha256}.png": _Input(sha256) for (sha256,) in named}}


def _longest(picture: _Result | _Input) -> int:
    return picture.image.num_bytes if isinstance(picture, _Result) else _LONGEST_INPUT


def _member(name: str, num_bytes: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = num_bytes, 0o600, int(time.time())
    return member


@contextlib.contextmanager
def _output(name: str) -> Iterator[tuple[BinaryIO, Path | None]]:
    """What to write to, and a folder that has room; a file appears only when it is whole and on the disk."""
    if name == _PIPE:
        yield sys.stdout.buffer, None
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    if path.exists():
        raise CommandError(f"{path} exists already: remove it, or choose another name")
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
    make_durable(path.parent)


def _input(name: str) -> contextlib.AbstractContextManager[BinaryIO]:
    return contextlib.nullcontext(sys.stdin.buffer) if name == _PIPE else Path(name).open("rb")


def _refuse_unless_empty(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        with running_server(folder) as server:
            if server is not None:
                raise CommandError(f"a server runs with its data in {folder} ({lock_holder(folder)}): stop it first")
        raise CommandError(f"{folder} is not empty: move it away, or set another DATA_DIR; nothing is overwritten")


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise CommandError("the program that reads the backup has ended") from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise CommandError(f"{where}{error.strerror or error}") from None
    except StoreError as error:
        raise CommandError(str(error)) from None


def _damaged(why: str) -> CommandError:
    return CommandError(f"the backup is damaged: {why}")
