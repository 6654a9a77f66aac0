"""Can the server listen where it is told to, and if not, who is there?"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

from server.access.operator_socket import socket_path
from server.cli.doctor.finding import Finding, Level
from server.cli.errors import CommandError
from server.cli.running_server import NobodyListensError, RunningServer

__all__ = ["look_at_port"]


def look_at_port(host: str, port: int, folder: Path) -> Iterator[Finding]:
    """Look at the settings HOST and PORT.

    Args:
        host: the setting.
        port: the setting.
        folder: `DATA_DIR/server`, where a running server has its socket.
    """
    health = _health(folder)
    if health is not None:
        level: Level = "ok" if health.get("status") in {"healthy", "loading"} else "warn"
        reason = f": {health['reason']}" if health.get("reason") else ""
        yield Finding("server", level, f"runs, and is {health.get('status')}{reason}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind(address)
            attempt.listen()
    except OSError as error:
        yield _refused(host, port, error, is_ours=health is not None)
    else:
        yield Finding("port", "ok", f"{host}:{port} is free" if port else "any free one is taken")


def _refused(host: str, port: int, error: OSError, *, is_ours: bool) -> Finding:
    if error.errno == errno.EADDRINUSE and is_ours:
        return Finding("port", "ok", f"{host}:{port} is in use, and the server runs")
    found = f"cannot listen on {host}:{port}: {error.strerror or error}"
    if error.errno == errno.EACCES:
        return Finding("port", "FAIL", found, "set PORT to 1024 or more")
    return Finding("port", "FAIL", found, "set PORT to another port, or end the program that listens there")


def _health(folder: Path) -> dict[str, object] | None:
    """What the running server says of itself; None if none listens at the socket."""
    server = RunningServer(socket_path(folder))
    try:
        server.check()
        return server.health()
    except NobodyListensError:
        return None
    except (CommandError, PermissionError) as error:
        return {"status": "not answering", "reason": str(error)}
