"""Storage of finished picture files: one file per picture, written atomically. Blocking: call it from a thread."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from server.store.disk import make_durable
from server.store.errors import StoreUnavailableError

__all__ = ["ResultFiles"]

_JOB_ID: Final = re.compile("[0-9a-f]{16}")
_TEMPORARY: Final = ".unfinished-"
_PROBE_BYTES: Final = 2**17


class ResultFiles:
    """The picture files of one folder, made when missing: `3f/3f0c…9a.0` is the first picture of job `3f0c…9a`.

    No name comes from a caller, only from job ids. Different jobs may be handled by several threads at once. Methods
    that change something raise StoreUnavailableError when the disk is full, fails or takes no writes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make_folders(self) -> None:
        """Make every folder that a picture may lie in, as far as the disk allows.

        Later, each would cost a picture two more waits for the disk.
        """
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_durable(self.folder.parent)
            try:
                for shard in range(256):
                    (self.folder / f"{shard:02x}").mkdir(mode=0o700, exist_ok=True)
            finally:
                make_durable(self.folder)

    def write(self, job_id: str, index: int, data: bytes) -> None:
        """Keep picture `index` of a job. When this returns, it survives a power cut."""
        path = self._path(job_id, index)
        try:
            for folder in (self.folder, path.parent):
                if not folder.is_dir():
                    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                    make_durable(folder.parent)
            descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(descriptor)
                Path(temporary).replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink()
                raise
            make_durable(path.parent)
        except OSError as error:
            raise _unavailable(error) from error

    def check_writable(self) -> None:
        """Write a file of the size of a small picture, and remove it. Returns if that works."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(prefix=_TEMPORARY, dir=self.folder) as file:
                file.write(bytes(_PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unavailable(error) from error

    def read(self, job_id: str, index: int) -> bytes | None:
        """Picture `index` of a job; None if it is not kept."""
        try:
            return self._path(job_id, index).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unavailable(error) from error

    def delete(self, job_id: str) -> None:
        """Remove all pictures of a job, if there are any."""
        try:
            for path in self._path(job_id, 0).parent.glob(f"{job_id}.*"):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise _unavailable(error) from error

    def job_ids(self) -> set[str]:
        """The jobs that have files here, whole ones."""
        try:
            names = (path.name.partition(".")[0] for path in self.folder.glob("[0-9a-f][0-9a-f]/*"))
            return {name for name in names if _JOB_ID.fullmatch(name)}
        except OSError as error:
            raise _unavailable(error) from error

    def sweep(self, known: Callable[[str], bool]) -> int:
        """Remove what an interrupted write or delete has left. For the start, before anything is drawn.

        Args:
            known: whether a job of this id keeps its files.

        Returns:
            How many files were removed. Files that have no name of ours are let be.
        """
        num_removed = 0
        try:
            for path in self.folder.glob("[0-9a-f][0-9a-f]/*"):
                job_id = path.name.partition(".")[0]
                is_lost_job = _JOB_ID.fullmatch(job_id) is not None and not known(job_id)
                if is_lost_job or path.name.startswith(_TEMPORARY):
                    path.unlink(missing_ok=True)
                    num_removed += 1
        except OSError as error:
            raise _unavailable(error) from error
        return num_removed

    def _path(self, job_id: str, index: int) -> Path:
        # Job ids come out of URLs: whatever has another form must not become a path.
        if _JOB_ID.fullmatch(job_id) is None:
            raise ValueError(f"a job id must be 16 hexadecimal digits, not {job_id!r}")
        return self.folder / job_id[:2] / f"{job_id}.{index}"


def _unavailable(error: OSError) -> StoreUnavailableError:
    return StoreUnavailableError(f"the picture files cannot be used now: {error.strerror}")
