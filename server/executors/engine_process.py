"""One engine process and our end of its line: how it is started, told its configuration, killed and waited for.

Needs no event loop to start: the command `serve` starts the first one before it imports the web framework, so that
gateway and engine import side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from typing import Final

from engine.models.locate import is_fake_engine
from server.config import Settings
from server.executors.engine_environment import engine_environment
from server.executors.messages import Configure, frame
from server.executors.models_folder import models_in

__all__ = ["EngineProcess", "configuration_of"]

_POLL_S: Final = 0.01
"""Between two looks at a process that is ending."""
_KILL_GRACE_S: Final = 5.0


class EngineProcess:
    """Belongs to one thread; the line's end belongs to whoever takes `connection`."""

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self._process = process
        self.connection = connection
        """Our end of its line. The engine ends when it is closed."""
        self.began_at = time.monotonic()

    @classmethod
    def start(cls, configuration: Configure) -> EngineProcess:
        """Start one, and say what it is to load.

        Raises:
            OSError: no descriptors, no memory, no more processes.
        """
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as unless_started:
            unless_started.callback(ours.close)
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", _module(configuration.model_id), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=engine_environment(os.environ),
                # Ctrl+C reaches the whole foreground group: the gateway decides when the engine ends.
                start_new_session=True,
            )
            # Some hundred bytes into an empty buffer: it does not wait.
            ours.sendall(frame(configuration))
            unless_started.pop_all()
        return cls(process, ours)

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended, as `subprocess` says it; None while it runs or nobody has waited for it."""
        return self._process.returncode

    def kill(self) -> None:
        """End it at once. Nothing happens if it has ended."""
        self._process.kill()

    async def wait(self) -> None:
        """Return when it has ended. Asks again and again: an event loop does not hear of a process's end by itself."""
        while self._process.poll() is None:  # noqa: ASYNC110 - as above
            await asyncio.sleep(_POLL_S)

    def abandon(self) -> None:
        """End it and wait for it, outside the event loop: what it was started for does not happen."""
        if self.returncode is None:
            self.connection.close()
            self.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # inside a call of the device's driver
                self._process.wait(_KILL_GRACE_S)


def configuration_of(settings: Settings, device: str | None = None) -> Configure:
    """What the first engine process of a device is told.

    Args:
        settings: of the server.
        device: which device; None: `DEVICE`.
    """
    return Configure(
        model_id=settings.model_id,
        device=device or settings.device,
        dtype=settings.torch_dtype,
        vae_dtype=settings.vae_dtype,
        rows_per_call=settings.rows_per_call,
        max_images_in_flight=settings.max_concurrent_requests,
        reproducible=settings.reproducible,
        sampler=settings.sampler,
        noise_schedule=settings.noise_schedule,
        num_inference_steps=settings.default_steps,
        warms_up_first=False,
        cache_folder=str(settings.cache_folder),
        backend=settings.backend,
        log_level=settings.log_level,
        log_format=settings.log_format,
        log_prompts=settings.log_prompts,
        model_name=settings.model_name,
        models=models_in(settings),
        device_memory_bytes=_bytes_of(settings.device_memory_budget),
        host_memory_bytes=_bytes_of(settings.host_memory_budget),
        embeddings_folder=None if settings.embeddings_folder is None else str(settings.embeddings_folder),
    )


def _bytes_of(mebibytes: int | None) -> int | None:
    return None if mebibytes is None else mebibytes * 2**20


def _module(model_id: str) -> str:
    """The program that can run this model."""
    return "server.worker.fake_engine" if is_fake_engine(model_id) else "server.worker.engine_process"
