"""How the app listens: every socket on its guard, the public one with TLS if there is a certificate."""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
from pathlib import Path
from typing import Final

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE

from server.access.connection_count import Connections
from server.access.connections import GuardedProtocol
from server.access.timeouts import Patience
from server.access.tls import Certificate
from server.access.tls_listener import TlsListener
from server.config import REPOSITORY, Settings, StartError

__all__ = ["GuardedServer", "certificate_of", "room_for"]

_log = structlog.get_logger("server")

_OTHER_FILES: Final = 128
"""Descriptors that are kept for all that is no connection: the store, pictures, the engine, modules."""
_RENEWAL_TICKS: Final = 20
"""Of a tenth of a second: how often the certificate's files are looked at."""


class GuardedServer(uvicorn.Server):
    """Uvicorn's server, with a protocol that is on its guard, and TLS where it belongs."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        max_connections: int = 1000,
        certificate: Certificate | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Make it.

        Args:
            config: uvicorn's; its own limits and its TLS are not used.
            max_connections: on each listener.
            certificate: for HTTPS; None is plain HTTP.
            patience: with clients.
        """
        super().__init__(config)
        self._max_connections = max_connections
        self._certificate = certificate
        self._patience = patience or Patience()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app, then listen on the sockets. Uvicorn would put them all behind TLS, or none."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        if self._certificate is not None:
            self._certificate.report()
        self.servers = [await self._listening(listener) for listener in sockets or []]  # type: ignore[misc]  # only ever closed and waited for
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        """What is to be done ten times a second."""
        if self._certificate is not None and counter % _RENEWAL_TICKS == 0:
            try:
                self._certificate.renew()
            except Exception:  # noqa: BLE001 -- whatever it is: from here it would end the server, without an end to its work
                _log.exception("the certificate's files could not be looked at; the last one is still used")
        return await super().on_tick(counter)

    async def _listening(self, listener: socket.socket) -> asyncio.Server | TlsListener:
        connections = Connections(self._max_connections)

        def protocol() -> GuardedProtocol:
            return GuardedProtocol(
                self.config,
                self.server_state,
                self.lifespan.state,
                connections=connections,
                patience=self._patience,
            )

        # The operator's unix socket needs no TLS: nothing travels.
        if self._certificate is None or listener.family == socket.AF_UNIX:
            return await asyncio.get_running_loop().create_server(protocol, sock=listener, backlog=self.config.backlog)
        return TlsListener(
            listener,
            protocol,
            certificate=self._certificate,
            connections=connections,
            patience=self._patience,
            backlog=self.config.backlog,
        )


def certificate_of(settings: Settings) -> Certificate | None:
    """The certificate that the settings name; None is plain HTTP.

    Raises:
        StartError: it could not be served with.
    """
    if settings.tls_cert is None and settings.tls_key is None:
        return None
    if settings.tls_cert is None or settings.tls_key is None:
        raise StartError("TLS_CERT and TLS_KEY must be set together, or neither")
    return Certificate(_file(settings.tls_cert), _file(settings.tls_key))


def room_for(connections: int) -> int:
    """How many connections there can be without running out of file descriptors, `connections` at most.

    The process' soft limit, which is often no more than 1024, is raised as far as need be.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, possible), hard))
    room = max(1, max(soft, possible) - _OTHER_FILES)
    if room < connections:
        _log.warning("fewer connections than MAX_CONNECTIONS: the limit of open files is low", connections=room)
    return room


def _file(path: Path) -> Path:
    return REPOSITORY / path
