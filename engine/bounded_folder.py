"""A folder of files that may be deleted at any time: each written wholly or not at all, their size limited together."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Container
from pathlib import Path

__all__ = ["BoundedFolder"]


class BoundedFolder:
    """Writes files and deletes old ones; what is in them is the caller's. Several processes may use one at once."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Use a folder; it is made when the first file is written.

        Args:
            path: of nothing else.
            max_bytes: of all files together; those that were used longest ago are deleted first.
        """
        self.path = path
        self._max_bytes = max_bytes

    def touch(self, name: str) -> None:
        """Note that a file is used now."""
        with contextlib.suppress(OSError):  # a folder that is only read
            os.utime(self.path / name)

    def write(self, name: str, *parts: bytes | memoryview) -> None:
        """Put a file there, in place of one of that name.

        Raises:
            OSError: it cannot be written; there is nothing half.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".unfinished-", dir=self.path)
        try:
            # Not synced: a file that a power cut leaves without its content does not match its digest.
            with os.fdopen(descriptor, "wb") as file:
                for part in parts:
                    file.write(part)
            Path(temporary).replace(self.path / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def make_room(self, in_use: Container[str] = ()) -> None:
        """Delete what was used longest ago, left-overs of processes that were killed among it.

        Args:
            in_use: names of files that stay.

        Raises:
            OSError: the folder cannot be read or changed.
        """
        files = []
        for entry in os.scandir(self.path):
            with contextlib.suppress(FileNotFoundError):  # another process makes room too
                files.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.name))
        too_many_bytes = sum(size for _, size, _ in files) - self._max_bytes
        for _, size, name in sorted(files):
            if too_many_bytes <= 0:
                return
            if name not in in_use:
                (self.path / name).unlink(missing_ok=True)
                too_many_bytes -= size
