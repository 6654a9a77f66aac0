"""Disk health: free space, permissions, timeout; and fsync of folders.

A check writes nothing, and never waits for a disk that hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Disk", "DiskState", "look_at", "make_durable"]

LOOK_TIMEOUT_S: Final = 2.0
"""A disk that takes longer to say how it is does not answer: probes of `/health` give up after a few seconds."""
_GOOD_FOR_S: Final = 0.1
"""How long a look is good for: in a flood each would cost a thread."""
_MIN_FREE_BYTES: Final = 2**17
"""The size of a small picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskState:
    """A file system at one moment."""

    trouble: str | None = None
    """Why nothing can be written there, as far as can be seen without writing; None if nothing speaks against it."""
    free_bytes: int | None = None
    """For this user; None if unknown."""
    total_bytes: int | None = None


class Disk:
    """The file system of one folder. Belongs to the event loop's thread."""

    def __init__(self, folder: Path, *, look: Callable[[Path], DiskState] | None = None) -> None:
        """Do not look yet.

        Args:
            folder: where jobs and pictures are kept.
            look: how to look, on a thread of its own; None is `look_at`.
        """
        self._folder = folder
        self._look = look or look_at
        self._seen: DiskState | None = None
        self._seen_at = 0.0
        self._looking: asyncio.Future[DiskState] | None = None
        self._began_at = 0.0

    async def state(self) -> DiskState:
        """How it is, or was a tenth of a second ago; after two seconds without an answer, that it does not answer."""
        if self._seen is not None and time.monotonic() - self._seen_at < _GOOD_FOR_S:
            return self._seen
        if self._looking is None:
            self._begin()
        looking = self._looking
        if looking is not None:
            left_s = self._began_at + LOOK_TIMEOUT_S - time.monotonic()
            await asyncio.wait([looking], timeout=max(0.0, left_s))
            if looking.done():
                return looking.result()
        seconds = time.monotonic() - self._began_at
        return DiskState(trouble=f"the disk has not responded for {seconds:.0f} s")

    def _begin(self) -> None:
        """Start one check; callers meanwhile wait for the same one, so a disk that hangs takes one thread."""
        loop = asyncio.get_running_loop()
        looking: asyncio.Future[DiskState] = loop.create_future()
        self._looking, self._began_at = looking, time.monotonic()

        def look() -> None:
            state = self._look(self._folder)
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(self._take, looking, state)

        # A daemon, and not of a pool: a thread that never returns must not keep the process alive.
        threading.Thread(target=look, name="disk", daemon=True).start()

    def _take(self, looking: asyncio.Future[DiskState], state: DiskState) -> None:
        self._seen, self._seen_at, self._looking = state, time.monotonic(), None
        looking.set_result(state)


def look_at(folder: Path) -> DiskState:
    """Look at a folder's file system without writing. Blocks for as long as the disk does not answer."""
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return DiskState(trouble=f"the data folder cannot be read: {error.strerror}")
    free_bytes, total_bytes = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    trouble = None
    if not os.access(folder, os.W_OK):
        trouble = "the data folder is read-only"
    elif free_bytes < _MIN_FREE_BYTES:
        trouble = f"the disk is full ({free_bytes} bytes free)"
    elif found.f_files and not found.f_favail:
        trouble = "the disk is full (no inodes free)"
    return DiskState(trouble=trouble, free_bytes=free_bytes, total_bytes=total_bytes)


def make_durable(path: Path) -> None:
    """Let a file's content, or a folder's names, survive a power cut: fsync."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
