"""`python -m server serve` that, at SIGUSR1, names its asyncio tasks and threads in the file that HELD_FILE names."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from types import FrameType

from server.serving import serve

_POOL = ("uvloop_", "asyncio_")
"""Threads of the event loop's pool, which starts them one by one as chance will have it, at most six for two cores."""


def _tell(_number: int, _frame: FrameType | None) -> None:
    tasks = {task.get_name() for task in asyncio.all_tasks(asyncio.get_running_loop())}
    threads = {thread.name for thread in threading.enumerate() if not thread.name.startswith(_POOL)}
    path = Path(os.environ["HELD_FILE"])
    path.with_suffix(".new").write_text("\n".join([*sorted(tasks), *sorted(threads)]))
    path.with_suffix(".new").replace(path)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _tell)
    serve()
