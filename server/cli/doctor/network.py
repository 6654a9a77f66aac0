"""Network checks: can the server listen on HOST and PORT, and if not, which program does?"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

from server.cli.doctor.finding import Finding, Level
from server.cli.errors import CommandError
from server.cli.server_client import running_server

__all__ = ["look_at_port"]


def look_at_port(host: str, port: int, folder: Path, *, timeout_s: float = 10.0) -> Iterator[Finding]:
    """Look at the settings HOST and PORT.

    Args:
        host: the setting.
        port: the setting.
        folder: `DATA_DIR/server`, where a running server has its socket.
        timeout_s: for its answer.
    """
    health = _health(folder, timeout_s)
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
        yield Finding("port", "ok", f"{host}:{port} is free" if port else "any free port will be used")


def _refused(host: str, port: int, error: OSError, *, is_ours: bool) -> Finding:
    if error.errno == errno.EADDRINUSE and is_ours:
        return Finding("port", "ok", f"{host}:{port} is in use, and the server runs")
    found = f"cannot listen on {host}:{port}: {error.strerror or error}"
    if error.errno == errno.EACCES:
        return Finding("port", "FAIL", found, "set PORT to 1024 or more")
    return Finding("port", "FAIL", found, "set PORT to another port, or end the program that listens there")


def _health(folder: Path, timeout_s: float) -> dict[str, object] | None:
    """The running server's `GET /health`; None if none runs."""
    try:
        with running_server(folder, timeout_s=timeout_s) as server:
            return None if server is None else server.answer("GET", "/health").json()
    except CommandError as error:
        return {"status": "not responding", "reason": str(error)}
