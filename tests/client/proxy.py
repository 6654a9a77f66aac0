"""A proxy that misbehaves on a script: put it between any HTTP client and a server, and see what each makes of it.

    with proxied(server.url, [Fault("reset"), Fault("busy", retry_after_s=1), None]) as proxy:
        ...  # talk to proxy.url: the first request is reset, the second is a 429, the others pass

The script is a list, one entry a request, in the order in which they arrive; after its end everything passes. Or it is
a function from a `Seen` request to a `Fault` or None, such as `by_chance(seed, share)`. Every request is noted in
`proxy.seen`, with what was done to it. HTTP/1.1, bodies with a Content-Length; one request a connection, so each of
them gets its own fault. Needs nothing but the standard library, and runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

__all__ = ["KINDS", "Fault", "Kind", "Proxy", "Seen", "by_chance", "proxied"]

Kind = Literal[
    "429", "500", "502", "503", "504",  # answered by the proxy itself; the server never hears of it
    "reset",        # the connection is reset before anything is sent on
    "deaf",         # the server does it, and its answer is thrown away: the worst case for whoever must not do it twice
    "garbage",      # what comes back is no HTTP
    "page",         # what comes back is a web page, with status 200
    "half",         # the answer breaks off in its middle
    "stall",        # the answer stops in its middle for `seconds`, then breaks off
    "late",         # the answer comes whole, `seconds` late
    "slow close",   # the answer comes whole; the connection stays open for `seconds` without a word
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Fault:
    kind: Kind
    seconds: float = 5.0
    """Of a stall, a late answer or a slow close."""
    retry_after_s: int | None = None
    """Said with a status."""


@dataclass(slots=True)
class Seen:
    """A request that came by."""

    number: int
    """0 for the first."""
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)
    fault: Fault | None = None
    is_passed_on: bool = False
    """Whether the server got it."""


Script = Sequence[Fault | None] | Callable[[Seen], Fault | None]


def by_chance(seed: int, share: float, kinds: Sequence[Kind] = KINDS, *, seconds: float = 5.0) -> Script:
    """Every request meets a fault with the probability `share`, each kind as likely; the same each time it is run."""
    chance = random.Random(seed)
    return lambda seen: Fault(chance.choice(kinds), seconds) if chance.random() < share else None


class Proxy:
    """Belongs to the event loop of its thread; `seen` may be read from everywhere once it has stopped."""

    def __init__(self, upstream: str, script: Script) -> None:
        self._host, self._port = urlsplit(upstream).hostname, urlsplit(upstream).port
        self._script = script
        self.seen: list[Seen] = []
        self.url = ""
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, started: Callable[[], None], stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=2**20)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started()
        async with server:
            await stop.wait()
            server.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._connections.add(task)
        # Python 3.11 complains aloud about a connection's task that was cancelled.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            try:
                await self._request(reader, writer)
            finally:
                writer.close()
                self._connections.discard(task)

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        seen = Seen(len(self.seen), method, path, headers, body)
        self.seen.append(seen)
        seen.fault = self._fault(seen)
        await self._act(seen, writer)

    def _fault(self, seen: Seen) -> Fault | None:
        if callable(self._script):
            return self._script(seen)
        return self._script[seen.number] if seen.number < len(self._script) else None

    async def _act(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        fault = seen.fault
        match fault:
            case None:
                await self._relay(seen, writer)
            case Fault(kind="reset"):
                _reset(writer)
            case Fault(kind="deaf"):
                await self._whole_answer(seen)
                _reset(writer)
            case Fault(kind="garbage"):
                writer.write(b"\x16\x03\x01 this is no HTTP \x00\xff\r\n\r\n" * 3)
            case Fault(kind="page"):
                page = b"<html><body>The network wants you to log in.</body></html>"
                writer.write(_answer("200 OK", page, "text/html"))
            case Fault(kind="half"):
                answer = await self._whole_answer(seen)
                writer.write(answer[: _middle(answer)])
            case Fault(kind="stall"):
                answer = await self._whole_answer(seen)
                writer.write(answer[: _middle(answer)])
                await asyncio.sleep(fault.seconds)
            case Fault(kind="late"):
                answer = await self._whole_answer(seen)
                await asyncio.sleep(fault.seconds)
                writer.write(answer)
            case Fault(kind="slow close"):
                writer.write(await self._whole_answer(seen))
                await asyncio.sleep(fault.seconds)
            case _:
                more = "" if fault.retry_after_s is None else f"Retry-After: {fault.retry_after_s}\r\n"
                writer.write(_answer(f"{fault.kind} Trouble", b"<h1>trouble</h1>", "text/html", more))
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    async def _relay(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        """Piece by piece, as it comes: an event stream too. Whoever hangs up here hangs up there."""
        upstream, to_upstream = await self._passed_on(seen)
        try:
            while piece := await upstream.read(2**16):
                writer.write(piece)
                await writer.drain()
        finally:
            to_upstream.transport.abort()

    async def _whole_answer(self, seen: Seen) -> bytes:
        upstream, to_upstream = await self._passed_on(seen)
        try:
            return await upstream.read()
        finally:
            to_upstream.transport.abort()

    async def _passed_on(self, seen: Seen) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        upstream, to_upstream = await asyncio.open_connection(self._host, self._port)
        headers = seen.headers | {"connection": "close", "host": f"{self._host}:{self._port}"}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        to_upstream.write(f"{seen.method} {seen.path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + seen.body)
        seen.is_passed_on = True
        return upstream, to_upstream


@contextlib.contextmanager
def proxied(upstream: str, script: Script = ()) -> Iterator[Proxy]:
    """Run a proxy in front of `upstream` (`http://127.0.0.1:8000`) for as long as the block lasts."""
    proxy, started = Proxy(upstream, script), threading.Event()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        stop = asyncio.Event()
        running.append((asyncio.get_running_loop(), stop))
        await proxy.serve(started.set, stop)

    thread = threading.Thread(target=asyncio.run, args=(main(),), name="proxy")
    thread.start()
    try:
        assert started.wait(10), "the proxy did not start"
        yield proxy
    finally:
        loop, stop = running[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(15)
        assert not thread.is_alive(), "the proxy did not stop"


def _answer(status: str, body: bytes, media_type: str, more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return f"{head}{more}\r\n".encode() + body


def _middle(answer: bytes) -> int:
    """Behind the headers and half of what follows them."""
    head = answer.index(b"\r\n\r\n") + 4
    return head + (len(answer) - head) // 2


def _reset(writer: asyncio.StreamWriter) -> None:
    """Not a farewell but a RST, as from a host that has gone."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
