"""What machine this is, and whether anything else is using it. (Figures mean little without either.)"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

__all__ = ["Activity", "Machine"]

_WATCHED_S = 1.0
_NOISE = 0.1
"""Share of the cores that an idle machine may use for itself."""
_IDLE, _IO_WAIT = 3, 4
"""Places in the first line of /proc/stat. Source: proc_stat(5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What does not change while a benchmark runs."""

    cpu: str
    cores: int
    """That this process may use."""
    system: str
    python: str
    torch: str
    diffusers: str
    omp_num_threads: str | None
    """As the environment has it; None: one thread a core."""

    @classmethod
    def this_one(cls) -> Machine:
        """Read the facts, without importing what they are about."""
        return cls(
            cpu=_cpu_name(),
            cores=_cores(),
            system=f"{platform.system()} {platform.machine()}",
            python=platform.python_version(),
            torch=version("torch"),
            diffusers=version("diffusers"),
            omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What the machine is doing at a moment when a benchmark does nothing."""

    load_average: float
    """Of the last minute: a benchmark that has just ended is in it."""
    cores_busy: float | None
    """Cores that were busy during a second of watching; None where that cannot be read."""

    @classmethod
    def now(cls) -> Activity:
        """Watch for a second."""
        return cls(load_average=round(os.getloadavg()[0], 2), cores_busy=_cores_busy())

    @property
    def is_quiet(self) -> bool:
        """Whether figures of this moment can be believed."""
        busy = self.load_average if self.cores_busy is None else self.cores_busy
        return busy <= _NOISE * _cores()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cores_busy() -> float | None:
    before = _cpu_seconds()
    time.sleep(_WATCHED_S)
    after = _cpu_seconds()
    return None if before is None or after is None else round((after - before) / _WATCHED_S, 2)


def _cpu_seconds() -> float | None:
    """Seconds that all cores together have been busy since the machine started."""
    try:
        counters = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    busy = sum(int(ticks) for place, ticks in enumerate(counters) if place not in {_IDLE, _IO_WAIT})
    return busy / os.sysconf("SC_CLK_TCK")
