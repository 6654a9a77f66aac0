"""Connections to a server, byte by byte."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

from server.access.client_timeouts import ClientTimeouts

GOOD = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

POST = b"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"

HASTY = ClientTimeouts(head_s=0.3, idle_s=0.3, linger_s=0.3, unread_s=0.3)


@contextlib.contextmanager
def connected(server, **options) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5, **options) as connection:
        yield connection


def said_until_closed(connection: socket.socket) -> bytes:
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            said += data
    return said


def one_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """An answer with a Content-Length, read off a connection that stays open."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += some(connection)
    head, _, body = said.partition(b"\r\n\r\n")
    status_line, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
    while len(body) < int(headers["content-length"]):
        body += some(connection)
    return int(status_line.split()[1]), headers, body


def some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    assert data, "closed before the end of the answer"
    return data


def refusal(said: bytes, status: int, code: str) -> dict:
    """The problem document that a connection ended with."""
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), said[:200]
    headers = {line.split(b": ")[0].lower(): line.split(b": ")[1] for line in head.split(b"\r\n")[1:]}
    problem = json.loads(body)
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"connection"] == b"close"
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"x-request-id"].decode() == problem["request_id"]
    assert int(headers[b"content-length"]) == len(body)
    assert (problem["status"], problem["code"]) == (status, code)
    return problem
