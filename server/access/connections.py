"""Limits of one connection: timeouts, head size, pipelining, how many there may be, and how one is refused.

What uvicorn leaves out and a server on a port of its own needs (ADR 15). Slow readers, the eviction of idle connections
and the counting of TLS handshakes are the proxy's: `deploy/Caddyfile`.
"""

from __future__ import annotations

import asyncio
import functools
import json
import resource
import secrets
import ssl
from collections.abc import Callable
from typing import Any, Final, Literal

import httptools
import structlog
import uvicorn
from starlette.exceptions import HTTPException
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from server.access.client_timeouts import ClientTimeouts
from server.access.headers import SECURITY_HEADERS
from server.errors import MalformedRequestError, TooManyConnectionsError
from server.problems import PROBLEM_MEDIA_TYPE, problem_of

__all__ = [
    "MAX_AHEAD",
    "MAX_FIELDS",
    "MAX_HEAD_BYTES",
    "MAX_TARGET_BYTES",
    "GuardedProtocol",
    "guarded_config",
    "room_for",
]

MAX_HEAD_BYTES: Final = 32 * 1024
"""Request line and headers together. Browsers with many cookies stay below 16 kB."""
MAX_TARGET_BYTES: Final = 8 * 1024
"""Path and query; RFC 9112, section 3, wants 8000 at least."""
MAX_FIELDS: Final = 100
MAX_AHEAD: Final = 16
"""Requests that may be sent ahead while one is answered. Browsers send none, clients that do a few."""

_MAX_REFUSALS: Final = 64
"""Connections beyond the limit that get to read their 503; further ones are closed at once."""
_OTHER_FILES: Final = 128 + _MAX_REFUSALS
"""Descriptors that are kept for everything else: refusals, the store, pictures, the engine, modules."""
_FULL_RETRY_S: Final = 5.0

_log = structlog.get_logger("server")


class GuardedProtocol(HttpToolsProtocol):
    """One connection. A client that keeps to HTTP and goes on, however slowly, does not notice.

    Overrides hooks that uvicorn does not document: its minor version is pinned, and a test names them.
    """

    def __init__(self, *arguments: Any, max_connections: int, timeouts: ClientTimeouts, **named: Any) -> None:  # noqa: ANN401 -- uvicorn's own
        super().__init__(*arguments, **named)
        self._max_connections = max_connections
        self._timeouts = timeouts
        self._deadline: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None
        """What the app works on; `cycle` is the request that came last."""
        self._is_surplus = False
        self._is_in_head = False
        self._is_in_message = False
        self._is_refused = False
        """Whether nothing more is taken from this client."""
        self._error: Exception | None = None
        """What was found wrong inside the parser, which cannot say so itself."""
        self._useless_bytes = 0
        """Received since something was complete: a head, a piece of a body, a message."""

    # Callbacks of asyncio.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client has connected, and has sent nothing yet."""
        super().connection_made(transport)
        # Never the operator, whose connections over the unix socket have no address.
        num_surplus = len(self.connections) - self._max_connections if self.client is not None else 0
        if num_surplus > _MAX_REFUSALS:
            transport.abort()
        self._is_surplus = num_surplus > 0
        self._expect_within(self._timeouts.linger_s if self._is_surplus else self._timeouts.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True  # uvicorn notifies the last request only
            self._running.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)
        self._expect_nothing()

    def data_received(self, data: bytes) -> None:
        """Parse on."""
        if self._is_refused:
            return
        self._useless_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # to a protocol that is not spoken here: the request itself has been read, and is answered
        except httptools.HttpParserError:
            if not self._is_refused:
                self._refuse(
                    self._error or MalformedRequestError("the data received on this connection is not HTTP/1.1")
                )
            return
        if self._useless_bytes > MAX_HEAD_BYTES:
            self._refuse(_head_too_large())

    # Callbacks of the parser.

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if len(self.pipeline) >= MAX_AHEAD:
            # What was taken is answered; for the rest the client asks again (RFC 9112, section 9.3.2).
            self._is_refused = True
            self.pipeline[0][0].keep_alive = False
            raise _TooFarAheadError
        super().on_message_begin()
        self._is_in_head = self._is_in_message = True
        self._useless_bytes = 0
        if not self._is_surplus:
            self._expect_within(self._timeouts.head_s)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. A trailer, after the body, is passed over: a proxy has not looked at it as at a header."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The whole head is there: the app begins to work."""
        self._error = self._error_in_head()
        if self._error is not None:
            raise self._error  # which ends the parser
        super().on_headers_complete()
        self._is_in_head = False
        self._useless_bytes = 0
        self._expect_nothing()

    def on_body(self, body: bytes) -> None:
        """A piece of the body. (How slowly it may come: `body_limit.py`.)"""
        self._useless_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The whole request is there."""
        super().on_message_complete()
        self._is_in_message = False
        self._useless_bytes = 0
        if not self._is_in_hand:
            self._expect_within(self._timeouts.idle_s)

    # Callbacks of uvicorn.

    def on_response_complete(self) -> None:
        """The answer is written."""
        super().on_response_complete()
        if self._is_in_hand:
            return
        if not self._is_in_message:
            self._expect_within(self._timeouts.idle_s)
        elif not self._is_in_head:
            # Not closed at once: what is not read makes the system take the answer back, too.
            self._expect_within(self._timeouts.linger_s)

    def timeout_keep_alive_handler(self) -> None:
        """Uvicorn's own timer, which any byte stops for good; `_is_late` does its work."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def shutdown(self) -> None:
        """The server ends: close it when no answer is on its way."""
        if self._is_in_hand or self.transport.get_write_buffer_size():
            super().shutdown()
        else:
            self.transport.abort()  # over TLS, an idle client would not take part in closing before the time is over

    @property
    def _is_in_hand(self) -> bool:
        """Whether an answer is on its way."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete and not cycle.disconnected

    def _error_in_head(self) -> Exception | None:
        if self._is_surplus:
            return TooManyConnectionsError(
                f"the server has reached its connection limit ({self._max_connections})", retry_after_s=_FULL_RETRY_S
            )
        if len(self.url) > MAX_TARGET_BYTES:
            return HTTPException(414, f"path and query must have at most {MAX_TARGET_BYTES} bytes")
        num_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if num_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_FIELDS:
            return _head_too_large()
        return None

    def _expect_within(self, seconds: float) -> None:
        self._expect_nothing()
        self._deadline = self.loop.call_later(seconds, self._is_late)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _is_late(self) -> None:
        self._deadline = None
        if self._is_in_hand or self.transport.get_write_buffer_size():
            # The next request is slow while this one is worked on, or its answer read.
            self._expect_within(self._timeouts.head_s)
        elif self._is_in_head:
            self._refuse(HTTPException(408, "the request's headers came too slowly, or not at all"))
        else:
            self.transport.abort()

    def _refuse(self, error: Exception) -> None:
        """Answer with the error, and take nothing more."""
        self._is_refused = True
        if self._is_in_message and not self._is_in_head and not self._is_in_hand:
            return  # it has its answer already, and lingers
        self._is_in_head = False
        if self._is_in_hand:
            if self.pipeline or self.cycle.response_started:
                self.transport.abort()  # nothing can be said in the middle of an answer
                return
            # The app waits for the rest of a body that cannot be read.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        request_id = secrets.token_hex(16)
        problem, headers = problem_of(error, instance="", request_id=request_id)
        _log.info("refused connection", status=problem.status, code=problem.code, request_id=request_id)
        body = json.dumps(problem.as_json(), separators=(",", ":")).encode()
        headers |= {
            **SECURITY_HEADERS,
            "X-Request-Id": request_id,
            "Content-Type": PROBLEM_MEDIA_TYPE,
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        lines = [name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers]
        lines += [f"{name.lower()}: {value}\r\n".encode("latin-1") for name, value in headers.items()]
        self.transport.write(b"".join([STATUS_LINE[problem.status], *lines, b"\r\n", body]))
        if self.transport.can_write_eof():
            # As above: what the client still sends is read, for a moment, so that it gets to read this.
            self.transport.write_eof()
            self._expect_within(self._timeouts.linger_s)
        else:
            self.transport.close()


class _TooFarAheadError(Exception):
    """Ends the parser, which reads on otherwise to the end of what has come."""


def guarded_config(
    app: Callable[..., Any],
    *,
    max_connections: int = 1000,
    timeouts: ClientTimeouts | None = None,
    tls: ssl.SSLContext | None = None,
    lifespan: Literal["on", "off"] = "on",
    timeout_graceful_shutdown: int | None = None,
) -> uvicorn.Config:
    """How uvicorn serves the app with these limits.

    Args:
        app: an ASGI application.
        max_connections: beyond them a request is answered with 503 and its connection closed.
        timeouts: of clients; None are the defaults.
        tls: for HTTPS; None is plain HTTP.
        lifespan: whether the app is started and stopped as well.
        timeout_graceful_shutdown: seconds for answers that are still being sent at the end.
    """
    protocol = functools.partial(
        GuardedProtocol, max_connections=max_connections, timeouts=timeouts or ClientTimeouts()
    )
    return uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]  # only ever called
        ws="none",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        proxy_headers=False,  # who is a stranger is decided by what really came over the wire
        server_header=False,
        timeout_graceful_shutdown=timeout_graceful_shutdown,
        ssl_context_factory=None if tls is None else lambda _config, _default: tls,
    )


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
        _log.warning("connection limit is below MAX_CONNECTIONS: the open files limit is too low", connections=room)
    return room


def _head_too_large() -> HTTPException:
    return HTTPException(431, f"the headers must be at most {MAX_FIELDS}, with at most {MAX_HEAD_BYTES} bytes in all")
