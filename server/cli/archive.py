"""How a backup file looks, how one is written and how it is read: a tar archive in which nothing is believed unchecked.

    manifest.json             what it is, and the database's length and SHA-256
    jobs.sqlite3              the job store: jobs, API keys (hashed), usage
    results/3f/3f0c…9a.0      each finished picture; its length and SHA-256 are in the database
    end.json                  how many pictures there were: without it, the archive was cut off

Written and read from front to back, so that it can come out of a pipe. Members with any other name, or that are no
plain files, or longer than announced, are refused, and no name in the archive ever becomes a path.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sqlite3
import tarfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import msgspec

from server.cli.errors import CommandError
from server.jobs.database import DATABASE_NAME, database_opened
from server.jobs.files import ResultFiles
from server.jobs.record import Outcome, StoredImage
from server.jobs.store_errors import StoreError
from server.routes.info import VERSION

__all__ = ["Contents", "pack", "unpack"]

_T = TypeVar("_T")

_FORMAT: Final = 1
_MANIFEST: Final = "manifest.json"
_END: Final = "end.json"
_LONGEST_JSON: Final = 2**16
_CHUNK: Final = 2**20

Pictures = dict[tuple[str, int], StoredImage]
"""Job id and the picture's place in the job -> its length and checksum."""


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The archive's first member."""

    format: int
    server: str
    """The release that wrote it."""
    created_at: str
    """ISO 8601."""
    database_bytes: int
    database_sha256: str


class _End(msgspec.Struct, frozen=True, kw_only=True):
    """The archive's last member."""

    pictures: int
    missing: int


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What is in an archive."""

    created_at: str
    """ISO 8601; when its database was copied."""
    jobs: int
    pictures: int
    missing: int
    """Pictures that the database knows and whose files were not there, or not whole, when it was written."""


def pack(out: BinaryIO, database: Path, results: Path) -> Contents:
    """Write an archive.

    Args:
        out: need not be seekable.
        database: a copy of the job store that nobody changes.
        results: where the picture files lie; some may go while this reads.
    """
    with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?immutable=1", uri=True)) as connection:
        num_jobs, pictures = _num_jobs(connection), _pictures(connection)
    manifest = _Manifest(
        format=_FORMAT,
        server=VERSION,
        created_at=datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds"),
        database_bytes=database.stat().st_size,
        database_sha256=_digest_of(database),
    )
    num_packed = 0
    files = ResultFiles(results)
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, _MANIFEST, msgspec.json.encode(manifest))
        with database.open("rb") as file:
            archive.addfile(_member(DATABASE_NAME, manifest.database_bytes), file)
        for (job_id, index), image in sorted(pictures.items()):
            data = files.read(job_id, index)
            if data is not None and _is_whole(data, image):
                _add(archive, _picture_name(job_id, index), data)
                num_packed += 1
        end = _End(pictures=num_packed, missing=len(pictures) - num_packed)
        _add(archive, _END, msgspec.json.encode(end))
    return Contents(created_at=manifest.created_at, jobs=num_jobs, pictures=end.pictures, missing=end.missing)


def unpack(source: BinaryIO, folder: Path) -> Contents:
    """Read an archive into an empty folder, checking everything. What a failure leaves there is worth nothing.

    Args:
        source: need not be seekable.
        folder: becomes a `DATA_DIR/server`.

    Raises:
        CommandError: it is no backup, damaged, or of another version.
        OSError: the folder cannot be written.
    """
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            return _unpack(archive, folder)
    except (tarfile.TarError, EOFError, msgspec.DecodeError) as error:
        raise _damaged(str(error) or type(error).__name__) from None


def _unpack(archive: tarfile.TarFile, folder: Path) -> Contents:
    members = _plain_files(archive)
    manifest = _decoded(_Manifest, *_next(members, _MANIFEST))
    if manifest.format != _FORMAT:
        raise CommandError(
            f"the backup is in format {manifest.format}, and this release reads format {_FORMAT}: "
            f"restore it with release {manifest.server}"
        )
    _copy_database(*_next(members, DATABASE_NAME), manifest, folder / DATABASE_NAME)
    try:
        with database_opened(folder) as connection:
            num_jobs, pictures = _num_jobs(connection), _pictures(connection)
    except StoreError as error:
        raise CommandError(f"the database in the backup cannot be used: {error}") from None
    end = _unpack_pictures(members, pictures, ResultFiles(folder / "results"))
    return Contents(created_at=manifest.created_at, jobs=num_jobs, pictures=end.pictures, missing=end.missing)


def _unpack_pictures(
    members: Iterator[tuple[tarfile.TarInfo, BinaryIO]], pictures: Pictures, files: ResultFiles
) -> _End:
    names = {_picture_name(*key): key for key in pictures}
    for member, content in members:
        if member.name == _END:
            end = _decoded(_End, member, content)
            if (end.pictures, end.missing) != (len(pictures) - len(names), len(names)):
                raise _damaged(f"{len(pictures) - len(names)} pictures are there, and should be {end.pictures}")
            return end
        key = names.pop(member.name, None)
        if key is None:
            raise _damaged(f"{member.name!r} does not belong there")
        data = content.read() if member.size == pictures[key].num_bytes else b""
        if not _is_whole(data, pictures[key]):
            raise _damaged(f"{member.name} is not what was kept")
        try:
            files.write(*key, data)
        except StoreError as error:
            raise CommandError(str(error)) from None
    raise _damaged("its end is missing")


def _copy_database(member: tarfile.TarInfo, content: BinaryIO, manifest: _Manifest, path: Path) -> None:
    digest = hashlib.sha256()
    if member.size == manifest.database_bytes:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            while chunk := content.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
    if digest.hexdigest() != manifest.database_sha256:
        raise _damaged(f"{member.name} is not what was kept")


def _plain_files(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, BinaryIO]]:
    for member in archive:
        # A sparse member's length is whatever it says: some bytes that are there could fill the disk.
        is_plain = member.type == tarfile.REGTYPE and not member.issparse()
        content = archive.extractfile(member) if is_plain else None
        if content is None:
            raise _damaged(f"{member.name!r} is no plain file")
        yield member, content  # type: ignore[misc]  # extractfile is declared as IO[bytes], and is a BufferedReader


def _next(members: Iterator[tuple[tarfile.TarInfo, BinaryIO]], name: str) -> tuple[tarfile.TarInfo, BinaryIO]:
    member, content = next(members, (None, None))
    if member is None or content is None or member.name != name:
        raise CommandError(f"this is no backup of the server, or it is damaged: it does not have {name} in its place")
    return member, content


def _decoded(kind: type[_T], member: tarfile.TarInfo, content: BinaryIO) -> _T:
    if member.size > _LONGEST_JSON:
        raise _damaged(f"{member.name} is too long")
    return msgspec.json.decode(content.read(), type=kind)


def _num_jobs(connection: sqlite3.Connection) -> int:
    count: int = connection.execute("SELECT count(*) FROM jobs").fetchone()[0]
    return count


def _pictures(connection: sqlite3.Connection) -> Pictures:
    rows = connection.execute("SELECT id, outcome FROM jobs WHERE has_files")
    return {
        (job_id, index): image
        for job_id, outcome in rows
        for index, image in enumerate(msgspec.json.decode(outcome, type=Outcome).images)
    }


def _picture_name(job_id: str, index: int) -> str:
    return f"results/{job_id[:2]}/{job_id}.{index}"


def _is_whole(data: bytes, image: StoredImage) -> bool:
    return len(data) == image.num_bytes and hashlib.sha256(data).hexdigest() == image.sha256


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    archive.addfile(_member(name, len(data)), io.BytesIO(data))


def _member(name: str, num_bytes: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = num_bytes
    member.mode = 0o600
    member.mtime = int(time.time())
    return member


def _damaged(why: str) -> CommandError:
    return CommandError(f"the backup is damaged: {why}")
