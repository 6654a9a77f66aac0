"""How many threads should compute: physical cores that this process may use, within its container's limits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["usable_cores"]

_ROOT: Final = Path("/")


def usable_cores(root: Path = _ROOT, allowed: frozenset[int] | None = None) -> int:
    """Cores for one network call.

    Two threads of one core (hyper-threads) share its arithmetic units, so that the second adds next to nothing. A
    container that may use the time of N cores and runs more threads is stopped, all of them, for part of every tenth
    of a second. Cores of a second processor (NUMA node) are not counted: what one call reads and writes is too little
    to be worth sending there.

    Args:
        root: of the file system, where `sys` and `proc` are.
        allowed: numbers of the logical processors; None: those that this process may use.

    Returns:
        At least 1.
    """
    if allowed is None:
        allowed = _allowed()
    nodes = [numbers & allowed for numbers in _nodes(root)]
    largest = max([numbers for numbers in nodes if numbers] or [allowed], key=len)
    cores = {_siblings(root, number) for number in largest}
    return max(1, min(len(cores), _quota(root)))


def _allowed() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _nodes(root: Path) -> list[frozenset[int]]:
    return [_numbers(_read(path)) for path in (root / "sys/devices/system/node").glob("node*/cpulist")]


def _siblings(root: Path, number: int) -> frozenset[int]:
    """The logical processors of the core that one of them belongs to; alone where nobody says."""
    topology = root / f"sys/devices/system/cpu/cpu{number}/topology"
    return _numbers(_read(topology / "thread_siblings_list")) or frozenset({number})


def _quota(root: Path) -> int:
    """Whole cores' worth of time that the control groups around this process leave it. Source: cgroups(7), cpu.max."""
    limits = [2**20]
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:  # version 2
            folder = root / "sys/fs/cgroup"
            limits += [_version_2(path) for path in _up_to(folder, group)]
        elif "cpu" in controllers.split(","):
            folder = root / "sys/fs/cgroup" / controllers
            limits += [_version_1(path) for path in _up_to(folder, group)]
    return min(limits)


def _up_to(folder: Path, group: str) -> list[Path]:
    """A group's folder and those around it. In a container the own group is often mounted as the topmost."""
    parts = [part for part in group.split("/") if part not in {"", ".."}]
    return [folder.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]


def _version_2(folder: Path) -> int:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    return _whole_cores(quota, period)


def _version_1(folder: Path) -> int:
    return _whole_cores(_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip())


def _whole_cores(quota: str, period: str) -> int:
    """At least one; rounded down, since a thread too many stops all of them."""
    if not quota.isdecimal() or not period.isdecimal() or not int(period):
        return 2**20  # `max`, -1, or no such file
    return max(1, int(quota) // int(period))


def _numbers(ranges: str) -> frozenset[int]:
    """`0-3,8` -> 0, 1, 2, 3, 8."""
    numbers: set[int] = set()
    for part in ranges.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdecimal():
            numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
