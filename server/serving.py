"""How `python -m server serve` runs the app: one process, one socket, and an end that tells every caller."""

from __future__ import annotations

import signal
import socket
import sys
from types import FrameType

import uvicorn
from uvicorn.supervisors import ChangeReload

from server.access.network import refuse_open_host
from server.config import REPOSITORY, Settings, StartError, load_settings
from server.main import app_from_environment
from server.telemetry import configure_logging

__all__ = ["DrainingServer", "bound_socket", "serve"]

_GRACE_S = 5
"""For answers that are still being sent when everything else has been told to stop."""


def serve() -> None:
    """Run the server until SIGTERM or Ctrl+C. Ends the process: 0 after a stop that was asked for."""
    try:
        settings = load_settings()
        refuse_open_host(settings.host)
        listener = bound_socket(settings.host, settings.port)
        _run_reloading(settings, listener) if settings.reload else _run(listener)
    except StartError as error:
        sys.exit(f"error: {error}")


def _run(listener: socket.socket) -> None:
    app = app_from_environment()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_quietly)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        proxy_headers=False,  # who is a stranger is decided by what really came over the wire
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = DrainingServer(config)
    server.run(sockets=[listener])
    if not server.started:
        raise StartError("the server could not start; the log says why")


def _run_reloading(settings: Settings, listener: socket.socket) -> None:
    """For development: a child process with the app, started again when a source file changes."""
    configure_logging(settings.log_level, settings.log_format)
    config = uvicorn.Config(
        "server.main:app",
        log_config=None,
        lifespan="on",
        proxy_headers=False,
        reload=True,
        reload_dirs=[str(REPOSITORY / "server"), str(REPOSITORY / "engine")],
        timeout_graceful_shutdown=_GRACE_S,
    )
    _tell_where(listener)
    ChangeReload(config, target=uvicorn.Server(config).run, sockets=[listener]).run()


class DrainingServer(uvicorn.Server):
    """Uvicorn's server, which tells callers at once that it stops instead of waiting for them."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app and listen; then say where."""
        await super().startup(sockets)
        if self.started and sockets:
            _tell_where(sockets[0])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, tell every caller, and end the engine."""
        await self.config.loaded_app.state.service.generator.drain()
        await super().shutdown(sockets)


def bound_socket(host: str, port: int) -> socket.socket:
    """The bound socket. Bound here, so that a port in use is one line and not a traceback.

    Raises:
        StartError: somebody else listens there, or the address is not this machine's.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # Naming the protocol matters: asyncio switches off Nagle's algorithm, which costs 40 ms an answer, only where it is
    # known to be TCP.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise StartError(
            f"cannot listen on {host}:{port}: {error.strerror}; set PORT to another port, or end the "
            "program that listens there"
        ) from None
    listener.set_inheritable(True)
    return listener


def _tell_where(listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"Listening on http://{shown}:{port} (API: http://{shown}:{port}/docs). Ctrl+C ends it.", flush=True)  # noqa: T201 -- for whoever starts the server


def _exit_quietly(_number: int, _frame: FrameType | None) -> None:
    # Before the server runs, a signal simply ends the start. While it runs, uvicorn catches signals itself, shuts down,
    # and then raises them once more for whoever waits: here, to end with 0 instead of 143.
    sys.exit(0)
