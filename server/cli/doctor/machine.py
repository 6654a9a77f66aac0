"""Machine checks: cores, memory, clock, SQLite."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from server.cli.doctor.finding import Finding, gib
from server.config import REPOSITORY

__all__ = ["available_memory_bytes", "look_at_clock", "look_at_machine", "look_at_sqlite"]

_LEAST_MEMORY_BYTES = 2 * 2**30
"""Gateway, torch and the built-in model take 1.2 GiB together."""

_FIRST_SQLITE = (3, 37, 0)
"""The store's tables are STRICT."""

_MEMINFO = Path("/proc/meminfo")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def look_at_machine() -> Iterator[Finding]:
    """Look at the cores and the memory that this process may use, at the clock and at SQLite."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory_bytes = available_memory_bytes()
    found = f"{cores} CPU cores, " + (
        "memory unknown" if memory_bytes is None else f"{gib(memory_bytes)} of memory available"
    )
    if memory_bytes is not None and memory_bytes < _LEAST_MEMORY_BYTES:
        yield Finding(
            "machine", "warn", found, f"free some memory: the server needs at least {gib(_LEAST_MEMORY_BYTES)}"
        )
    else:
        yield Finding("machine", "ok", found)
    yield look_at_clock(time.time())
    yield look_at_sqlite(sqlite3.sqlite_version_info)


def available_memory_bytes(meminfo: Path = _MEMINFO, cgroup_limit: Path = _CGROUP_LIMIT) -> int | None:
    """What programs can still have, a container's limit included; None where the system does not report it."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
    except OSError:
        return None
    if found is None:
        return None
    available = int(found[1]) * 1024
    try:
        limit = cgroup_limit.read_text().strip()
    except OSError:
        return available
    return min(available, int(limit)) if limit.isdecimal() else available


def look_at_clock(now: float) -> Finding:
    """Is the time possible? Jobs are kept and deleted by it."""
    written = max(path.stat().st_mtime for path in (REPOSITORY / "server").glob("*.py"))
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if now < written - 86400:
        return Finding(
            "clock", "warn", f"{shown} is before this program was installed", "set the clock (timedatectl set-ntp true)"
        )
    return Finding("clock", "ok", shown)


def look_at_sqlite(version: tuple[int, ...]) -> Finding:
    """Is the SQLite that Python brings new enough for the job store?"""
    shown = ".".join(map(str, version))
    if version < _FIRST_SQLITE:
        return Finding("sqlite", "FAIL", f"{shown} is too old", "use a Python whose SQLite is 3.37 or newer")
    return Finding("sqlite", "ok", shown)
