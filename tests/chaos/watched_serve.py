"""`python -m server serve` that, at SIGUSR1, tells in the file that HELD_FILE names what it holds. (See `Told`.)"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import signal
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import msgspec

from server.serving import serve

_POOL = ("uvloop_", "asyncio_")
"""Threads of the event loop's pool, which starts them one by one as chance will have it."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a gateway holds after everything that can be let go has been."""

    resident_bytes: int
    tasks: dict[str, int]
    """Name -> how many of it, of asyncio's tasks."""
    threads: dict[str, int]
    """The same of threads, but those of the event loop's pool."""
    num_pool_threads: int
    most_pool_threads: int
    """How many the pool may have."""


def _tell(_number: int, _frame: FrameType | None) -> None:
    gc.collect()
    names = [thread.name for thread in threading.enumerate()]
    told = Told(
        resident_bytes=int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        tasks=Counter(task.get_name() for task in asyncio.all_tasks(asyncio.get_running_loop())),
        threads=Counter(name for name in names if not name.startswith(_POOL)),
        num_pool_threads=sum(name.startswith(_POOL) for name in names),
        most_pool_threads=concurrent.futures.ThreadPoolExecutor()._max_workers,  # the loop's is one like this
    )
    path = Path(os.environ["HELD_FILE"])
    path.with_suffix(".new").write_bytes(msgspec.json.encode(told))
    path.with_suffix(".new").replace(path)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _tell)
    serve()
