"""The default executor: one supervised engine process, at the other end of an inherited socket pair.

The gateway never imports torch and never waits for the device: whatever the engine does, `/health` answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from pathlib import Path
from typing import Final

from server.executors.mailboxes import MessageExecutor
from server.executors.messages import HEADER, MAX_FRAME_BYTES, Configure, ToEngine, decode_from_engine, frame

__all__ = ["ChildProcessExecutor"]

logger = logging.getLogger(__name__)

PING_INTERVAL_S: Final = 1.0
STOP_GRACE_S: Final = 5.0
FIRST_BACKOFF_S: Final = 0.5
MAX_BACKOFF_S: Final = 30.0
STABLE_AFTER_S: Final = 60.0
"""An engine that ran this long starts the backoff anew."""

_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[2]


class ChildProcessExecutor(MessageExecutor):
    """Starts the engine process, and starts it again when it ends. Belongs to the event loop's thread."""

    def __init__(self, configuration: Configure) -> None:
        super().__init__()
        self._configuration = configuration
        self._writer: asyncio.StreamWriter | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process_id(self) -> int | None:
        """Of the running engine process; None while there is none."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """See `Executor.start`."""
        self._supervisor = asyncio.create_task(self._keep_running(), name="engine-supervisor")

    async def stop(self) -> None:
        """See `Executor.stop`. The engine ends when its line closes; one that loads or hangs is killed."""
        if self._state == "loading" and self._process is not None:
            self._process.kill()  # it would not look at its line before the imports are done
        self._state = "stopped"
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        self._lost("the server is shutting down")

    def _send(self, message: ToEngine) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame(message))

    async def _keep_running(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while True:
            began = time.monotonic()
            try:
                await self._run_once()
            except Exception:  # whatever it was (no descriptors, no memory), the next attempt may succeed
                logger.exception("the engine process could not be run")
            if self._failure is not None:
                return
            if time.monotonic() - began > STABLE_AFTER_S:
                backoff_s = FIRST_BACKOFF_S
            logger.error("the engine process ended; starting another one in %.1f s", backoff_s)
            self._state = "loading"
            self._has_loaded.clear()
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)

    async def _run_once(self) -> None:
        """Start an engine process and listen to it until it ends."""
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as unless_started:
            unless_started.callback(ours.close)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "server.executors.engine_process",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                env=_engine_environment(),
                # Ctrl+C reaches the whole foreground group: the gateway decides when the engine ends.
                start_new_session=True,
            )
            unless_started.pop_all()
        self._process = process
        reader, writer = await asyncio.open_connection(sock=ours, limit=2**20)
        self._writer = writer
        self._send(self._configuration)
        pinging = asyncio.create_task(self._keep_pinging(), name="engine-ping")
        try:
            await self._listen(reader)
        finally:
            pinging.cancel()
            self._writer = self._process = None
            writer.close()
            await _end(process)
            self._lost(f"the engine process ended while drawing (exit code {process.returncode})")

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = HEADER.unpack(await reader.readexactly(HEADER.size))
                if length > MAX_FRAME_BYTES:
                    raise AssertionError(f"the engine sent a frame of {length} bytes")
                self._receive(decode_from_engine(await reader.readexactly(length)))

    async def _keep_pinging(self) -> None:
        while True:
            await asyncio.sleep(PING_INTERVAL_S)
            if self._state == "ready":
                self._ping()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Wait for a process whose line has been closed; kill it if it does not notice."""
    try:
        async with asyncio.timeout(STOP_GRACE_S):
            await process.wait()
    except TimeoutError:
        logger.warning("the engine process %d does not end by itself: killed", process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _engine_environment() -> dict[str, str]:
    """What the engine process sees: this package importable from any folder, and no way to the network."""
    paths = [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
