"""An executor whose engine runs on a thread of this process. For tests: it imports torch."""

from __future__ import annotations

import asyncio
import math
import threading
from contextlib import suppress

from engine.engine import Engine
from server.executors.mailboxes import MessageExecutor
from server.executors.messages import Cancel, EngineInfo, FromEngine, Ping, Ready, Submit, ToEngine
from server.executors.worker import EngineWorker

__all__ = ["InProcessExecutor"]


class InProcessExecutor(MessageExecutor):
    """Runs a given engine. Belongs to the event loop's thread."""

    def __init__(self, engine: Engine, info: EngineInfo) -> None:
        super().__init__()
        self._engine_info = info
        self._worker = EngineWorker(engine, self._receive_from_thread)
        self._thread = threading.Thread(target=self._worker.run, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def allowed_silence_s(self) -> float:
        """See `Executor.allowed_silence_s`. Nobody watches a test's own thread."""
        return math.inf

    async def start(self) -> None:
        """See `Executor.start`."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._receive(Ready(self._engine_info))

    async def stop(self) -> None:
        """See `Executor.stop`."""
        self._state = "stopped"
        self._lost("the server is shutting down")
        self._worker.stop()
        await asyncio.to_thread(self._thread.join)

    def _send(self, message: ToEngine) -> None:
        if isinstance(message, Submit | Cancel | Ping):
            self._worker.handle(message)

    def _receive_from_thread(self, message: FromEngine) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has been closed while the engine drew
                self._loop.call_soon_threadsafe(self._receive, message)
