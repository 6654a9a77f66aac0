"""Compiled networks on disk: made once on a machine, read at later starts. A cache: it may be deleted at any time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import mmap
import os
import time
from pathlib import Path
from typing import Final

from engine.bounded_folder import BoundedFolder

__all__ = ["CACHE_NAME", "MAX_CACHE_BYTES", "CompiledCache"]

logger = logging.getLogger(__name__)

CACHE_NAME: Final = "openvino"
"""Its folder, in the engine's cache folder."""

MAX_CACHE_BYTES: Final = 10 * 2**30
"""Two models of the size of Stable Diffusion 1.5, or a hundred of the built-in one's."""

_DIGEST_BYTES: Final = 32
_SETTLED_NS: Final = 2 * 10**9
"""A file that was changed so recently may be changed again within the same tick of the file system's clock."""


class CompiledCache:
    """One folder of compiled networks. Several processes may use it at once.

    A file is the network as OpenVINO exports it, and the SHA-256 of what it was made from and of the network. Nothing
    here ever stops anybody from drawing: what cannot be read is compiled, what cannot be written is compiled again at
    the next start.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_CACHE_BYTES) -> None:
        """Use a folder; it is made when the first network is written.

        Args:
            folder: of nothing else.
            max_bytes: of all files together; those that were used longest ago are deleted first.
        """
        self._folder = BoundedFolder(folder, max_bytes)
        self._used: set[str] = set()
        """Names of the files that this process has read or written; it deletes none of them."""

    def read(self, origin: str) -> memoryview | None:
        """What was written for this origin; None if there is nothing that can be used.

        Args:
            origin: all that the network's bits depend on.

        Returns:
            A private mapping of the file: it costs no memory of its own, and lives as long as it is referred to.
        """
        path = self._path(origin)
        try:
            with path.open("rb") as file:
                mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            logger.warning("a compiled network cannot be read, compiling it again: %s: %s", path, error)
            return None
        data = memoryview(mapping)
        if _digest(origin, data[:-_DIGEST_BYTES]) != data[-_DIGEST_BYTES:]:
            logger.warning("a compiled network on disk is damaged, compiling it again: %s", path)
            return None
        self._folder.touch(path.name)
        self._used.add(path.name)
        return data[:-_DIGEST_BYTES]

    def write(self, origin: str, data: memoryview) -> None:
        """Keep a compiled network, wholly or not at all."""
        name = self._path(origin).name
        try:
            self._folder.write(name, data, _digest(origin, data))
            self._used.add(name)
            self._folder.make_room(self._used)
        except OSError as error:
            logger.warning("a compiled network cannot be kept in %s: %s", self._folder.path, error.strerror)

    def digest_of(self, path: Path) -> str:
        """The SHA-256 of a file's content, remembered until the file changes: weights may have gigabytes.

        Raises:
            OSError: it cannot be read.
        """
        identity = _identity(path)
        note = self._folder.path / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.digest"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            remembered = json.loads(note.read_bytes())
            if remembered["identity"] == identity:
                return str(remembered["sha256"])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _identity(path) == identity and time.time_ns() - max(identity[-2:]) > _SETTLED_NS:
            with contextlib.suppress(OSError):
                self._folder.write(note.name, json.dumps({"identity": identity, "sha256": digest}).encode())
        return digest

    def _path(self, origin: str) -> Path:
        return self._folder.path / f"{hashlib.sha256(origin.encode()).hexdigest()[:32]}.compiled"


def _digest(origin: str, data: memoryview) -> bytes:
    digest = hashlib.sha256(origin.encode())
    digest.update(data)
    return digest.digest()


def _identity(path: Path) -> list[int]:
    """What changes when a file does: the last one (ctime) whenever anything is written, and no program can set it."""
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
