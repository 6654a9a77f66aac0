"""Storage of the pictures that jobs start from: one file a picture, named by its content. Blocks; meant for threads.

Several jobs may name the same picture. Which do, the database knows (`job_inputs`); this knows which files are being
given to a job right now, so that none is removed between the look at the database and the removal.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.store.errors import StoreUnavailableError

__all__ = ["INPUTS_FOLDER", "UNFINISHED", "InputFiles", "UploadedPicture", "is_whole_png"]

INPUTS_FOLDER: Final = "inputs"
"""Beside the job database."""
UNFINISHED: Final = ".unfinished-"
"""How the names of files begin that no job has."""

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_SHA256: Final = re.compile("[0-9a-f]{64}")
_LEFT_S: Final = 3600.0
"""A file of an upload that is older belongs to a request that is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedPicture:
    """A picture that came with a request: a plain PNG file, RGB, or grey for a mask; without metadata."""

    sha256: str
    """Of its pixels, its size and its kind, hexadecimal."""
    width: int
    """Pixels."""
    height: int
    num_bytes: int
    """Of the file."""
    path: Path
    """Where it lies, as long as no job has taken it; in the folder of the inputs."""


class InputFiles:
    """The input files of one folder. Any thread may call any method.

    Methods that change something raise StoreUnavailableError when the disk is full, fails or takes no writes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Condition()
        """Never held while the disk is waited for."""
        self._held: Counter[str] = Counter()
        """Pictures that are being given to jobs which the database does not know yet."""
        self._removals: list[set[str]] = []
        """For each removal that goes on, the pictures that were held since it began."""
        self._vanishing: set[str] = set()
        """Pictures whose files are being removed right now."""

    def make_folder(self) -> None:
        """Make the folder, as far as the disk allows."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync(self.folder.parent)

    def keep(self, picture: UploadedPicture) -> None:
        """Keep a picture, and hold it until `release`. When this returns, it survives a power cut."""
        with self._lock:
            self._lock.wait_for(lambda: picture.sha256 not in self._vanishing)
            self._held[picture.sha256] += 1
            for held in self._removals:
                held.add(picture.sha256)
        try:
            descriptor = os.open(picture.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            # Over one with the same pixels, if there is one: whoever reads that goes on reading it.
            picture.path.replace(self._path(picture.sha256))
            _sync(self.folder)
        except OSError as error:
            self.release(picture.sha256)
            raise _unavailable(error) from error

    def release(self, sha256: str) -> None:
        """Hold a picture no more: the database knows its job, or it has none."""
        with self._lock:
            self._held -= Counter([sha256])  # forgets what is held by nobody

    def write(self, sha256: str, data: bytes) -> None:
        """Keep a picture that is known to be whole, as a backup gives it back."""
        path = self.folder / f"{UNFINISHED}{sha256}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            path.replace(self._path(sha256))
            _sync(self.folder)
        except OSError as error:
            raise _unavailable(error) from error

    def read(self, sha256: str) -> bytes | None:
        """A picture's file; None if it is not kept."""
        try:
            return self._path(sha256).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unavailable(error) from error

    @contextlib.contextmanager
    def removal(self) -> Iterator[Collection[str]]:
        """While this lasts: the pictures that a removal must leave, whatever the database said before."""
        with self._lock:
            held = set(self._held)
            self._removals.append(held)
        try:
            yield held
        finally:
            with self._lock:
                self._removals = [other for other in self._removals if other is not held]

    def remove(self, sha256: str, held: Collection[str]) -> None:
        """Remove a picture that no job names, unless it is among those that are held."""
        with self._lock:
            if sha256 in held:
                return
            self._vanishing.add(sha256)
        try:
            self._path(sha256).unlink(missing_ok=True)
        except OSError as error:
            raise _unavailable(error) from error
        finally:
            with self._lock:
                self._vanishing.discard(sha256)
                self._lock.notify_all()

    def names(self) -> set[str]:
        """The pictures that are here."""
        try:
            return {path.stem for path in self.folder.glob("*.png") if _SHA256.fullmatch(path.stem)}
        except OSError as error:
            raise _unavailable(error) from error

    def remove_unfinished(self, older_than_s: float = _LEFT_S) -> None:
        """Remove what requests have left that were cut off; younger files may belong to one that goes on."""
        with contextlib.suppress(OSError):
            for path in self.folder.glob(f"{UNFINISHED}*"):
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime <= time.time() - older_than_s:
                        path.unlink()

    def _path(self, sha256: str) -> Path:
        if _SHA256.fullmatch(sha256) is None:
            raise ValueError(f"an input must be named by 64 hexadecimal digits, not {sha256!r}")
        return self.folder / f"{sha256}.png"


def is_whole_png(data: bytes) -> bool:
    """Whether a PNG file is all there and undamaged, by the sums of its chunks; its pixels are not looked at."""
    if not data.startswith(_PNG_SIGNATURE):
        return False
    view, at = memoryview(data), len(_PNG_SIGNATURE)
    while at + 12 <= len(view):
        end = at + 8 + int.from_bytes(view[at : at + 4], "big")
        if end + 4 > len(view) or zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return False
        if bytes(view[at + 4 : at + 8]) == b"IEND":
            return end + 4 == len(view)
        at = end + 4
    return False


def _sync(folder: Path) -> None:
    """Let the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unavailable(error: OSError) -> StoreUnavailableError:
    return StoreUnavailableError(f"the input files cannot be used now: {error.strerror}")
