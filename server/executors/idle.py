"""An executor without an engine: for the command line, which changes jobs while no server runs."""

from __future__ import annotations

from server.executors.message_executor import MessageExecutor
from server.executors.messages import ToEngine

__all__ = ["IdleExecutor"]


class IdleExecutor(MessageExecutor):
    """Its model is never loaded, so every job waits for the next start of the server."""

    @property
    def allowed_silence_s(self) -> float:
        """See `Executor.allowed_silence_s`."""
        return 0.0

    async def start(self) -> None:
        """See `Executor.start`."""

    async def stop(self) -> None:
        """See `Executor.stop`."""
        self._state = "stopped"

    def _send(self, message: ToEngine) -> None:
        raise AssertionError(message)
