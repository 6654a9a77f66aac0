"""What one connection may do: how long it may dawdle, how much it may send ahead, and what it is told if it is no use.

What uvicorn leaves to whoever stands in front of it is done here: a limit for the head of a request, and for its
trailers, in bytes, fields and seconds; for connections on which nothing happens; for requests that nobody waits for the
answer of; and for answers that nobody takes. (How many connections there may be: `connection_count.py`.)
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sized
from typing import Any, Final

import httptools
import structlog
import uvicorn
from starlette.exceptions import HTTPException
from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from server.access.connection_count import Connections
from server.access.headers import SECURITY_HEADERS
from server.access.timeouts import Patience
from server.errors import MalformedRequestError, TooManyConnectionsError
from server.problems import PROBLEM_MEDIA_TYPE, problem_of

__all__ = ["MAX_AHEAD", "MAX_FIELDS", "MAX_HEAD_BYTES", "MAX_TARGET_BYTES", "GuardedProtocol"]

MAX_HEAD_BYTES: Final = 32 * 1024
"""Request line and headers together. Browsers with many cookies stay below 16 kB."""
MAX_TARGET_BYTES: Final = 8 * 1024
"""Path and query; RFC 9112, section 3, wants 8000 at least."""
MAX_FIELDS: Final = 100
MAX_AHEAD: Final = 16
"""Requests that may be sent ahead while one is answered. Browsers send none, clients that do a few."""

_FULL_RETRY_S = 5.0
_PIECE_BYTES: Final = 64 * 1024

_log = structlog.get_logger("server")


class GuardedProtocol(HttpToolsProtocol):
    """One connection. A client that keeps to HTTP and goes on, however slowly, does not notice."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        connections: Connections,
        patience: Patience,
    ) -> None:
        super().__init__(config, server_state, app_state)
        self.app = _in_pieces(config.loaded_app)
        self._siblings = connections
        self._patience = patience
        self._has_room = True
        self._deadline: asyncio.TimerHandle | None = None
        self._reading_deadline: asyncio.TimerHandle | None = None
        self._unread = 0
        self._running: RequestResponseCycle | None = None
        """What the app works on; `cycle` is the request that came last."""
        self._fruitless_bytes = 0
        """Received since something was complete: a head, a piece of a body, a message."""
        self._num_trailers = 0
        self._is_in_head = False
        self._is_in_message = False
        self._wrong: Exception | None = None
        """What was found wrong while the parser reads on."""
        self._is_refused = False
        """Whether nothing more is taken from this client."""

    # What asyncio tells.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client is there, and has said nothing yet."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        transport.set_write_buffer_limits(_PIECE_BYTES)  # TLS would hold eight times as much before it says so
        self._has_room = self._siblings.opened(self)
        self._expect_within(self._patience.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True  # uvicorn tells the last request alone
            self._running.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)
        self._expect_nothing()
        self.resume_writing()
        self._siblings.closed(self)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._is_refused:
            return
        self._fruitless_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # to a protocol that is not spoken here: the request itself has been read, and is answered
        except httptools.HttpParserError:
            if not self._is_refused:
                self._refuse(self._wrong or MalformedRequestError("what came over this connection is no HTTP/1.1"))
            return
        if self._fruitless_bytes > MAX_HEAD_BYTES:
            self._refuse(_head_too_large())

    def pause_writing(self) -> None:
        """The client does not keep up with reading."""
        super().pause_writing()
        self._siblings.slow(self)
        self._unread = self.transport.get_write_buffer_size()
        self._reading_deadline = self._reading_deadline or self._expect_reading()

    def resume_writing(self) -> None:
        """It has read on."""
        super().resume_writing()
        if self._reading_deadline is not None:
            self._reading_deadline.cancel()
            self._reading_deadline = None
        if not self._is_in_hand:
            self._siblings.idle(self)

    # What the parser tells.

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if len(self.pipeline) >= MAX_AHEAD:
            # What was taken is answered; for the rest the client asks again (RFC 9112, section 9.3.2).
            self._is_refused = True
            self.pipeline[0][0].keep_alive = False
            raise _TooFarAheadError
        super().on_message_begin()
        self._is_in_head = self._is_in_message = True
        self._fruitless_bytes = self._num_trailers = 0
        self._expect_within(self._patience.head_s)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; or, after the body, a trailer, which is counted and forgotten."""
        if self._is_in_head:
            super().on_header(name, value)
            return
        # Among the headers it could say who asks, after a proxy has looked at them and passed them on.
        self._num_trailers += 1
        if self._num_trailers > MAX_FIELDS:
            self._wrong = _head_too_large()
            raise self._wrong

    def on_headers_complete(self) -> None:
        """The whole head is there: the app begins to work."""
        self._wrong = self._wrong_with_head()
        if self._wrong is not None:
            raise self._wrong  # which ends the parser; it does not say why
        super().on_headers_complete()
        self._is_in_head = False
        self._fruitless_bytes = 0
        self._expect_nothing()
        self._siblings.busy(self)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._fruitless_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is there too."""
        super().on_message_complete()
        self._is_in_message = False
        self._fruitless_bytes = 0
        if not self._is_in_hand:
            self._expect_within(self._patience.idle_s)

    # What the app's answer brings.

    def on_response_complete(self) -> None:
        """It is sent."""
        super().on_response_complete()
        self._unset_keepalive_if_required()  # uvicorn's own timer, which any byte stops for good
        if self._is_in_hand:
            return
        if not self.flow.write_paused:
            self._siblings.idle(self)
        if not self._is_in_message:
            self._expect_within(self._patience.idle_s)
        elif not self._is_in_head:
            # Not closed at once: what is not read makes the system take the answer back, too.
            self._expect_within(self._patience.linger_s)

    def hang_up(self) -> None:
        """Close it without waiting for the client, which is not asking for anything."""
        self.transport.abort()

    def shutdown(self) -> None:
        """The server ends: close it when nothing is on its way."""
        if self._is_in_hand or self.transport.get_write_buffer_size():
            super().shutdown()
        else:
            self.hang_up()  # over TLS, an idle client would not take part in closing before the time for that is over

    @property
    def has_unread(self) -> bool:
        """Whether there is something in this process that the client has not taken."""
        return self.transport.get_write_buffer_size() > 0

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _should_upgrade(self) -> bool:
        return False  # asked by uvicorn: no WebSockets are spoken here

    @property
    def _is_in_hand(self) -> bool:
        """Whether an answer is on its way."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete and not cycle.disconnected

    def _wrong_with_head(self) -> Exception | None:
        if not self._has_room:
            return TooManyConnectionsError(
                "as many connections as there may be have a request in hand", retry_after_s=_FULL_RETRY_S
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
        if self._is_in_hand or self.flow.write_paused:
            # The next request dawdles while this one is worked on, or its answer read; those have limits of their own.
            self._expect_within(self._patience.head_s)
        elif self._is_in_head:
            self._refuse(HTTPException(408, "the request's headers came too slowly, or not at all"))
        else:
            self.hang_up()

    def _expect_reading(self) -> asyncio.TimerHandle:
        return self.loop.call_later(self._patience.read_s, self._is_reading_late)

    def _is_reading_late(self) -> None:
        unread = self.transport.get_write_buffer_size()
        if self._unread - unread >= self._patience.read_bytes_per_s * self._patience.read_s:  # slow, but it goes on
            self._unread = unread
            self._reading_deadline = self._expect_reading()
        else:
            self.transport.abort()

    def _refuse(self, error: Exception) -> None:
        """Say what is wrong, and take nothing more."""
        self._is_refused = True
        if self._is_in_message and not self._is_in_head and not self._is_in_hand:
            return  # it has its answer already, and as long as it may linger
        self._is_in_head = False
        if self._is_in_hand:
            if self.pipeline or self.cycle.response_started:
                self.transport.abort()  # nothing can be said in the middle of an answer
                return
            # The app waits for the rest of a body that cannot be read.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._siblings.idle(self)
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
            self._expect_within(self._patience.linger_s)
        else:
            self.transport.close()


class _TooFarAheadError(Exception):
    """Ends the parser, which reads on otherwise to the end of what has come."""


class _Flow(FlowControl):
    """Reads nothing while requests that were sent ahead wait their turn.

    Uvicorn reads on with each answer, and each reading can bring thousands of requests. What this costs: while some
    wait, a client that hangs up is noticed only when its next answer is written.
    """

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


def _in_pieces(app: ASGI3Application) -> ASGI3Application:
    """The same app, whose answers leave it no faster than the client takes them.

    Written at once, an answer would count as sent while it still lies in this process; and over TLS nobody would know
    that it does.
    """

    async def app_in_pieces(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def send_in_pieces(message: ASGISendEvent) -> None:
            if message["type"] != "http.response.body" or len(message.get("body", b"")) <= _PIECE_BYTES:
                await send(message)
                return
            body, more_body = message["body"], message.get("more_body", False)
            for start in range(0, len(body), _PIECE_BYTES):
                end = start + _PIECE_BYTES
                is_last = end >= len(body)
                await send(
                    {"type": "http.response.body", "body": body[start:end], "more_body": more_body or not is_last}
                )

        await app(scope, receive, send_in_pieces)

    return app_in_pieces


def _head_too_large() -> HTTPException:
    return HTTPException(431, f"the headers must be at most {MAX_FIELDS}, with at most {MAX_HEAD_BYTES} bytes in all")
