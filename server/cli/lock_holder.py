"""Which process has the job store open? Linux tells in `/proc/locks`."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["lock_holder"]

_LOCKS = Path("/proc/locks")
_LINE = re.compile(r"\d+: FLOCK +ADVISORY +WRITE +(\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) ")


def lock_holder(lock: Path) -> str:
    """In words: `process 1234 (python)`; `another process` where the system does not tell."""
    try:
        status = lock.stat()
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return "another process"
    file = (os.major(status.st_dev), os.minor(status.st_dev), status.st_ino)
    for line in filter(None, map(_LINE.match, lines)):
        process_id, major, minor, inode = line.groups()
        # 0 is a process of another container, which has no number in this one.
        if (int(major, 16), int(minor, 16), int(inode)) == file and process_id != "0":
            return f"process {process_id}{_name_of(process_id)}"
    return "another process"


def _name_of(process_id: str) -> str:
    try:
        return f" ({Path(f'/proc/{process_id}/comm').read_text().strip()})"
    except OSError:
        return ""
