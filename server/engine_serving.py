"""The command `python -m server engine`: serves this host's engines to gateways elsewhere, until SIGTERM or Ctrl+C.

The first signal: no more jobs, and those that are being drawn get DRAIN_TIMEOUT seconds. A second one ends it at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn

from server.access.connections import guarded_config, room_for
from server.access.network import is_loopback
from server.access.tls import tls_context
from server.config import Settings, StartError
from server.draining_server import bound_socket
from server.engine_service import EngineService
from server.errors import ServerError
from server.executors.engines import local_engines
from server.executors.pool import EnginePool
from server.log_format import configure_logging
from server.sd_notify import ServiceManager
from server.settings_file import load_settings

__all__ = ["engine"]

_GRACE_S = 5
_END_S = 15
"""What the end takes at most beside draining."""


def engine(_arguments: argparse.Namespace | None = None) -> None:
    """Serve until SIGTERM or Ctrl+C. Ends the process: 0 after a stop that was asked for."""
    try:
        _serve(load_settings())
    except StartError as error:
        sys.exit(f"error: {error}")


def _serve(settings: Settings) -> None:
    if settings.engines or settings.engine_pool_url:
        raise StartError("ENGINES and ENGINE_POOL_URL are settings of a gateway: an engine draws by itself")
    token = settings.engine_token
    if token is None and not is_loopback(settings.host):
        raise StartError(
            f"HOST must be a loopback address while there is no ENGINE_TOKEN, not {settings.host!r}: set the same "
            "ENGINE_TOKEN here and at the gateway"
        )
    configure_logging(
        settings.log_level, settings.log_format, shows_prompts=settings.log_prompts, safe_errors=(ServerError,)
    )
    tls = tls_context(settings)
    listener = bound_socket(settings.host, settings.port)
    service = EngineService(EnginePool(local_engines(settings)), None if token is None else token.get_secret_value())
    config = guarded_config(
        service, max_connections=room_for(settings.max_connections), tls=tls, timeout_graceful_shutdown=_GRACE_S
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    manager = ServiceManager.from_environment(os.environ)
    _EngineServer(config, service, manager, settings.drain_timeout).run(sockets=[listener])


class _EngineServer(uvicorn.Server):
    """Finishes what is being drawn before it stops to listen."""

    def __init__(
        self, config: uvicorn.Config, service: EngineService, manager: ServiceManager, drain_timeout_s: float
    ) -> None:
        super().__init__(config)
        self._service = service
        self._manager = manager
        self._drain_timeout_s = drain_timeout_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the engines and listen; then say where."""
        await super().startup(sockets)
        if self.started and sockets:
            self._manager.ready(lambda: f"engine {self._service.pool.state}")
            host, port = sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            scheme = "https" if self.config.is_ssl else "http"
            print(f"Listening on {scheme}://{shown}:{port} (engine). Press Ctrl+C to stop.", flush=True)  # noqa: T201 -- for whoever starts it

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is being drawn, stop listening, and end the engines."""
        self._manager.stopping(self._drain_timeout_s + _END_S)
        await self._service.drain(self._drain_timeout_s)
        await super().shutdown(sockets)
        await self._manager.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; the second time, end."""
        if self.should_exit:
            for process_id in self._service.pool.process_ids:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process_id, signal.SIGKILL)
            os._exit(128 + sig)
        super().handle_exit(sig, frame)
