"""An executor whose engine, real or fake, runs on a thread of this process. For tests."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from server.executors.message_executor import MessageExecutor
from server.executors.messages import EngineInfo, FromEngine, Ready, ToEngine, ToWorker

__all__ = ["InProcessExecutor", "Send", "Worker"]

Send = Callable[[FromEngine], None]


class Worker(Protocol):
    """Draws on a thread: `EngineWorker` or `FakeEngine`."""

    def handle(self, message: ToWorker) -> None:
        """Take a message in. Any thread may call this."""
        ...

    def run(self) -> None:
        """Draw until `stop` is called."""
        ...

    def stop(self) -> None:
        """Make `run` return. Any thread may call this."""
        ...


class InProcessExecutor(MessageExecutor):
    """Runs what a factory makes. Belongs to the event loop's thread."""

    def __init__(self, make_worker: Callable[[Send], Worker], info: EngineInfo) -> None:
        super().__init__()
        self._make_worker = make_worker
        self._engine_info = info
        self._worker: Worker | None = None
        self._thread: threading.Thread | None = None

    @property
    def allowed_silence_s(self) -> float:
        """See `Executor.allowed_silence_s`. A test's own thread has no watchdog."""
        return math.inf

    async def start(self) -> None:
        """See `Executor.start`."""
        loop = asyncio.get_running_loop()

        def send(message: FromEngine) -> None:
            with suppress(RuntimeError):  # the loop has been closed while the engine drew
                loop.call_soon_threadsafe(self._receive_from, worker, message)

        worker = self._worker = self._make_worker(send)
        self._thread = threading.Thread(target=worker.run, name="engine", daemon=True)
        self._thread.start()
        self._receive(Ready(self._engine_info))

    async def stop(self) -> None:
        """See `Executor.stop`."""
        self._state = "stopped"
        self._lost("the server is shutting down")
        if self._worker is not None and self._thread is not None:
            self._worker.stop()
            await asyncio.to_thread(self._thread.join)

    def _send(self, message: ToEngine) -> None:
        if self._worker is not None and isinstance(message, ToWorker):
            self._worker.handle(message)

    def _receive_from(self, worker: Worker, message: FromEngine) -> None:
        if worker is self._worker:  # else another has taken its place
            self._receive(message)
