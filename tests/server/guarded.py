"""A small app behind the protections of the real server."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn

from server.access.timeouts import Patience
from server.access.tls import Certificate
from server.listening import GuardedServer
from server.serving import bound_socket


@contextlib.contextmanager
def served(
    app, patience: Patience, certificate: Certificate | None = None, *, max_connections: int = 1000
) -> Iterator[int]:
    """Its port. The server's sockets hold little of what is not read."""
    listener = bound_socket("127.0.0.1", 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
    server = GuardedServer(config, patience=patience, certificate=certificate, max_connections=max_connections)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
