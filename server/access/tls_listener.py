"""How connections with TLS are accepted: counted before their handshake, which may take its time or never end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import structlog

from server.access.connection_count import Connections
from server.access.connections import GuardedProtocol
from server.access.timeouts import Patience
from server.access.tls import Certificate

__all__ = ["TlsListener"]

_log = structlog.get_logger("server")

_CLOSE_S: Final = 60.0
"""For the client to take the rest of its last answer, and to say that it has seen the end."""
_BREATH_S: Final = 1.0
"""Until the next try where the system has nothing left to accept with."""


class TlsListener:
    """Accepts on one socket and shakes hands. Belongs to the event loop.

    In place of `create_server(ssl=...)`, which tells of a connection only when its handshake has ended: those that do
    not begin one would be counted by nobody, up to the last file descriptor. And what each handshake shows is the
    certificate of that moment.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], GuardedProtocol],
        *,
        certificate: Certificate,
        connections: Connections,
        patience: Patience,
        backlog: int,
    ) -> None:
        """Begin to accept.

        Args:
            listener: bound.
            protocol: makes that of a connection.
            certificate: what is shown.
            connections: where they are counted.
            patience: with handshakes.
            backlog: connections that may wait to be accepted.
        """
        self._listener = listener
        self._protocol = protocol
        self._certificate = certificate
        self._connections = connections
        self._patience = patience
        self._handshakes: set[asyncio.Task[None]] = set()
        self._rest: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        listener.settimeout(0)
        listener.listen(backlog)
        self._loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Accept nothing more. Connections go on, handshakes do not."""
        self._loop.remove_reader(self._listener)
        if self._rest is not None:
            self._rest.cancel()
        for handshake in self._handshakes:
            handshake.cancel()

    async def wait_closed(self) -> None:
        """Wait for the end of all handshakes."""
        await asyncio.gather(*self._handshakes, return_exceptions=True)

    def _accept(self) -> None:
        # One at a time: whoever has to go for it is gone before the next comes, so descriptors suffice.
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            _log.error("no connection can be accepted for now", reason=str(error))
            self._loop.remove_reader(self._listener)
            self._rest = self._loop.call_later(_BREATH_S, self._loop.add_reader, self._listener, self._accept)
            return
        connection.settimeout(0)
        protocol = self._protocol()
        handshake = self._loop.create_task(self._shake_hands(connection, protocol))
        self._handshakes.add(handshake)
        handshake.add_done_callback(self._handshakes.discard)
        self._connections.accepted(protocol, handshake)

    async def _shake_hands(self, connection: socket.socket, protocol: GuardedProtocol) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._certificate.context,
                ssl_handshake_timeout=self._patience.handshake_s,
                ssl_shutdown_timeout=_CLOSE_S,
            )
        except OSError:
            self._connections.closed(protocol)  # no TLS, not in time, or gone: everyday on a public port
