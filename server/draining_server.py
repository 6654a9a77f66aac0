"""The server process once it has imported everything: it listens, and its shutdown loses no job.

SIGTERM or Ctrl+C: nothing more is accepted, what is being drawn is finished (`DRAIN_TIMEOUT`), and the process ends
with 0; meanwhile it still answers, so that `/readyz` says 503. A second signal: the process ends at once, with 128 and
the signal's number (143, 130), and the engine with it; accepted jobs are in the store and go on at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import signal
import socket
import ssl
import sys
from types import FrameType
from typing import NoReturn

import uvicorn
from uvicorn.supervisors import ChangeReload

from server.access.client_timeouts import ClientTimeouts
from server.access.connections import guarded_config, room_for
from server.access.open_host import refuse_open_host
from server.access.operator_socket import OperatorSocket
from server.access.tls import tls_context
from server.config import REPOSITORY, Settings, StartError
from server.executors.engine_process import EngineProcess
from server.log_format import configure_logging
from server.main import app_from_environment
from server.sd_notify import ServiceManager

__all__ = ["DrainingServer", "bound_socket", "run"]

_GRACE_S = 5
"""For answers that are still being sent when everything else has been told to stop."""
_END_S = 25
"""What the end takes at most beside draining: those answers, what is being written, an engine that must be killed."""


def run(settings: Settings, begun: EngineProcess | None) -> None:
    """Serve until SIGTERM or Ctrl+C.

    Args:
        settings: those of this process.
        begun: its engine process; None where one is started with the app.

    Raises:
        StartError: it cannot start like this; one line.
    """
    refuse_open_host(settings)
    tls = tls_context(settings)
    listener = bound_socket(settings.host, settings.port)
    _run_reloading(settings, listener) if settings.reload else _run(listener, tls, begun)


def _run(listener: socket.socket, tls: ssl.SSLContext | None, begun: EngineProcess | None) -> None:
    app = app_from_environment(begun)
    settings: Settings = app.state.service.settings
    operator_socket = OperatorSocket(settings.server_folder)
    app.state.operator_socket_name = operator_socket.name
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_quietly)
    config = guarded_config(
        app, max_connections=room_for(settings.max_connections), tls=tls, timeout_graceful_shutdown=_GRACE_S
    )
    server = DrainingServer(config, operator_socket, ServiceManager.from_environment(os.environ), has_process=True)
    try:
        server.run(sockets=[listener])
    except SystemExit:
        if server.started:
            raise
        raise StartError("the server could not start; the log says why") from None
    finally:
        operator_socket.withdraw()


def _run_reloading(settings: Settings, listener: socket.socket) -> None:
    """For development: a child process with the app, started again when a source file changes."""
    configure_logging(settings.log_level, settings.log_format, shows_prompts=settings.log_prompts)
    config = uvicorn.Config(
        "server.main:app",
        log_config=None,
        lifespan="on",
        proxy_headers=False,
        reload=True,
        reload_dirs=[str(REPOSITORY / "server"), str(REPOSITORY / "engine")],
        timeout_graceful_shutdown=_GRACE_S,
        ssl_certfile=settings.tls_cert and REPOSITORY / settings.tls_cert,
        ssl_keyfile=settings.tls_key and REPOSITORY / settings.tls_key,
    )
    _print_address(listener, is_tls=settings.tls_cert is not None)
    ChangeReload(config, target=uvicorn.Server(config).run, sockets=[listener]).run()


class DrainingServer(uvicorn.Server):
    """A server which finishes what it has begun before it stops to listen."""

    def __init__(
        self,
        config: uvicorn.Config,
        operator_socket: OperatorSocket | None = None,
        service_manager: ServiceManager | None = None,
        *,
        has_process: bool = False,
    ) -> None:
        """Make it; `has_process` says that nothing else lives in this process."""
        super().__init__(config)
        self._has_process = has_process
        self._operator_socket = operator_socket
        self._service_manager = service_manager or ServiceManager(None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app and listen; then say where."""
        await super().startup(sockets)
        if self.started and sockets:
            # Not before: the app has taken the lock of the folder that the socket lies in.
            if self._operator_socket is not None:
                await self._listen_to_operator(self._operator_socket)
            if self._has_process:
                # What was made for the start lives as long as the process. Whenever it was looked through for garbage,
                # all requests stood still for up to 40 ms.
                gc.collect()
                gc.freeze()
            self._service_manager.ready(self._status)
            _print_address(sockets[0], is_tls=self.config.is_ssl)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is being drawn, stop listening, and end the engine."""
        service = self.config.loaded_app.state.service
        self._service_manager.stopping(service.settings.drain_timeout + _END_S)
        await service.generator.drain(service.settings.drain_timeout)
        # Before the app lets the lock go: another server could have put its own socket there.
        if self._operator_socket is not None:
            self._operator_socket.withdraw()
        await super().shutdown(sockets)
        await self._service_manager.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; the second time, end."""
        if self.should_exit:
            self._end_at_once(sig)
        super().handle_exit(sig, frame)

    async def _listen_to_operator(self, operator_socket: OperatorSocket) -> None:
        # Here and not by uvicorn, which has TLS for all sockets or for none: over this one nothing travels.
        protocol = functools.partial(  # type: ignore[call-arg]  # as uvicorn itself calls it
            self.config.http_protocol_class,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_server(protocol, sock=operator_socket.listener))
        operator_socket.publish()

    def _status(self) -> str:
        """How it is, in a line for the operator."""
        generator = self.config.loaded_app.state.service.generator
        doing = "draining" if generator.is_draining else f"engine {generator.executor.state}"
        return f"{doing}; {generator.dispatcher.num_running} jobs running, {generator.dispatcher.num_waiting} waiting"

    def _end_at_once(self, sig: int) -> NoReturn:
        for process_id in self.config.loaded_app.state.service.generator.executor.process_ids:
            # It would notice that we are gone, unless it hangs in the device's driver. It leads a group of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process_id, signal.SIGKILL)
        if self._operator_socket is not None:
            self._operator_socket.withdraw()
        # In a signal handler: no buffered output, which may be half written just now.
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), b"Stopped at once; accepted jobs go on at the next start.\n")
        # Not by raising the signal anew: the first process of a container would survive that.
        os._exit(128 + sig)


def bound_socket(host: str, port: int, *, unread_s: float = ClientTimeouts().unread_s) -> socket.socket:
    """The bound socket. Bound here, so that a port in use is one line and not a traceback.

    Args:
        host: name or address.
        port: 0 takes any free one.
        unread_s: after which the system closes a connection whose client takes nothing of what it is sent.

    Raises:
        StartError: somebody else listens there, or the address is not this machine's, or no address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "name not known"
        raise StartError(f"cannot listen on HOST {host!r}: {reason}") from None
    # Naming the protocol matters: asyncio switches off Nagle's algorithm, which costs 40 ms an answer, only where it is
    # known to be TCP.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(unread_s * 1000))
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise StartError(
            f"cannot listen on {host}:{port}: {error.strerror}; set PORT to another port, or end the "
            "program that listens there"
        ) from None
    listener.set_inheritable(True)
    return listener


def _print_address(listener: socket.socket, *, is_tls: bool) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    address = f"{'https' if is_tls else 'http'}://{shown}:{port}"
    print(f"Listening on {address} (API: {address}/docs). Press Ctrl+C to stop.", flush=True)  # noqa: T201 -- for whoever starts the server


def _exit_quietly(_number: int, _frame: FrameType | None) -> None:
    # Before the server runs, a signal simply ends the start. While it runs, uvicorn catches signals itself, shuts down,
    # and then raises them once more for whoever waits: here, to end with 0 instead of 143.
    sys.exit(0)
