"""A small app behind the protections of the real server."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn

from server.access.client_timeouts import ClientTimeouts
from server.access.connections import guarded_config
from server.draining_server import bound_socket


@contextlib.contextmanager
def served(app, timeouts: ClientTimeouts, *, max_connections: int = 1000) -> Iterator[int]:
    """Its port. The server's sockets hold little of what is not read."""
    listener = bound_socket("127.0.0.1", 0, unread_s=timeouts.unread_s)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    server = uvicorn.Server(guarded_config(app, max_connections=max_connections, timeouts=timeouts, lifespan="off"))
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
